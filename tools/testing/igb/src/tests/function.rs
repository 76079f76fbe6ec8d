// SPDX-License-Identifier: GPL-2.0

//! Tests of stopping, saving, restoring and resuming a function.

use proptest::{collection::vec, prelude::*};

use super::{
    card::{Card, Heads, Tails, Wire},
    physical::{Address, Administration},
    records::identity,
};
use crate::backend::igb::portable::{
    access::Access,
    clock::Clock,
    fault::{Fault, Stuck},
    mailbox::shadow::Phase,
    queues::probe,
    records::{decode_claim, encode_claim, ControlPlane},
    registers::{buffer_word, interrupt::*, mailbox::*, page0, queue::*},
    state::State,
};

pub(super) const MAC: Address = [0x02, 0x22, 0x22, 0x22, 0x22, 0x22];
const SET_MAC: [u32; 3] = [2, 0x2222_2202, 0x2222];

/// The registers of a ring as set by a driver.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    pub(super) is_enabled: bool,
    pub(super) base: u32,
    pub(super) descriptors: u32,
    pub(super) head: u32,
    pub(super) tail: u32,
}

pub(super) fn ring() -> impl Strategy<Value = Ring> {
    (
        any::<bool>(),
        any::<u32>(),
        1..64u32,
        any::<u32>(),
        any::<u32>(),
    )
        .prop_map(|(is_enabled, base, blocks, head, tail)| {
            let descriptors = blocks * 8;

            Ring {
                is_enabled,
                base: base & !0x7f,
                descriptors,
                head: head % descriptors,
                tail: tail % descriptors,
            }
        })
}

pub(super) const FULL: Ring = Ring {
    is_enabled: true,
    base: 0x1_0000,
    descriptors: 64,
    head: 10,
    tail: 20,
};

/// Sets up the ring with its first register at `first`, as a driver does.
pub(super) fn set_up(card: &mut Card, first: u32, ring: &Ring) {
    card.set(first, ring.base);
    card.set(first + 4, 1);
    card.set(first + 8, ring.descriptors * DESCRIPTOR);
    card.set(first + 0x10, ring.head);
    card.set(first + 0x18, ring.tail);
    card.set(
        first + 0x28,
        0x0001_0808 | if ring.is_enabled { ENABLE } else { 0 },
    );
}

/// Initializes the function as igbvf does, with one queue pair for each of `rings`: receive and
/// transmit.
pub(super) fn driver(state: &mut State, card: &mut Card, rings: &[[Ring; 2]]) {
    ask(state, card, &[1]);
    ask(state, card, &SET_MAC);
    for (offset, value) in [
        (IVAR0, 0x8081),
        (IVAR_MISC, 0x82),
        (EITR, 0x1e8),
        (EITR + 4, 0x7a),
        (EIAC, CAUSES),
        (EIAM, CAUSES),
        (EIMS, CAUSES),
    ] {
        card.write(offset, value).unwrap();
    }
    for (queue, [receive, transmit]) in (0..).zip(rings) {
        set_up(card, RDBAL + queue * STRIDE, receive);
        set_up(card, TDBAL + queue * STRIDE, transmit);
        card.set(SRRCTL + queue * STRIDE, 0x8200_0002);
        card.set(TDWBAL + queue * STRIDE, 0x5000);
    }
    card.writes.clear();
}

/// Posts a request as the guest.
pub(super) fn post(state: &mut State, card: &mut Card, words: &[u32]) {
    state.write(card, page0::V2PMAILBOX, VFU).unwrap();
    for (word, &value) in words.iter().enumerate() {
        state.write(card, buffer_word(word), value).unwrap();
    }
    state.write(card, page0::V2PMAILBOX, REQ).unwrap();
}

/// Posts a request as the guest, and reads the answer.
pub(super) fn ask(state: &mut State, card: &mut Card, words: &[u32]) -> u32 {
    post(state, card, words);
    card.port.interrupt();
    state.read(card, page0::V2PMAILBOX).unwrap();
    state.write(card, page0::V2PMAILBOX, VFU).unwrap();
    let answer = state.read(card, buffer_word(0)).unwrap();
    state.write(card, page0::V2PMAILBOX, ACK).unwrap();
    card.port.interrupt();
    answer
}

pub(super) fn new(card: &mut Card) -> State {
    with_queues(card, QUEUES_MAX)
}

pub(super) fn with_queues(card: &mut Card, queues: usize) -> State {
    assert_eq!(probe(card, queues as u8), Ok(()));
    card.writes.clear();
    State::new(queues as u8)
}

