// SPDX-License-Identifier: GPL-2.0

//! Each rule of the stream, broken alone: the refusal says which, where, and how.

use super::{
    decoder::decode,
    encoder::{crc, identity, record, sound, Section, Stream, CONTROL_INTERFACE, DATA_INTERFACE},
};
use crate::{
    layer::{
        restore::Class,
        tests::device::{Device, IDENTITY},
    },
    seam::{with_allowance, OutOfMemory},
};

/// Asserts that `stream` is refused with this message, by the decoder as well, and that the control
/// plane stays as it was.
#[track_caller]
fn assert_refused(stream: &[u8], message: &str) {
    let mut destination = Device::new(IDENTITY).unwrap();
    let untouched = Device::new(IDENTITY).unwrap();
    let error = destination.restore(stream, &[usize::MAX]).unwrap_err();

    assert_eq!(error.to_string(), message);
    assert!(decode(stream, &IDENTITY).is_err());
    assert!(destination.control[..] == untouched.control[..]);
}

/// Asserts that the sound stream is refused with this message after `change`.
#[track_caller]
fn assert_change_refused(change: impl FnOnce(&mut Stream), message: &str) {
    let mut stream = sound();

    change(&mut stream);
    assert_refused(&stream.sealed(), message);
}

/// Asserts that an identity that was changed at `offset` is refused with this message.
#[track_caller]
fn assert_identity_refused(offset: usize, bytes: &[u8], message: &str) {
    assert_change_refused(
        |stream| {
            stream.sections[0].payload[offset..][..bytes.len()].copy_from_slice(bytes);
        },
        message,
    );
}

/// Asserts that this control plane is refused with this message.
#[track_caller]
fn assert_control_refused(control: &[Vec<u8>], message: &str) {
    assert_change_refused(
        |stream| stream.sections[3] = Section::new(3, control.concat()),
        message,
    );
}

#[test]
fn the_sound_stream_is_accepted() {
    let mut destination = Device::new(IDENTITY).unwrap();
    let stream = sound().sealed();
    let state = decode(&stream, &IDENTITY).unwrap();

    destination.fill(0);
    destination.restore(&stream, &[usize::MAX]).unwrap();
    assert!(destination.has_state_of(&state.device(IDENTITY).unwrap()));
}

#[test]
fn stream_header() {
    assert_change_refused(
        |stream| stream.magic = *b"VIFASTRN",
        "stream header: magic: expected 0x4d52545341464956, found 0x4e52545341464956",
    );
    assert_change_refused(
        |stream| stream.major = 1,
        "stream header: major: expected 0x0, found 0x1",
    );
    let mut stream = sound().sealed();
    stream[12] ^= 1;
    assert_refused(
        &stream,
        "stream header: crc: expected 0x3b8fd431, found 0x3b8fd430",
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
                .insert(1, Section::optional(vec![0; 0x10_0009]))
        },
        "header of section 1: length: expected at most 0x100008, found 0x100009",
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
        (1, "section 1 (data)"),
        (3, "section 3 (control)"),
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
            stream.sections.insert(1, with_crc_of_nothing(section));
        },
        "section 1 (unknown, optional): payload_crc: expected 0xa016d052, found 0x0",
    );
    assert_change_refused(
        |stream| {
            stream.sections.insert(
                1,
                Section {
                    payload_crc: Some(1),
                    ..Section::optional(vec![])
                },
            )
        },
        "section 1 (unknown, optional): payload_crc: expected 0x0, found 0x1",
    );

    let mut stream = sound().sealed();
    let end = stream.len() - 64;
    let expected = crc(&stream[end + 32..]);
    stream[end + 24..][..4].fill(0);
    let header_crc = crc(&stream[end..][..28]);
    stream[end + 28..][..4].copy_from_slice(&header_crc.to_le_bytes());
    assert_refused(
        &stream,
        &format!("section 4 (end): payload_crc: expected {expected:#x}, found 0x0"),
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
        |stream| stream.sections.insert(1, Section::new(1, identity())),
        "header of section 1: type: expected at least 0x2, found 0x1",
    );
    assert_change_refused(
        |stream| stream.sections.swap(2, 3),
        "header of section 3: type: expected at least 0x4, found 0x2",
    );
    assert_change_refused(
        |stream| stream.sections.push(stream.sections[3].clone()),
        "header of section 4: type: expected at least 0x4, found 0x3",
    );
    assert_change_refused(
        |stream| {
            stream.sections.remove(3);
        },
        "header of section 3: type: expected at most 0x3, found 0x4",
    );
    assert_change_refused(
        |stream| {
            stream.sections.insert(
                1,
                Section {
                    flags: 1,
                    ..Section::optional(vec![])
                },
            )
        },
        "header of section 1: type: expected a known value, found 0x700",
    );
}

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
    assert_change_refused(
        |stream| stream.sections[1].interface = CONTROL_INTERFACE,
        "header of section 1: interface: expected 0x21102, found 0x21101",
    );
    assert_change_refused(
        |stream| stream.sections[3].interface = DATA_INTERFACE,
        "header of section 3: interface: expected 0x21101, found 0x21102",
    );
    assert_change_refused(
        |stream| stream.sections[2].interface ^= 0x100,
        "header of section 2: interface: expected 0x21102, found 0x21002",
    );
    assert_change_refused(
        |stream| {
            stream.sections.insert(
                1,
                Section {
                    interface: 0x21103,
                    ..Section::optional(vec![])
                },
            )
        },
        "header of section 1: interface: expected 0x21101, found 0x21103",
    );
}

