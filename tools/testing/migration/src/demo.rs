// SPDX-License-Identifier: GPL-2.0

//! One migration, told as it happens.

use anyhow::Result;

use crate::migration::Guest;
use crate::style::{mebibytes, Clock};
use crate::{prepare, Options, Scratch};

/// Migrates once.
pub fn run(options: &Options) -> Result<bool> {
    let machine = options.machine()?;
    let plan = options.plan();
    let scratch = Scratch::new()?;
    let clock = Clock::start();

    let (host, version) = prepare(options, &machine)?;
    let [source, destination] = &host.virtuals[..] else {
        unreachable!("two virtual functions were asked for");
    };
    clock.tell(&version);
    clock.tell(&format!("virtual functions {source} and {destination}"));
    clock.tell(&format!("source:      QEMU starts, its guest has {source}"));
    let mut guest = Guest::start(&machine, source, scratch.path())?;
    clock.tell(&format!(
        "destination: QEMU starts with {destination} and waits"
    ));
    let vmm = guest.destination(destination)?;
    guest.boot()?;
    clock.tell("source:      the guest is up, its workload runs");
    let outcome = guest.migrate(vmm, &plan, &mut |text| clock.tell(text))?;
    let workload = guest.finish()?;
    clock.tell("destination: the workload has ended, everything is verified");
    guest.quit()?;

    println!("\n{outcome}");
    println!(
        "  in all           {} operations, {} verified, longest gap {} ms of the guest's time",
        workload.operations,
        mebibytes(workload.bytes),
        workload.longest_gap_ms
    );
    println!(
        "  commands         {} submitted, {} completed, {} verified",
        workload.submitted, workload.completed, workload.operations
    );
    println!(
        "  errors           {}, lost interrupts {}",
        workload.errors, workload.lost_interrupts
    );
    Ok(true)
}
