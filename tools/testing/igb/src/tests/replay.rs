// SPDX-License-Identifier: GPL-2.0

//! Tests that the resources of one physical function are obtained from another, or that the refused
//! resource is reported.

use proptest::{collection::vec, prelude::*};

use super::{
    mediation::live,
    physical::{Address, Administration, Disturbance, Filters, Port},
    strategy::{address, administration, life, message},
};
use crate::backend::igb::portable::{
    fault::Fault,
    mailbox::{
        configuration::Configuration,
        message::Request,
        replay::{reassert, rehearse, replay, tidy, Post},
        shadow::{Page0, Phase, Shadow},
    },
};

fn disturbances() -> impl Strategy<Value = Vec<Disturbance>> {
    vec(
        prop_oneof![
            12 => Just(Disturbance::None),
            1 => Just(Disturbance::Before),
            1 => Just(Disturbance::After),
        ],
        0..60,
    )
}

/// Maximum number of attempts for a request.
const ATTEMPTS: usize = 3;

/// Returns a port with the resources of an earlier guest.
fn used_port(administration: &Administration, leftovers: &[Vec<u32>]) -> Port {
    let mut port = Port::new(administration);

    Post::reset(&mut port).unwrap();
    for words in [&vec![1]].into_iter().chain(leftovers) {
        let mut buffer = [0; 16];
        buffer[..words.len()].copy_from_slice(words);
        port.post(&buffer).ok();
    }
    port
}

fn mac_of(configuration: &Configuration) -> Option<Address> {
    configuration
        .granted
        .and_then(|granted| granted.mac)
        .map(|mac| mac.bytes())
}

/// Returns whether the earlier state of the port justifies the fault.
fn is_justified(
    fault: Fault,
    port: &Port,
    administration: &Administration,
    configuration: &Configuration,
) -> bool {
    let denied = administration.fixed.is_some() && !administration.trusted;

    match fault {
        Fault::MacRefused { wanted, fixed } => {
            denied
                && Some(wanted.bytes()) == mac_of(configuration)
                && fixed.map(|mac| mac.bytes()) == administration.fixed
                && administration.fixed != Some(wanted.bytes())
        }
        Fault::UnicastRefused { address } => {
            configuration.unicast.contains(address) && (denied || !port.has_free_unicast())
        }
        Fault::VlanRefused { .. } | Fault::VlanStrippingRefused => {
            administration.port_vlan != 0 || !port.has_free_vlan()
        }
        _ => false,
    }
}

/// Executes the steps of a guest, and stops it in its last state.
fn source(
    administration: &Administration,
    life: Vec<super::strategy::Step>,
) -> (Shadow, Port, Page0) {
    let mut shadow = Shadow::new();
    let mut port = Port::new(administration);

    for step in life {
        live(&mut shadow, &mut port, step);
    }
    // The physical function handles resets immediately.
    port.take_note_of_resets();
    port.end_reset();
    let page = shadow.save(&mut port).unwrap();
    (shadow, port, page)
}

