// SPDX-License-Identifier: GPL-2.0

//! Strategies that generate guests and administrators of all kinds.

use proptest::{collection::vec, prelude::*};

use super::physical::{Address, Administration, Port};
use crate::backend::igb::portable::{
    access::Access,
    fault::Fault,
    registers::{
        buffer_word,
        mailbox::{ACK, REQ, VFU},
        page0, vtctrl,
    },
};

/// One event.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// The guest reads a register.
    Read(u32),
    /// The guest writes a register.
    Write(u32, u32),
    /// The physical function handles an interrupt.
    Interrupt,
    /// The physical function sends a message of its own.
    Ping,
    /// The physical function is reset.
    BeginReset,
    /// The physical function's reset completes.
    EndReset,
    /// Time passes.
    Wait,
}

/// Executes the physical function's part of a step, or returns the guest's part.
pub(crate) fn happens(port: &mut Port, step: Step) -> Option<Step> {
    match step {
        Step::Read(_) | Step::Write(..) => return Some(step),
        Step::Interrupt => port.interrupt(),
        Step::Ping => port.ping(),
        Step::BeginReset => port.begin_reset(),
        Step::EndReset => port.end_reset(),
        Step::Wait => port.wait(),
    }
    None
}

const MAILBOX: u32 = page0::V2PMAILBOX;

/// One of a few addresses, most of which are valid.
pub(crate) fn address() -> impl Strategy<Value = Address> {
    prop_oneof![
        12 => (0..6u8).prop_map(|last| [0x02, 0xaa, 0xbb, 0xcc, 0xdd, last]),
        3 => (0..40u8).prop_map(|last| [0x02, 0x11, 0x22, 0x33, 0x44, last]),
        1 => Just([0; 6]),
        1 => Just([0xff; 6]),
    ]
}

fn vid() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0u32), 6 => 1..8u32, 4 => 0..40u32, 1 => Just(4095u32), 1 => any::<u32>()]
}

/// A request in any encoding.
pub(crate) fn message() -> impl Strategy<Value = Vec<u32>> {
    let mac = (
        prop_oneof![4 => Just(0u32), 4 => Just(2), 2 => Just(1), 1 => 0..256u32],
        address(),
    )
        .prop_map(|(information, [a, b, c, d, e, f])| {
            vec![
                2 | (information << 16),
                u32::from_le_bytes([a, b, c, d]),
                u32::from_le_bytes([e, f, 0, 0]),
            ]
        });
    let multicast = (
        prop_oneof![4 => 0..4u32, 2 => 0..64u32],
        vec(any::<u32>(), 15),
    )
        .prop_map(|(count, hashes)| [vec![3 | (count << 16)], hashes].concat());
    let vlan = (
        prop_oneof![4 => Just(1u32), 2 => Just(0), 1 => 0..256u32],
        vid(),
    )
        .prop_map(|(add, vid)| vec![4 | (add << 16), vid]);
    let size = prop_oneof![4 => 64..9100u32, 1 => any::<u32>()].prop_map(|size| vec![5, size]);
    let promiscuous = prop_oneof![Just(0u32), Just(2), 0..256u32]
        .prop_map(|information| vec![6 | (information << 16)]);

    prop_oneof![
        3 => Just(vec![1]),
        6 => mac,
        2 => multicast,
        6 => vlan,
        1 => size,
        2 => promiscuous,
        1 => any::<u32>().prop_map(|head| vec![head]),
        1 => (message_kind(), any::<u32>()).prop_map(|(kind, rest)| vec![kind | (rest & !0xffff)]),
    ]
}

fn message_kind() -> impl Strategy<Value = u32> {
    prop_oneof![0..8u32, Just(0x100u32)]
}

