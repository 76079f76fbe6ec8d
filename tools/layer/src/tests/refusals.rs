// SPDX-License-Identifier: GPL-2.0

//! Violations of each rule of the stream. The refusal states the place, the field and the value.

use vifa_decoder::{
    decode,
    encoder::{
        address, crc, head, range, record, records, relation, resources, sound, Section, Stream,
        CONTROL_INTERFACE, DATA_INTERFACE, RECEIVING_CONTROL_INTERFACE, RECEIVING_DATA_INTERFACE,
    },
};

use super::second::{device_of, own_at, own_of};
use crate::{
    layer::{
        identity::Identity,
        interface::Function,
        restore::{Class, RestoreError, Restorer},
        tests::device::{Device, IDENTITY},
    },
    seam::{with_allowance, OutOfMemory},
};

/// Asserts that `stream` is refused with this message, and by the decoder, and that the control
/// plane does not change.
#[track_caller]
fn assert_refused(stream: &[u8], message: &str) {
    let mut destination = Device::new(IDENTITY).unwrap();
    let untouched = Device::new(IDENTITY).unwrap();
    let error = destination.restore(stream, &[usize::MAX]).unwrap_err();

    assert_eq!(error.to_string(), message);
    assert!(decode(stream, &own_at(CONTROL_INTERFACE)).is_err());
    assert!(destination.control[..] == untouched.control[..]);
    assert!(destination.obtained.is_empty() || error == RestoreError::Excess);
}

/// Asserts that a stream is accepted, and by the decoder, with the same resulting state.
#[track_caller]
fn assert_accepted(stream: &[u8]) {
    let mut destination = Device::new(IDENTITY).unwrap();
    let state = decode(stream, &own_at(CONTROL_INTERFACE)).unwrap();

    destination.fill(0);
    destination.restore(stream, &[usize::MAX]).unwrap();
    assert!(destination.has_state_of(&device_of(&state, IDENTITY)));
}

/// Asserts that the valid stream is refused with this message after `change`.
#[track_caller]
fn assert_change_refused(change: impl FnOnce(&mut Stream), message: &str) {
    let mut stream = sound();

    change(&mut stream);
    assert_refused(&stream.sealed(), message);
}

/// Asserts that an identity with `bytes` at `offset` is refused with this message.
#[track_caller]
fn assert_identity_refused(offset: usize, bytes: &[u8], message: &str) {
    assert_change_refused(
        |stream| {
            stream.sections[0].payload[offset..][..bytes.len()].copy_from_slice(bytes);
        },
        message,
    );
}

/// Asserts that these relations are refused with this message.
#[track_caller]
fn assert_relations_refused(relations: [Vec<u8>; 2], message: &str) {
    assert_change_refused(
        |stream| stream.sections[1] = Section::new(2, relations.concat()),
        message,
    );
}

/// Asserts that a stream with the sections of `compose` after the relations is refused with this
/// message.
#[track_caller]
fn assert_composed_refused(compose: impl FnOnce(&mut Stream), message: &str) {
    let mut stream = head();

    compose(&mut stream);
    stream.sections.push(Section::control(&records()));
    assert_refused(&stream.sealed(), message);
}

/// Asserts that this part is refused with this message, as section 2.
#[track_caller]
fn assert_part_refused(part: Vec<u8>, message: &str) {
    assert_composed_refused(
        |stream| stream.sections.push(Section::new(3, part)),
        message,
    );
}

/// Asserts that a part with these ranges, each a start, a length and a sequence number, is refused
/// with this message, which begins with the number of the range.
#[track_caller]
fn assert_ranges_refused(space: u32, granule: u32, ranges: &[(u64, u64, u64)], message: &str) {
    let ranges: Vec<_> = ranges
        .iter()
        .map(|&(start, length, sequence)| range(start, length, sequence))
        .collect();

    assert_part_refused(
        address(space, 0, granule, &ranges),
        &format!("section 2 (address), range {message}"),
    );
}

/// Asserts that these records are refused with this message.
#[track_caller]
fn assert_control_refused(records: &[Vec<u8>], message: &str) {
    assert_change_refused(
        |stream| stream.sections[5] = Section::control(records),
        message,
    );
}

#[test]
fn the_valid_stream_is_accepted() {
    assert_accepted(&sound().sealed());
}

#[test]
fn stream_header() {
    assert_change_refused(
        |stream| stream.magic = *b"VIFASTRN",
        "stream header: magic: expected 0x4d52545341464956, found 0x4e52545341464956",
    );
    assert_change_refused(
        |stream| stream.major = 2,
        "stream header: major: expected 0x1, found 0x2",
    );
    let mut stream = sound().sealed();
    stream[12] ^= 1;
    assert_refused(
        &stream,
        "stream header: crc: expected 0xf568e6fe, found 0xf568e6ff",
    );
}

#[test]
fn section_header() {
    assert_change_refused(
        |stream| stream.sections[1].flags = 3,
        "header of section 1: flags: expected no bits but 0x1, found 0x3",
    );
    assert_change_refused(
        |stream| stream.sections[1].flags = 0,
        "header of section 1: flags: expected 0x1, found 0x0",
    );
    assert_change_refused(
        |stream| stream.sections[0].flags = 0,
        "header of section 0: flags: expected 0x1, found 0x0",
    );
    assert_change_refused(
        |stream| stream.sections[1].sequence = Some(2),
        "header of section 1: sequence: expected 0x1, found 0x2",
    );
    assert_change_refused(
        |stream| {
            stream
                .sections
                .insert(2, Section::optional(vec![0; 0x10_0011]))
        },
        "header of section 2: length: expected at most 0x100010, found 0x100011",
    );
}

