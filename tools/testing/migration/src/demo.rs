// SPDX-License-Identifier: GPL-2.0

//! One migration, with a log of its steps.

use anyhow::Result;
use vifa_migrate::{
    guest::Guest,
    scratch::Scratch,
    sriov,
    style::{mebibytes, Clock},
    vmm::{Passthrough, Role},
};

use crate::{prepare, Options};

/// Migrates a machine with `devices` devices once.
pub fn run(options: &Options, devices: usize) -> Result<bool> {
    let machine = options.machine()?;
    let plan = options.plan();
    let scratch = Scratch::new()?;
    let clock = Clock::start();

    let (host, version) = prepare(options, &machine, 2 * devices)?;
    let (sources, destinations) = host.virtuals.split_at(devices);
    let passthrough = |functions| Passthrough {
        unlogged: !sriov::kernel_can_log(),
        ..Passthrough::new(functions)
    };
    let (source, destination) = (passthrough(sources), passthrough(destinations));
    clock.announce(&version);
    clock.announce(&format!("source:      QEMU starts, its guest has {source}"));
    let mut guest = Guest::start(&machine, &source, scratch.path(), "vm")?;
    clock.announce(&format!(
        "destination: QEMU starts with {destination} and waits"
    ));
    let vmm = guest.destination(&destination, Role::Receive)?;
    guest.boot()?;
    clock.announce("source:      the guest is up, its workload runs");
    let outcome = guest.migrate(vmm, &plan, &mut |text| clock.announce(text))?;
    outcome.check_devices()?;
    let workload = guest.finish()?;
    clock.announce("destination: the workload has ended, everything is verified");
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
