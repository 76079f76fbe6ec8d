// SPDX-License-Identifier: GPL-2.0

//! Tests that exchanges with the physical function terminate, whatever it does.

use super::card::Card;
use crate::backend::igb::portable::{
    access::Access,
    clock::Clock,
    fault::Fault,
    mailbox::{
        exchange::{Exchange, BRIEF, PATIENT},
        message::Request,
        replay::Post,
    },
    registers::{mailbox::*, page0},
};

fn words(request: Request) -> [u32; 16] {
    request.encode()
}

#[test]
fn answer_is_returned_and_acknowledged() {
    let mut card = Card::plain();
    let mut exchange = Exchange::new(&mut card, &PATIENT);

    exchange.reset().unwrap();
    let [head, ..] = exchange.post(&words(Request::Reset)).unwrap();
    // The answer contains no address.
    assert_eq!(head, 0x4000_0001);
    let [head, ..] = exchange.post(&words(Request::SetFrameSize(9000))).unwrap();
    assert_eq!(head, 0xa000_0005);
    assert_eq!(exchange.resets(), 0);
    assert_eq!(card.port.frame_size(), 9000);
    // The buffer has no owner, and no message is pending.
    assert_eq!(card.read(page0::V2PMAILBOX).unwrap(), 0);
}

#[test]
fn silence_ends() {
    for (patience, least, most) in [(&PATIENT, 1_000_000, 1_010_000), (&BRIEF, 100_000, 110_000)] {
        let mut card = Card::plain();
        card.port.silent = true;
        let mut exchange = Exchange::new(&mut card, patience);
        let answer = exchange.post(&words(Request::Reset));

        // The first read reports an earlier reset.
        assert_eq!(answer, Err(Fault::PhysicalFunctionResets));
        exchange.reset().unwrap();
        let start = exchange.now();
        let answer = exchange.post(&words(Request::Reset));
        assert_eq!(answer, Err(Fault::PhysicalFunctionSilent));
        assert!((least..most).contains(&(card.now() - start)));
    }
}

/// A physical function that answers each request just before its timeout reaches the timeout of the
/// whole exchange.
#[test]
fn slowness_ends() {
    let mut card = Card::plain();
    card.interval = 900_000;
    let mut exchange = Exchange::new(&mut card, &PATIENT);
    exchange.reset().unwrap();
    let answers = (0..60).map(|_| exchange.post(&words(Request::Reset)));
    let answered = answers.take_while(Result::is_ok).count();

    assert!((9..13).contains(&answered), "{answered} answers");
    assert!((10_000_000..10_010_000).contains(&card.now()));
}

#[test]
fn buffer_that_is_not_released() {
    let mut card = Card::plain();
    Exchange::new(&mut card, &PATIENT).reset().unwrap();
    card.port.holds_buffer = true;
    let start = card.now();
    let mut exchange = Exchange::new(&mut card, &PATIENT);

    assert_eq!(
        exchange.post(&words(Request::Reset)),
        Err(Fault::MailboxTaken)
    );
    assert_eq!(exchange.put(&[0; 16], true), Err(Fault::MailboxTaken));
    assert!(card.now() - start < 250_000);
}

/// The physical function's interface is down.
#[test]
fn reset_that_does_not_end() {
    let mut card = Card::plain();
    card.port.begin_reset();
    let mut exchange = Exchange::new(&mut card, &PATIENT);

    assert_eq!(exchange.reset(), Err(Fault::PhysicalFunctionSilent));
    assert_eq!(exchange.resets() & RSTI, RSTI);
    assert!((2_000_000..2_010_000).contains(&card.now()));

    card.port.end_reset();
    Exchange::new(&mut card, &PATIENT).reset().unwrap();
}

#[test]
fn reset_between_exchanges_is_reported() {
    let mut card = Card::plain();
    let mut exchange = Exchange::new(&mut card, &PATIENT);
    exchange.reset().unwrap();
    exchange.post(&words(Request::Reset)).unwrap();
    card.port.begin_reset();
    card.port.end_reset();
    let mut exchange = Exchange::new(&mut card, &PATIENT);

    let request = words(Request::SetFrameSize(9000));
    assert_eq!(exchange.post(&request), Err(Fault::PhysicalFunctionResets));
    assert_eq!(exchange.resets(), RSTD);
}

#[test]
fn buffer_is_restored() {
    let mut card = Card::plain();
    Exchange::new(&mut card, &PATIENT).reset().unwrap();
    let buffer = std::array::from_fn(|word| word as u32 * 3);

    for is_kept in [false, true] {
        Exchange::new(&mut card, &PATIENT)
            .put(&buffer, is_kept)
            .unwrap();
        assert_eq!(card.port.buffer(), buffer);
        assert_eq!(card.read(page0::V2PMAILBOX).unwrap() & VFU != 0, is_kept);
    }
}
