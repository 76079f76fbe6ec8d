// SPDX-License-Identifier: GPL-2.0

//! Judges a test run.
//!
//! The scripts run the suites and keep, in one directory, what each wrote (`NAME.log`), its exit
//! status (`NAME.status`) and optionally its duration (`NAME.seconds`). This program reads that
//! directory and reports what passed: a suite that left no result, stopped half way or exited with
//! an error counts as a failure, and so does every complaint in a kernel log. Its last line is
//! `N passed, N failed, N skipped`.

mod kernel_log;
mod libtest;
mod suite;
mod tally;
mod tap;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::suite::{Format, Suite};
use crate::tally::Tally;

/// Judge a test run: the results of its suites and the kernel logs of its machines.
#[derive(Parser)]
struct Arguments {
    /// The directory with NAME.log and NAME.status of each suite.
    directory: PathBuf,

    /// A suite that wrote TAP or KTAP.
    #[arg(long, value_name = "NAME")]
    tap: Vec<String>,

    /// A suite that wrote what `cargo test` prints.
    #[arg(long, value_name = "NAME")]
    cargo: Vec<String>,

    /// A kernel log, in which no complaint may be.
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