/// Returns a card with a guest that uses both queue pairs.
pub(super) fn busy() -> (State, Card) {
    let mut card = Card::plain();
    let mut state = new(&mut card);

    driver(&mut state, &mut card, &[[FULL; 2]; 2]);
    (state, card)
}

pub(super) fn enabled(card: &Card) -> Vec<u32> {
    [RXDCTL, RXDCTL + STRIDE, TXDCTL, TXDCTL + STRIDE]
        .into_iter()
        .filter(|&control| card.get(control) & ENABLE != 0)
        .collect()
}

/// Returns the index of the first write to `offset` of a value for which `is_so` returns true.
fn place(card: &Card, offset: u32, is_so: impl Fn(u32) -> bool) -> usize {
    let is_it = |&(place, value): &(u32, u32)| place == offset && is_so(value);

    card.writes.iter().position(is_it).unwrap()
}

/// Migrates the function from one card to another.
pub(super) fn migrate(
    state: &mut State,
    card: &mut Card,
    to: (&mut State, &mut Card),
) -> Result<(), Fault> {
    migrate_queues(QUEUES_MAX, state, card, to)
}

pub(super) fn migrate_queues(
    queues: usize,
    state: &mut State,
    card: &mut Card,
    to: (&mut State, &mut Card),
) -> Result<(), Fault> {
    let (other, other_card) = to;
    let identity = identity(queues as u16);

    let claim = encode_claim(state.shadow().configuration()).unwrap();
    let claim = decode_claim(&claim, &identity).unwrap();
    other.quiesce(other_card)?;
    other.rehearse(other_card, &claim)?;
    state.quiesce(card)?;
    state.quiesce(card)?;
    let records = state.save(card)?.encode()?;
    let plane = ControlPlane::decode(&records, &identity)?;
    other.prepare(other_card, &plane)?;
    other.adopt(other_card, &plane)?;
    other.quiesce(other_card)?;
    assert_eq!(other.resume(other_card)?, None);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// The destination has all registers as a driver of either card wrote them. If the function
    /// stays at the source, the source has them, too.
    #[test]
    fn registers_are_migrated(rings in vec([ring(), ring()], 1..=QUEUES_MAX), is_model: bool) {
        let mut card = Card::plain();
        let mut state = with_queues(&mut card, rings.len());
        card.is_model = is_model;
        driver(&mut state, &mut card, &rings);
        // Otherwise the queued descriptors would be sent before the stop.
        card.wire = Wire::Dead;
        let before = card.registers();

        let mut other_card = Card::plain();
        let mut other = with_queues(&mut other_card, rings.len());
        let to = (&mut other, &mut other_card);
        migrate_queues(rings.len(), &mut state, &mut card, to).unwrap();
        let mut expected = before.clone();
        let mut found = other_card.registers();
        // A card does not keep the tails of disabled queues.
        for (queue, [receive, transmit]) in (0..).zip(&rings) {
            for (tail, ring) in [(RDT, receive), (TDT, transmit)] {
                if !ring.is_enabled {
                    expected.remove(&(tail + queue * STRIDE));
                    found.remove(&(tail + queue * STRIDE));
                }
            }
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(other_card.port.filters().mac, Some(MAC));

        prop_assert_eq!(state.resume(&mut card).unwrap(), None);
        prop_assert_eq!(card.registers(), before);
    }

    /// A reset can occur at any time, and is then the only error.
    #[test]
    fn reset_at_each_access(accesses in 0..700usize) {
        let (mut state, mut card) = busy();
        let mut other_card = Card::plain();
        let mut other = new(&mut other_card);

        card.fails_in = Some(accesses / 2);
        other_card.fails_in = Some(accesses);
        match migrate(&mut state, &mut card, (&mut other, &mut other_card)) {
            Ok(()) => {}
            Err(fault) => prop_assert_eq!(fault, Fault::Reset),
        }
        for (state, card) in [(&mut state, &mut card), (&mut other, &mut other_card)] {
            card.fails_in = None;
            *card = Card::plain();
            state.reset();
            // The function runs, so resuming writes nothing.
            prop_assert_eq!(state.resume(card).unwrap(), None);
            prop_assert!(card.writes.is_empty());
        }
    }
}

#[test]
fn receive_stops_before_transmit_and_interrupts_last() {
    let (mut state, mut card) = busy();

    state.quiesce(&mut card).unwrap();
    let is_disabled = |value| value & (ENABLE | SWFLUSH) == 0;
    let places = [
        place(&card, RXDCTL, |value| value & SWFLUSH != 0),
        place(&card, RXDCTL, is_disabled),
        place(&card, RXDCTL + STRIDE, is_disabled),
        place(&card, TXDCTL, |value| value & SWFLUSH != 0),
        place(&card, TXDCTL, is_disabled),
        place(&card, TXDCTL + STRIDE, is_disabled),
        place(&card, EIMC, |value| value == CAUSES),
    ];
    assert!(places.is_sorted(), "{places:?} of {:x?}", card.writes);
    assert_eq!(enabled(&card), []);
}

#[test]
fn queues_are_enabled_before_their_tails_and_interrupts() {
    let (mut state, mut card) = busy();

    state.quiesce(&mut card).unwrap();
    card.writes.clear();
    state.resume(&mut card).unwrap();
    let is_enabled = |value| value & ENABLE != 0;
    let last_enabled = [RXDCTL, RXDCTL + STRIDE, TXDCTL, TXDCTL + STRIDE]
        .map(|control| place(&card, control, is_enabled))
        .into_iter()
        .max();
    let tails = [RDT, RDT + STRIDE, TDT, TDT + STRIDE].map(|tail| {
        let is_it = |write: &(u32, u32)| *write == (tail, FULL.tail);

        card.writes.iter().rposition(is_it).unwrap()
    });
    let unmasked = place(&card, EIMS, |_| true);

    assert!(last_enabled < tails.into_iter().min());
    assert!(tails.is_sorted(), "{tails:?}");
    assert!(tails[3] < unmasked);
    assert!(unmasked < place(&card, EICS, |_| true));
}

#[test]
fn queued_descriptors_are_sent_before_the_stop() {
    let (mut state, mut card) = busy();

    state.quiesce(&mut card).unwrap();
    assert_eq!([card.get(TDH), card.get(TDH + STRIDE)], [FULL.tail; 2]);
    // The receive queue keeps its head.
    assert_eq!(card.get(RDH), FULL.head);
}

#[test]
fn stop_on_a_dead_wire_is_fast() {
    let (mut state, mut card) = busy();

    card.wire = Wire::Dead;
    state.quiesce(&mut card).unwrap();
    assert!(card.now() < 60_000, "{} us", card.now());
    assert_eq!(card.get(TDH), FULL.head);
}

#[test]
fn endless_transmission_is_stopped() {
    let (mut state, mut card) = busy();

    card.wire = Wire::Endless;
    state.quiesce(&mut card).unwrap();
    assert!(card.now() < 2_200_000, "{} us", card.now());
    assert_eq!(enabled(&card), []);
}

/// The error names the queue that does not stop, and all queues continue to run.
#[test]
fn queue_that_does_not_stop() {
    for (control, stuck) in [
        (RXDCTL + STRIDE, Stuck::ReceiveDoesNotStop),
        (TXDCTL + STRIDE, Stuck::TransmitDoesNotStop),
    ] {
        let (mut state, mut card) = busy();

        card.wire = Wire::Dead;
        let before = card.registers();
        card.stays_enabled = Some(control);
        let fault = state.quiesce(&mut card).unwrap_err();
        assert_eq!(fault, Fault::Queue { queue: 1, stuck });
        assert!(card.now() < 120_000, "{} us", card.now());
        assert_eq!(card.registers(), before);

        card.stays_enabled = None;
        state.quiesce(&mut card).unwrap();
        assert_eq!(enabled(&card), []);
    }
}

#[test]
fn queue_that_does_not_start() {
    let (mut state, mut card) = busy();

    state.quiesce(&mut card).unwrap();
    card.stays_disabled = Some(TXDCTL);
    let fault = state.resume(&mut card).unwrap_err();
    assert_eq!(fault.to_string(), "failed to enable queue 0");
    assert_eq!(enabled(&card), []);

    // A second attempt succeeds.
    card.stays_disabled = None;
    state.resume(&mut card).unwrap();
    assert_eq!(enabled(&card).len(), 4);
    assert_eq!(card.get(RDT), FULL.tail);
}

/// The probe detects a card that loses heads, and restores its registers.
#[test]
fn probe_detects_lost_heads() {
    for heads in [Heads::ReadOnly, Heads::Zeroed, Heads::ZeroedLate] {
        let mut card = Card::plain();
        card.heads = heads;
        card.enables_slowly = heads == Heads::ZeroedLate;
        let stuck = Stuck::Head {
            written: 8,
            read: 0,
        };
        probe_fails(card, Fault::Queue { queue: 0, stuck });
    }
}

/// The probe detects a card that would process other descriptors than those up to the tail.
#[test]
fn probe_detects_ignored_tails() {
    let mut card = Card::plain();
    card.tails = Tails::Ignored;
    let stuck = Stuck::Tail {
        written: 8,
        read: 0,
    };
    probe_fails(card, Fault::Queue { queue: 0, stuck });
}

fn probe_fails(mut card: Card, expected: Fault) {
    assert_eq!(probe(&mut card, 1), Err(expected));
    assert_eq!(card.registers(), Card::plain().registers());
}

/// After an earlier driver, no queue runs during or after the probe.
#[test]
fn probe_after_an_earlier_driver() {
    for is_model in [false, true] {
        let (_, mut card) = busy();

        card.is_model = is_model;
        card.is_busy = true;
        assert_eq!(probe(&mut card, QUEUES_MAX as u8), Ok(()));
        assert_eq!(enabled(&card), []);
        // Each queue processes at most one descriptor before the reset. QEMU's model is not reset.
        assert!(is_model || card.done.len() <= 4, "{:x?}", card.done);
    }
}

/// A head that is lost after the probe is an error, too.
#[test]
fn head_that_is_lost_later() {
    let (mut state, mut card) = busy();

    state.quiesce(&mut card).unwrap();
    card.heads = Heads::Zeroed;
    let fault = state.resume(&mut card).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "failed to restore the head of queue 0: wrote 10, read 0"
    );
    assert_eq!(enabled(&card), []);
}