/// Asserts that `destination` has the resources of `source`.
fn assert_same(
    source: &Port,
    destination: &Port,
    configuration: &Configuration,
) -> Result<(), TestCaseError> {
    let (clear_to_send, collided) = source.is_clear_to_send();
    let (source_vlan, destination_vlan) = (source.port_vlan(), destination.port_vlan());

    if clear_to_send {
        prop_assert!(destination.is_clear_to_send().0);
        let (source, mut found) = (source.filters(), destination.filters());
        // A guest without an address does not require one.
        if source.mac.is_none() {
            found.mac = None;
        }
        // A VLAN that an administrator has fixed is not the guest's. It is effective only if a
        // filter was free, and the guest cannot have obtained another one.
        if source_vlan != 0 || destination_vlan != 0 {
            let granted = configuration.granted.unwrap();
            prop_assert!(granted.vlans.as_slice().is_empty() && !granted.strip);
            (found.vlans, found.strip) = (source.vlans.clone(), source.strip);
        }
        prop_assert_eq!(found, source);
    } else if !collided {
        prop_assert!(!destination.is_clear_to_send().0);
    }
    if *configuration != Configuration::NONE {
        prop_assert_eq!(destination.unicast(), source.unicast());
    }
    if configuration.frame_size.is_some() {
        prop_assert_eq!(destination.frame_size(), source.frame_size());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// After any steps of a guest and any disturbances, the other physical function has the same
    /// resources, or the reported fault is justified.
    #[test]
    fn destination_has_what_the_source_had(
        here in administration(),
        life in life(),
        there in administration(),
        leftovers in vec(message(), 0..8),
        disturbances in disturbances(),
    ) {
        let (shadow, mut port, page) = source(&here, life);
        let configuration = *shadow.configuration();
        let mut other = used_port(&there, &leftovers);

        // A trusted guest may have changed a fixed address since.
        let there = Administration { fixed: there.fixed.and(other.filters().mac), ..there };
        other.disturbances = disturbances.into();
        let is_asked = page.phase == Phase::Asked;
        let replayed = replay(&mut other, &configuration);
        if replayed == Err(Fault::PhysicalFunctionSilent) {
            // Every attempt was disturbed. Without disturbances, a repetition succeeds.
            other.disturbances.clear();
        }
        let replayed = match replayed {
            Err(Fault::PhysicalFunctionSilent) => replay(&mut other, &configuration),
            _ => replayed,
        };

        // An overwritten refusal is unknown to the driver and to the guest.
        let is_known = shadow.presumed() == 0 || here.is_plain();
        match replayed {
            Ok(()) if is_known => {
                assert_same(&port, &other, &configuration)?;
                // If the hosts are equivalent, a pending request has the same answer on both.
                let are_alike = here.is_plain() && there.is_plain();
                let request = Request::decode(&page.buffer);
                let is_alone = !matches!(request, Request::AddUnicast(_));
                // Across its own reset, `igb` keeps an address that no guest has any more.
                let is_remembered = request == Request::Reset
                    && mac_of(&configuration).is_none()
                    && port.remembers_address();
                if is_asked && port.has_request() && are_alike && is_alone && !is_remembered {
                    other.leave(&page.buffer).unwrap();
                    port.interrupt();
                    other.interrupt();
                    assert_same(&port, &other, &configuration)?;
                }
            }
            Ok(()) => {}
            Err(fault) => prop_assert!(
                is_justified(fault, &other, &there, &configuration),
                "{fault}: {configuration:?} {there:?}"
            ),
        }
    }

    /// A rehearsal at any time does not affect other functions, and keeps no resources.
    #[test]
    fn rehearsal_keeps_nothing(
        here in administration(),
        life in life(),
        there in administration(),
    ) {
        let (shadow, _, _) = source(&here, life);
        let configuration = *shadow.configuration();
        let mut other = Port::new(&there);
        let unicast = other.unicast();
        let rehearsed = rehearse(&mut other, &configuration);

        prop_assert!(!other.is_clear_to_send().0);
        prop_assert_eq!(other.unicast(), unicast);
        let left = Filters {
            mac: there.fixed,
            vlans: (there.port_vlan != 0).then_some(there.port_vlan).into_iter().collect(),
            strip: there.port_vlan != 0,
            multicast_count: 0,
            hashes: Vec::new(),
            promiscuous: false,
        };
        let mut found = other.filters();
        // The function has the port's VLAN if it was reset at least once and a filter was free.
        if found.vlans.is_empty() {
            found.vlans.clone_from(&left.vlans);
            found.strip = left.strip;
        }
        prop_assert_eq!(found, left);

        // The rehearsal predicts the result of the replay, except for the unicast addresses.
        let replayed = replay(&mut other, &configuration);
        match (rehearsed, replayed) {
            (Ok(()), Err(Fault::UnicastRefused { .. })) => {}
            (Err(_), Err(_)) => {}
            (rehearsed, replayed) => prop_assert_eq!(rehearsed, replayed),
        }
    }

    /// No frames are directed to a function after its last use.
    #[test]
    fn tidy_releases_all_filters(here in administration(), life in life()) {
        let (_, mut port, _) = source(&here, life);

        tidy(&mut port).unwrap();
        prop_assert_eq!(port.filters().mac, here.fixed.and(port.filters().mac));
        if here.fixed.is_none() || here.trusted {
            prop_assert!(port.unicast().is_empty());
        }
    }

    /// A resumed source has its unicast addresses again.
    #[test]
    fn source_reclaims_its_addresses(addresses in vec(address(), 0..12)) {
        let mut port = Port::new(&Administration::default());
        let mut shadow = Shadow::new();

        Post::reset(&mut port).unwrap();
        for words in [Request::Reset.encode()].into_iter().chain(addresses.iter().map(|&mac| {
            let [a, b, c, d, e, f] = mac;
            let mut words = [0; 16];
            words[0] = 0x0002_0002;
            words[1] = u32::from_le_bytes([a, b, c, d]);
            words[2] = u32::from_le_bytes([e, f, 0, 0]);
            words
        })) {
            use crate::backend::igb::portable::registers::{
                buffer_word,
                mailbox::{REQ, VFU},
                page0,
            };

            shadow.write(&mut port, page0::V2PMAILBOX, VFU).unwrap();
            for (index, word) in words.into_iter().enumerate() {
                shadow.write(&mut port, buffer_word(index), word).unwrap();
            }
            shadow.write(&mut port, page0::V2PMAILBOX, REQ).unwrap();
            port.interrupt();
            shadow.poll(&mut port).unwrap();
        }
        let before = port.unicast();
        let configuration = *shadow.configuration();
        prop_assert_eq!(before.len(), configuration.unicast.as_slice().len());

        // A destination has taken the addresses and was closed.
        port.post(&Request::ClearUnicast.encode()).unwrap();
        prop_assert!(port.unicast().is_empty());
        reassert(&mut port, &configuration).unwrap();
        prop_assert_eq!(port.unicast(), before);
    }
}

fn configured(words: &[&[u32]]) -> Configuration {
    let life = words.iter().flat_map(|words| {
        use super::strategy::Step::*;
        use crate::backend::igb::portable::registers::{
            buffer_word,
            mailbox::{REQ, VFU},
            page0,
        };

        let buffer = words
            .iter()
            .enumerate()
            .map(|(index, &word)| Write(buffer_word(index), word));
        [Write(page0::V2PMAILBOX, VFU)]
            .into_iter()
            .chain(buffer)
            .chain([
                Write(page0::V2PMAILBOX, REQ),
                Interrupt,
                Read(page0::V2PMAILBOX),
            ])
    });

    *source(&Administration::default(), life.collect())
        .0
        .configuration()
}

const MAC: [&[u32]; 2] = [&[1], &[2, 0x2222_2202, 0x2222]];

#[test]
fn silence_is_reported() {
    let mut port = Port::new(&Administration::default());

    port.silent = true;
    let configuration = configured(&MAC);
    assert_eq!(
        replay(&mut port, &configuration),
        Err(Fault::PhysicalFunctionSilent)
    );
    assert_eq!(
        rehearse(&mut port, &configuration),
        Err(Fault::PhysicalFunctionSilent)
    );
}

#[test]
fn fixed_address_is_reported() {
    let fixed = [0x02, 0, 0, 0, 0, 0x77];
    let mut port = Port::new(&Administration {
        fixed: Some(fixed),
        ..Administration::default()
    });
    let fault = rehearse(&mut port, &configured(&MAC)).unwrap_err();

    assert_eq!(
        fault.to_string(),
        "the physical function refuses the MAC address 02:22:22:22:22:22: \
         the host's administrator fixed 02:00:00:00:00:77"
    );
    assert_eq!(fault.errno(), 99);
}

/// The same address is fixed on both hosts, as the guide recommends.
#[test]
fn same_fixed_address_on_both_hosts() {
    let mut port = Port::new(&Administration {
        fixed: Some([0x02, 0x22, 0x22, 0x22, 0x22, 0x22]),
        ..Administration::default()
    });

    assert_eq!(replay(&mut port, &configured(&MAC)), Ok(()));
}

#[test]
fn full_filters_are_reported() {
    let mut port = Port::new(&Administration {
        vlans: 31,
        ..Administration::default()
    });
    let vlan = configured(&[&[1], &[0x0001_0004, 5]]);
    let fault = rehearse(&mut port, &vlan).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "the physical function refuses VLAN 5: its filters are full, or the host's administrator \
         fixed a VLAN"
    );

    let strip = configured(&[&[1], &[0x0001_0004, 5], &[0x0000_0004, 5]]);
    assert_eq!(
        rehearse(&mut port, &strip),
        Err(Fault::VlanStrippingRefused)
    );
}

