// SPDX-License-Identifier: GPL-2.0

//! Counts of test results.

/// Maximum number of lines in the description of a failure.
const LINES: usize = 48;

/// The test results of a suite, or of a whole run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The number of tests that passed.
    pub passed: usize,
    /// The number of tests that were skipped.
    pub skipped: usize,
    /// The failures: the name of each, followed by lines that describe it.
    pub failures: Vec<String>,
}

impl Tally {
    /// Counts one failure, described by `what`.
    pub fn fail(&mut self, what: impl Into<String>) {
        self.failures.push(what.into());
    }

    /// Adds `line` to the description of the last failure.
    pub fn explain(&mut self, line: &str) {
        if let Some(failure) = self.failures.last_mut() {
            add(failure, line);
        }
    }

    /// Adds `line` to the description of the last failure of `what`.
    pub fn explain_failure_of(&mut self, what: &str, line: &str) {
        let mut failures = self.failures.iter_mut().rev();
        if let Some(failure) = failures.find(|failure| failure.lines().next() == Some(what)) {
            add(failure, line);
        }
    }

    /// Adds the counts and failures of `other`.
    pub fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
    }

    /// Returns whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.passed == 0 && self.skipped == 0 && self.failures.is_empty()
    }

    /// Formats the counts for users and for scripts.
    pub fn counts(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failures.len(),
            self.skipped
        )
    }
}

/// Adds `line` to the description `failure`, unless the description is long enough.
fn add(failure: &mut String, line: &str) {
    if failure.lines().count() < LINES {
        failure.push('\n');
        failure.push_str(line.trim_end());
    }
}
