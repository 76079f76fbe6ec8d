// SPDX-License-Identifier: GPL-2.0

//! A guest that means harm delays itself, and nobody else.

use super::physical::{Administration, Port};
use crate::backend::igb::{
    mailbox::{
        shadow::Shadow,
        throttle::{BURST, INTERVAL},
    },
    registers::{buffer_word, mailbox::*, page0, vtctrl},
};

fn new() -> (Shadow, Port) {
    (Shadow::new(), Port::new(&Administration::default()))
}

/// By whatever it does: so many interrupts of the physical function, and no more, in so much time.
#[test]
fn interrupts_are_limited() {
    let (mailbox, control) = (page0::V2PMAILBOX, page0::VTCTRL);
    let ways: [&[(u32, u32)]; 6] = [
        &[(mailbox, REQ)],
        &[(mailbox, ACK)],
        &[(mailbox, REQ | ACK | VFU)],
        &[(control, vtctrl::RST)],
        &[(mailbox, VFU), (mailbox, REQ)],
        &[(mailbox, VFU), (mailbox, ACK), (control, vtctrl::RST)],
    ];

    for way in ways {
        let (mut shadow, mut port) = new();

        for &(offset, value) in way.iter().cycle().take(3000) {
            shadow.write(&mut port, offset, value).unwrap();
            let allowed = BURST + port.slept / INTERVAL;
            assert!(port.interrupts as u64 <= allowed, "{way:x?}");
        }
        assert!(port.interrupts > 900, "{way:x?}");
    }
}

/// So is how often the function owns the buffer itself, for a guest that changes it.
#[test]
fn changes_of_the_buffer_are_limited() {
    let (mut shadow, mut port) = new();

    for round in 0..2000 {
        shadow.write(&mut port, page0::V2PMAILBOX, VFU).unwrap();
        shadow.write(&mut port, buffer_word(0), round).unwrap();
        shadow.write(&mut port, page0::V2PMAILBOX, 0).unwrap();
    }
    assert!(port.slept >= (1999 - BURST) * INTERVAL);
}

/// A driver that sets up is not delayed, however often it does so in a second or more.
#[test]
fn drivers_are_not_delayed() {
    let (mut shadow, mut port) = new();

    for _ in 0..20 {
        for word in 0..60 {
            shadow.write(&mut port, page0::V2PMAILBOX, VFU).unwrap();
            shadow.write(&mut port, buffer_word(1), word).unwrap();
            shadow.write(&mut port, page0::V2PMAILBOX, REQ).unwrap();
            shadow.write(&mut port, page0::V2PMAILBOX, ACK).unwrap();
        }
        let slept = port.slept;
        assert_eq!(slept % 1_000_000, 0, "it was delayed");
        port.slept += 1_000_000;
    }
}

/// A physical function that does not give the buffer back is not waited for for long, and the guest
/// has made no request then.
#[test]
fn buffer_that_is_not_given_back() {
    let (mut shadow, mut port) = new();

    shadow.write(&mut port, page0::V2PMAILBOX, VFU).unwrap();
    shadow.write(&mut port, buffer_word(0), 1).unwrap();
    port.holds_buffer = true;
    shadow.write(&mut port, page0::V2PMAILBOX, REQ).unwrap();
    assert!(!port.has_request());
    assert!((10_000..11_000).contains(&port.slept));
    let value = shadow.read(&mut port, page0::V2PMAILBOX).unwrap();
    assert_eq!(value & (VFU | PFU), VFU);

    port.holds_buffer = false;
    shadow.write(&mut port, page0::V2PMAILBOX, REQ).unwrap();
    assert!(port.has_request());
    assert_eq!(port.buffer()[0], 1);

    // Nor does a guest own what the physical function owns.
    port.interrupt();
    port.holds_buffer = true;
    shadow.write(&mut port, page0::V2PMAILBOX, VFU).unwrap();
    let value = shadow.read(&mut port, page0::V2PMAILBOX).unwrap();
    assert_eq!(value & (VFU | PFU), PFU);
}

/// A message that comes while the guest owns the buffer is there when it gives that back, unless it
/// has made a request.
#[test]
fn message_that_comes_meanwhile() {
    for (last, is_told) in [(0, true), (ACK, true), (REQ, false)] {
        let (mut shadow, mut port) = new();

        shadow.write(&mut port, page0::V2PMAILBOX, VFU).unwrap();
        shadow.write(&mut port, buffer_word(0), 0x1234).unwrap();
        port.ping();
        let value = shadow.read(&mut port, page0::V2PMAILBOX).unwrap();
        assert_eq!(value & (VFU | PFSTS), VFU);
        assert_eq!(shadow.read(&mut port, buffer_word(0)), Ok(0x1234));

        shadow.write(&mut port, page0::V2PMAILBOX, last).unwrap();
        let value = shadow.read(&mut port, page0::V2PMAILBOX).unwrap();
        assert_eq!(value & (VFU | PFSTS), if is_told { PFSTS } else { 0 });
        let found = shadow.read(&mut port, buffer_word(0)).unwrap();
        assert_eq!(found, if is_told { 0x0100 } else { 0x1234 });
    }
}
