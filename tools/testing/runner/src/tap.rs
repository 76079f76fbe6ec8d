// SPDX-License-Identifier: GPL-2.0

//! The Test Anything Protocol, in the common form and in the kernel's form (KTAP, see
//! Documentation/dev-tools/ktap.rst of the kernel). Several documents may follow each other.
//!
//! A test with subtests is not counted; its subtests are. It is a failure, however, if it is not ok
//! while all its subtests are.
//!
//! Remarks describe why a test failed. TAP has them after the result and KTAP before it. Both are
//! accepted.

use crate::tally::Tally;

/// Counts the tests in a log of TAP documents. Ignores lines that are not TAP, as the specification
/// requires.
pub fn judge(log: &str) -> Tally {
    let mut reader = Reader::default();
    for line in log.lines() {
        reader.line(line);
    }
    reader.end()
}

/// A sequence of tests at one depth: a document or the subtests of a test.
struct Level {
    indent: usize,
    plan: Option<usize>,
    seen: usize,
    /// Number of failures before this level began.
    failures_before: usize,
}

#[derive(Default)]
struct Reader {
    tally: Tally,
    /// The open sequences, the innermost last.
    levels: Vec<Level>,
    /// The remarks since the last result.
    remarks: Vec<String>,
    /// The last result was a failure, so that remarks after it belong to it.
    failed: bool,
}

impl Reader {
    fn line(&mut self, line: &str) {
        let text = line.trim_start_matches(' ');
        let indent = line.len() - text.len();

        if let Some(remark) = text.strip_prefix("# ") {
            self.remark(remark);
        } else if text.starts_with("KTAP version ") || text.starts_with("TAP version ") {
            self.open(indent);
        } else if let Some(plan) = plan(text) {
            self.plan(indent, plan);
        } else if let Some(test) = Test::parse(text) {
            self.result(indent, test);
        } else if text.starts_with("Bail out!") {
            self.tally.fail(text);
        }
    }

    fn remark(&mut self, remark: &str) {
        if self.failed {
            self.tally.explain(remark);
        }
        self.remarks.push(remark.to_owned());
    }

    /// Counts a result. If it is a failure, adds the remarks before it.
    fn result(&mut self, indent: usize, test: Test<'_>) {
        let failures = self.tally.failures.len();
        self.test(indent, test);
        self.failed = self.tally.failures.len() > failures;
        let remarks = std::mem::take(&mut self.remarks);
        if self.failed {
            remarks.iter().for_each(|remark| self.tally.explain(remark));
        }
    }

    /// Handles a version line, which begins a new sequence. At the depth of an open sequence it
    /// begins a new document.
    fn open(&mut self, indent: usize) {
        self.close_while(|level| level.indent >= indent);
        self.levels.push(Level {
            indent,
            plan: None,
            seen: 0,
            failures_before: self.tally.failures.len(),
        });
    }

    fn plan(&mut self, indent: usize, plan: usize) {
        let level = self.level(indent);
        if level.plan.replace(plan).is_some() {
            self.tally.fail("a second plan in one sequence of tests");
        }
    }

    fn test(&mut self, indent: usize, test: Test<'_>) {
        // Deeper sequences are this test's subtests, and end with it.
        let mut subtests_failed = None;
        while self
            .levels
            .last()
            .is_some_and(|level| level.indent > indent)
        {
            subtests_failed = Some(self.close());
        }

        let level = self.level(indent);
        level.seen += 1;
        let (expected, number) = (level.seen, test.number);
        if number.is_some_and(|number| number != expected) {
            self.tally.fail(format!(
                "{}: invalid number, expected {expected}",
                test.name
            ));
        }
        match (test.outcome, subtests_failed) {
            (Outcome::Failed, Some(false) | None) => self.tally.fail(test.name),
            (Outcome::Passed, None) => self.tally.passed += 1,
            (Outcome::Skipped, None) => self.tally.skipped += 1,
            (_, Some(_)) => {}
        }
    }

    /// Returns the open sequence at `indent`. Opens one if a producer left out the version line.
    fn level(&mut self, indent: usize) -> &mut Level {
        self.close_while(|level| level.indent > indent);
        if self.levels.last().is_none_or(|level| level.indent < indent) {
            self.open(indent);
        }
        self.levels.last_mut().expect("a level was just opened")
    }

    fn close_while(&mut self, condition: impl Fn(&Level) -> bool) {
        while self.levels.last().is_some_and(&condition) {
            self.close();
        }
    }

    /// Ends the innermost sequence and returns whether anything in it failed.
    fn close(&mut self) -> bool {
        let level = self.levels.pop().expect("only an open level is closed");
        match level.plan {
            Some(plan) if plan == level.seen => {}
            Some(plan) => self
                .tally
                .fail(format!("{plan} tests were planned, {} ran", level.seen)),
            None => self.tally.fail("a sequence of tests without a plan"),
        }
        self.tally.failures.len() > level.failures_before
    }

