// SPDX-License-Identifier: GPL-2.0

//! Runs the tests: as root on the SR-IOV host, each in a process of its own with a deadline. The
//! results come as TAP. `Documentation/vifa/testing.rst` tells how to run them.

use std::{io, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{bail, ensure, Result};
use clap::{value_parser, Parser};
use vifa_selftests::{
    bed::{Bed, Settings},
    ktap::Report,
    process::{run_with_deadline, Outcome},
    sys, tests,
};

/// After so many tests in a row that cannot be killed, the machine is beyond testing: what they hold
/// makes others wait for ever, each for a minute.
const STUCK_AT_MOST: u32 = 2;

/// Tests the VIFA driver against the reference device.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Print the names of the tests and run none
    #[arg(long)]
    list: bool,

    /// The module's file, which is loaded, and reloaded by the tests of that
    #[arg(long, value_name = "PATH", env = "VIFA_MODULE")]
    module: Option<PathBuf>,

    /// How many words the VF writes while its log is read; the log is broken for one in a tenth of them
    #[arg(long, value_name = "NUMBER", default_value_t = 300_000, value_parser = value_parser!(u64).range(10_000..))]
    logged_writes: u64,

    /// Run only tests whose names contain one of these
    filter: Vec<String>,
}

impl Arguments {
    fn selects(&self, name: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|part| name.contains(part))
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let tests: Vec<_> = tests::all(arguments.logged_writes)
        .into_iter()
        .filter(|test| arguments.selects(&test.name))
        .collect();
    ensure!(!tests.is_empty(), "no test has such a name");
    if arguments.list {
        tests.iter().for_each(|test| println!("{}", test.name));
        return Ok(true);
    }
    ensure!(sys::is_root(), "the tests need root");
    let settings = Settings {
        module: arguments.module.clone(),
    };
    let mut report = Report::new(io::stdout().lock(), tests.len())?;
    let mut stuck_in_a_row = 0;
    for test in tests {
        let start = Instant::now();
        let outcome = run_with_deadline(test.deadline, || (test.body)(&Bed::set_up(&settings)?));
        report.result(&test.name, &outcome, start.elapsed())?;
        stuck_in_a_row = match outcome {
            Outcome::Stuck(_) => stuck_in_a_row + 1,
            _ => 0,
        };
        if stuck_in_a_row == STUCK_AT_MOST {
            let reason = format!("{STUCK_AT_MOST} tests in a row could not be killed");
            report.bail_out(&reason)?;
            bail!(reason);
        }
    }
    report.finish()
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vifa-selftests: {error:#}");
            ExitCode::from(2)
        }
    }
}
