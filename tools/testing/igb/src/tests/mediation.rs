// SPDX-License-Identifier: GPL-2.0

//! Tests that the mediation of page 0 is invisible to a guest.

use proptest::prelude::*;

use super::{
    physical::{Administration, Port},
    strategy::{administration, bare, happens, life, Step},
};
use crate::backend::igb::portable::{
    fault::Fault,
    mailbox::shadow::{Phase, Shadow},
    registers::{
        buffer_word,
        mailbox::{PFACK, PFSTS, REQ, RSTD, VFU},
        page0, vtctrl,
    },
};

/// Executes the guest's part of a step through the mediation.
pub(crate) fn mediated(
    shadow: &mut Shadow,
    port: &mut Port,
    step: Step,
) -> Result<Option<u32>, Fault> {
    match step {
        Step::Read(offset) => shadow.read(port, offset).map(Some),
        Step::Write(offset, value) => shadow.write(port, offset, value).map(|()| None),
        _ => Ok(None),
    }
}

/// Executes a step, and repeats it while its accesses fail.
pub(crate) fn live(shadow: &mut Shadow, port: &mut Port, step: Step) -> Option<u32> {
    let step = happens(port, step)?;

    loop {
        match mediated(shadow, port, step) {
            Ok(value) => return value,
            Err(fault) => assert_eq!(fault, Fault::Reset),
        }
    }
}

proptest! {
    /// A guest reads the same values as without mediation, if the physical function does nothing
    /// while the guest owns the buffer, and if a request releases the buffer.
    #[test]
    fn guest_reads_the_same(administration in administration(), life in life()) {
        let mut shadow = Shadow::new();
        let mut port = Port::new(&administration);
        let mut twin = port.clone();

        for step in life {
            let step = match step {
                Step::Read(_) => step,
                Step::Write(page0::V2PMAILBOX, value) if value & REQ != 0 => {
                    Step::Write(page0::V2PMAILBOX, value & !VFU)
                }
                Step::Write(..) => step,
                _ if twin.is_held() => continue,
                _ => step,
            };
            let value = live(&mut shadow, &mut port, step);
            let expected = happens(&mut twin, step).and_then(|step| bare(&mut twin, step).unwrap());
            prop_assert_eq!(value, expected, "{:?}", step);
        }
    }

    /// A repeated access after a failure has the same effect as without the failure.
    #[test]
    fn failure_changes_nothing(
        administration in administration(),
        life in life(),
        failures in proptest::collection::vec(0..30usize, 0..200),
    ) {
        let (mut shadow, mut twin_shadow) = (Shadow::new(), Shadow::new());
        let mut port = Port::new(&administration);
        let mut twin = port.clone();
        let mut failures = failures.into_iter();

        for step in life {
            if port.fails_in.is_none() {
                port.fails_in = failures.next();
            }
            let value = live(&mut shadow, &mut port, step);
            let expected = live(&mut twin_shadow, &mut twin, step);
            prop_assert_eq!(value, expected, "{:?}", step);
            prop_assert_eq!(shadow.configuration(), twin_shadow.configuration());
            prop_assert_eq!(shadow.phase(), twin_shadow.phase());
        }
    }

    /// The physical function never has to wait for a guest, whatever it does.
    #[test]
    fn guest_never_holds_the_buffer(administration in administration(), life in life()) {
        let mut shadow = Shadow::new();
        let mut port = Port::new(&administration);

        for step in life {
            live(&mut shadow, &mut port, step);
            prop_assert!(!port.is_held(), "{:?}", step);
        }
    }

    /// The generation changes exactly when the configuration changes.
    #[test]
    fn generation(administration in administration(), life in life()) {
        let mut shadow = Shadow::new();
        let mut port = Port::new(&administration);

        for step in life {
            let (before, generation) = (*shadow.configuration(), shadow.generation());
            live(&mut shadow, &mut port, step);
            if *shadow.configuration() != before {
                prop_assert_ne!(shadow.generation(), generation);
            }
        }
    }
}

fn let_in(shadow: &mut Shadow, port: &mut Port) {
    ask(shadow, port, &[1]);
    assert!(shadow.configuration().granted.is_some());
}

/// Posts a request as a driver does, up to the interrupt.
fn post(shadow: &mut Shadow, port: &mut Port, words: &[u32]) {
    shadow.write(port, page0::V2PMAILBOX, VFU).unwrap();
    shadow.read(port, page0::V2PMAILBOX).unwrap();
    for (index, word) in words.iter().enumerate() {
        shadow.write(port, buffer_word(index), *word).unwrap();
    }
    shadow.write(port, page0::V2PMAILBOX, REQ).unwrap();
}

fn ask(shadow: &mut Shadow, port: &mut Port, words: &[u32]) {
    post(shadow, port, words);
    port.interrupt();
    shadow.read(port, page0::V2PMAILBOX).unwrap();
}

const VLAN_5: [u32; 2] = [4 | (1 << 16), 5];

#[test]
fn refused_request_is_not_shadowed() {
    let mut shadow = Shadow::new();
    let mut port = Port::new(&Administration {
        port_vlan: 7,
        ..Administration::default()
    });

    let_in(&mut shadow, &mut port);
    ask(&mut shadow, &mut port, &VLAN_5);
    let granted = shadow.configuration().granted.unwrap();
    assert!(granted.vlans.as_slice().is_empty());
    assert!(!granted.strip);
}