#[test]
fn payload_crc() {
    let with_crc_of_nothing = |section| Section {
        payload_crc: Some(0),
        ..section
    };

    for (at, place) in [
        (0, "section 0 (identity)"),
        (1, "section 1 (relations)"),
        (2, "section 2 (address)"),
        (3, "section 3 (data)"),
        (5, "section 5 (control)"),
    ] {
        let mut stream = sound();
        let crc = crc(&stream.sections[at].payload);
        stream.sections[at] = with_crc_of_nothing(stream.sections[at].clone());
        assert_refused(
            &stream.sealed(),
            &format!("{place}: payload_crc: expected {crc:#x}, found 0x0"),
        );
    }
    assert_change_refused(
        |stream| {
            let section = Section::optional(vec![1]);
            stream.sections.insert(2, with_crc_of_nothing(section));
        },
        "section 2 (unknown, optional): payload_crc: expected 0xa016d052, found 0x0",
    );
    assert_change_refused(
        |stream| {
            stream.sections.insert(
                2,
                Section {
                    payload_crc: Some(1),
                    ..Section::optional(vec![])
                },
            )
        },
        "section 2 (unknown, optional): payload_crc: expected 0x0, found 0x1",
    );

    let mut stream = sound().sealed();
    let end = stream.len() - 64;
    let expected = crc(&stream[end + 32..]);
    stream[end + 24..][..4].fill(0);
    let header_crc = crc(&stream[end..][..28]);
    stream[end + 28..][..4].copy_from_slice(&header_crc.to_le_bytes());
    assert_refused(
        &stream,
        &format!("section 6 (end): payload_crc: expected {expected:#x}, found 0x0"),
    );
}

#[test]
fn order() {
    assert_change_refused(
        |stream| {
            stream.sections.remove(0);
        },
        "header of section 0: type: expected 0x1, found 0x2",
    );
    assert_change_refused(
        |stream| stream.sections.insert(0, Section::optional(vec![])),
        "header of section 0: type: expected 0x1, found 0x700",
    );
    assert_change_refused(
        |stream| {
            stream.sections.remove(1);
        },
        "header of section 1: type: expected 0x2, found 0x3",
    );
    assert_change_refused(
        |stream| stream.sections.insert(1, Section::optional(vec![])),
        "header of section 1: type: expected 0x2, found 0x700",
    );
    for kind in [1, 2] {
        assert_change_refused(
            |stream| stream.sections.insert(2, stream.sections[kind - 1].clone()),
            &format!("header of section 2: type: expected 0x3 or 0x5, found {kind:#x}"),
        );
    }
    assert_change_refused(
        |stream| {
            stream.sections.remove(5);
        },
        "header of section 5: type: expected 0x3 or 0x5, found 0x6",
    );
    assert_change_refused(
        |stream| stream.sections.push(stream.sections[5].clone()),
        "header of section 6: type: expected 0x6, found 0x5",
    );
    assert_change_refused(
        |stream| stream.push_part(0, &[(0xd000, vec![0; 0x1000])]),
        "header of section 6: type: expected 0x6, found 0x3",
    );
    assert_change_refused(
        |stream| {
            stream.sections.insert(
                2,
                Section {
                    flags: 1,
                    ..Section::optional(vec![])
                },
            )
        },
        "header of section 2: type: expected a known value, found 0x700",
    );
}

/// A section has the source's interface of its type's plane.
#[test]
fn planes() {
    assert_change_refused(
        |stream| stream.sections[0].interface = DATA_INTERFACE,
        "header of section 0: interface: expected 0x21101, found 0x21102",
    );
    assert_change_refused(
        |stream| stream.sections[0].interface |= 1 << 24,
        "header of section 0: interface: expected no bits but 0xffffffff00ffffff, found 0x1021100",
    );
    for section in [1, 5] {
        assert_change_refused(
            |stream| stream.sections[section].interface = DATA_INTERFACE,
            &format!("header of section {section}: interface: expected 0x21101, found 0x21102"),
        );
    }
    for section in [2, 3] {
        assert_change_refused(
            |stream| stream.sections[section].interface = CONTROL_INTERFACE,
            &format!("header of section {section}: interface: expected 0x21102, found 0x21101"),
        );
        assert_change_refused(
            |stream| stream.sections[section].interface ^= 0x100,
            &format!("header of section {section}: interface: expected 0x21102, found 0x21002"),
        );
    }
    assert_change_refused(
        |stream| {
            stream.sections.insert(
                2,
                Section {
                    interface: 0x21103,
                    ..Section::optional(vec![])
                },
            )
        },
        "header of section 2: interface: expected 0x21101 or 0x21102, found 0x21103",
    );
}

#[test]
fn relations() {
    let control = || relation(1, CONTROL_INTERFACE, 0);
    let data = || relation(2, DATA_INTERFACE, 0);
    let with_reserved = |mut relation: Vec<u8>| {
        relation[7] = 1;
        relation
    };

    for (relations, message) in [
        (
            [data(), control()],
            "relation[0].plane: expected 0x1, found 0x2",
        ),
        (
            [control(), control()],
            "relation[1].plane: expected 0x2, found 0x1",
        ),
        (
            [control(), relation(3, DATA_INTERFACE, 0)],
            "relation[1].plane: expected 0x2, found 0x3",
        ),
        (
            [with_reserved(control()), data()],
            "relation[0].reserved: expected 0x0, found 0x1000000000000",
        ),
        (
            [control(), with_reserved(data())],
            "relation[1].reserved: expected 0x0, found 0x1000000000000",
        ),
    ] {
        assert_relations_refused(relations, &format!("section 1 (relations): {message}"));
    }
    assert_change_refused(
        |stream| stream.sections[1].payload.push(0),
        "header of section 1: length: expected 0x30, found 0x31",
    );
}

