// SPDX-License-Identifier: GPL-2.0

//! Tests of the records of the control plane.

use proptest::{array, collection::vec, option, prelude::*};

use crate::{
    backend::igb::portable::{
        fault::Fault,
        mailbox::{
            configuration::{Configuration, Granted},
            message::{Mac, Multicast, Vid},
            set::Set,
            shadow::{Page0, Phase},
        },
        records::{
            decode_claim, encode_claim, ControlPlane, Interrupt, Routes, CONTROL_PLANE_MAX,
            RECORD_VERSION,
        },
        registers::{interrupt::*, mailbox::READ_TO_CLEAR, queue::*},
        saved::{Queue, Ring},
    },
    layer::identity::Identity,
    seam,
};

pub(crate) fn identity(queues: u16) -> Identity {
    Identity {
        vendor: 0x8086,
        device: if queues == 2 { 0x10ca } else { 0x1520 },
        vifa_revision: 1,
        interrupt_vectors: 3,
        queues,
        control_plane_max: CONTROL_PLANE_MAX,
        record_version: RECORD_VERSION,
        ..Identity::default()
    }
}

fn set<T: Copy + Ord, const N: usize>(filler: T, values: Vec<T>) -> Set<T, N> {
    let mut set = Set::new(filler);

    for value in values {
        set.insert(value);
    }
    set
}

fn mac() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_filter_map("an address of a function", |mut bytes| {
        bytes[0] &= !1;
        Mac::new(bytes)
    })
}

fn vid() -> impl Strategy<Value = Vid> {
    (0..4096u16).prop_map(|raw| Vid::new(raw).unwrap())
}

fn multicast() -> impl Strategy<Value = Multicast> {
    (any::<u8>(), array::uniform30(any::<u16>()))
        .prop_map(|(count, hashes)| Multicast::new(count, hashes))
}

fn granted() -> impl Strategy<Value = Granted> {
    (
        option::of(mac()),
        vec(vid(), 0..40),
        any::<bool>(),
        option::of(multicast()),
        any::<bool>(),
    )
        .prop_map(
            |(mac, vlans, strip, multicast, multicast_promiscuous)| Granted {
                mac,
                vlans: set(Vid::NONE, vlans),
                strip,
                multicast,
                multicast_promiscuous,
            },
        )
}

fn configuration() -> impl Strategy<Value = Configuration> {
    (
        option::of(granted()),
        vec(mac(), 0..40),
        option::of(0..=0x3f00u16),
    )
        .prop_map(|(granted, unicast, frame_size)| Configuration {
            granted,
            unicast: set(Mac::PLACEHOLDER, unicast),
            frame_size,
        })
}

fn ring(control: u32, cache: u32) -> impl Strategy<Value = Ring> {
    let register = any::<u32>;

    (
        any::<bool>(),
        any::<[u32; 3]>(),
        register(),
        register(),
        register(),
        register(),
    )
        .prop_map(
            move |(
                is_enabled,
                [base_low, base_high, length],
                head,
                tail,
                control_raw,
                cache_raw,
            )| {
                let length = length & LENGTH_BITS;
                let index = |index: u32| {
                    if is_enabled {
                        index % (length / 16).max(1)
                    } else {
                        index & INDEX_BITS
                    }
                };

                Ring {
                    is_enabled,
                    base_low: base_low & BASE_BITS,
                    base_high,
                    length,
                    head: index(head),
                    tail: index(tail),
                    control: control_raw & control,
                    cache: cache_raw & cache,
                }
            },
        )
}

fn queue() -> impl Strategy<Value = Queue> {
    (
        ring(TXDCTL_BITS, TXCTL_BITS),
        ring(RXDCTL_BITS, RXCTL_BITS),
        any::<[u32; 3]>(),
    )
        .prop_map(|(transmit, receive, [low, high, split])| Queue {
            transmit,
            write_back_low: low & TDWBAL_BITS,
            write_back_high: high,
            receive,
            split: split & SRRCTL_BITS,
        })
}

fn interrupt() -> impl Strategy<Value = Interrupt> {
    (any::<[bool; 4]>(), any::<u32>()).prop_map(
        |([is_unmasked, auto_clear, auto_mask, is_pending], throttle)| Interrupt {
            is_unmasked,
            auto_clear,
            auto_mask,
            is_pending,
            throttle: throttle & EITR_INTERVAL,
        },
    )
}