    fn end(mut self) -> Tally {
        self.close_while(|_| true);
        self.tally
    }
}

#[derive(Clone, Copy)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// A result line.
struct Test<'a> {
    number: Option<usize>,
    name: &'a str,
    outcome: Outcome,
}

impl<'a> Test<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (ok, rest) = match text.strip_prefix("not ok") {
            Some(rest) => (false, rest),
            None => (true, text.strip_prefix("ok")?),
        };
        // "ok" must be a separate word.
        if !rest.is_empty() && !rest.starts_with(' ') {
            return None;
        }
        let (description, directive) = match rest.split_once(" # ") {
            Some((description, directive)) => (description, directive),
            None => (rest, ""),
        };
        let description = description.trim();
        let (number, name) = match description.split_once(' ') {
            Some((first, rest)) => match first.parse() {
                Ok(number) => (Some(number), rest),
                Err(_) => (None, description),
            },
            None => (description.parse().ok(), description),
        };
        let skipped = directive.to_ascii_uppercase().starts_with("SKIP");
        Some(Self {
            number,
            name: name.trim_start_matches("- "),
            outcome: match (ok, skipped) {
                (true, false) => Outcome::Passed,
                (true, true) => Outcome::Skipped,
                (false, _) => Outcome::Failed,
            },
        })
    }
}

/// Returns the N of a plan line `1..N`.
fn plan(text: &str) -> Option<usize> {
    let count = text.strip_prefix("1..")?;
    count.split([' ', '#']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(log: &str) -> (usize, usize, usize) {
        let tally = judge(log);
        (tally.passed, tally.failures.len(), tally.skipped)
    }

    #[test]
    fn plain_tap() {
        let log = "TAP version 13\n1..3\nok 1 - save\n# a remark\nok 2 load # SKIP no device\n\
                   not ok 3 reset\n";
        assert_eq!(counts(log), (1, 1, 1));
        assert_eq!(judge(log).failures, ["reset"]);
    }

    #[test]
    fn remarks_before_and_after_a_failure_belong_to_it() {
        let log =
            "TAP version 13\n1..3\nok 1 a\n# expected 1\nnot ok 2 b\n# found 2\nok 3 c\n# fine\n";
        assert_eq!(judge(log).failures, ["b\nexpected 1\nfound 2"]);
    }

    #[test]
    fn kunit_results_count_leaves_only() {
        let log = "\
KTAP version 1
1..1
    KTAP version 1
    # Subtest: vifa_layer
    # module: vifa_vfio_pci
    1..2
    ok 1 identity
        KTAP version 1
        # Subtest: segmentation
        ok 1 one byte
        ok 2 whole
    # segmentation: pass:2 fail:0 skip:0 total:2
        1..2
    ok 2 segmentation
# vifa_layer: pass:2 fail:0 skip:0 total:2
# Totals: pass:3 fail:0 skip:0 total:3
ok 1 vifa_layer
KTAP version 1
1..1
    KTAP version 1
    1..1
    not ok 1 states
not ok 1 vifa_states
";
        assert_eq!(counts(log), (3, 1, 0));
        assert_eq!(judge(log).failures, ["states"]);
    }

    #[test]
    fn parent_that_fails_alone_is_a_failure() {
        let log = "KTAP version 1\n1..1\n    KTAP version 1\n    1..1\n    ok 1 a\nnot ok 1 exit\n";
        assert_eq!(judge(log).failures, ["exit"]);
    }

    #[test]
    fn short_run_is_a_failure() {
        assert_eq!(counts("TAP version 13\n1..3\nok 1 a\n"), (1, 1, 0));
        assert_eq!(counts("TAP version 13\nok 1 a\n"), (1, 1, 0));
        assert_eq!(counts("TAP version 13\n1..1\nok 1 a\nok 2 b\n"), (2, 1, 0));
    }

    #[test]
    fn bail_out_is_a_failure() {
        let log = "TAP version 13\n1..1\nok 1 a\nBail out! the device is gone\n";
        assert_eq!(judge(log).failures, ["Bail out! the device is gone"]);
    }

    #[test]
    fn wrong_number_is_a_failure() {
        let log = "TAP version 13\n1..2\nok 1 a\nok 3 c\n";
        assert_eq!(judge(log).failures, ["c: invalid number, expected 2"]);
    }

    #[test]
    fn not_ok_is_never_excused() {
        let log = "TAP version 13\n1..1\nnot ok 1 a # TODO later\n";
        assert_eq!(counts(log), (0, 1, 0));
    }

    #[test]
    fn other_lines_are_ignored() {
        let log = "loading\nTAP version 13\nokay then\n1..1\nnote: ok\nok 1 a\n";
        assert_eq!(counts(log), (1, 0, 0));
    }

    #[test]
    fn empty_log_has_no_test() {
        assert!(judge("").is_empty());
    }
}
