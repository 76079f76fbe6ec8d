// SPDX-License-Identifier: GPL-2.0

//! Output of test results in the Test Anything Protocol, version 14. A flat list is also KTAP,
//! which kselftest reads (`Documentation/dev-tools/ktap.rst` in the kernel's tree).

/// A run of a planned number of tests.
pub struct Tap {
    planned: u32,
    passed: u32,
    failed: u32,
}

impl Tap {
    /// Announces `planned` tests.
    pub fn plan(planned: u32) -> Self {
        println!("TAP version 14\n1..{planned}");
        Self {
            planned,
            passed: 0,
            failed: 0,
        }
    }

    /// Reports that the next test, `name`, passed.
    pub fn pass(&mut self, name: &str) {
        self.passed += 1;
        println!("ok {} {name}", self.passed + self.failed);
    }

    /// Reports that the next test failed. Its name is the first line of `reason`.
    pub fn fail(&mut self, reason: &str) {
        self.failed += 1;
        let mut lines = reason.lines();
        println!(
            "not ok {} {}",
            self.passed + self.failed,
            lines.next().unwrap_or_default()
        );
        lines.for_each(|line| self.note(line));
    }

    /// Reports that the next test, `name`, passed, or that it failed if there are `problems`.
    pub fn check(&mut self, name: &str, problems: &[String]) {
        if problems.is_empty() {
            self.pass(name);
        } else {
            self.fail(&format!("{name}\n{}", problems.join("\n")));
        }
    }

    /// Writes remarks.
    pub fn note(&self, text: &str) {
        text.lines().for_each(|line| println!("# {}", line.trim()));
    }

    /// Reports that no more tests run, and the reason.
    pub fn bail_out(self, reason: &str) {
        println!("Bail out! {reason}");
    }

    /// Reports the tests that did not run as failed, and the totals. Returns whether all passed.
    pub fn finish(mut self) -> bool {
        while self.passed + self.failed < self.planned {
            self.fail("did not run");
        }
        println!("# Totals: pass:{} fail:{} skip:0", self.passed, self.failed);
        self.passed == self.planned && self.failed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_test_is_a_failure() {
        let mut tap = Tap::plan(2);
        tap.pass("one");
        assert!(!tap.finish());
    }

    #[test]
    fn all_must_pass() {
        let mut tap = Tap::plan(2);
        tap.pass("one");
        tap.pass("two");
        assert!(tap.finish());
        let mut tap = Tap::plan(1);
        tap.fail("for a reason\nand another");
        assert!(!tap.finish());
    }

    #[test]
    fn a_problem_is_a_failure() {
        let mut tap = Tap::plan(2);
        tap.check("one", &[]);
        tap.check("two", &["expected 1, found 2".to_owned()]);
        assert!(!tap.finish());
    }

    #[test]
    fn a_failure_beyond_the_plan_counts() {
        let mut tap = Tap::plan(1);
        tap.pass("one");
        tap.fail("at the end");
        assert!(!tap.finish());
    }
}