/// The steps of a driver for one request, with the physical function's part, with or without
/// disturbances.
fn exchange() -> impl Strategy<Value = Vec<Step>> {
    let disturbance = prop_oneof![
        40 => Just(None),
        4 => Just(Some(Step::Ping)),
        1 => Just(Some(Step::Interrupt)),
        1 => Just(Some(Step::Wait)),
    ];

    (message(), vec(disturbance, 12)).prop_map(|(words, disturbances)| {
        let buffer = words
            .into_iter()
            .enumerate()
            .map(|(index, word)| Step::Write(buffer_word(index), word));
        let read = (0..3).map(|index| Step::Read(buffer_word(index)));
        let mut steps = vec![Step::Write(MAILBOX, VFU), Step::Read(MAILBOX)];

        steps.extend(buffer);
        steps.extend([
            Step::Write(MAILBOX, REQ),
            Step::Interrupt,
            Step::Read(MAILBOX),
        ]);
        steps.extend([Step::Write(MAILBOX, VFU), Step::Read(MAILBOX)]);
        steps.extend(read);
        steps.extend([Step::Write(MAILBOX, ACK), Step::Interrupt]);
        let length = steps.len();
        for (index, disturbance) in disturbances.into_iter().enumerate() {
            if let Some(step) = disturbance {
                steps.insert((length + index) % (length.min(12) + 1), step);
            }
        }
        steps
    })
}

/// The steps of a driver's initialization.
fn entrance() -> impl Strategy<Value = Vec<Step>> {
    let words = [
        Step::Write(page0::VTCTRL, vtctrl::RST),
        Step::Read(MAILBOX),
        Step::Write(MAILBOX, VFU),
        Step::Read(MAILBOX),
        Step::Write(buffer_word(0), 1),
        Step::Write(MAILBOX, REQ),
        Step::Interrupt,
        Step::Read(MAILBOX),
        Step::Write(MAILBOX, VFU),
        Step::Read(MAILBOX),
        Step::Read(buffer_word(0)),
        Step::Write(MAILBOX, ACK),
        Step::Interrupt,
    ];

    (0..words.len() * 6).prop_map(move |end| words[..end.min(words.len())].to_vec())
}

/// Any single step.
fn any_step() -> impl Strategy<Value = Vec<Step>> {
    let word = (0..16usize).prop_map(buffer_word);

    prop_oneof![
        4 => Just(Step::Read(MAILBOX)),
        4 => (0..8u32).prop_map(|value| Step::Write(MAILBOX, value)),
        1 => any::<u32>().prop_map(|value| Step::Write(MAILBOX, value)),
        2 => word.clone().prop_map(Step::Read),
        3 => (word, prop_oneof![0..8u32, any::<u32>()])
            .prop_map(|(offset, value)| Step::Write(offset, value)),
        1 => Just(Step::Write(page0::VTCTRL, vtctrl::RST)),
        4 => Just(Step::Interrupt),
        2 => Just(Step::Ping),
        1 => Just(Step::BeginReset),
        2 => Just(Step::EndReset),
        1 => Just(Step::Wait),
    ]
    .prop_map(|step| vec![step])
}

/// All steps of a guest.
pub(crate) fn life() -> impl Strategy<Value = Vec<Step>> {
    let chapter = prop_oneof![12 => exchange(), 2 => entrance(), 3 => any_step()];

    (entrance(), vec(chapter, 0..50)).prop_map(|(first, rest)| [first, rest.concat()].concat())
}

pub(crate) fn administration() -> impl Strategy<Value = Administration> {
    (
        prop_oneof![6 => Just(None), 1 => address().prop_map(Some)],
        any::<bool>(),
        prop_oneof![8 => Just(0u16), 1 => 1..9u16],
        prop_oneof![4 => Just(0u16), 2 => 0..35u16],
        prop_oneof![4 => Just(0u8), 2 => 0..20u8],
        proptest::collection::btree_set(1..8u16, 0..3),
    )
        .prop_map(
            |(fixed, trusted, port_vlan, vlans, unicast, active)| Administration {
                fixed: fixed.filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6]),
                trusted,
                port_vlan,
                vlans,
                unicast,
                active,
            },
        )
}

/// Executes the guest's part of a step directly on the function.
pub(crate) fn bare(port: &mut Port, step: Step) -> Result<Option<u32>, Fault> {
    match step {
        Step::Read(offset) => port.read(offset).map(Some),
        Step::Write(offset, value) => port.write(offset, value).map(|()| None),
        _ => Ok(None),
    }
}
