// SPDX-License-Identifier: GPL-2.0

//! Runs the tests as root on the SR-IOV host, each in its own process with a deadline, and prints
//! the results as TAP. `Documentation/vifa/testing.rst` describes how to run them.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{bail, ensure, Result};
use clap::{value_parser, Parser};
use vifa_selftests::{
    bed::{Bed, Settings},
    process::{run_with_deadline, Outcome},
    sys,
    tests::{self, random},
};
use vifa_tap::Tap;

/// Maximum number of consecutive tests that cannot be killed. Their resources block the following
/// tests, each of which would time out after a minute.
const STUCK_AT_MOST: u32 = 2;

/// Tests the VIFA driver against the reference device.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Print the names of the tests without running them
    #[arg(long)]
    list: bool,

    /// The module's file, which is loaded, and reloaded by some tests
    #[arg(long, value_name = "PATH", env = "VIFA_MODULE")]
    module: Option<PathBuf>,

    /// Number of words that the VF writes while its log is read; a tenth of them is used with a
    /// broken log
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 300_000,
        value_parser = value_parser!(u64).range(10_000..),
    )]
    logged_writes: u64,

    /// Also run the random caller, for this many seconds
    #[arg(long, value_name = "SECONDS")]
    random_seconds: Option<u64>,

    /// Seed of the random caller's actions (default: the time)
    #[arg(long, value_name = "NUMBER", env = "VIFA_RANDOM_SEED", value_parser = parse_number)]
    random_seed: Option<u64>,

    /// Skip tests whose names contain this text; may be repeated
    #[arg(long, value_name = "PART")]
    without: Vec<String>,

    /// Run only tests whose names contain one of these texts
    filter: Vec<String>,
}

/// Parses a decimal number, or a hexadecimal one with 0x.
fn parse_number(text: &str) -> Result<u64, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
}

impl Arguments {
    fn random(&self) -> Option<random::Settings> {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH);
        let seed = || now().map_or(1, |time| time.as_nanos() as u64);
        Some(random::Settings {
            seconds: self.random_seconds?,
            seed: self.random_seed.unwrap_or_else(seed),
        })
    }

    fn selects(&self, name: &str) -> bool {
        let has = |parts: &[String]| parts.iter().any(|part| name.contains(part));
        (self.filter.is_empty() || has(&self.filter)) && !has(&self.without)
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let tests: Vec<_> = tests::all(arguments.logged_writes, arguments.random())
        .into_iter()
        .filter(|test| arguments.selects(&test.name))
        .collect();
    ensure!(!tests.is_empty(), "no test matches the filter");
    if arguments.list {
        tests.iter().for_each(|test| println!("{}", test.name));
        return Ok(true);
    }
    ensure!(sys::is_root(), "the tests need root");
    let settings = Settings {
        module: arguments.module.clone(),
    };
    let mut tap = Tap::plan(tests.len() as u32);
    let mut stuck_in_a_row = 0;
    for test in tests {
        let start = Instant::now();
        let outcome = run_with_deadline(test.deadline, || (test.body)(&Bed::set_up(&settings)?));
        tap.note(&format!("{:.1} s", start.elapsed().as_secs_f64()));
        match &outcome {
            Outcome::Passed => tap.pass(&test.name),
            Outcome::Failed(reason) | Outcome::Stuck(reason) => {
                tap.fail(&format!("{}\n{reason}", test.name));
            }
        }
        stuck_in_a_row = match outcome {
            Outcome::Stuck(_) => stuck_in_a_row + 1,
            _ => 0,
        };
        if stuck_in_a_row == STUCK_AT_MOST {
            let reason = format!("{STUCK_AT_MOST} tests in a row could not be killed");
            tap.bail_out(&reason);
            bail!(reason);
        }
    }
    Ok(tap.finish())
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
