// SPDX-License-Identifier: GPL-2.0

//! Complaints in a kernel log: messages that report a fault of the kernel or of a driver.
//!
//! A fault of the I/O memory management unit (`DMAR: … fault`) is not a complaint: a guest can make
//! its device access memory that the guest does not have, and tests do so.

use crate::tally::Tally;

/// Texts that mark a complaint, at any position in a message.
const MARKS: &[&str] = &[
    // WARN() and the reports of lockdep and RCU.
    "WARNING: ",
    "possible circular locking dependency",
    "possible recursive locking",
    "inconsistent lock state",
    "suspicious RCU usage",
    "INFO: trying to register non-static key",
    "lockdep is turned off",
    "turning off the locking correctness validator",
    "bad unlock balance",
    "held lock freed",
    // BUG(), faults and panics.
    "BUG: ",
    "BUG ",
    "kernel BUG at",
    "Oops",
    "general protection fault",
    "Internal error:",
    "Unable to handle kernel",
    "Kernel panic",
    "Call Trace:",
    "Call trace:",
    "---[ cut here ]---",
    "---[ end trace",
    "panicked at",
    // Tasks and processors that make no progress.
    "INFO: task ",
    "blocked for more than",
    "detected stall",
    "self-detected stall",
    "soft lockup",
    "hard LOCKUP",
    "nobody cared",
    "Disabling IRQ #",
    // Memory, references and DMA.
    "refcount_t:",
    "DMA-API:",
    "UBSAN:",
    "KASAN:",
    "KFENCE:",
    "KCSAN:",
    "kmemleak:",
    "list_add corruption",
    "list_del corruption",
    "Bad page state",
    "memory leak",
    "ODEBUG:",
];

/// Messages that contain a mark but are not complaints: announcements of the kernel's checks.
const ANNOUNCEMENTS: &[&str] = &[
    "DMA-API: preallocated ",
    "DMA-API: debugging enabled by kernel config",
    "DMA-API: Overriding command line",
    "kmemleak: Kernel memory leak detector initialized",
    "kmemleak: Automatic memory scanning thread started",
];

/// The beginning of the first message of every kernel.
const BANNER: &str = "Linux version ";

/// Counts the log as one test, which passes without a complaint. Otherwise, counts each complaining
/// line as a failure.
pub fn judge(log: &str) -> Tally {
    let mut tally = Tally::default();
    if !log.contains(BANNER) {
        tally.fail("incomplete kernel log: it lacks the kernel's version");
    }
    for (number, line) in (1..).zip(log.lines()) {
        if is_complaint(line) {
            tally.fail(format!("line {number}: {}", line.trim_end()));
        }
    }
    if tally.failures.is_empty() {
        tally.passed = 1;
    }
    tally
}

fn is_complaint(line: &str) -> bool {
    MARKS.iter().any(|mark| contains_word(line, mark))
        && !ANNOUNCEMENTS.iter().any(|text| line.contains(text))
}

/// Returns whether `line` contains `text`, not as the end of a longer word: "BUG " is not in "DEBUG
/// ".
fn contains_word(line: &str, text: &str) -> bool {
    line.match_indices(text).any(|(at, _)| {
        !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the complaining lines of an otherwise complete log.
    fn complaints(log: &str) -> Vec<String> {
        judge(&format!("[    0.000000] {BANNER}7.3.4\n{log}")).failures
    }

    #[test]
    fn clean_boot_passes() {
        let tally = judge(include_str!("../samples/clean.log"));
        assert_eq!((tally.passed, tally.failures.len()), (1, 0), "{tally:?}");
    }

    #[test]
    fn each_sample_is_found() {
        for (name, sample) in [
            ("warn", include_str!("../samples/warn.log")),
            ("lockdep", include_str!("../samples/lockdep.log")),
            ("oops", include_str!("../samples/oops.log")),
            ("atomic-sleep", include_str!("../samples/atomic-sleep.log")),
            ("dma-api", include_str!("../samples/dma-api.log")),
            ("refcount", include_str!("../samples/refcount.log")),
            ("hung-task", include_str!("../samples/hung-task.log")),
            ("rcu-stall", include_str!("../samples/rcu-stall.log")),
            ("slab", include_str!("../samples/slab.log")),
            ("rust-panic", include_str!("../samples/rust-panic.log")),
        ] {
            assert!(!complaints(sample).is_empty(), "{name} went unnoticed");
        }
    }

    #[test]
    fn names_the_line() {
        let found =
            complaints("[    1.0] fine\n[    1.1] refcount_t: underflow; use-after-free.\n");
        assert_eq!(
            found,
            ["line 3: [    1.1] refcount_t: underflow; use-after-free."]
        );
    }

    #[test]
    fn announcements_are_not_complaints() {
        assert!(complaints(
            "[    0.5] DMA-API: preallocated 65536 debug entries\n\
             [    0.5] DMA-API: debugging enabled by kernel config\n"
        )
        .is_empty());
    }

    #[test]
    fn iommu_fault_of_a_guest_is_not_a_complaint() {
        assert!(complaints(
            "[   20.1] DMAR: [DMA Write NO_PASID] Request device [02:00.1] fault addr 0xdead000\n"
        )
        .is_empty());
    }

    #[test]
    fn empty_log_fails() {
        assert_eq!(judge("").failures.len(), 1);
    }
}