fn page0() -> impl Strategy<Value = Page0> {
    (
        prop_oneof![Just(Phase::Idle), Just(Phase::Owned), Just(Phase::Asked)],
        any::<[u32; 16]>(),
        any::<u32>(),
        any::<u32>(),
        any::<bool>(),
        any::<[u32; 9]>(),
    )
        .prop_map(
            |(phase, buffer, pending, packet_split, link, counters)| Page0 {
                phase,
                buffer,
                pending: pending & READ_TO_CLEAR,
                packet_split,
                link,
                counters,
            },
        )
}

fn control_plane() -> impl Strategy<Value = (ControlPlane, Identity)> {
    (
        configuration(),
        queue(),
        option::of(queue()),
        array::uniform3(interrupt()),
        any::<[u32; 2]>(),
        page0(),
    )
        .prop_map(
            |(configuration, first, second, interrupts, [queues, mailbox], page0)| {
                let control_plane = ControlPlane {
                    configuration,
                    queues: [Some(first), second],
                    interrupts,
                    routes: Routes {
                        queues: queues & IVAR0_BITS,
                        mailbox: mailbox & IVAR_MISC_BITS,
                    },
                    page0,
                };
                (
                    control_plane,
                    identity(if second.is_some() { 2 } else { 1 }),
                )
            },
        )
}

proptest! {
    /// Encoding and decoding results in the same control plane. Its length is at most
    /// `CONTROL_PLANE_MAX`.
    #[test]
    fn round_trip((control_plane, identity) in control_plane()) {
        let records = control_plane.encode().unwrap();

        prop_assert!(records.len() <= CONTROL_PLANE_MAX as usize);
        prop_assert_eq!(ControlPlane::decode(&records, &identity), Ok(control_plane));
    }

    #[test]
    fn claims_round_trip(configuration in configuration()) {
        let records = encode_claim(&configuration).unwrap();

        prop_assert_eq!(decode_claim(&records, &identity(2)), Ok(configuration));
    }

    /// The encoding is unique: every change of a byte changes the control plane or is refused.
    #[test]
    fn accepted_bytes_are_canonical(
        (control_plane, identity) in control_plane(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = control_plane.encode().unwrap().to_vec();

        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Ok(decoded) = ControlPlane::decode(&bytes, &identity) {
            prop_assert_eq!(&*decoded.encode().unwrap(), &bytes[..]);
        }
        if let Ok(decoded) = decode_claim(&bytes, &identity) {
            prop_assert_eq!(&*encode_claim(&decoded).unwrap(), &bytes[..]);
        }
    }

    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..1200)) {
        ControlPlane::decode(&bytes, &identity(2)).ok();
        decode_claim(&bytes, &identity(2)).ok();
    }

    /// A truncated control plane is refused.
    #[test]
    fn truncation(
        (control_plane, identity) in control_plane(),
        cut in any::<prop::sample::Index>(),
    ) {
        let records = control_plane.encode().unwrap();
        let cut = cut.index(records.len());

        prop_assert!(ControlPlane::decode(&records[..cut], &identity).is_err());
    }

    /// The source refuses a queue with registers that cannot be restored.
    #[test]
    fn invalid_queue_is_refused_by_the_source((control_plane, _) in control_plane()) {
        let mut control_plane = control_plane;
        let mut queue = control_plane.queues[0].unwrap();
        queue.receive.is_enabled = true;
        queue.receive.head = (queue.receive.length / 16).max(1);
        control_plane.queues[0] = Some(queue);

        let Err(Fault::Record(record)) = control_plane.encode() else {
            return Err(TestCaseError::fail("it was encoded"));
        };
        prop_assert_eq!(record.violation.field, "rdh");
    }

    #[test]
    fn failed_allocation((control_plane, _) in control_plane(), bytes in 0..1024usize) {
        let encoded = seam::with_allowance(bytes, || control_plane.encode());

        prop_assert_eq!(encoded.err(), Some(Fault::OutOfMemory));
    }
}

