// SPDX-License-Identifier: GPL-2.0

//! Record [`QUEUE`](crate::layer::records::QUEUE): a queue pair.

use super::table::{
    flag,
    whole, //
};
use crate::{
    backend::igb::portable::{
        registers::queue::DESCRIPTOR,
        saved::{
            Queue,
            Register,
            Ring,
            RingRegisters,
            RECEIVE,
            RECEIVE_ONLY,
            TRANSMIT,
            TRANSMIT_ONLY, //
        },
    },
    layer::{
        check::{
            check,
            Expectation,
            Violation, //
        },
        stream::layout::{
            self,
            layout, //
        },
    },
};

/// Flags of a [`Payload`].
mod flags {
    pub(super) const TRANSMIT: u32 = 1 << 0;
    pub(super) const RECEIVE: u32 = 1 << 1;
    pub(super) const ALL: u32 = 0x3;
}

layout! {
    /// The content of the record.
    struct Payload {
        flags: u32,
        transmit: [u32; Ring::REGISTERS],
        transmit_only: [u32; TRANSMIT_ONLY.len()],
        receive: [u32; Ring::REGISTERS],
        receive_only: [u32; RECEIVE_ONLY.len()],
        reserved: [u32; 2],
    }
}

/// Checks that `values` have only saved bits of their `registers`.
fn check_bits<const N: usize>(registers: [Register; N], values: [u32; N]) -> Result<(), Violation> {
    registers
        .into_iter()
        .zip(values)
        .try_for_each(|(register, value)| register.check(value))
}

/// Checks that a state is valid for a ring with these registers.
fn check_ring(registers: &RingRegisters, ring: &Ring) -> Result<(), Violation> {
    check_bits(registers.list(), ring.values())?;
    // A disabled queue may have the registers of an earlier driver.
    if ring.is_enabled {
        let descriptors = u64::from(ring.length / DESCRIPTOR).max(1);
        let in_ring = Expectation::Below(descriptors);

        check(registers.head.name(), ring.head, in_ring)?;
        check(registers.tail.name(), ring.tail, in_ring)?;
    }
    Ok(())
}

/// Checks that the state of a queue pair is valid.
fn validate(queue: &Queue) -> Result<(), Violation> {
    check_ring(&TRANSMIT, &queue.transmit)?;
    check_bits(TRANSMIT_ONLY, queue.transmit_only())?;
    check_ring(&RECEIVE, &queue.receive)?;
    check_bits(RECEIVE_ONLY, queue.receive_only())
}

/// Returns the content of the record.
///
/// # Errors
///
/// Returns an error if a register has a value that cannot be restored.
pub(super) fn encode(queue: &Queue) -> Result<[u8; Payload::LENGTH], Violation> {
    validate(queue)?;
    Ok(Payload {
        flags: flag(flags::TRANSMIT, queue.transmit.is_enabled)
            | flag(flags::RECEIVE, queue.receive.is_enabled),
        transmit: queue.transmit.values(),
        transmit_only: queue.transmit_only(),
        receive: queue.receive.values(),
        receive_only: queue.receive_only(),
        reserved: [0; 2],
    }
    .encode())
}

/// Decodes the content of the record.
pub(super) fn decode(content: &[u8]) -> Result<Queue, Violation> {
    let payload = whole(content, Payload::LENGTH, Payload::decode)?;
    let has = |flag| payload.flags & flag != 0;

    check(
        "flags",
        payload.flags,
        Expectation::SubsetOf(flags::ALL.into()),
    )?;
    let queue = Queue::new(
        Ring::new(has(flags::TRANSMIT), payload.transmit),
        payload.transmit_only,
        Ring::new(has(flags::RECEIVE), payload.receive),
        payload.receive_only,
    );

    validate(&queue)?;
    for word in payload.reserved {
        check("reserved", word, Expectation::Equal(0))?;
    }
    Ok(queue)
}
