// SPDX-License-Identifier: GPL-2.0

//! Counts of test results.

/// Lines that a failure is described by, at most.
const LINES: usize = 48;

/// What the tests of a suite, or of a whole run, came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The number of tests that passed.
    pub passed: usize,
    /// The number of tests that were skipped.
    pub skipped: usize,
    /// Each failure, described: what failed, and in further lines what was said of it.
    pub failures: Vec<String>,
}

impl Tally {
    /// Count one failure, described by `what`.
    pub fn fail(&mut self, what: impl Into<String>) {
        self.failures.push(what.into());
    }

    /// Adds `line` to what is said of the last failure.
    pub fn explain(&mut self, line: &str) {
        if let Some(failure) = self.failures.last_mut() {
            add(failure, line);
        }
    }

    /// Adds `line` to what is said of the last failure of `what`.
    pub fn explain_failure_of(&mut self, what: &str, line: &str) {
        let mut failures = self.failures.iter_mut().rev();
        if let Some(failure) = failures.find(|failure| failure.lines().next() == Some(what)) {
            add(failure, line);
        }
    }

    /// Count what `other` counted as well.
    pub fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
    }

    /// Whether nothing was counted at all.
    pub fn is_empty(&self) -> bool {
        self.passed == 0 && self.skipped == 0 && self.failures.is_empty()
    }

    /// The counts as a person and a program read them.
    pub fn counts(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failures.len(),
            self.skipped
        )
    }
}

/// Adds `line` to the description `failure`, unless that is long enough.
fn add(failure: &mut String, line: &str) {
    if failure.lines().count() < LINES {
        failure.push('\n');
        failure.push_str(line.trim_end());
    }
}