fn plain() -> ControlPlane {
    ControlPlane {
        configuration: Configuration {
            granted: Some(Granted {
                vlans: set(Vid::NONE, vec![Vid::NONE, Vid::new(5).unwrap()]),
                ..Granted::new(Mac::new([2, 0, 0, 0, 0, 7]))
            }),
            ..Configuration::NONE
        },
        queues: [Some(Queue::default()), Some(Queue::default())],
        interrupts: [Interrupt::default(); 3],
        routes: Routes::default(),
        page0: Page0 {
            phase: Phase::Idle,
            buffer: [0; 16],
            pending: 0,
            packet_split: 0,
            link: true,
            counters: [0; 9],
        },
    }
}

const HEADER: usize = 16;
const CONFIGURATION: usize = HEADER;
const FIRST_QUEUE: usize = CONFIGURATION + 336 + HEADER;
const FIRST_INTERRUPT: usize = FIRST_QUEUE + 80 + HEADER + 80 + HEADER;
const PRIVATE: usize = FIRST_INTERRUPT + 3 * 8 + 2 * HEADER + HEADER;

/// The layout, byte by byte.
#[test]
fn layout() {
    let mut control_plane = plain();
    control_plane.queues[0] = Some(Queue {
        split: 0x0200_0001,
        ..Queue::default()
    });
    control_plane.page0.counters[8] = 0x1234_5678;
    let records = control_plane.encode().unwrap();

    assert_eq!(records.len(), PRIVATE + 136);
    assert_eq!(records[CONFIGURATION], 0x3);
    assert_eq!(records[CONFIGURATION + 8..][..6], [2, 0, 0, 0, 0, 7]);
    assert_eq!(
        records[CONFIGURATION + 268..][..8],
        [2, 0, 0, 0, 0, 0, 5, 0]
    );
    assert_eq!(records[FIRST_QUEUE + 68..][..4], [1, 0, 0, 2]);
    assert_eq!(records[PRIVATE + 12], 2);
    assert_eq!(records[PRIVATE + 128..][..4], [0x78, 0x56, 0x34, 0x12]);
}

/// The registers of a queue pair are in this order.
#[test]
fn layout_of_a_queue() {
    let mut control_plane = plain();
    control_plane.queues[0] = Some(Queue {
        transmit: Ring {
            is_enabled: false,
            base_low: 0x10,
            base_high: 2,
            length: 0x80,
            head: 3,
            tail: 4,
            control: 5,
            cache: 6,
        },
        write_back_low: 7,
        write_back_high: 8,
        receive: Ring {
            is_enabled: false,
            base_low: 0x20,
            base_high: 9,
            length: 0x100,
            head: 10,
            tail: 11,
            control: 12,
            cache: 13,
        },
        split: 14,
    });
    let records = control_plane.encode().unwrap();
    let words = records[FIRST_QUEUE..FIRST_QUEUE + 80].chunks(4);
    let words: Vec<u32> = words
        .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
        .collect();

    assert_eq!(
        words,
        [0, 0x10, 2, 0x80, 3, 4, 5, 6, 7, 8, 0x20, 9, 0x100, 10, 11, 12, 13, 14, 0, 0]
    );
}

/// A refusal names the register with invalid bits.
#[test]
fn names_of_a_queue() {
    let valid = plain().encode().unwrap().to_vec();

    for (word, name) in [
        (1, "tdbal"),
        (3, "tdlen"),
        (4, "tdh"),
        (5, "tdt"),
        (6, "txdctl"),
        (7, "txctl"),
        (10, "rdbal"),
        (12, "rdlen"),
        (13, "rdh"),
        (14, "rdt"),
        (15, "rxdctl"),
        (16, "rxctl"),
        (17, "srrctl"),
    ] {
        let mut bytes = valid.clone();
        bytes[FIRST_QUEUE + 4 * word..][..4].fill(0xff);
        let refused = ControlPlane::decode(&bytes, &identity(2)).unwrap_err();
        assert_eq!(refused.violation.field, name);
    }
}

