// SPDX-License-Identifier: GPL-2.0

//! Tests of the division of the address record file into parts, and of ranges into runs.

use vifa_decoder::decode;

use super::second::{device_of, own_of};
use crate::layer::{
    identity::{Identity, FEATURE_LOCAL_DIRTY},
    restore::Destination,
    save::{Begin, Piece, SaveError, Saver},
    tests::device::{Device, IDENTITY},
};

/// Creates a device with `granules` granules of local memory. Those for which `is_mapped` returns
/// true are mapped.
fn device(granules: usize, is_mapped: impl Fn(usize) -> bool) -> Device {
    let mut device = Device::new(Identity {
        local_memory: granules as u64 * 0x1000,
        ..IDENTITY
    })
    .unwrap();

    for granule in (0..granules).filter(|&granule| is_mapped(granule)) {
        device.fill(granule);
    }
    device
}

/// Returns the types and payload lengths of a stream's sections.
fn sections(stream: &[u8]) -> Vec<(u16, u32)> {
    let mut rest = &stream[16..];
    let mut sections = Vec::new();

    while !rest.is_empty() {
        let kind = u16::from_le_bytes([rest[0], rest[1]]);
        let length = u32::from_le_bytes(rest[4..8].try_into().unwrap());
        sections.push((kind, length));
        rest = &rest[32 + length as usize..];
    }
    sections
}

/// Asserts that a device with the identity of `source` has its state after `stream`, and that the
/// decoder reads the same state.
fn assert_restores(source: &Device, stream: &[u8]) {
    let mut destination = Device::new(source.identity).unwrap();
    let own = own_of(&source.identity);

    destination.restore(stream, &[usize::MAX]).unwrap();
    assert!(destination.has_state_of(source));
    let decoded = decode(stream, &own).unwrap();
    assert!(device_of(&decoded, source.identity).has_state_of(source));
}

/// A part has at most 1024 ranges. The data of each part follows it.
#[test]
fn parts() {
    for (ranges, parts) in [
        (1, vec![1]),
        (1023, vec![1023]),
        (1024, vec![1024]),
        (1025, vec![1024, 1]),
        (2049, vec![1024, 1024, 1]),
    ] {
        let mut source = device(2 * ranges, |granule| granule % 2 == 1);
        let stream = source.save(&[usize::MAX]).unwrap();

        let mut expected = vec![(1, 120), (2, 48)];
        for part in &parts {
            expected.push((3, 16 + 24 * *part as u32));
            expected.extend(vec![(4, 8 + 0x1000); *part]);
        }
        expected.extend([(5, 16 + 48), (6, 32)]);
        assert_eq!(sections(&stream), expected);
        assert_restores(&source, &stream);
        // All reads except the first of each part were announced.
        assert_eq!(source.reads, [parts.len(), ranges - parts.len()]);
    }
}

/// A range has as many data sections as required, each of maximum length.
#[test]
fn runs() {
    for (granules, runs) in [
        (255, vec![0xf_f000]),
        (256, vec![0x10_0000]),
        (257, vec![0x10_0000, 0x1000]),
        (512, vec![0x10_0000, 0x10_0000]),
        (513, vec![0x10_0000, 0x10_0000, 0x1000]),
    ] {
        let last = 0x1000;
        let mut source = device(600, |granule| granule < granules || granule == 599);
        let stream = source.save(&[usize::MAX]).unwrap();

        let mut expected = vec![(1, 120), (2, 48), (3, 16 + 2 * 24)];
        expected.extend(runs.iter().chain([&last]).map(|run| (4, 8 + run)));
        expected.extend([(5, 16 + 48), (6, 32)]);
        assert_eq!(sections(&stream), expected);
        assert_restores(&source, &stream);
        assert_eq!(source.reads, [1, runs.len()]);
    }
}

/// The estimate is never exceeded. It is exact in the worst case: every other granule mapped, and
/// the longest control plane.
#[test]
fn estimate() {
    for granules in [1, 2, 3, 255, 256, 257, 600, 2047, 2048, 2049, 2050, 2051] {
        for is_mapped in [
            (|_| true) as fn(usize) -> bool,
            |_| false,
            |granule| granule % 2 == 0,
            |granule| granule % 2 == 1,
            |granule| granule % 300 != 7,
            |granule| granule % 300 == 7,
        ] {
            let mut source = device(granules, is_mapped);
            let mapped = (0..granules).filter(|&granule| is_mapped(granule)).count();
            let mut longest = vec![4, 0, 1, 0, 0, 0, 0, 0, 0xf0, 0xf, 0, 0, 0, 0, 0, 0];
            longest.resize(0x1000, 0);
            source.write_control(&longest).unwrap();

            let stream = source.save(&[usize::MAX]).unwrap();
            let estimate = Saver::<crate::seam::OutOfMemory>::estimate(
                &source.identity,
                mapped as u64 * 0x1000,
            );
            assert!(stream.len() as u64 <= estimate);
            if is_mapped(0) != is_mapped(1) && (2..512).contains(&granules) {
                assert_eq!(stream.len() as u64, estimate);
            }
        }
    }
}

/// While a device without change tracking runs, only its identity is read.
#[test]
fn local_memory_of_a_running_device_is_not_read() {
    let mut source = device(4, |granule| granule == 1);
    let mut saver = Saver::new(Begin::PreCopy);
    let mut stream = crate::seam::Bytes::with_capacity(0).unwrap();

    source.identity.features &= !FEATURE_LOCAL_DIRTY;
    // Its bitmaps would be invalid.
    source.missing_bitmap = 1;
    source.missing = 1;
    source.read(&mut saver, &[usize::MAX], &mut stream).unwrap();
    assert_eq!(saver.remaining(&mut source), Ok(Piece::Pause));
    assert_eq!(saver.remaining(&mut source), Ok(Piece::Pause));
    assert_eq!(stream.len(), 248);
    assert_eq!(saver.left(&mut source), Ok(None));
    assert_eq!(source.reads, [0, 0]);
    saver.stopped();
    assert!(matches!(
        saver.remaining(&mut source),
        Err(SaveError::Bitmap(_))
    ));
}