/// Only the vectors of enabled queues are raised, because their pending causes are unknown.
#[test]
fn vectors_that_are_raised() {
    let off = Ring {
        is_enabled: false,
        ..FULL
    };

    for (rings, raised) in [
        ([FULL, FULL], 0b011),
        ([FULL, off], 0b010),
        ([off, FULL], 0b001),
        ([off, off], 0),
    ] {
        for is_model in [false, true] {
            let mut card = Card::plain();
            card.is_model = is_model;
            let mut state = new(&mut card);
            driver(&mut state, &mut card, &[rings]);
            state.quiesce(&mut card).unwrap();
            state.quiesce(&mut card).unwrap();
            assert_eq!(card.sent, 0);
            state.resume(&mut card).unwrap();
            assert_eq!(card.sent, raised, "{rings:?}");
        }
    }
}

/// The vectors are raised at each destination of repeated migrations.
#[test]
fn vectors_that_are_raised_repeatedly() {
    let (mut state, mut card) = busy();

    card.is_model = true;
    for _ in 0..3 {
        let mut other_card = Card::plain();
        other_card.is_model = true;
        let mut other = new(&mut other_card);
        migrate(&mut state, &mut card, (&mut other, &mut other_card)).unwrap();
        assert_eq!(other_card.sent, 0b011);
        (state, card) = (other, other_card);
    }
}