/// A guest whose last requested VLAN does not have the highest id.
#[test]
fn order_of_vlans() {
    for (words, strip) in [
        (vec![[0x0001_0004, 0], [0x0001_0004, 5]], true),
        (vec![[0x0001_0004, 5], [0x0001_0004, 0]], false),
        (vec![[0x0001_0004, 5], [0x0000_0004, 5]], true),
        (
            vec![[0x0001_0004, 0], [0x0001_0004, 5], [0x0000_0004, 5]],
            true,
        ),
        (
            vec![[0x0001_0004, 5], [0x0001_0004, 0], [0x0000_0004, 0]],
            false,
        ),
    ] {
        let words: Vec<&[u32]> = words.iter().map(|words| &words[..]).collect();
        let configuration = configured(&[&[&[1][..]], &words[..]].concat());
        let mut port = Port::new(&Administration::default());

        replay(&mut port, &configuration).unwrap();
        assert_eq!(port.filters().strip, strip, "{words:x?}");
    }
}

/// Disturbances of every attempt, and of one more.
#[test]
fn disturbed_too_often() {
    let mut port = Port::new(&Administration::default());
    port.disturbances = vec![Disturbance::After; ATTEMPTS - 1].into();
    // The first request enables the function. Afterwards its messages are clear to send.
    assert_eq!(replay(&mut port, &configured(&MAC)), Ok(()));

    port.disturbances = vec![Disturbance::After; ATTEMPTS].into();
    assert_eq!(
        replay(&mut port, &configured(&MAC)),
        Err(Fault::PhysicalFunctionSilent)
    );
}
