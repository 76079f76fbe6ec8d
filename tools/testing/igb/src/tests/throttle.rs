// SPDX-License-Identifier: GPL-2.0

//! Tests that a malicious guest delays only itself.

use super::physical::{Administration, Port};
use crate::backend::igb::portable::{
    mailbox::{
        shadow::Shadow,
        throttle::{BURST, INTERVAL},
    },
    registers::{buffer_word, mailbox::*, page0, vtctrl},
};

fn new() -> (Shadow, Port) {
    (Shadow::new(), Port::new(&Administration::default()))
}

/// The number of interrupts of the physical function per time is limited, for every way to cause
/// them.
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

/// For a guest that changes the buffer, the function's ownership of the buffer is limited, too.
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

/// The initialization of a driver is not delayed, if repeated at most about once per second.
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
        assert_eq!(slept % 1_000_000, 0, "the driver was delayed");
        port.slept += 1_000_000;
    }
}

/// The wait for a physical function that does not release the buffer times out, and the guest's
/// request is not posted.
#[test]
fn buffer_that_is_not_released() {
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

    // The guest does not own the buffer while the physical function does.
    port.interrupt();
    port.holds_buffer = true;
    shadow.write(&mut port, page0::V2PMAILBOX, VFU).unwrap();
    let value = shadow.read(&mut port, page0::V2PMAILBOX).unwrap();
    assert_eq!(value & (VFU | PFU), PFU);
}

/// A message that arrives while the guest owns the buffer is visible after the release, unless the
/// guest has posted a request.
#[test]
fn message_while_the_guest_owns_the_buffer() {
    for (last, is_visible) in [(0, true), (ACK, true), (REQ, false)] {
        let (mut shadow, mut port) = new();

        shadow.write(&mut port, page0::V2PMAILBOX, VFU).unwrap();
        shadow.write(&mut port, buffer_word(0), 0x1234).unwrap();
        port.ping();
        let value = shadow.read(&mut port, page0::V2PMAILBOX).unwrap();
        assert_eq!(value & (VFU | PFSTS), VFU);
        assert_eq!(shadow.read(&mut port, buffer_word(0)), Ok(0x1234));

        shadow.write(&mut port, page0::V2PMAILBOX, last).unwrap();
        let value = shadow.read(&mut port, page0::V2PMAILBOX).unwrap();
        assert_eq!(value & (VFU | PFSTS), if is_visible { PFSTS } else { 0 });
        let found = shadow.read(&mut port, buffer_word(0)).unwrap();
        assert_eq!(found, if is_visible { 0x0100 } else { 0x1234 });
    }
}