/// The output parties are the source's interfaces, and differ from the receivers.
#[test]
fn parties() {
    let control = || relation(1, CONTROL_INTERFACE, 0);
    let data = || relation(2, DATA_INTERFACE, 0);

    for (relations, message) in [
        // The interface of the other plane, of another function, or none.
        (
            [relation(1, DATA_INTERFACE, 0), data()],
            "relation[0].output: expected 0x21101, found 0x21102",
        ),
        (
            [control(), relation(2, CONTROL_INTERFACE, 0)],
            "relation[1].output: expected 0x21102, found 0x21101",
        ),
        (
            [relation(1, 0x21001, 0), data()],
            "relation[0].output: expected 0x21101, found 0x21001",
        ),
        (
            [control(), relation(2, 0, 0)],
            "relation[1].output: expected 0x21102, found 0x0",
        ),
        // A relation whose output party is its receiver, even if the destination is the source.
        (
            [relation(1, CONTROL_INTERFACE, CONTROL_INTERFACE), data()],
            "relation[0].receiver: expected anything but 0x21101, found 0x21101",
        ),
        (
            [control(), relation(2, DATA_INTERFACE, DATA_INTERFACE)],
            "relation[1].receiver: expected anything but 0x21102, found 0x21102",
        ),
        (
            [
                relation(1, CONTROL_INTERFACE, RECEIVING_CONTROL_INTERFACE),
                data(),
            ],
            "relation[0].receiver: expected 0x0 or 0x21101, found 0x100030201",
        ),
    ] {
        assert_relations_refused(relations, &format!("section 1 (relations): {message}"));
    }
}

/// A stream that is addressed to one function is refused by all others.
#[test]
fn receivers() {
    let restore = |control, data| {
        let mut stream = sound();
        let mut destination = Device::new(IDENTITY).unwrap();

        stream.sections[1] = Section::relations(control, data);
        destination.function = Function {
            domain: 1,
            bus: 3,
            devfn: 2,
        };
        let own = own_at(RECEIVING_CONTROL_INTERFACE);
        let stream = stream.sealed();
        let restored = destination.restore(&stream, &[usize::MAX]);
        assert_eq!(restored.is_ok(), decode(&stream, &own).is_ok());
        restored.map(|_| ()).map_err(|error| error.to_string())
    };
    let (control, data) = (RECEIVING_CONTROL_INTERFACE, RECEIVING_DATA_INTERFACE);
    let refused = |relation, found| {
        let own = if relation == 0 { control } else { data };
        Err(format!(
            "section 1 (relations): relation[{relation}].receiver: \
             expected 0x0 or {own:#x}, found {found:#x}"
        ))
    };

    for (control, data) in [(0, 0), (control, data), (control, 0), (0, data)] {
        assert_eq!(restore(control, data), Ok(()));
    }
    assert_eq!(restore(control ^ 0x100, data), refused(0, control ^ 0x100));
    assert_eq!(restore(data, data), refused(0, data));
    assert_eq!(restore(control, control), refused(1, control));
    assert_eq!(restore(data, control), refused(0, data));
}

#[test]
fn incompatible_identities() {
    let incompatible = |field, source, destination, rule| {
        format!("incompatible: {field}: source has {source}, destination has {destination}; {rule}")
    };
    let equal = "they must be equal";
    let at_least = "the destination needs at least as much";
    let subset = "the destination needs every bit of the source";

    for (offset, bytes, field, source, destination, rule) in [
        (0, &[0x35][..], "vendor", "0x1235", "0x1234", equal),
        (2, &[0x57], "device", "0x5657", "0x5656", equal),
        (4, &[0xf5], "subsystem_vendor", "0x1af5", "0x1af4", equal),
        (6, &[1], "subsystem", "0x1101", "0x1100", equal),
        (8, &[0], "revision_id", "0x0", "0x1", equal),
        (10, &[2], "vifa_revision", "0x2", "0x1", at_least),
        (12, &[7], "features", "0x7", "0xd", subset),
        (16, &[0, 0x20], "bar_size[0]", "0x2000", "0x1000", equal),
        (56, &[1], "bar_size[5]", "0x1", "0x0", equal),
        (64, &[2], "interrupt_vectors", "0x2", "0x1", equal),
        (66, &[2], "queues", "0x2", "0x1", at_least),
        (68, &[0, 0x20], "granule", "0x2000", "0x1000", equal),
        (
            72,
            &[0, 0, 2],
            "local_memory",
            "0x20000",
            "0x10000",
            at_least,
        ),
        (80, &[1], "control_plane_max", "0x1001", "0x1000", at_least),
        (88, &[1], "record_version[0]", "0x1", "0x0", at_least),
        (96, &[3], "record_version[4]", "0x3", "0x2", at_least),
        (118, &[1], "record_version[15]", "0x1", "0x0", at_least),
    ] {
        let message = incompatible(field, source, destination, rule);
        assert_identity_refused(offset, bytes, &message);
    }
}

#[test]
fn compatible_identities_that_differ() {
    for (offset, bytes) in [
        (12, &[4][..]),
        (66, &[0]),
        (72, &[0, 0, 1]),
        (80, &[0, 4]),
        (96, &[1]),
    ] {
        let mut stream = sound();
        stream.sections[0].payload[offset..][..bytes.len()].copy_from_slice(bytes);
        let stream = stream.sealed();
        let mut destination = Device::new(IDENTITY).unwrap();

        destination.restore(&stream, &[usize::MAX]).unwrap();
        assert!(decode(&stream, &own_at(CONTROL_INTERFACE)).is_ok());
    }
}

#[test]
fn invalid_identities() {
    assert_identity_refused(
        9,
        &[1],
        "section 0 (identity): reserved0: expected 0x0, found 0x1",
    );
    assert_identity_refused(
        84,
        &[0, 1],
        "section 0 (identity): reserved1: expected 0x0, found 0x100",
    );
    assert_identity_refused(
        10,
        &[0],
        "section 0 (identity): vifa_revision: expected at least 0x1, found 0x0",
    );
    assert_identity_refused(
        12,
        &[1],
        "section 0 (identity): local_memory: expected 0x0, found 0x10000",
    );
    assert_identity_refused(
        72,
        &[1, 0, 0],
        "section 0 (identity): local_memory: expected a multiple of 0x1000, found 0x1",
    );
    assert_identity_refused(
        80,
        &[0, 0],
        "section 0 (identity): control_plane_max: expected at least 0x1, found 0x0",
    );
    assert_change_refused(
        |stream| stream.sections[0].payload.push(0),
        "header of section 0: length: expected 0x78, found 0x79",
    );
}

