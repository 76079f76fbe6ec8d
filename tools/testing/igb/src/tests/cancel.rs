// SPDX-License-Identifier: GPL-2.0

//! Tests of cancelled migrations: the source continues unchanged, and the destination keeps no
//! resources.

use std::collections::BTreeSet;

use super::{
    card::Card,
    function::{ask, busy, enabled, new, MAC},
    physical::{Address, Filters},
};
use crate::backend::igb::portable::{
    access::Access,
    registers::{page0, vtctrl},
    state::State,
};

/// The progress of a migration.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Phase {
    Rehearsed,
    Quiesced,
    Saved,
    Prepared,
    Adopted,
}

const FURTHER: Address = [0x02, 0x33, 0x33, 0x33, 0x33, 0x33];

/// Returns a guest that has obtained every kind of resource.
fn guest() -> (State, Card) {
    let (mut state, mut card) = busy();
    let requests: [&[u32]; 5] = [
        &[0x0002_0002, 0x3333_3302, 0x3333],
        &[0x0001_0004, 5],
        &[0x0001_0004, 7],
        &[0x0003_0003, 0x0222_0111, 0x0333],
        &[5, 9000],
    ];

    for words in requests {
        let answer = ask(&mut state, &mut card, words);
        assert_eq!(answer, words[0] | 0xa000_0000);
    }
    (state, card)
}

fn migrate(
    phase: Phase,
    (state, card): (&mut State, &mut Card),
    (other, other_card): (&mut State, &mut Card),
) {
    let claim = *state.shadow().configuration();

    other.quiesce(other_card).unwrap();
    other.rehearse(other_card, &claim).unwrap();
    if phase >= Phase::Quiesced {
        state.quiesce(card).unwrap();
    }
    if phase >= Phase::Saved {
        let plane = state.save(card).unwrap();

        if phase >= Phase::Prepared {
            other.prepare(other_card, &plane).unwrap();
        }
        if phase >= Phase::Adopted {
            other.adopt(other_card, &plane).unwrap();
        }
    }
}

#[test]
fn cancelled_in_each_phase() {
    for phase in [
        Phase::Rehearsed,
        Phase::Quiesced,
        Phase::Saved,
        Phase::Prepared,
        Phase::Adopted,
    ] {
        let (mut state, mut card) = guest();
        let before = (card.port.filters(), card.port.unicast());
        assert_eq!(before.0.mac, Some(MAC));
        assert_eq!(before.0.vlans, BTreeSet::from([5, 7]));
        assert_eq!(before.0.hashes, [0x111, 0x222, 0x333]);
        assert_eq!(before.1, BTreeSet::from([FURTHER]));

        let mut other_card = Card::plain();
        let nothing = (other_card.port.filters(), other_card.port.unicast());
        let mut other = new(&mut other_card);
        migrate(
            phase,
            (&mut state, &mut card),
            (&mut other, &mut other_card),
        );
        let has_address = other_card.port.filters().mac == Some(MAC);
        assert_eq!(has_address, phase >= Phase::Prepared, "{phase:?}");

        // The destination is closed and reset.
        other.close(&mut other_card).unwrap();
        other_card.write(page0::VTCTRL, vtctrl::RST).unwrap();
        other_card.port.interrupt();
        let left: (Filters, _) = (other_card.port.filters(), other_card.port.unicast());
        assert_eq!(left, nothing, "{phase:?}");
        assert!(!other_card.port.is_clear_to_send().0, "{phase:?}");

        assert_eq!(state.resume(&mut card), Ok(None));
        assert_eq!(
            (card.port.filters(), card.port.unicast()),
            before,
            "{phase:?}"
        );
        assert_eq!(card.port.frame_size(), 9000);
        assert_eq!(enabled(&card).len(), 4);
        assert_eq!(ask(&mut state, &mut card, &[0x0001_0004, 9]), 0xa001_0004);
        assert!(card.port.filters().vlans.contains(&9));
    }
}
