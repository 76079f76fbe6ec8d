// SPDX-License-Identifier: GPL-2.0

//! Counts of test results.

/// What the tests of a suite, or of a whole run, came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The number of tests that passed.
    pub passed: usize,
    /// The number of tests that were skipped.
    pub skipped: usize,
    /// Each failure, described.
    pub failures: Vec<String>,
}

impl Tally {
    /// Count one failure, described by `what`.
    pub fn fail(&mut self, what: impl Into<String>) {
        self.failures.push(what.into());
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
