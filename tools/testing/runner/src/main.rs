// SPDX-License-Identifier: GPL-2.0

//! Evaluates a test run.
//!
//! The scripts run the suites. For each suite they store, in one directory, its output
//! (`NAME.log`), its exit status (`NAME.status`) and optionally its duration (`NAME.seconds`). This
//! program reads that directory and reports the results. A suite without a result, an incomplete
//! suite, an error exit status and every complaint in a kernel log count as failures. The last line
//! is `N passed, N failed, N skipped`.

mod kernel_log;
mod libtest;
mod suite;
mod tally;
mod tap;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;

use crate::{
    suite::{Format, Suite},
    tally::Tally,
};

/// Evaluate a test run: the results of its suites and the kernel logs of its machines.
#[derive(Parser)]
struct Arguments {
    /// The directory with NAME.log and NAME.status of each suite.
    directory: PathBuf,

    /// A suite with TAP or KTAP output.
    #[arg(long, value_name = "NAME")]
    tap: Vec<String>,

    /// A suite with the output of `cargo test`.
    #[arg(long, value_name = "NAME")]
    cargo: Vec<String>,

    /// A kernel log, which must not contain a complaint.
    #[arg(long, value_name = "NAME")]
    kernel_log: Vec<String>,
}

impl Arguments {
    fn suites(&self) -> impl Iterator<Item = Suite<'_>> {
        let of = |names: &'_ [String], format| {
            names
                .iter()
                .map(|name| (name.clone(), format))
                .collect::<Vec<_>>()
        };
        of(&self.cargo, Format::Cargo)
            .into_iter()
            .chain(of(&self.tap, Format::Tap))
            .chain(of(&self.kernel_log, Format::KernelLog))
            .map(|(name, format)| Suite {
                directory: &self.directory,
                name,
                format,
            })
    }
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut total = Tally::default();

    for suite in arguments.suites() {
        let tally = suite.judge();
        let took = suite.took().map(|took| format!(" in {took}"));
        let took = took.unwrap_or_default();
        println!("{}: {}{took}", suite.name, tally.counts());
        for failure in &tally.failures {
            let mut lines = failure.lines();
            println!("    FAILED {}", lines.next().unwrap_or_default());
            lines.for_each(|line| println!("        {line}"));
        }
        total.add(tally);
    }
    if total.is_empty() {
        total.fail("no test was run");
        println!("    FAILED no test was run");
    }

    println!("{}", total.counts());
    Ok(if total.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