#[test]
fn parts() {
    let ranges = [range(0x1000, 0x1000, 3)];
    let part = |space, round, granule| address(space, round, granule, &ranges);

    for space in [0, 3, u32::MAX] {
        assert_part_refused(
            part(space, 0, 0x1000),
            &format!("section 2 (address): space: expected a known value, found {space:#x}"),
        );
    }
    assert_part_refused(
        part(1, 1, 0x1000),
        "section 2 (address): round: expected 0x0, found 0x1",
    );
    assert_part_refused(
        part(1, 0, 0x2000),
        "section 2 (address): granule: expected 0x1000, found 0x2000",
    );
    assert_part_refused(
        part(2, 1, 0x1000),
        "section 2 (address): round: expected 0x0, found 0x1",
    );
    assert_part_refused(
        part(2, 0, 0x3000),
        "section 2 (address): granule: expected a power of two, found 0x3000",
    );
    assert_part_refused(
        part(2, 0, 0x800),
        "section 2 (address): granule: expected at least 0x1000, found 0x800",
    );
    for (count, ranges, message) in [
        (0, 1, "count: expected at least 0x1, found 0x0"),
        (1025, 1, "count: expected at most 0x400, found 0x401"),
        (2, 1, "length: expected 0x40, found 0x28"),
        (1, 2, "length: expected 0x28, found 0x40"),
    ] {
        let mut part = address(1, 0, 0x1000, &vec![range(0x1000, 0x1000, 3); ranges]);
        part[12..16].copy_from_slice(&(count as u32).to_le_bytes());
        assert_part_refused(part, &format!("section 2 (address): {message}"));
    }
    assert_part_refused(
        address(1, 0, 0x1000, &[]),
        "header of section 2: length: expected at least 0x28, found 0x10",
    );
    let ranges: Vec<_> = (0..1025)
        .map(|number| range(number << 13, 0x1000, 0))
        .collect();
    assert_part_refused(
        address(2, 0, 0x1000, &ranges),
        "header of section 2: length: expected at most 0x6010, found 0x6028",
    );
    let mut stream = head();
    stream
        .sections
        .push(Section::new(3, address(2, 0, 0x1000, &ranges[..1024])));
    stream.sections.push(Section::control(&records()));
    assert_accepted(&stream.sealed());
}

#[test]
fn ranges_of_local_memory() {
    let refused = |ranges: &[_], message| assert_ranges_refused(1, 0x1000, ranges, message);
    let first = (0x1000, 0x2000, 3);

    refused(
        &[(0x1800, 0x1000, 3)],
        "0: start: expected a multiple of 0x1000, found 0x1800",
    );
    refused(
        &[(0x1000, 0x1800, 3)],
        "0: length: expected a multiple of 0x1000, found 0x1800",
    );
    refused(
        &[(0x1000, 0, 3)],
        "0: length: expected at least 0x1000, found 0x0",
    );
    // Ranges that touch, overlap, repeat, and descend.
    refused(
        &[first, (0x3000, 0x1000, 4)],
        "1: start: expected more than 0x3000, found 0x3000",
    );
    refused(
        &[first, (0x2000, 0x2000, 4)],
        "1: start: expected more than 0x3000, found 0x2000",
    );
    refused(
        &[first, first],
        "1: start: expected more than 0x3000, found 0x1000",
    );
    refused(
        &[first, (0, 0x1000, 4)],
        "1: start: expected more than 0x3000, found 0x0",
    );
    // Ranges that exceed the memory.
    refused(
        &[(0x1_0000, 0x1000, 3)],
        "0: length: expected at most 0x0, found 0x1000",
    );
    refused(
        &[(0x1_1000, 0x1000, 3)],
        "0: start: expected at most 0x10000, found 0x11000",
    );
    refused(
        &[first, (0xf000, 0x2000, 4)],
        "1: length: expected at most 0x1000, found 0x2000",
    );
    refused(
        &[(u64::MAX - 0xfff, 0x1000, 3)],
        "0: start: expected at most 0x10000, found 0xfffffffffffff000",
    );
    refused(
        &[(0x1000, u64::MAX - 0xfff, 3)],
        "0: length: expected at most 0xf000, found 0xfffffffffffff000",
    );
}

/// The sequence number of a range is that of its first data section.
#[test]
fn sequence_of_ranges() {
    let refused = |ranges: &[_], message| assert_ranges_refused(1, 0x1000, ranges, message);
    let first = (0x1000, 0x2000, 3);

    refused(
        &[(0x1000, 0x1000, 2)],
        "0: sequence: expected 0x3, found 0x2",
    );
    refused(
        &[(0x1000, 0x1000, 0)],
        "0: sequence: expected 0x3, found 0x0",
    );
    refused(
        &[first, (0x4000, 0x1000, 5)],
        "1: sequence: expected 0x4, found 0x5",
    );
}

/// Ranges of local memory are valid only from a source with local memory.
#[test]
fn no_local_memory() {
    for (granule, message) in [
        (0x1000u32, "length: expected at most 0x0, found 0x1000"),
        (0, "start: expected a multiple of 0x0, found 0x0"),
    ] {
        let mut identity = IDENTITY;
        let mut stream = head();

        identity.granule = granule;
        stream.sections[0].payload[68..72].copy_from_slice(&granule.to_le_bytes());
        stream.sections[0].payload[72..80].fill(0);
        let ranges = [range(0, 0x1000, 3)];
        stream
            .sections
            .push(Section::new(3, address(1, 0, granule, &ranges)));
        let mut destination = Device::new(IDENTITY).unwrap();
        destination.identity = identity;
        let error = destination
            .restore(&stream.sealed(), &[usize::MAX])
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("section 2 (address), range 0: {message}")
        );
    }
}

