// SPDX-License-Identifier: GPL-2.0

//! Tests of stopping and resuming queues while frames arrive.

use proptest::{collection::vec, prelude::*};

use super::{
    card::{Card, Wire},
    function::{busy, driver, enabled, migrate_queues, new, ring, with_queues, FULL},
};
use crate::backend::igb::portable::{
    access::Access,
    clock::Clock,
    fault::{Fault, Stuck},
    registers::{page0, queue::*},
};

/// Returns the descriptors that the ring with its first register at `first` has processed, in
/// order.
fn done(card: &Card, first: u32) -> Vec<u32> {
    let of_queue = card.done.iter().filter(|done| done.0 == first);

    of_queue.map(|&(_, descriptor)| descriptor).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// A frame at each access of the source and of the destination causes no error. Every frame
    /// uses a descriptor of the guest: no descriptor is processed twice or skipped.
    #[test]
    fn frames_arrive_at_each_access(
        rings in vec([ring(), ring()], 1..=QUEUES_MAX),
        slowly: bool,
        stays: bool,
    ) {
        let mut card = Card::plain();
        let mut state = with_queues(&mut card, rings.len());
        driver(&mut state, &mut card, &rings);
        card.is_busy = true;
        card.enables_slowly = slowly;
        let mut other_card = Card::plain();
        let mut other = with_queues(&mut other_card, rings.len());
        other_card.is_busy = true;
        other_card.enables_slowly = slowly;

        if stays {
            state.quiesce(&mut card).unwrap();
            prop_assert_eq!(state.resume(&mut card).unwrap(), None);
        } else {
            let to = (&mut other, &mut other_card);
            migrate_queues(rings.len(), &mut state, &mut card, to).unwrap();
        }
        let last = if stays { &mut card } else { &mut other_card };
        for _ in 0..1000 {
            last.read(RDH).unwrap();
        }
        for (queue, rings) in (0..).zip(&rings) {
            for (first, ring) in [RDBAL, TDBAL].into_iter().zip(rings) {
                let first = first + queue * STRIDE;
                let wraps = ring.tail < ring.head;
                let end = ring.tail + if wraps { ring.descriptors } else { 0 };
                let given = if ring.is_enabled { ring.head..end } else { 0..0 };
                let expected: Vec<u32> = given.map(|place| place % ring.descriptors).collect();
                let found = [done(&card, first), done(&other_card, first)].concat();

                prop_assert_eq!(found, expected, "{:x}: {:?}", first, ring);
            }
        }
    }
}

/// The same holds if a queue does not stop, and the others are restarted.
#[test]
fn frames_arrive_while_a_stop_is_undone() {
    let (mut state, mut card) = busy();

    card.is_busy = true;
    card.stays_enabled = Some(RXDCTL + STRIDE);
    let stuck = Stuck::ReceiveDoesNotStop;
    assert_eq!(
        state.quiesce(&mut card),
        Err(Fault::Queue { queue: 1, stuck })
    );
    assert_eq!(enabled(&card).len(), 4);
    for _ in 0..20 {
        card.read(RDH).unwrap();
    }
    let given: Vec<u32> = (FULL.head..FULL.tail).collect();
    for first in [RDBAL, TDBAL] {
        assert_eq!(done(&card, first), given);
    }
}

/// With any write-back threshold of the guest, completed descriptors are written back, and the
/// guest's threshold is restored.
#[test]
fn completed_descriptors_are_written_back() {
    for threshold in [0, 1, 8, 31] {
        let (mut state, mut card) = busy();
        let control = ENABLE | (threshold * WTHRESH_ONE) | 0x0808;

        for first in [RXDCTL, RXDCTL + STRIDE, TXDCTL, TXDCTL + STRIDE] {
            card.set(first, control);
        }
        card.is_busy = true;
        for _ in 0..3 {
            card.read(RDH).unwrap();
        }
        state.quiesce(&mut card).unwrap();
        assert!(!card.done.is_empty());
        assert_eq!(card.unwritten, [], "threshold {threshold}");

        card.is_busy = false;
        state.resume(&mut card).unwrap();
        assert_eq!(card.get(RXDCTL), control);
        assert_eq!(card.get(TXDCTL), control);
    }
}

/// The I350 has bits that the 82576 lacks: HWBTHRESH, WB_on_EITR, DMACQ_Dis, TPH.
#[test]
fn bits_of_the_i350_are_migrated() {
    let (mut card, mut other_card) = (Card::plain(), Card::plain());
    let mut state = with_queues(&mut card, 1);
    let mut other = with_queues(&mut other_card, 1);
    let bits = [
        (TXDCTL, 0xf801_0808 | ENABLE),
        (TDWBAL, 0x5003),
        (SRRCTL, 0x8200_0082),
        (RXCTL, 0x000f),
        (TXCTL, 0x000b),
    ];

    driver(&mut state, &mut card, &[[FULL; 2]]);
    for (offset, value) in bits {
        card.set(offset, value);
    }
    card.wire = Wire::Dead;
    let to = (&mut other, &mut other_card);
    migrate_queues(1, &mut state, &mut card, to).unwrap();
    for (offset, value) in bits {
        assert_eq!(other_card.get(offset), value, "{offset:x}");
    }
}

/// The removal of a card is detected at the first access, without a timeout.
#[test]
fn removed_card() {
    let (mut state, mut card) = busy();
    let mut other_card = Card::plain();
    let mut other = new(&mut other_card);

    state.quiesce(&mut card).unwrap();
    let plane = state.save(&mut card).unwrap();
    other.quiesce(&mut other_card).unwrap();
    for card in [&mut card, &mut other_card] {
        card.is_gone = true;
    }
    let now = [card.now(), 0];
    assert_eq!(state.resume(&mut card), Err(Fault::Gone));
    assert_eq!(state.save(&mut card), Err(Fault::Gone));
    assert_eq!(other.prepare(&mut other_card, &plane), Err(Fault::Gone));
    assert_eq!(card.now(), now[0], "something was waited for");
    assert_eq!(Fault::Gone.errno(), 19);
}

/// The guest of a removed card reads all ones, as from the other pages, and its writes are ignored.
#[test]
fn guest_of_a_removed_card() {
    let (mut state, mut card) = busy();

    card.is_gone = true;
    for offset in (0..page0::LENGTH).step_by(4) {
        let is_empty = offset == page0::PBACL;
        let expected = if is_empty { 0 } else { u32::MAX };

        assert_eq!(state.read(&mut card, offset), Ok(expected), "{offset:x}");
        assert_eq!(
            state.write(&mut card, offset, u32::MAX),
            Ok(()),
            "{offset:x}"
        );
    }
}

/// All ones in registers that a guest can write do not indicate a removed card.
#[test]
fn all_ones_that_a_guest_wrote() {
    let (mut state, mut card) = busy();

    for offset in [RDBAL + 4, TDBAL + 4, TDWBAH, TDWBAL] {
        card.set(offset, u32::MAX);
    }
    state.quiesce(&mut card).unwrap();
    state.save(&mut card).unwrap();
    state.resume(&mut card).unwrap();
    assert_eq!(card.get(TDWBAH), u32::MAX);
}
