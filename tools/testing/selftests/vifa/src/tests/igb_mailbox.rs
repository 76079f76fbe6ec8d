// SPDX-License-Identifier: GPL-2.0

//! The resources that a network adapter's guest obtains from its physical function, which igb
//! drives, and the guest's influence on that driver.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{claims, Test};
use crate::{
    bed::Bed,
    expect,
    igb::{
        answer, ask, enter, own, set_register, Adapter, Filters, ACKNOWLEDGE, BUFFER, MAILBOX, OWN,
        REQUEST,
    },
    kmsg::KernelLog,
    migration::{Segments, State},
    vfio::{AddressSpace, Device},
};

pub fn tests() -> Vec<Test> {
    claims!("igb_mailbox":
        cancelled_migration_changes_nothing,
        guest_cannot_block_the_mailbox_of_its_physical_function,
        interrupts_of_the_physical_function_are_limited,
    )
}

/// An address, and the messages that request it, multicast and a VLAN.
const MAC: u64 = 0x4100_005e_0002;
const SET_MAC: [u32; 3] = [2, MAC as u32, (MAC >> 32) as u32];
const SET_MULTICAST: [u32; 2] = [0x0001_0003, 0x0123];
const ADD_VLAN: u32 = 0x0001_0004;

/// The answer to a successful message.
const DONE: u32 = 0xa000_0000;

fn open(adapter: &Adapter, index: u32) -> Result<Device> {
    Device::open(&adapter.vf(index)?, &AddressSpace::iommufd()?)
}

fn cancelled_migration_changes_nothing(_: &Bed) -> Result<()> {
    let adapter = Adapter::set_up()?;
    let source = open(&adapter, 0)?;
    enter(&source)?;
    for (vlan, phase) in (5..).zip([State::PreCopy, State::PreCopyP2p, State::StopCopy]) {
        for words in [&SET_MAC[..], &SET_MULTICAST, &[ADD_VLAN, vlan]] {
            let answer = ask(&source, words)?;
            expect::equal(&format!("answer to {words:x?}"), answer, DONE | words[0])?;
        }
        let before = adapter.filters(0)?;
        let expected = Filters {
            addresses: BTreeSet::from([MAC]),
            vlans: (5..=vlan).collect(),
            multicast: true,
        };
        expect::equal("filters of the source", before.clone(), expected)?;

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
            expect::equal("filters it would have", adapter.filters(1)?, before.clone())?;
        }
        source.change_state(State::Running)?;
        drop((receiver, destination));
        let left = adapter.filters(1)?;
        expect::equal("filters of the destination", left, Filters::default())?;
        expect::equal("filters of the source", adapter.filters(0)?, before)?;
    }
    Ok(())
}

/// igb waits with interrupts off for a guest that owns the buffer, then revokes its rights and logs
/// that.
fn guest_cannot_block_the_mailbox_of_its_physical_function(_: &Bed) -> Result<()> {
    let device = open(&Adapter::set_up()?, 0)?;
    enter(&device)?;
    let mut log = KernelLog::from_now()?;
    for _ in 0..5 {
        own(&device)?;
        set_register(&device, BUFFER, 5)?;
        set_register(&device, BUFFER + 4, 1522)?;
        set_register(&device, MAILBOX, REQUEST | OWN)?;
        // The duration of that wait.
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
