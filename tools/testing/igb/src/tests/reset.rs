// SPDX-License-Identifier: GPL-2.0

//! Tests of resets of the physical function while a function is stopped.

use super::{
    card::Card,
    function::{busy, enabled, new, post},
};
use crate::backend::igb::portable::{
    clock::Clock,
    mailbox::shadow::Phase,
    registers::{interrupt::CAUSES, mailbox::*, page0},
    state::State,
};

/// Asserts that the function resumes without its queues, and that the guest sees the reset.
fn guest_sees_the_reset(state: &mut State, card: &mut Card, bit: u32) {
    card.sent = 0;
    assert_eq!(state.resume(card), Ok(None));
    assert_eq!(enabled(card), []);
    // Only the vector of the mailbox.
    assert_eq!(card.sent & CAUSES, 0b100);
    assert_eq!(state.shadow().configuration().granted, None);
    let seen = state.read(card, page0::V2PMAILBOX).unwrap();
    assert_eq!(seen & bit, bit);
}

#[test]
fn reset_of_the_source_while_it_is_stopped() {
    for (ends, bit) in [(true, RSTD), (false, RSTI)] {
        let (mut state, mut card) = busy();

        state.quiesce(&mut card).unwrap();
        state.save(&mut card).unwrap();
        card.begin_reset();
        if ends {
            card.port.end_reset();
        }
        guest_sees_the_reset(&mut state, &mut card, bit);
    }
}

#[test]
fn reset_of_the_destination_before_it_runs() {
    for (ends, bit) in [(true, RSTD), (false, RSTI)] {
        for is_adopted in [false, true] {
            let (mut state, mut card) = busy();
            let mut other_card = Card::plain();
            let mut other = new(&mut other_card);

            state.quiesce(&mut card).unwrap();
            let plane = state.save(&mut card).unwrap();
            other.quiesce(&mut other_card).unwrap();
            other.prepare(&mut other_card, &plane).unwrap();
            if is_adopted {
                other.adopt(&mut other_card, &plane).unwrap();
            }
            other_card.begin_reset();
            if ends {
                other_card.port.end_reset();
            }
            if !is_adopted {
                other.adopt(&mut other_card, &plane).unwrap();
            }
            guest_sees_the_reset(&mut other, &mut other_card, bit);
        }
    }
}

/// A message with answer bits is not answered, and the driver does not wait for an answer.
#[test]
fn message_that_is_never_answered() {
    for head in [0x8000_0004, 0x4000_0004, 0xc001_0004] {
        let (mut state, mut card) = busy();

        post(&mut state, &mut card, &[head, 7]);
        card.port.interrupt();
        state.quiesce(&mut card).unwrap();
        let start = card.now();
        assert_eq!(state.save(&mut card).unwrap().page0.phase, Phase::Idle);
        assert!(card.now() - start < 1_000, "{head:x}");
        // The guest sees that the message was read.
        let seen = state.read(&mut card, page0::V2PMAILBOX).unwrap();
        assert_eq!(seen & (PFACK | PFSTS), PFACK);
    }
}
