// SPDX-License-Identifier: GPL-2.0

//! The output of `cargo test`: for each test program `running N tests`, a line for each test, and
//! `test result: …`. A program that dies has no result line. The output of failed tests follows all
//! tests of their program, after `---- NAME stdout ----`.

use crate::tally::Tally;

/// Counts the tests in the output of `cargo test`.
pub fn judge(output: &str) -> Tally {
    let mut tally = Tally::default();
    let mut program: Option<Program> = None;
    let mut output = output.lines().peekable();

    while let Some(line) = output.next() {
        if let Some(name) = printed_by(line) {
            let is_printed = |line: &&str| printed_by(line).is_none() && *line != "failures:";
            while let Some(line) = output.next_if(is_printed) {
                if !line.is_empty() {
                    tally.explain_failure_of(name, line);
                }
            }
        } else if let Some(planned) = planned(line) {
            finish(program.replace(Program::new(planned)), &mut tally);
        } else if line.starts_with("test result: ") {
            match program.take() {
                Some(program) => program.check_plan(&mut tally),
                None => tally.fail(format!("a result without tests: {line}")),
            }
        } else if let Some((name, result)) = test_line(line) {
            if let Some(program) = &mut program {
                program.seen += 1;
            }
            match result {
                "ok" => tally.passed += 1,
                result if result.starts_with("ignored") => tally.skipped += 1,
                _ => tally.fail(name),
            }
        } else if line.starts_with("error: could not compile")
            || line.starts_with("error: could not document")
        {
            tally.fail(line);
        }
    }
    finish(program, &mut tally);
    tally
}

/// One test program, starting at its `running` line.
struct Program {
    planned: usize,
    seen: usize,
}

impl Program {
    fn new(planned: usize) -> Self {
        Self { planned, seen: 0 }
    }

    fn check_plan(&self, tally: &mut Tally) {
        if self.planned != self.seen {
            tally.fail(format!(
                "a test program announced {} tests and reported {}",
                self.planned, self.seen
            ));
        }
    }
}

/// Counts a failure for a program that did not report a result.
fn finish(program: Option<Program>, tally: &mut Tally) {
    if let Some(program) = program {
        tally.fail(format!(
            "a test program ended after {} of {} tests",
            program.seen, program.planned
        ));
    }
}

/// Returns the NAME of `---- NAME stdout ----`.
fn printed_by(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

/// Returns the N of `running N tests`.
fn planned(line: &str) -> Option<usize> {
    let rest = line.strip_prefix("running ")?;
    let (count, unit) = rest.split_once(' ')?;
    if unit != "test" && unit != "tests" {
        return None;
    }
    count.parse().ok()
}

/// Returns the name and the result of `test NAME ... RESULT`. A test that prints without being
/// captured moves its result to another line. Then the plan does not match, which is a failure.
fn test_line(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.rsplit_once(" ... ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: &str = "\
     Running unittests src/lib.rs (target/debug/deps/layer-0123456789abcdef)

running 3 tests
test stream::tests::empty ... ok
test stream::tests::slow ... ignored, takes minutes
test stream::tests::should_refuse - should panic ... ok

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

   Doc-tests layer

running 1 test
test src/lib.rs - (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s
";

    #[test]
    fn counts_every_program() {
        let tally = judge(PASSED);
        assert_eq!((tally.passed, tally.skipped), (3, 1));
        assert!(tally.failures.is_empty());
    }

    #[test]
    fn names_a_failed_test() {
        let tally = judge(
            "running 2 tests\ntest a::good ... ok\ntest a::bad ... FAILED\n\n\
             failures:\n\n---- a::bad stdout ----\n\nleft: 1\nright: 2\n\nfailures:\n    a::bad\n\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(tally.passed, 1);
        assert_eq!(tally.failures, ["a::bad\nleft: 1\nright: 2"]);
    }

    #[test]
    fn program_that_dies_is_a_failure() {
        let tally = judge(
            "running 3 tests\ntest a ... ok\nerror: test failed, to rerun pass `-p layer --lib`\n\
             Caused by:\n  process didn't exit successfully (signal: 6, SIGABRT)\n",
        );
        assert_eq!(tally.failures, ["a test program ended after 1 of 3 tests"]);
    }

    #[test]
    fn lost_test_is_a_failure() {
        let tally = judge(
            "running 2 tests\ntest a ... ok\n\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(
            tally.failures,
            ["a test program announced 2 tests and reported 1"]
        );
    }

    #[test]
    fn compile_error_is_a_failure() {
        let tally = judge("error: could not compile `layer` (lib test) due to 1 previous error\n");
        assert_eq!(tally.failures.len(), 1);
    }
}