#[test]
fn ranges_of_guest_memory() {
    let refused = |ranges: &[_], message| assert_ranges_refused(2, 0x2000, ranges, message);
    let first = (1 << 40, 0x2000, 0);

    refused(
        &[(0x1000, 0x2000, 0)],
        "0: start: expected a multiple of 0x2000, found 0x1000",
    );
    refused(
        &[(0, 0x1000, 0)],
        "0: length: expected a multiple of 0x2000, found 0x1000",
    );
    refused(
        &[(0, 0, 0)],
        "0: length: expected at least 0x2000, found 0x0",
    );
    refused(
        &[first, ((1 << 40) + 0x2000, 0x2000, 0)],
        "1: start: expected more than 0x10000002000, found 0x10000002000",
    );
    refused(
        &[first, (0, 0x2000, 0)],
        "1: start: expected more than 0x10000002000, found 0x0",
    );
    refused(
        &[(u64::MAX - 0x1fff, 0x2000, 0)],
        "0: length: expected at most 0x1fff, found 0x2000",
    );
    refused(&[(0, 0x2000, 3)], "0: sequence: expected 0x0, found 0x3");
    refused(
        &[first, (1 << 41, 0x2000, 4)],
        "1: sequence: expected 0x0, found 0x4",
    );
}

/// Returns the ranges of a part of local memory with one granule at `start`.
fn granule_at(start: u64) -> [(u64, Vec<u8>); 1] {
    [(start, vec![0; 0x1000])]
}

/// Returns a part of guest memory with one granule at `start`.
fn guest_part(granule: u32, start: u64) -> Section {
    let ranges = [range(start, granule.into(), 0)];

    Section::new(3, address(2, 0, granule, &ranges))
}

/// Parts of a round ascend, and rounds are consecutive.
#[test]
fn order_of_parts() {
    let at = granule_at;

    for (start, expected) in [
        (0x1000, "found 0x1000"),
        (0x5000, "found 0x5000"),
        (0x6000, "found 0x6000"),
    ] {
        assert_composed_refused(
            |stream| {
                stream.push_part(0, &at(0x5000));
                stream.push_part(0, &at(start));
            },
            &format!("section 4 (address), range 0: start: expected more than 0x6000, {expected}"),
        );
    }
    assert_composed_refused(
        |stream| {
            stream.push_part(0, &at(0x5000));
            stream.push_part(2, &at(0x7000));
        },
        "section 4 (address): round: expected at most 0x1, found 0x2",
    );
    assert_composed_refused(
        |stream| {
            stream.push_part(0, &at(0x5000));
            stream.push_part(1, &at(0x5000));
            stream.push_part(0, &at(0x7000));
        },
        "section 6 (address): round: expected at least 0x1, found 0x0",
    );
}

/// Guest memory is independent of the order of local memory.
#[test]
fn order_of_parts_of_guest_memory() {
    let at = granule_at;
    let guest = guest_part;

    assert_composed_refused(
        |stream| {
            stream.push_part(0, &at(0x5000));
            stream.push_part(1, &at(0x5000));
            stream.sections.push(guest(0x1000, 0x5000));
            stream.push_part(1, &at(0x4000));
        },
        "section 7 (address), range 0: start: expected more than 0x6000, found 0x4000",
    );
    for (granule, start) in [(0x1000, 0x1_0000), (0x2000, 0x1_2000), (0x2000, 0)] {
        assert_composed_refused(
            |stream| {
                stream.sections.push(guest(0x2000, 0x1_0000));
                stream.push_part(0, &at(0x5000));
                stream.sections.push(guest(granule, start));
            },
            &format!(
                "section 5 (address), range 0: start: expected more than 0x12000, found {start:#x}"
            ),
        );
    }

    let mut stream = head();
    stream.push_part(0, &at(0x5000));
    stream.sections.push(guest(0x2000, 0));
    stream.push_part(0, &at(0x7000));
    stream.sections.push(guest(0x1_0000, 0x1_0000));
    stream.push_part(1, &at(0));
    stream.push_part(2, &at(0));
    stream.sections.push(Section::control(&records()));
    assert_accepted(&stream.sealed());
}

/// Data sections must match the preceding part.
#[test]
fn runs() {
    let data = Section::data;

    assert_composed_refused(
        |stream| stream.sections.push(data(0x1000, &[0; 0x1000])),
        "header of section 2: type: expected 0x3 or 0x5, found 0x4",
    );
    assert_change_refused(
        |stream| stream.sections.insert(5, data(0xd000, &[0; 0x1000])),
        "header of section 5: type: expected 0x3 or 0x5, found 0x4",
    );
    assert_change_refused(
        |stream| {
            stream.sections.remove(4);
        },
        "header of section 4: type: expected 0x4, found 0x5",
    );
    assert_change_refused(
        |stream| stream.sections.truncate(3),
        "header of section 3: type: expected 0x4, found 0x6",
    );
    for section in [Section::optional(vec![]), sound().sections[2].clone()] {
        assert_change_refused(
            |stream| stream.sections.insert(4, section.clone()),
            &format!(
                "header of section 4: type: expected 0x4, found {:#x}",
                section.kind
            ),
        );
    }
    assert_change_refused(
        |stream| stream.sections.swap(3, 4),
        "header of section 3: length: expected 0x2008, found 0x1008",
    );
    for length in [0, 0x1000, 0x1fff, 0x2001, 0x3000] {
        assert_change_refused(
            |stream| stream.sections[3] = data(0x1000, &vec![0; length]),
            &format!(
                "header of section 3: length: expected 0x2008, found {:#x}",
                length + 8
            ),
        );
    }
    for offset in [0, 0x1001, 0x2000, u64::MAX] {
        assert_change_refused(
            |stream| stream.sections[3] = data(offset, &[0; 0x2000]),
            &format!("section 3 (data): offset: expected 0x1000, found {offset:#x}"),
        );
    }
    assert_change_refused(
        |stream| stream.sections[3].flags = 0,
        "header of section 3: flags: expected 0x1, found 0x0",
    );
}

