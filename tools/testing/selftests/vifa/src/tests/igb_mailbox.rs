// SPDX-License-Identifier: GPL-2.0

//! What a network adapter's guest obtains of its physical function, which igb drives, and what it
//! can do to that.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{claims, Test};
use crate::{
    bed::Bed,
    expect,
    igb::{
        answer, ask, enter, own, set_register, Adapter, ACKNOWLEDGE, BUFFER, MAILBOX, OWN, REQUEST,
    },
    kmsg::KernelLog,
    migration::{Segments, State},
    vfio::{AddressSpace, Device},
};

pub fn tests() -> Vec<Test> {
    claims!("igb_mailbox":
        cancelled_migration_leaves_the_address_where_it_was,
        guest_does_not_hold_the_mailbox_against_its_physical_function,
        interrupts_of_the_physical_function_are_limited,
    )
}

/// An address, and the message that asks for it.
const MAC: &str = "02:00:5e:00:00:41";
const SET_MAC: [u32; 3] = [2, 0x005e_0002, 0x0000_4100];
const NO_MAC: &str = "00:00:00:00:00:00";

/// The answer to a message that was done.
const DONE: u32 = 0xa000_0000;

fn open(adapter: &Adapter, index: u32) -> Result<Device> {
    Device::open(&adapter.vf(index)?, &AddressSpace::iommufd()?)
}

fn has_addresses(adapter: &Adapter, what: &str, expected: [&str; 2]) -> Result<()> {
    for (index, expected) in (0..).zip(expected) {
        let mac = adapter.mac(index)?;
        expect::equal(
            &format!("{what}: address of VF {index}"),
            &mac[..],
            expected,
        )?;
    }
    Ok(())
}

fn cancelled_migration_leaves_the_address_where_it_was(_: &Bed) -> Result<()> {
    let adapter = Adapter::set_up()?;
    let source = open(&adapter, 0)?;
    enter(&source)?;
    expect::equal("answer to a MAC", ask(&source, &SET_MAC)?, DONE | 2)?;
    for (vlan, phase) in (5..).zip([State::PreCopy, State::PreCopyP2p, State::StopCopy]) {
        let destination = open(&adapter, 1)?;
        let session = source.start(phase)?;
        let is_whole = phase == State::StopCopy;
        let stream = if is_whole {
            session.read_all(Segments::Whole)
        } else {
            session.read_to_pause(Segments::Whole)
        };
        let receiver = destination.start(State::Resuming)?;
        receiver.write_all(&stream.context("read of the stream")?, Segments::Whole)?;
        if is_whole {
            destination.change_state(State::Stop)?;
            has_addresses(&adapter, "before the cancel", [MAC, MAC])?;
        }
        source.change_state(State::Running)?;
        drop((receiver, destination));
        has_addresses(&adapter, &format!("after {}", phase.name()), [MAC, NO_MAC])?;
        let answer = ask(&source, &[0x0001_0004, vlan])?;
        expect::equal("answer to a VLAN", answer, DONE | 0x0001_0004)?;
    }
    Ok(())
}

/// igb waits for a guest that owns the buffer, with interrupts off, then revokes its rights and says
/// so in the log.
fn guest_does_not_hold_the_mailbox_against_its_physical_function(_: &Bed) -> Result<()> {
    let device = open(&Adapter::set_up()?, 0)?;
    enter(&device)?;
    let mut log = KernelLog::from_now()?;
    for _ in 0..5 {
        own(&device)?;
        set_register(&device, BUFFER, 5)?;
        set_register(&device, BUFFER + 4, 1522)?;
        set_register(&device, MAILBOX, REQUEST | OWN)?;
        // Time enough to be waited for.
        thread::sleep(Duration::from_millis(20));
        set_register(&device, MAILBOX, 0)?;
        expect::equal("answer to a frame size", answer(&device)?, DONE | 5)?;
    }
    let complaints = log.count(&["Error receiving message from VF"])?;
    expect::equal("complaints of igb", complaints, 0)
}

fn interrupts_of_the_physical_function_are_limited(_: &Bed) -> Result<()> {
    const INTERRUPTS: u32 = 400;
    const BURST: u32 = 256;
    const EACH: Duration = Duration::from_millis(5);

    let device = open(&Adapter::set_up()?, 0)?;
    let begin = Instant::now();
    for _ in 0..INTERRUPTS {
        set_register(&device, MAILBOX, ACKNOWLEDGE)?;
    }
    let least = (INTERRUPTS - BURST - 1) * EACH;
    let took = begin.elapsed();
    expect::claim(
        &format!("{INTERRUPTS} interrupts take {least:?} or more: {took:?}"),
        took >= least,
    )
}