/// The vector of the mailbox is raised only if the guest has a bit to read: igbvf assumes that the
/// link is lost if it reads the mailbox without need.
#[test]
fn vector_of_the_mailbox() {
    let (mut state, mut card) = busy();

    state.quiesce(&mut card).unwrap();
    card.port.ping();
    state.resume(&mut card).unwrap();
    assert_eq!(card.sent, CAUSES);
    let seen = state.read(&mut card, page0::V2PMAILBOX).unwrap();
    assert_eq!(seen & PFSTS, PFSTS);
}

/// The vector of the mailbox is raised if the link state differs from that at the source.
#[test]
fn link_that_differs() {
    for [here, there] in [[true, false], [false, true], [true, true], [false, false]] {
        let (mut state, mut card) = busy();

        card.port.link = here;
        let mut other_card = Card::plain();
        let mut other = new(&mut other_card);
        other_card.port.link = there;
        migrate(&mut state, &mut card, (&mut other, &mut other_card)).unwrap();
        assert_eq!(other_card.sent & 0b100 != 0, here != there);
    }
}

/// A cause whose vector is masked stays pending until the vector is unmasked.
#[test]
fn masked_cause_stays_pending() {
    let (mut state, mut card) = busy();

    card.write(EIAC, 0).unwrap();
    card.write(EIMC, 0b100).unwrap();
    card.write(EICS, 0b100).unwrap();
    let mut other_card = Card::plain();
    let mut other = new(&mut other_card);
    migrate(&mut state, &mut card, (&mut other, &mut other_card)).unwrap();
    assert_eq!(other_card.sent & 0b100, 0);
    other_card.write(EIMS, 0b100).unwrap();
    assert_eq!(other_card.sent & 0b100, 0b100);
}