#[test]
fn records_of_the_control_plane() {
    assert_control_refused(
        &[],
        "header of section 5: length: expected at least 0x20, found 0x10",
    );
    assert_control_refused(
        &[record(1, 1, 0, &[0; 0xff8])],
        "header of section 5: length: expected at most 0x1010, found 0x1018",
    );
    assert_control_refused(
        &[record(5, 1, 0, &[])],
        "section 5 (control), record at byte 0x0: type: expected a known value, found 0x5",
    );
    assert_control_refused(
        &[record(16, 1, 0, &[])],
        "section 5 (control), record at byte 0x0: type: expected a known value, found 0x10",
    );
    assert_control_refused(
        &[record(1, 0, 0, &[])],
        "section 5 (control), record at byte 0x0: version: expected at least 0x1, found 0x0",
    );
    assert_control_refused(
        &[record(1, 1, 0, &[]), record(4, 3, 0, &[])],
        "section 5 (control), record at byte 0x10: version: expected at most 0x2, found 0x3",
    );
    assert_control_refused(
        &[
            record(4, 1, 1, &[]),
            record(3, 1, 0, &[]),
            record(4, 1, 1, &[]),
        ],
        "section 5 (control), record at byte 0x20: index: expected at least 0x2, found 0x1",
    );
    assert_control_refused(
        &[record(4, 1, u32::MAX, &[]), record(4, 1, 0, &[])],
        "section 5 (control), record at byte 0x10: index: expected at least 0x100000000, found 0x0",
    );
}

#[test]
fn headers_and_padding_of_records() {
    let changed = |offset: usize| {
        let mut record = record(1, 1, 0, &[1, 2, 3]);
        record[offset] = 0x40;
        record
    };

    assert_control_refused(
        &[changed(12)],
        "section 5 (control), record at byte 0x0: reserved: expected 0x0, found 0x40",
    );
    assert_control_refused(
        &[changed(8)],
        "section 5 (control), record at byte 0x0: length: expected at most 0x8, found 0x40",
    );
    assert_control_refused(
        &[changed(11)],
        "section 5 (control), record at byte 0x0: length: expected at most 0x8, found 0x40000003",
    );
    assert_control_refused(
        &[changed(19)],
        "section 5 (control), record at byte 0x0: padding: expected 0x0, found 0x40",
    );
    assert_control_refused(
        &[changed(0)],
        "section 5 (control), record at byte 0x0: type: expected a known value, found 0x40",
    );
    assert_control_refused(
        &[record(1, 1, 0, &[1, 2, 3])[..19].to_vec()],
        "section 5 (control), record at byte 0x0: length: expected at most 0x3, found 0x3",
    );
    assert_control_refused(
        &[record(1, 1, 0, &[]), vec![0; 15]],
        "section 5 (control), record at byte 0x10: record header: \
         expected at least 0x10, found 0xf",
    );
}

/// A record is associated with an object of the destination.
#[test]
fn associations() {
    let at = "section 5 (control), record at byte 0x0: index";

    for (kind, index) in [(1, 1), (1, u32::MAX), (2, 1), (3, 1), (3, 0x8000_0000)] {
        assert_control_refused(
            &[record(kind, 1, index, &[])],
            &format!("{at}: expected less than 0x1, found {index:#x}"),
        );
    }
    for record in [
        record(1, 1, 0, &[]),
        record(2, 1, 0, &[]),
        record(3, 1, 0, &[]),
        record(4, 1, u32::MAX, &[]),
    ] {
        let mut stream = sound();
        stream.sections[5] = Section::control(&[record]);
        assert_accepted(&stream.sealed());
    }
}

/// Queues and vectors are counted separately.
#[test]
fn associations_with_several_queues_and_vectors() {
    let identity = Identity {
        queues: 4,
        interrupt_vectors: 7,
        ..IDENTITY
    };
    let own = own_of(&identity);
    let mut stream = head();
    stream.sections[0].payload[64..68].copy_from_slice(&[7, 0, 4, 0]);

    for (kind, index, found) in [
        (2, 3, None),
        (3, 6, None),
        (2, 4, Some("expected less than 0x4, found 0x4")),
        (3, 7, Some("expected less than 0x7, found 0x7")),
    ] {
        let mut stream = stream.clone();
        let mut destination = Device::new(identity).unwrap();
        stream
            .sections
            .push(Section::control(&[record(kind, 1, index, &[])]));
        let stream = stream.sealed();

        let message = destination
            .restore(&stream, &[usize::MAX])
            .err()
            .map(|error| error.to_string());
        let expected =
            found.map(|found| format!("section 2 (control), record at byte 0x0: index: {found}"));
        assert_eq!(message, expected);
        assert_eq!(decode(&stream, &own).is_err(), found.is_some());
    }
}

/// The header before the records must match them.
#[test]
fn resource_abstraction_structure() {
    let refused = |header: Vec<u8>, message| {
        assert_change_refused(
            |stream| stream.sections[5].payload[..16].copy_from_slice(&header),
            &format!("section 5 (control): {message}"),
        );
    };
    let changed = |offset: usize, value| {
        let mut header = resources(2, 48);
        header[offset] = value;
        header
    };

    refused(changed(0, 0), "version: expected 0x1, found 0x0");
    refused(changed(0, 2), "version: expected 0x1, found 0x2");
    refused(changed(2, 0), "run_state: expected 0x2, found 0x0");
    refused(changed(2, 1), "run_state: expected 0x2, found 0x1");
    refused(changed(15, 1), "reserved: expected 0x0, found 0x1000000");
    refused(resources(1, 48), "records: expected 0x2, found 0x1");
    refused(resources(3, 48), "records: expected 0x2, found 0x3");
    refused(resources(0, 48), "records: expected 0x2, found 0x0");
    refused(resources(2, 40), "length: expected 0x30, found 0x28");
    refused(resources(2, 64), "length: expected 0x30, found 0x40");
    refused(
        resources(2, u32::MAX),
        "length: expected 0x30, found 0xffffffff",
    );
}

/// Asserts that the valid stream with `claim` after the relations is refused with this message.
#[track_caller]
fn assert_claim_refused(claim: Section, message: &str) {
    assert_composed_refused(|stream| stream.sections.push(claim), message);
}