/// Offsets of single bytes, their invalid values, and the refusals.
const REFUSALS: [(usize, u8, &str); 24] = [
    (
        CONFIGURATION,
        0x43,
        "flags: expected no bits but 0x3f, found 0x43",
    ),
    (CONFIGURATION, 0x02, "flags: expected 0x0, found 0x2"),
    (
        CONFIGURATION,
        0x01,
        "mac: expected 0x0, found 0x20000000007",
    ),
    (
        CONFIGURATION + 4,
        1,
        "frame_size: expected at most 0x0, found 0x1",
    ),
    (
        CONFIGURATION + 8,
        3,
        "mac: expected a known value, found 0x30000000007",
    ),
    (
        CONFIGURATION + 14,
        33,
        "unicast_count: expected at most 0x20, found 0x21",
    ),
    (
        CONFIGURATION + 14,
        1,
        "unicast: expected a known value, found 0x0",
    ),
    (
        CONFIGURATION + 15,
        1,
        "multicast_count: expected 0x0, found 0x1",
    ),
    (
        CONFIGURATION + 208,
        1,
        "multicast: expected no bits but 0x0, found 0x1",
    ),
    (
        CONFIGURATION + 268,
        33,
        "vlan_count: expected at most 0x20, found 0x21",
    ),
    (
        CONFIGURATION + 268,
        3,
        "vlan: expected a known value, found 0x2",
    ),
    (
        CONFIGURATION + 268,
        1,
        "vlan: expected a known value, found 0x1",
    ),
    (CONFIGURATION + 270, 1, "reserved: expected 0x0, found 0x1"),
    (
        CONFIGURATION + 275,
        0x10,
        "vlan: expected at most 0xfff, found 0x1005",
    ),
    (FIRST_QUEUE, 4, "flags: expected no bits but 0x3, found 0x4"),
    (
        FIRST_QUEUE + 4,
        1,
        "tdbal: expected no bits but 0xfffffff0, found 0x1",
    ),
    (
        FIRST_QUEUE + 27,
        2,
        "txdctl: expected no bits but 0xf81f1f1f, found 0x2000000",
    ),
    (FIRST_QUEUE + 72, 1, "reserved: expected 0x0, found 0x1"),
    (
        FIRST_INTERRUPT,
        16,
        "flags: expected no bits but 0xf, found 0x10",
    ),
    (
        FIRST_INTERRUPT + 4,
        1,
        "eitr: expected no bits but 0x7ffe, found 0x1",
    ),
    (
        PRIVATE + 12,
        1,
        "status: expected no bits but 0x2, found 0x1",
    ),
    (PRIVATE + 16, 3, "phase: expected less than 0x3, found 0x3"),
    (
        PRIVATE + 20,
        0x40,
        "pending: expected no bits but 0xb0, found 0x40",
    ),
    (PRIVATE + 132, 1, "reserved: expected 0x0, found 0x1"),
];

#[test]
fn refusals() {
    let valid = plain().encode().unwrap().to_vec();

    for (place, value, reason) in REFUSALS {
        let mut bytes = valid.clone();
        bytes[place] = value;
        let refused = ControlPlane::decode(&bytes, &identity(2)).unwrap_err();
        assert_eq!(refused.violation.to_string(), reason);
        let contents = [CONFIGURATION, FIRST_QUEUE, FIRST_INTERRUPT, PRIVATE];
        let record = contents.into_iter().rfind(|&content| content <= place);
        assert_eq!(Some(refused.offset + HEADER), record, "{reason}");
    }
}

/// Missing records.
#[test]
fn missing_records() {
    let valid = plain().encode().unwrap().to_vec();
    let without = |start: usize, end: usize| [&valid[..start], &valid[end..]].concat();
    let queue = FIRST_QUEUE - HEADER;
    let interrupt = FIRST_INTERRUPT - HEADER;
    let private = PRIVATE - HEADER;

    for (bytes, reason) in [
        (without(0, queue), "configuration: expected 0x1, found 0x0"),
        (
            without(queue, queue + 96),
            "queues: expected 0x2, found 0x1",
        ),
        (
            without(interrupt, interrupt + 24),
            "interrupt_vectors: expected 0x3, found 0x2",
        ),
        (
            without(private, valid.len()),
            "private: expected 0x1, found 0x0",
        ),
    ] {
        let refused = ControlPlane::decode(&bytes, &identity(2)).unwrap_err();
        assert_eq!(refused.violation.to_string(), reason);
    }
    // A function with one queue refuses a second one.
    assert!(ControlPlane::decode(&valid, &identity(1)).is_err());
    // A claim contains only a configuration.
    let refused = decode_claim(&valid, &identity(2)).unwrap_err();
    assert_eq!(
        refused.violation.to_string(),
        "type: expected 0x1, found 0x2"
    );
    assert_eq!(refused.offset, queue);
}
