// SPDX-License-Identifier: GPL-2.0

//! One suite of a run: the location of its output, and its result.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{kernel_log, libtest, tally::Tally, tap};

/// Number of output lines to show for a suite that reports no tests.
const END: usize = 12;

/// The format of a suite's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The output of `cargo test`.
    Cargo,
    /// The Test Anything Protocol, in the kernel's form (KTAP) or the common one.
    Tap,
    /// A kernel log.
    KernelLog,
}

/// A suite: `NAME.log` and, unless it is a kernel log, `NAME.status` in a directory.
pub struct Suite<'a> {
    pub directory: &'a Path,
    pub name: String,
    pub format: Format,
}

impl Suite<'_> {
    /// Returns the result of the suite. Missing output or a failed program counts as a failure.
    pub fn judge(&self) -> Tally {
        self.read().unwrap_or_else(|error| {
            let mut tally = Tally::default();
            tally.fail(format!("{error:#}"));
            tally
        })
    }

    fn read(&self) -> Result<Tally> {
        let log = read_lossy(&self.file("log"))?;
        let mut tally = match self.format {
            Format::Cargo => libtest::judge(&log),
            Format::Tap => tap::judge(&log),
            Format::KernelLog => kernel_log::judge(&log),
        };
        if self.format == Format::KernelLog {
            return Ok(tally);
        }

        let status = read_lossy(&self.file("status"))?;
        let status = status.trim();
        if tally.is_empty() {
            tally.fail(format!(
                "{} ran no test and ended with exit status {status}; the end of its output:",
                self.name
            ));
        } else if status != "0" && tally.failures.is_empty() {
            tally.fail(format!(
                "all tests passed, but {} ended with exit status {status}; end of its output:",
                self.name
            ));
        } else {
            return Ok(tally);
        }
        let lines: Vec<_> = log.lines().collect();
        for line in &lines[lines.len().saturating_sub(END)..] {
            tally.explain(line);
        }
        Ok(tally)
    }

    /// Returns how long the suite took, in minutes and seconds, if that was recorded.
    pub fn took(&self) -> Option<String> {
        let text = fs::read_to_string(self.file("seconds")).ok()?;
        let seconds: u64 = text.trim().parse().ok()?;
        Some(format!("{}:{:02}", seconds / 60, seconds % 60))
    }

    fn file(&self, extension: &str) -> PathBuf {
        self.directory.join(format!("{}.{extension}", self.name))
    }
}

/// Reads a file that can contain invalid UTF-8, as console logs do.
fn read_lossy(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Evaluates a suite with this log and status; `None` for a missing file.
    fn judge(format: Format, log: Option<&str>, status: Option<&str>) -> Tally {
        let directory = std::env::temp_dir().join(format!(
            "vifa-test-report-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        fs::create_dir_all(&directory).unwrap();
        for (extension, content) in [("log", log), ("status", status)] {
            if let Some(content) = content {
                fs::write(directory.join(format!("suite.{extension}")), content).unwrap();
            }
        }
        let tally = Suite {
            directory: &directory,
            name: "suite".into(),
            format,
        }
        .judge();
        fs::remove_dir_all(&directory).unwrap();
        tally
    }

    const GOOD: &str = "TAP version 13\n1..1\nok 1 a\n";

    #[test]
    fn good_suite_passes() {
        let tally = judge(Format::Tap, Some(GOOD), Some("0\n"));
        assert_eq!(tally.passed, 1);
        assert!(tally.failures.is_empty());
    }

    #[test]
    fn exit_status_counts_although_every_test_passed() {
        let tally = judge(Format::Tap, Some(GOOD), Some("139\n"));
        assert_eq!(tally.failures.len(), 1);
        assert!(tally.failures[0].contains("139"));
    }

    #[test]
    fn output_end_of_a_suite_without_results_is_shown() {
        let output = (0..100).map(|line| format!("line {line}\n"));
        let tally = judge(Format::Tap, Some(&output.collect::<String>()), Some("1\n"));
        assert_eq!(tally.failures.len(), 1);
        let failure: Vec<_> = tally.failures[0].lines().collect();
        assert!(failure[0].contains("exit status 1"), "{failure:?}");
        assert_eq!(failure[1], "line 88");
        assert_eq!(failure.last(), Some(&"line 99"));
    }

    #[test]
    fn missing_files_are_failures() {
        assert_eq!(judge(Format::Tap, None, Some("0\n")).failures.len(), 1);
        assert_eq!(judge(Format::Tap, Some(GOOD), None).failures.len(), 1);
        assert_eq!(judge(Format::KernelLog, None, None).failures.len(), 1);
    }

    #[test]
    fn reports_a_recorded_duration() {
        let directory = std::env::temp_dir();
        let name = format!("vifa-test-report-took-{}", std::process::id());
        let suite = Suite {
            directory: &directory,
            name,
            format: Format::Tap,
        };
        assert_eq!(suite.took(), None);
        fs::write(suite.file("seconds"), "605\n").unwrap();
        let took = suite.took();
        fs::remove_file(suite.file("seconds")).unwrap();
        assert_eq!(took.as_deref(), Some("10:05"));
    }

    #[test]
    fn suite_without_a_test_fails() {
        let cargo = "running 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored; \
                     0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(
            judge(Format::Cargo, Some(cargo), Some("0")).failures.len(),
            1
        );
    }
}
