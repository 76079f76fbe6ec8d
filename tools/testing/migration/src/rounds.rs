// SPDX-License-Identifier: GPL-2.0

//! Migrations back and forth, over a connection and at last by way of a file.

use std::fs;
use std::time::Instant;

use anyhow::Result;

use crate::migration::Guest;
use crate::style::{mebibytes, seconds};
use crate::tap::Tap;
use crate::{prepare, Options, Scratch};

/// Migrates `rounds` times over a connection, and once by a file; whether all went well.
pub fn run(options: &Options, rounds: u32) -> Result<bool> {
    // Beside the rounds: the guest's start, the file, the workload's end, and a test of the workload.
    let mut tap = Tap::plan(rounds + 4);
    let begin = Instant::now();
    let result = migrate(options, rounds, &mut tap);
    if let Err(error) = &result {
        tap.fail(&format!("{error:#}"));
    }
    tap.note(&format!("{} in all", seconds(begin.elapsed())));
    Ok(tap.finish())
}

fn migrate(options: &Options, rounds: u32, tap: &mut Tap) -> Result<()> {
    let machine = options.machine()?;
    let plan = options.plan();
    let scratch = Scratch::new()?;
    let (host, version) = prepare(options, &machine)?;
    tap.note(&version);
    let mut functions = host.virtuals.iter().cycle();
    let mut next = || functions.next().expect("there are virtual functions");

    let mut guest = Guest::start(&machine, next(), scratch.path())?;
    guest.boot()?;
    tap.pass(&format!("guest runs with {}", guest.function()));
    for round in 1..=rounds {
        let (from, to) = (guest.function().clone(), next());
        let vmm = guest.destination(to)?;
        let outcome = guest.migrate(vmm, &plan, &mut |_| ())?;
        outcome.check_states()?;
        tap.pass(&format!("round {round}: {from} to {to}"));
        tap.note(&outcome.to_string());
    }

    let (from, to) = (guest.function().clone(), next());
    let file = scratch.path().join("machine");
    let vmm = guest.destination(to)?;
    let outcome = guest.migrate_by_file(vmm, &file, &plan, &mut |_| ())?;
    outcome.check_states()?;
    tap.pass(&format!("by a file: {from} to {to}"));
    tap.note(&outcome.to_string());
    tap.note(&format!("file {}", mebibytes(fs::metadata(&file)?.len())));

    let workload = guest.finish()?;
    tap.pass("every command completed once, every byte is right");
    tap.note(&format!(
        "{} operations, {} verified, {} interrupts, longest gap {} ms of the guest's time",
        workload.operations,
        mebibytes(workload.bytes),
        workload.interrupts,
        workload.longest_gap_ms
    ));
    guest.tamper()?;
    tap.pass("the workload notices a single wrong bit");
    guest.quit()
}
