// SPDX-License-Identifier: GPL-2.0

//! Migrations of a machine with a network adapter, with a log of their steps.

use std::time::Duration;

use anyhow::Result;
use vifa_migrate::style::{mebibytes, seconds, Clock};

use super::scene::{self, End, Load, Scene, ENDS, MAC, MTU, VLAN};
use crate::Options;

/// Returns the load. A machine on a real processor can transfer more than an emulated one, which is
/// too slow for iperf3 in addition to the other traffic.
fn load(fast: bool) -> Load {
    let (file, rate) = match fast {
        true => (64 << 20, 4 << 20),
        false => (1 << 20, 24 << 10),
    };
    Load {
        file,
        rate,
        measured: fast.then_some(scene::MEASURED),
    }
}

/// Migrates `rounds` times.
pub fn run(options: &Options, rounds: u32) -> Result<bool> {
    let clock = Clock::start();
    let machine = options.machine()?;
    clock.announce(&machine.version()?);
    clock.announce("two virtual machines boot, each with a virtual function of an igb");
    let mut scene = Scene::start(options, load(scene::is_fast(&machine)), true)?;
    clock.announce(&format!(
        "the guest is up: {}, {MAC}, MTU {MTU}, VLAN {VLAN}, in the group {}",
        ENDS.guest, ENDS.group
    ));
    let plan = scene::plan(options);
    let (mut away, mut lost, mut sent) = (Vec::new(), 0, 0);
    let mut well = true;
    for round in 1..=rounds {
        let from = scene.guest.functions()[0].clone();
        clock.announce(&format!("migration {round}: {from} to {}", scene.next()));
        let journey = scene.travel(&plan)?;
        for line in journey.to_string().lines() {
            println!("             {line}");
        }
        for tally in &journey.passed.tallies {
            if let Err(error) = tally.check(journey.astray) {
                clock.announce(&format!("FAILED: {error}"));
                well = false;
            }
        }
        scene.check_connections()?;
        lost += journey.passed.tallies[0].lost;
        sent += journey.passed.tallies[0].sent;
        away.push(journey.absence);
    }
    let end = scene.finish()?;
    clock.announce("all connections have ended, everything is verified");

    print_end(rounds, &away, (lost, sent), &end);
    if let Some((pings, _)) = end.neighbour {
        println!("  neighbour        {pings}");
        if let Err(error) = pings.check(Duration::ZERO) {
            clock.announce(&format!("FAILED: {error}"));
            well = false;
        }
    }
    Ok(well)
}

/// Prints the result of all migrations: the absence in each of them, the `lost` pings of those
/// `sent`, and the final counts.
fn print_end(rounds: u32, away: &[Duration], (lost, sent): (u64, u64), end: &End) {
    let files = &end.carried.files;
    let bytes: u64 = files.iter().map(|file| file.length).sum();
    let longest = away.iter().max().copied().unwrap_or_default();
    let total: Duration = away.iter().sum();
    println!(
        "
  migrations       {rounds} of {rounds}, longest absence {}, {} in total
  ping             {lost} of {sent} lost
  TCP connection   {} echoed, every byte unchanged
  files            {} with {}, checksums match at both ends",
        seconds(longest),
        seconds(total),
        mebibytes(end.carried.echo.verified),
        files.len(),
        mebibytes(bytes),
    );
    for file in files {
        println!(
            "                   {}, CRC-32C {:#010x}, {}",
            mebibytes(file.length),
            file.checksum,
            seconds(file.took)
        );
    }
    println!(
        "  the guest        {}, MTU {}, link never lost, {} of its pings answered",
        end.guest.mac, end.guest.mtu, end.guest.ping.received
    );
}