/// Any number of claims is valid wherever an address section is.
#[test]
fn claims() {
    let claim = || Section::claim(&records()[..1]);
    let mut stream = head();

    stream.sections.push(claim());
    stream.sections.push(claim());
    stream.push_part(0, &[(0x1000, vec![1; 0x1000])]);
    stream.sections.push(Section::claim(&records()));
    stream.push_part(0, &[(0x3000, vec![2; 0x1000])]);
    stream.sections.push(Section::claim(&records()[1..]));
    stream.sections.push(Section::control(&records()));
    assert_accepted(&stream.sealed());

    // The totals do not include claims.
    let totals = stream.sealed_with(|totals| totals.control_bytes += 24);
    assert_refused(
        &totals,
        "section 11 (end): control_bytes: expected 0x30, found 0x48",
    );
}

#[test]
fn places_of_claims() {
    for (at, message) in [
        (0, "header of section 0: type: expected 0x1, found 0x7"),
        (1, "header of section 1: type: expected 0x2, found 0x7"),
        (3, "header of section 3: type: expected 0x4, found 0x7"),
        (4, "header of section 4: type: expected 0x4, found 0x7"),
        (6, "header of section 6: type: expected 0x6, found 0x7"),
    ] {
        assert_change_refused(
            |stream| stream.sections.insert(at, Section::claim(&records())),
            message,
        );
    }
}

#[test]
fn headers_of_claims() {
    let claim = |change: fn(&mut Section)| {
        let mut claim = Section::claim(&records());
        change(&mut claim);
        claim
    };

    assert_claim_refused(
        claim(|claim| claim.flags = 1),
        "header of section 2: flags: expected 0x0, found 0x1",
    );
    assert_claim_refused(
        claim(|claim| claim.flags = 2),
        "header of section 2: flags: expected no bits but 0x1, found 0x2",
    );
    assert_claim_refused(
        claim(|claim| claim.interface = DATA_INTERFACE),
        "header of section 2: interface: expected 0x21101, found 0x21102",
    );
    assert_claim_refused(
        claim(|claim| claim.payload.clear()),
        "header of section 2: length: expected at least 0x10, found 0x0",
    );
    assert_claim_refused(
        claim(|claim| claim.payload.truncate(15)),
        "header of section 2: length: expected at least 0x10, found 0xf",
    );
    let crc = crc(&records().concat());
    assert_claim_refused(
        claim(|claim| claim.payload_crc = Some(0)),
        &format!("section 2 (claim): payload_crc: expected {crc:#x}, found 0x0"),
    );

    // The longest valid claim, and a longer one.
    let longest = |content| vec![record(4, 1, 0, &vec![1; content])];
    let mut stream = head();
    stream.sections.push(Section::claim(&longest(0xff0)));
    stream.sections.push(Section::control(&records()));
    assert_accepted(&stream.sealed());
    assert_claim_refused(
        Section::claim(&longest(0xff1)),
        "header of section 2: length: expected at most 0x1000, found 0x1008",
    );
}

/// The records of a claim are checked as those of the control plane.
#[test]
fn records_of_claims() {
    for (records, message) in [
        (
            vec![record(0, 1, 0, &[])],
            "0x0: type: expected a known value, found 0x0",
        ),
        (
            vec![record(1, 1, 0, &[1]), record(4, 3, 0, &[])],
            "0x18: version: expected at most 0x2, found 0x3",
        ),
        (
            vec![record(1, 1, 1, &[])],
            "0x0: index: expected less than 0x1, found 0x1",
        ),
        (
            vec![record(4, 1, 5, &[]), record(4, 1, 5, &[])],
            "0x10: index: expected at least 0x6, found 0x5",
        ),
        (
            vec![record(1, 1, 0, &[1, 2, 3]), vec![0; 8]],
            "0x18: record header: expected at least 0x10, found 0x8",
        ),
    ] {
        assert_claim_refused(
            Section::claim(&records),
            &format!("section 2 (claim), record at byte {message}"),
        );
    }
    let mut padded = Section::claim(&[record(1, 1, 0, &[1])]);
    padded.payload[23] = 1;
    assert_claim_refused(
        padded,
        "section 2 (claim), record at byte 0x0: padding: expected 0x0, found 0x1",
    );
}

/// The first of several claims that the host refuses ends the stream. Earlier claims were tried,
/// later ones were not.
#[test]
fn denied() {
    let unobtainable = "unobtainable: no memory";
    let mut stream = head();
    for _ in 0..3 {
        stream.sections.push(Section::claim(&records()[..1]));
    }
    stream.sections.push(Section::control(&records()));
    let stream = stream.sealed();
    let first_end = 248 + 32 + 24;
    let mut destination = Device::new(IDENTITY).unwrap();
    let mut restorer = Restorer::new();

    destination
        .write(&mut restorer, &[100], &stream[..first_end])
        .unwrap();
    destination.denied = true;
    let error = destination.write(&mut restorer, &[100], &stream[first_end..]);
    assert_eq!(error.unwrap_err().to_string(), unobtainable);
    assert_eq!(destination.claims, 2);
    assert_eq!(restorer.progress().sections, 3);
    assert_eq!(
        restorer.progress().stream_bytes,
        (first_end + 32 + 24) as u64
    );
    let error = restorer.finish(&mut destination).unwrap_err();
    assert_eq!(error.to_string(), unobtainable);
    assert_eq!(error.class(), Class::Device(OutOfMemory));
}

/// For a receiver of version 1.0, a claim is an optional section of an unknown type.
#[test]
fn claims_are_unknown_to_version_1_0() {
    let mut stream = head();
    stream.sections.push(Section::claim(&records()[..1]));
    stream.push_part(0, &[(0x1000, vec![1; 0x1000])]);
    stream.sections.push(Section::claim(&records()));
    stream.sections.push(Section::control(&records()));

    for section in &mut stream.sections {
        if section.kind == 7 {
            section.kind = Section::optional(vec![]).kind;
        }
    }
    assert_accepted(&stream.sealed());
}

