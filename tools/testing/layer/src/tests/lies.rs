// SPDX-License-Identifier: GPL-2.0

//! What a device says and cannot be true stops the save, and the error says what it was.

use crate::layer::{
    address::Range,
    identity::Identity,
    tests::device::{Device, IDENTITY},
};

/// Asserts that the device is not saved, for this reason.
#[track_caller]
fn assert_not_saved(mut source: Device, message: &str) {
    let Err(error) = source.save(&[usize::MAX]) else {
        panic!("saved, though it should say: {message}");
    };

    assert_eq!(error.to_string(), message);
}

#[test]
fn identities() {
    for (change, message) in [
        (
            (|identity| identity.vifa_revision = 0) as fn(&mut Identity),
            "vifa_revision: expected at least 0x1, found 0x0",
        ),
        (
            |identity| identity.features |= 8,
            "features: expected no bits but 0x7, found 0xd",
        ),
        (
            |identity| identity.bar_size[4] = 0x3000,
            "bar_size[4]: expected a power of two, found 0x3000",
        ),
        (
            |identity| identity.interrupt_vectors = 2049,
            "interrupt_vectors: expected at most 0x800, found 0x801",
        ),
        (
            |identity| identity.features = 1,
            "local_memory: expected 0x0, found 0x10000",
        ),
        (
            |identity| identity.granule = 0x3000,
            "granule: expected a power of two, found 0x3000",
        ),
        (
            |identity| identity.granule = 0x800,
            "granule: expected at least 0x1000, found 0x800",
        ),
        (
            |identity| identity.granule = 0x2_0000,
            "granule: expected at most 0x10000, found 0x20000",
        ),
        (
            |identity| identity.local_memory = (1 << 40) + 0x1000,
            "local_memory: expected at most 0x10000000000, found 0x10000001000",
        ),
        (
            |identity| identity.local_memory = 0x1_0800,
            "local_memory: expected a multiple of 0x1000, found 0x10800",
        ),
        (
            |identity| identity.control_plane_max = 0,
            "control_plane_max: expected at least 0x1, found 0x0",
        ),
        (
            |identity| identity.control_plane_max = 0x10_0001,
            "control_plane_max: expected at most 0x100000, found 0x100001",
        ),
    ] {
        let mut source = Device::new(IDENTITY).unwrap();

        change(&mut source.identity);
        assert_not_saved(source, &format!("identity: {message}"));
    }
}

#[test]
fn mapped() {
    for (start, length, message) in [
        (
            0x800,
            0x1000,
            "start: expected a multiple of 0x1000, found 0x800",
        ),
        (
            0x11000,
            0x1000,
            "start: expected at most 0x10000, found 0x11000",
        ),
        (
            u64::MAX - 0xfff,
            0x1000,
            "start: expected at most 0x10000, found 0xfffffffffffff000",
        ),
        (
            0,
            0x1800,
            "length: expected a multiple of 0x1000, found 0x1800",
        ),
        (0, 0, "length: expected at least 0x1000, found 0x0"),
        (
            0x10000,
            0x1000,
            "length: expected at most 0x0, found 0x1000",
        ),
        (
            0xf000,
            u64::MAX - 0xfff,
            "length: expected at most 0x1000, found 0xfffffffffffff000",
        ),
        // The device gives the same again when it is asked for what is behind.
        (
            0x1000,
            0x2000,
            "start: expected at least 0x3000, found 0x1000",
        ),
    ] {
        let mut source = Device::new(IDENTITY).unwrap();

        source.lie = Some(Range { start, length });
        assert_not_saved(source, &format!("mapped local memory: {message}"));
    }
}

#[test]
fn pieces() {
    let mut short = Device::new(IDENTITY).unwrap();
    short.fill(2);
    short.missing = 1;
    assert_not_saved(
        short,
        "what the device gave: length: expected 0x1000, found 0xfff",
    );

    let mut long = Device::new(IDENTITY).unwrap();
    long.identity.control_plane_max = 40;
    assert_not_saved(
        long,
        "what the device gave: length: expected at most 0x28, found 0x30",
    );

    let mut empty = Device::new(IDENTITY).unwrap();
    empty.control.resize_zeroed(0).unwrap();
    assert_not_saved(
        empty,
        "control plane: record at byte 0x0: record header: expected at least 0x10, found 0x0",
    );

    let mut newer = Device::new(IDENTITY).unwrap();
    newer.identity.record_version[4] = 1;
    assert_not_saved(
        newer,
        "control plane: record at byte 0x18: version: expected at most 0x1, found 0x2",
    );

    let mut elsewhere = Device::new(IDENTITY).unwrap();
    elsewhere.control[4] = 1;
    assert_not_saved(
        elsewhere,
        "control plane: record at byte 0x0: index: expected less than 0x1, found 0x1",
    );
}
