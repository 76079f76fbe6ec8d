// SPDX-License-Identifier: GPL-2.0

//! Test results in the form that the kernel's tools read: TAP version 14, which for a flat list is
//! KTAP too (`Documentation/dev-tools/ktap.rst`).

use std::{io::Write, time::Duration};

use anyhow::Result;

use crate::process::Outcome;

/// Writes the results of a known number of tests.
pub struct Report<W> {
    out: W,
    passed: usize,
    failed: usize,
}

impl<W: Write> Report<W> {
    /// Begins a report on `tests` tests.
    pub fn new(mut out: W, tests: usize) -> Result<Self> {
        writeln!(out, "TAP version 14\n1..{tests}")?;
        out.flush()?;
        Ok(Self {
            out,
            passed: 0,
            failed: 0,
        })
    }

    /// Writes the result of the test `name`, which took `elapsed`.
    pub fn result(&mut self, name: &str, outcome: &Outcome, elapsed: Duration) -> Result<()> {
        let verdict = match outcome {
            Outcome::Passed => {
                self.passed += 1;
                "ok"
            }
            Outcome::Failed(reason) | Outcome::Stuck(reason) => {
                self.failed += 1;
                for line in reason.lines() {
                    writeln!(self.out, "# {line}")?;
                }
                "not ok"
            }
        };
        let number = self.passed + self.failed;
        writeln!(self.out, "{verdict} {number} {name}")?;
        writeln!(self.out, "# {:.1} s", elapsed.as_secs_f64())?;
        self.out.flush()?;
        Ok(())
    }

    /// Writes that no more tests are run, and why.
    pub fn bail_out(mut self, reason: &str) -> Result<()> {
        writeln!(self.out, "Bail out! {reason}")?;
        self.out.flush()?;
        Ok(())
    }

    /// Writes the totals; whether all tests passed.
    pub fn finish(mut self) -> Result<bool> {
        writeln!(
            self.out,
            "# Totals: pass:{} fail:{}",
            self.passed, self.failed
        )?;
        self.out.flush()?;
        Ok(self.failed == 0)
    }
}