#[test]
fn totals() {
    for (name, stream, found) in [
        (
            "sections",
            sound().sealed_with(|totals| totals.sections += 1),
            "expected 0x6, found 0x7",
        ),
        (
            "data_bytes",
            sound().sealed_with(|totals| totals.data_bytes -= 1),
            "expected 0x3000, found 0x2fff",
        ),
        (
            "control_bytes",
            sound().sealed_with(|totals| totals.control_bytes += 8),
            "expected 0x30, found 0x38",
        ),
        (
            "reserved",
            sound().sealed_with(|totals| totals.reserved = 9),
            "expected 0x0, found 0x9",
        ),
    ] {
        assert_refused(&stream, &format!("section 6 (end): {name}: {found}"));
    }
}

/// Sections of two valid streams do not form a third one.
#[test]
fn spliced() {
    let mut other = sound();
    other.sections[4] = Section::data(0xf000, &[0xff; 0x1000]);
    let stream = sound().sealed();
    let other = other.sealed();
    let cut = sound().without_end().0.len();
    let spliced = [&other[..cut], &stream[cut..]].concat();
    let mut destination = Device::new(IDENTITY).unwrap();

    let error = destination.restore(&spliced, &[usize::MAX]).unwrap_err();
    assert!(error
        .to_string()
        .starts_with("section 6 (end): headers_crc: expected"));
    assert!(decode(&spliced, &own_at(CONTROL_INTERFACE)).is_err());
}

#[test]
fn ends() {
    let stream = sound().sealed();

    assert_refused(&[], "the stream is incomplete: it ends in stream header");
    assert_refused(
        &stream[..16],
        "the stream is incomplete: it ends in header of section 0",
    );
    assert_refused(
        &stream[..stream.len() - 1],
        "the stream is incomplete: it ends in section 6 (end)",
    );
    assert_refused(
        &[&stream[..], &[0]].concat(),
        "bytes follow the end section",
    );
    assert_refused(
        &[&stream[..], &stream[..]].concat(),
        "bytes follow the end section",
    );
}

#[test]
fn every_flipped_bit() {
    let guest = address(2, 0, 0x1000, &[range(0x1000, 0x1000, 0)]);
    let mut stream = Stream::new(vec![
        Section::identity(),
        Section::relations(0, 0),
        Section::new(3, guest),
        Section::optional(vec![1, 2, 3]),
        Section::claim(&[record(1, 1, 0, &[4, 5])]),
        Section::control(&[record(1, 1, 0, &[1, 2, 3])]),
        Section::optional(vec![]),
    ])
    .sealed();
    let mut destination = Device::new(IDENTITY).unwrap();

    destination.restore(&stream, &[usize::MAX]).unwrap();
    for bit in 0..8 * stream.len() {
        stream[bit / 8] ^= 1 << (bit % 8);
        let error = destination.restore(&stream, &[usize::MAX]).unwrap_err();
        assert_eq!(error.class(), Class::Invalid);
        stream[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Memory is limited to a part of the address record file and the destination's control plane.
#[test]
fn without_memory() {
    const PART: usize = 16 + 1024 * 24;
    let mut destination = Device::new(IDENTITY).unwrap();
    let mut composed = head();
    for round in 0..9 {
        composed.push_part(round, &[(0x1000, vec![1; 0x1000])]);
    }
    composed.sections.push(Section::control(&records()));
    let stream = composed.sealed();
    let first_part = 248 + 32;
    let control = stream.len() - 64 - 48;

    let mut restore = |allowance, length| {
        with_allowance(allowance, || {
            destination.restore(&stream[..length], &[usize::MAX])
        })
        .map(|_| ())
    };
    for (allowance, length) in [
        // The headers of the first address section and of the control section require the memory.
        (PART - 1, first_part),
        (PART + 47, control),
        (PART + 47, stream.len()),
    ] {
        let error = restore(allowance, length).unwrap_err();
        assert_eq!(error.class(), Class::<OutOfMemory>::OutOfMemory);
        assert_eq!(error.to_string(), "no memory for the content of the stream");
    }
    assert_eq!(
        restore(0, first_part - 1).unwrap_err().class(),
        Class::Invalid
    );
    assert_eq!(
        restore(PART, control - 17).unwrap_err().class(),
        Class::Invalid
    );
    assert_eq!(restore(PART + 48, stream.len()), Ok(()));
}

/// Any number of claims of any length requires the memory of one control plane, which the control
/// plane then reuses.
#[test]
fn memory_for_claims() {
    let longest = usize::try_from(IDENTITY.control_plane_max).unwrap();
    let mut destination = Device::new(IDENTITY).unwrap();
    let mut stream = head();
    for content in [0, 9, 1000, longest - 16, 3, longest - 16] {
        stream
            .sections
            .push(Section::claim(&[record(4, 1, 0, &vec![1; content])]));
    }
    stream
        .sections
        .push(Section::control(&[record(4, 1, 0, &vec![2; longest - 16])]));
    let stream = stream.sealed();
    let mut restore =
        |allowance| with_allowance(allowance, || destination.restore(&stream, &[usize::MAX]));

    assert_eq!(restore(longest - 1).unwrap_err(), RestoreError::OutOfMemory);
    assert!(restore(longest).is_ok());
}

/// A destination's local memory is unmapped only before the first part or the control plane.
#[test]
fn memory_is_unmapped_late() {
    let stream = sound().sealed();
    let part = 248 + 32 + 16 + 48;
    let mut destination = Device::new(IDENTITY).unwrap();
    let mut is_clear_after = |stream: &[u8]| {
        destination.fill(7);
        destination.restore(stream, &[usize::MAX]).unwrap_err();
        destination.is_clear()
    };

    assert!(!is_clear_after(&stream[..part - 1]));
    assert!(is_clear_after(&stream[..part]));

    let mut malformed = sound();
    malformed.sections[2].payload[16] = 1;
    assert!(!is_clear_after(&malformed.sealed()));

    let mut empty = head();
    empty.sections.push(Section::control(&records()));
    let empty = empty.sealed();
    assert!(!is_clear_after(&empty[..empty.len() - 65]));
    assert!(is_clear_after(&empty[..empty.len() - 64]));
}