/// The second stop keeps the vectors that were unmasked before the first.
#[test]
fn vectors_stay_unmasked() {
    let (mut state, mut card) = busy();

    card.write(EIAC, 0).unwrap();
    let mut other_card = Card::plain();
    let mut other = new(&mut other_card);
    migrate(&mut state, &mut card, (&mut other, &mut other_card)).unwrap();
    assert_eq!(other_card.get(EIMS), CAUSES);
}

/// Raised causes were cleared before, because a pending cause is not sent again.
#[test]
fn causes_are_raised_anew() {
    for is_model in [false, true] {
        let (mut state, mut card) = busy();

        card.is_model = is_model;
        card.write(EIAC, 0).unwrap();
        card.write(EIMC, CAUSES).unwrap();
        card.write(EICS, CAUSES).unwrap();
        card.write(EIAC, CAUSES).unwrap();
        assert_eq!(card.sent, 0);
        state.quiesce(&mut card).unwrap();
        state.resume(&mut card).unwrap();
        assert_eq!(card.sent & 0b011, 0b011);
    }
}

/// QEMU's model does not report which vectors are unmasked.
#[test]
fn vectors_of_the_model_are_unmasked() {
    let (mut state, mut card) = busy();

    card.is_model = true;
    // The driver has unmasked one after the other.
    card.write(EIMS, 0b010).unwrap();
    let mut other_card = Card::plain();
    let mut other = new(&mut other_card);
    migrate(&mut state, &mut card, (&mut other, &mut other_card)).unwrap();
    assert_eq!(other_card.get(EIMS), CAUSES);
}

/// A quiesced function accepts tail writes.
#[test]
fn tail_that_moves_while_quiesced() {
    let (mut state, mut card) = busy();

    state.quiesce(&mut card).unwrap();
    card.set(RDT, 33);
    state.resume(&mut card).unwrap();
    assert_eq!(card.get(RDT), 33);

    state.quiesce(&mut card).unwrap();
    card.set(RDT, 44);
    state.quiesce(&mut card).unwrap();
    assert_eq!(enabled(&card), []);
    state.resume(&mut card).unwrap();
    assert_eq!(card.get(RDT), 44);
    assert_eq!(enabled(&card).len(), 4);
}

/// The destination repeats a request without an answer.
#[test]
fn request_that_is_not_answered() {
    let (mut state, mut card) = busy();

    card.port.silent = true;
    post(&mut state, &mut card, &[0x0001_0004, 7]);
    let start = card.now();
    let mut other_card = Card::plain();
    let mut other = new(&mut other_card);
    migrate(&mut state, &mut card, (&mut other, &mut other_card)).unwrap();
    assert!((1_000_000..1_100_000).contains(&(card.now() - start)));

    assert_eq!(other.shadow().phase(), Phase::Asked);
    other_card.port.interrupt();
    let seen = other.read(&mut other_card, page0::V2PMAILBOX).unwrap();
    assert_eq!(seen & (PFSTS | PFACK), PFSTS | PFACK);
    assert_eq!(
        other.read(&mut other_card, buffer_word(0)).unwrap(),
        0xa001_0004
    );
    assert!(other_card.port.filters().vlans.contains(&7));
    assert_eq!(
        other
            .shadow()
            .configuration()
            .granted
            .unwrap()
            .vlans
            .as_slice()
            .len(),
        1
    );
}

/// The destination has an answer that the guest has not yet read.
#[test]
fn answer_that_was_not_read() {
    let (mut state, mut card) = busy();

    post(&mut state, &mut card, &[0x0001_0004, 7]);
    card.port.interrupt();
    let mut other_card = Card::plain();
    let mut other = new(&mut other_card);
    migrate(&mut state, &mut card, (&mut other, &mut other_card)).unwrap();

    assert_eq!(other.shadow().phase(), Phase::Idle);
    assert_eq!(other_card.sent & 0b100, 0b100);
    let seen = other.read(&mut other_card, page0::V2PMAILBOX).unwrap();
    assert_eq!(seen & (PFSTS | PFACK), PFSTS | PFACK);
    assert_eq!(
        other.read(&mut other_card, buffer_word(0)).unwrap(),
        0xa001_0004
    );
}