#[test]
fn overwritten_answer_is_presumed_positive() {
    let mut shadow = Shadow::new();
    let mut port = Port::new(&Administration::default());

    let_in(&mut shadow, &mut port);
    post(&mut shadow, &mut port, &VLAN_5);
    port.interrupt();
    port.ping();
    assert!(shadow.poll(&mut port).unwrap());
    assert_eq!(shadow.presumed(), 1);
    assert_eq!(
        shadow
            .configuration()
            .granted
            .unwrap()
            .vlans
            .as_slice()
            .len(),
        1
    );
}

#[test]
fn overwritten_request_has_no_effect() {
    let mut shadow = Shadow::new();
    let mut port = Port::new(&Administration::default());

    let_in(&mut shadow, &mut port);
    post(&mut shadow, &mut port, &VLAN_5);
    port.ping();
    port.interrupt();
    assert!(shadow.poll(&mut port).unwrap());
    assert_eq!(shadow.presumed(), 0);
    assert!(shadow
        .configuration()
        .granted
        .unwrap()
        .vlans
        .as_slice()
        .is_empty());
    assert!(port.filters().vlans.is_empty());
}

#[test]
fn reset_of_the_physical_function_clears_the_configuration() {
    let mut shadow = Shadow::new();
    let mut port = Port::new(&Administration::default());

    let_in(&mut shadow, &mut port);
    ask(&mut shadow, &mut port, &[5, 9000]);
    port.begin_reset();
    port.end_reset();
    let value = shadow.read(&mut port, page0::V2PMAILBOX).unwrap();
    assert_ne!(value & RSTD, 0);
    assert_eq!(shadow.configuration().granted, None);
    assert_eq!(shadow.configuration().frame_size, None);
}

/// Bits that the driver reads are kept until the guest reads them, on the source after a cancelled
/// migration, and on the destination.
#[test]
fn bits_are_kept() {
    let mut shadow = Shadow::new();
    let mut port = Port::new(&Administration::default());

    let_in(&mut shadow, &mut port);
    post(&mut shadow, &mut port, &VLAN_5);
    port.interrupt();
    let page = shadow.save(&mut port).unwrap();
    assert_eq!(page.pending & (PFSTS | PFACK), PFSTS | PFACK);
    assert_eq!(page.phase, Phase::Idle);
    let value = shadow.read(&mut port, page0::V2PMAILBOX).unwrap();
    assert_eq!(value & (PFSTS | PFACK), PFSTS | PFACK);

    let mut other = Shadow::new();
    let mut elsewhere = Port::new(&Administration::default());
    other.restore(shadow.configuration(), &page, [0; 9]);
    let value = other.read(&mut elsewhere, page0::V2PMAILBOX).unwrap();
    assert_eq!(value & (PFSTS | PFACK), PFSTS | PFACK);
    let value = other.read(&mut elsewhere, page0::V2PMAILBOX).unwrap();
    assert_eq!(value & (PFSTS | PFACK), 0);
}

#[test]
fn phases() {
    let mut shadow = Shadow::new();
    let mut port = Port::new(&Administration::default());

    assert_eq!(shadow.phase(), Phase::Idle);
    shadow.write(&mut port, page0::V2PMAILBOX, VFU).unwrap();
    assert_eq!(shadow.phase(), Phase::Owned);
    shadow.write(&mut port, page0::V2PMAILBOX, 0).unwrap();
    assert_eq!(shadow.phase(), Phase::Idle);
    post(&mut shadow, &mut port, &[1]);
    assert_eq!(shadow.phase(), Phase::Asked);
    assert_eq!(shadow.save(&mut port).unwrap().phase, Phase::Asked);
    port.interrupt();
    assert!(shadow.poll(&mut port).unwrap());
    assert_eq!(shadow.phase(), Phase::Idle);
}

#[test]
fn reset_by_the_guest_keeps_the_persistent_configuration() {
    let mut shadow = Shadow::new();
    let mut port = Port::new(&Administration::default());

    let_in(&mut shadow, &mut port);
    ask(&mut shadow, &mut port, &[5, 9000]);
    shadow.write(&mut port, page0::VTCTRL, vtctrl::RST).unwrap();
    assert_eq!(shadow.configuration().granted, None);
    assert_eq!(shadow.configuration().frame_size, Some(9000));
}

/// A message with answer bits is not answered: neither a later message of the physical function nor
/// a failed access between them makes the driver wait for an answer.
#[test]
fn message_after_answer_bits_is_no_answer() {
    let mut shadow = Shadow::new();
    let mut port = Port::new(&Administration::default());

    let_in(&mut shadow, &mut port);
    post(&mut shadow, &mut port, &[0x4000_0100]);
    port.interrupt();
    port.ping();
    assert!(shadow.poll(&mut port).unwrap());
    assert_eq!(shadow.presumed(), 0);
}

/// PBACL is not accessed, because it clears the physical function's pending bits in QEMU's model.
#[test]
fn pending_bits_of_msix_are_not_cleared() {
    struct Untouched;
    impl crate::backend::igb::portable::access::Access for Untouched {
        fn load(&mut self, offset: u32) -> Result<u32, Fault> {
            panic!("read of {offset:#x}");
        }
        fn write(&mut self, offset: u32, _: u32) -> Result<(), Fault> {
            panic!("write of {offset:#x}");
        }
    }
    impl crate::backend::igb::portable::clock::Clock for Untouched {
        fn now(&self) -> u64 {
            0
        }
        fn sleep(&mut self, _: u32) {}
    }

    let mut shadow = Shadow::new();
    assert_eq!(shadow.write(&mut Untouched, page0::PBACL, u32::MAX), Ok(()));
    assert_eq!(shadow.read(&mut Untouched, page0::PBACL), Ok(0));
}
