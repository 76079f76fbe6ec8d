// SPDX-License-Identifier: GPL-2.0

//! What the processor can do for a virtual machine.

use std::fs;
use std::path::Path;

/// QEMU's `-accel`. That /dev/kvm is there does not say that it works: a nested machine may have the
/// device and not the processor's extensions.
pub fn accelerator() -> &'static str {
    let virtualizes = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| has_extensions(&text));
    if virtualizes && Path::new("/dev/kvm").exists() {
        "kvm"
    } else {
        "tcg,thread=single"
    }
}

fn has_extensions(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("flags"))
        .flat_map(str::split_whitespace)
        .any(|flag| matches!(flag, "vmx" | "svm"))
}

/// What tells the guest's kernel the rate of its time stamp counter, which is this machine's. Under
/// emulation it is too slow to find out itself and would be left without a good clock.
#[cfg(target_arch = "x86_64")]
pub fn clock() -> String {
    use std::arch::x86_64::_rdtsc;
    use std::thread;
    use std::time::{Duration, Instant};

    // SAFETY: Every x86-64 processor has the counter, and Linux lets programs read it.
    let count = || unsafe { _rdtsc() };
    let (begin, start) = (Instant::now(), count());
    thread::sleep(Duration::from_millis(100));
    let (elapsed, ticks) = (begin.elapsed(), count().wrapping_sub(start));
    let khz = ticks as f64 / elapsed.as_secs_f64() / 1000.0;
    format!("tsc_early_khz={khz:.0} tsc=reliable")
}

/// Other processors tell their counters' rates themselves.
#[cfg(not(target_arch = "x86_64"))]
pub fn clock() -> String {
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_for_whole_flags() {
        assert!(has_extensions("model : x\nflags\t\t: fpu vmx sse\n"));
        assert!(has_extensions("flags\t\t: svm\n"));
        assert!(!has_extensions(
            "flags\t\t: fpu vmx_like\nvmx flags\t: vnmi\n"
        ));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn tells_a_plausible_rate() {
        let clock = clock();
        let khz = clock
            .strip_prefix("tsc_early_khz=")
            .and_then(|rest| rest.split(' ').next())
            .and_then(|number| number.parse::<u64>().ok())
            .unwrap();
        assert!((100_000..20_000_000).contains(&khz), "{khz}");
    }
}
