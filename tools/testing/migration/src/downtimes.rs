// SPDX-License-Identifier: GPL-2.0

//! Downtimes of a machine, as a table.

use anyhow::Result;
use vifa_migrate::{
    downtime::{measure, Downtime, Setup},
    style::{seconds, Clock},
};

use crate::Options;

/// Runs the measurement with devices of two physical functions.
pub fn run(options: &Options, pre_copy: String, stop_copy: String, rounds: u32) -> Result<bool> {
    options.check_root()?;
    let setup = Setup {
        machine: options.machine()?,
        module: options.module.clone(),
        pre_copy,
        stop_copy,
        rounds,
    };
    let clock = Clock::start();
    let downtimes = measure(&setup, &mut |text| clock.announce(text))?;
    for (writer, variants) in [("light", &downtimes.light), ("heavy", &downtimes.heavy)] {
        println!("\n{writer} writer");
        println!("  STOP_COPY alone  {}", row(&variants.stop_copy));
        println!("  PRE_COPY         {}", row(&variants.pre_copy));
        println!("  without device   {}", row(&variants.without));
        match variants.removed() {
            Some(part) => println!("  removed          {:.0} %", 100.0 * part),
            None => println!("  removed          nothing: the device adds nothing"),
        }
    }
    Ok(true)
}

fn row(downtimes: &[Downtime]) -> String {
    let times: Vec<_> = downtimes
        .iter()
        .map(|downtime| seconds(downtime.reported))
        .collect();
    times.join("  ")
}
