// SPDX-License-Identifier: GPL-2.0

//! Tests that invalid data from a device ends the save, and that the error names the data.

use vifa_decoder::encoder::record;

use crate::{
    layer::{
        identity::Identity,
        save::{Begin, InfoVersion, Saver},
        tests::device::{Device, IDENTITY},
    },
    seam::Bytes,
};

/// Asserts that saving the device fails with this message.
#[track_caller]
fn assert_not_saved(mut source: Device, message: &str) {
    let Err(error) = source.save(&[usize::MAX]) else {
        panic!("saved, expected the error: {message}");
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
            |identity| identity.features |= 0x10,
            "features: expected no bits but 0xf, found 0x1d",
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
fn bitmaps() {
    for missing in [1, 2] {
        let mut short = Device::new(IDENTITY).unwrap();

        short.missing_bitmap = missing;
        let message = format!(
            "bitmap of local memory: length: expected 0x2, found {:#x}",
            2 - missing
        );
        assert_not_saved(short, &message);
    }
}

/// Bits of a bitmap after the last granule are ignored.
#[test]
fn padding_of_bitmaps() {
    for granules in [1, 7, 8, 9, 15, 17] {
        let identity = Identity {
            local_memory: granules * 0x1000,
            ..IDENTITY
        };
        let mut source = Device::new(identity).unwrap();
        source.fill(0);
        let expected = source.save(&[usize::MAX]).unwrap();

        source.padding = 0xff;
        assert!(source.save(&[usize::MAX]).unwrap()[..] == expected[..]);
    }
}

#[test]
fn pieces() {
    let mut short = Device::new(IDENTITY).unwrap();
    short.fill(2);
    short.missing = 1;
    assert_not_saved(
        short,
        "data from the device: length: expected 0x1000, found 0xfff",
    );

    let mut long = Device::new(IDENTITY).unwrap();
    long.identity.control_plane_max = 40;
    assert_not_saved(
        long,
        "data from the device: length: expected at most 0x28, found 0x30",
    );

    let mut empty = Device::new(IDENTITY).unwrap();
    empty.control.resize_zeroed(0).unwrap();
    assert_not_saved(
        empty,
        "data from the device: control section, record at byte 0x0: record header: \
         expected at least 0x10, found 0x0",
    );

    let mut newer = Device::new(IDENTITY).unwrap();
    newer.identity.record_version[4] = 1;
    assert_not_saved(
        newer,
        "data from the device: control section, record at byte 0x18: version: \
         expected at most 0x1, found 0x2",
    );

    let mut elsewhere = Device::new(IDENTITY).unwrap();
    elsewhere.control[4] = 1;
    assert_not_saved(
        elsewhere,
        "data from the device: control section, record at byte 0x0: index: \
         expected less than 0x1, found 0x1",
    );
}

/// Asserts that saving a running device with this claim fails with this message, and so does the
/// query of outstanding bytes.
#[track_caller]
fn assert_claim_not_saved(claim: &[u8], message: &str) {
    for asked in [false, true] {
        let mut source = Device::new(IDENTITY).unwrap();
        let mut saver = Saver::new(Begin::PreCopy);
        let mut stream = Bytes::with_capacity(0).unwrap();

        source.configure(claim).unwrap();
        let result = if asked {
            saver.outstanding(&mut source, InfoVersion::V2).map(|_| ())
        } else {
            source.read(&mut saver, &[usize::MAX], &mut stream)
        };
        assert_eq!(result.unwrap_err().to_string(), message);
        assert!(saver.remaining(&mut source).is_err());
    }
}

#[test]
fn claims() {
    assert_claim_not_saved(
        &[0; 8],
        "data from the device: claim section, record at byte 0x0: record header: expected at least \
         0x10, found 0x8",
    );
    assert_claim_not_saved(
        &record(5, 1, 0, &[]),
        "data from the device: claim section, record at byte 0x0: type: expected a known value, \
         found 0x5",
    );
    assert_claim_not_saved(
        &record(4, 1, 0, &[1; 0xff1]),
        "data from the device: length: expected at most 0x1000, found 0x1008",
    );
}