#[test]
fn identities_that_do_not_fit() {
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
        (12, &[7], "features", "0x7", "0x5", subset),
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
fn identities_that_fit_though_they_differ() {
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
        assert!(decode(&stream, &IDENTITY).is_ok());
    }
}

#[test]
fn identities_that_cannot_be_true() {
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
fn runs() {
    let data = Section::data;

    assert_change_refused(
        |stream| stream.sections[2] = data(0x3800, &[0; 0x1000]),
        "section 2 (data): offset: expected a multiple of 0x1000, found 0x3800",
    );
    assert_change_refused(
        |stream| stream.sections[2] = data(0x2000, &[0; 0x1000]),
        "section 2 (data): offset: expected at least 0x3000, found 0x2000",
    );
    assert_change_refused(
        |stream| stream.sections.swap(1, 2),
        "section 2 (data): offset: expected at least 0x10000, found 0x1000",
    );
    assert_change_refused(
        |stream| stream.sections[2] = data(0xf000, &[0; 0x2000]),
        "section 2 (data): offset: expected at most 0xe000, found 0xf000",
    );
    assert_change_refused(
        |stream| stream.sections[2] = data(u64::MAX - 0xfff, &[0; 0x1000]),
        "section 2 (data): offset: expected at most 0xf000, found 0xfffffffffffff000",
    );
    assert_change_refused(
        |stream| stream.sections[1] = data(0, &[0; 0x1_1000]),
        "section 1 (data): length: expected at most 0x10000, found 0x11000",
    );
    assert_change_refused(
        |stream| stream.sections[2] = data(0x3000, &[0; 0x1800]),
        "header of section 2: length: expected a multiple of 0x1000, found 0x1800",
    );
    assert_change_refused(
        |stream| stream.sections[2] = data(0x3000, &[]),
        "header of section 2: length: expected at least 0x1000, found 0x0",
    );
    assert_change_refused(
        |stream| stream.sections[2] = Section::new(2, vec![0; 7]),
        "header of section 2: length: expected at least 0x1000, found 0x0",
    );
}

#[test]
fn records() {
    assert_control_refused(
        &[],
        "header of section 3: length: expected at least 0x10, found 0x0",
    );
    assert_control_refused(
        &[record(1, 1, 0, &[0; 0xff8])],
        "header of section 3: length: expected at most 0x1000, found 0x1008",
    );
    assert_control_refused(
        &[record(5, 1, 0, &[])],
        "control plane: record at byte 0x0: type: expected a known value, found 0x5",
    );
    assert_control_refused(
        &[record(16, 1, 0, &[])],
        "control plane: record at byte 0x0: type: expected a known value, found 0x10",
    );
    assert_control_refused(
        &[record(1, 0, 0, &[])],
        "control plane: record at byte 0x0: version: expected at least 0x1, found 0x0",
    );
    assert_control_refused(
        &[record(1, 1, 0, &[]), record(4, 3, 0, &[])],
        "control plane: record at byte 0x10: version: expected at most 0x2, found 0x3",
    );
    assert_control_refused(
        &[
            record(2, 1, 1, &[]),
            record(3, 1, 0, &[]),
            record(2, 1, 1, &[]),
        ],
        "control plane: record at byte 0x20: index: expected at least 0x2, found 0x1",
    );
    assert_control_refused(
        &[record(2, 1, u32::MAX, &[]), record(2, 1, 0, &[])],
        "control plane: record at byte 0x10: index: expected at least 0x100000000, found 0x0",
    );
    let changed = |offset: usize| {
        let mut record = record(1, 1, 0, &[1, 2, 3]);
        record[offset] = 0x40;
        record
    };
    assert_control_refused(
        &[changed(12)],
        "control plane: record at byte 0x0: reserved: expected 0x0, found 0x40",
    );
    assert_control_refused(
        &[changed(8)],
        "control plane: record at byte 0x0: length: expected at most 0x8, found 0x40",
    );
    assert_control_refused(
        &[changed(11)],
        "control plane: record at byte 0x0: length: expected at most 0x8, found 0x40000003",
    );
    assert_control_refused(
        &[changed(19)],
        "control plane: record at byte 0x0: padding: expected 0x0, found 0x40",
    );
    assert_control_refused(
        &[changed(0)[..20].to_vec()],
        "control plane: record at byte 0x0: type: expected a known value, found 0x40",
    );
    assert_control_refused(
        &[record(1, 1, 0, &[1, 2, 3])[..19].to_vec()],
        "control plane: record at byte 0x0: length: expected at most 0x3, found 0x3",
    );
    assert_control_refused(
        &[record(1, 1, 0, &[]), vec![0; 15]],
        "control plane: record at byte 0x10: length: expected at least 0x10, found 0xf",
    );
}

#[test]
fn totals() {
    for (name, stream, found) in [
        (
            "sections",
            sound().sealed_with(|totals| totals.sections += 1),
            "expected 0x4, found 0x5",
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
        assert_refused(&stream, &format!("section 4 (end): {name}: {found}"));
    }
}

/// Sections of two sound streams do not make a third.
#[test]
fn spliced() {
    let mut other = sound();
    other.sections[2] = Section::data(0xf000, &[0xff; 0x1000]);
    let stream = sound().sealed();
    let other = other.sealed();
    let cut = sound().without_end().0.len();
    let spliced = [&other[..cut], &stream[cut..]].concat();
    let mut destination = Device::new(IDENTITY).unwrap();

    let error = destination.restore(&spliced, &[usize::MAX]).unwrap_err();
    assert!(error
        .to_string()
        .starts_with("section 4 (end): headers_crc: expected"));
    assert!(decode(&spliced, &IDENTITY).is_err());
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
        "the stream is incomplete: it ends in section 4 (end)",
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
    let mut stream = Stream::new(vec![
        Section::new(1, identity()),
        Section::optional(vec![1, 2, 3]),
        Section::new(3, record(1, 1, 0, &[1, 2, 3])),
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

#[test]
fn without_memory() {
    let mut destination = Device::new(IDENTITY).unwrap();
    let stream = sound().sealed();
    let control = stream.len() - 64 - 48;

    let error = with_allowance(47, || destination.restore(&stream, &[usize::MAX])).unwrap_err();
    assert_eq!(error.class(), Class::<OutOfMemory>::OutOfMemory);
    assert_eq!(error.to_string(), "no memory for the control plane");
    // The header of the control section alone wants the memory.
    let error = with_allowance(47, || destination.restore(&stream[..control], &[1])).unwrap_err();
    assert_eq!(error.class(), Class::OutOfMemory);
    with_allowance(48, || destination.restore(&stream, &[usize::MAX])).unwrap();
}