/// The mailbox's buffer is migrated unchanged: igbvf assumes that the link is lost if the buffer
/// lacks the clear-to-send bit.
#[test]
fn buffer_of_the_mailbox() {
    for (last, phase) in [(VFU, Phase::Owned), (0, Phase::Idle)] {
        let (mut state, mut card) = busy();

        let mut buffer = card.port.buffer();
        buffer[3] = 0x1234;
        state.write(&mut card, page0::V2PMAILBOX, VFU).unwrap();
        state.write(&mut card, buffer_word(3), buffer[3]).unwrap();
        state.write(&mut card, page0::V2PMAILBOX, last).unwrap();
        let mut other_card = Card::plain();
        let mut other = new(&mut other_card);
        migrate(&mut state, &mut card, (&mut other, &mut other_card)).unwrap();

        assert_eq!(other.shadow().phase(), phase);
        assert_eq!(other_card.port.buffer(), buffer);
        let seen = other.read(&mut other_card, page0::V2PMAILBOX).unwrap();
        assert_eq!(seen & VFU, last);
    }
}

/// The source reclaims unicast addresses after a destination on the same card took them and failed.
#[test]
fn unicast_addresses_are_reclaimed() {
    let (mut state, mut card) = busy();
    let add = [0x0002_0002, 0x3333_3302, 0x3333];

    assert_eq!(ask(&mut state, &mut card, &add), 0xa002_0002);
    ask(&mut state, &mut card, &[5, 9000]);
    let before = (card.port.unicast(), card.port.buffer());
    state.quiesce(&mut card).unwrap();
    state.save(&mut card).unwrap();
    card.port.take_unicast();
    assert!(card.port.unicast().is_empty());
    assert_eq!(state.resume(&mut card).unwrap(), None);
    assert_eq!((card.port.unicast(), card.port.buffer()), before);
    assert_eq!(state.read(&mut card, page0::V2PMAILBOX).unwrap(), 0);

    // A failure is reported, but the function is resumed.
    state.quiesce(&mut card).unwrap();
    state.save(&mut card).unwrap();
    card.port.silent = true;
    assert_eq!(
        state.resume(&mut card).unwrap(),
        Some(Fault::PhysicalFunctionSilent)
    );
    assert_eq!(enabled(&card).len(), 4);
}

#[test]
fn function_that_runs_is_not_saved() {
    let (mut state, mut card) = busy();

    assert_eq!(state.save(&mut card), Err(Fault::Runs));
}

/// Closing releases resources only if the guest made a request.
#[test]
fn close_releases_resources() {
    let mut card = Card::plain();
    let mut state = new(&mut card);
    card.port.silent = true;
    let start = card.now();
    assert_eq!(state.close(&mut card), Ok(()));
    assert_eq!(card.now(), start);

    let (mut state, mut card) = busy();
    assert_eq!(card.port.filters().mac, Some(MAC));
    state.close(&mut card).unwrap();
    assert_eq!(card.port.filters().mac, None);

    let (mut state, mut card) = busy();
    card.port.silent = true;
    assert_eq!(state.close(&mut card), Err(Fault::PhysicalFunctionSilent));
    assert!(card.now() < 150_000, "{} us", card.now());
}

/// A refusal is reported while the source runs, and again before the source is closed.
#[test]
fn refusal_is_reported_early() {
    let (mut state, mut card) = busy();
    let fixed = [0x02, 0, 0, 0, 0, 0x77];
    let mut other_card = Card::new(&Administration {
        fixed: Some(fixed),
        ..Administration::default()
    });
    let mut other = new(&mut other_card);

    let refused = |fault: Fault| {
        fault.to_string()
            == "the physical function refuses the MAC address 02:22:22:22:22:22: the host's \
                administrator fixed 02:00:00:00:00:77"
    };
    let claim = *state.shadow().configuration();
    assert!(refused(
        other.rehearse(&mut other_card, &claim).unwrap_err()
    ));
    state.quiesce(&mut card).unwrap();
    let plane = state.save(&mut card).unwrap();
    assert!(refused(other.prepare(&mut other_card, &plane).unwrap_err()));

    state.resume(&mut card).unwrap();
    assert_eq!(enabled(&card).len(), 4);
}

#[test]
fn host_error_keeps_its_number() {
    assert_eq!(Fault::Host(22).errno(), 22);
    assert_eq!(Fault::Host(22).to_string(), "host error 22");
}
