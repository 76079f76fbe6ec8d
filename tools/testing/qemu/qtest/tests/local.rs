// SPDX-License-Identifier: GPL-2.0

//! Local memory, as the host saves and loads it.

use vifa_qtest::{hw, Bed, Buffer, Command, Engine, Frame};

const FRAME: Frame = Frame::Data(0);
const GRANULE: u64 = 4096;
const SIZE: u64 = 64 * GRANULE;
const DIRTY: u64 = hw::VIFA_LOCAL_DIRTY as u64;
const STOPPED: u32 = hw::VIFA_RUN_STATE_STOPPED;

fn bed() -> Bed {
    Bed::new("granule=4K,local-memory=256K", 2)
}

/// Lets the guest write `length` bytes of `value` at `offset`.
fn guest_write(bed: &Bed, engine: &mut Engine, offset: u64, length: u64, value: u8) {
    let source = bed.place(&vec![value; length as usize]);
    engine.succeed(
        bed,
        Command {
            opcode: hw::VIFA_REFERENCE_LOCAL_WRITE,
            source,
            destination: offset,
            length,
            ..Command::default()
        },
    );
}

/// Returns the numbers of the granules in a bitmap of the whole local memory.
fn bitmap(bed: &Bed, flag: u64) -> Vec<u64> {
    let buffer = Buffer::new(bed, SIZE / GRANULE / 8, 3);
    let [set, _] = bed.succeed(
        FRAME,
        hw::VIFA_DATA_LOCAL_BITMAP,
        [0, SIZE | flag],
        Some(&buffer),
    );
    let granules = buffer.bits(bed, SIZE / GRANULE);
    assert_eq!(set, granules.len() as u64);
    granules
}

/// Returns the ranges of a list in granules, read with room for `fit` at a time.
fn list(bed: &Bed, flag: u64, fit: u64) -> Vec<(u64, u64)> {
    let buffer = Buffer::new(bed, 16 * fit, 16);
    let mut ranges = Vec::new();
    let mut offset = 0;
    while offset < SIZE {
        let [count, next] = bed.succeed(
            FRAME,
            hw::VIFA_DATA_LOCAL_LIST,
            [offset, flag],
            Some(&buffer),
        );
        assert!(count <= fit && next > offset);
        for range in buffer.read(bed, 16 * count as usize).chunks(16) {
            let word = |at: usize| {
                u64::from_le_bytes(range[at..at + 8].try_into().expect("eight bytes")) / GRANULE
            };
            ranges.push((word(0), word(8)));
        }
        offset = next;
    }
    ranges
}

#[test]
fn mapped_and_dirty() {
    let bed = bed();
    let mut engine = Engine::new(&bed, 0, 4);
    assert_eq!(bitmap(&bed, 0), []);
    assert_eq!(list(&bed, 0, 1), []);
    guest_write(&bed, &mut engine, 0, 8, 1);
    guest_write(&bed, &mut engine, 3 * GRANULE - 8, 16, 2);
    guest_write(&bed, &mut engine, SIZE - 8, 8, 3);
    let ranges = [(0, 1), (2, 2), (63, 1)];
    for fit in 1..5 {
        assert_eq!(list(&bed, 0, fit), ranges);
        assert_eq!(list(&bed, DIRTY, fit), ranges, "a list clears nothing");
    }
    assert_eq!(bitmap(&bed, 0), [0, 2, 3, 63]);
    assert_eq!(bitmap(&bed, DIRTY), [0, 2, 3, 63]);
    assert_eq!(bitmap(&bed, DIRTY), [], "read as dirty");
    assert_eq!(bitmap(&bed, 0), [0, 2, 3, 63]);

    // A granule that loses its data changes; one without data does not.
    engine.succeed(
        &bed,
        Command {
            opcode: hw::VIFA_REFERENCE_LOCAL_DISCARD,
            destination: GRANULE,
            length: 2 * GRANULE,
            ..Command::default()
        },
    );
    assert_eq!(bitmap(&bed, 0), [0, 3, 63]);
    assert_eq!(list(&bed, DIRTY, 4), [(2, 1)]);
}

/// A device without dirty tracking reports this, but still reports the mapped granules.
#[test]
fn without_local_dirty() {
    let bed = Bed::new("granule=4K,local-memory=256K,local-dirty=off", 1);
    let mut engine = Engine::new(&bed, 0, 4);
    guest_write(&bed, &mut engine, 5 * GRANULE, 8, 1);
    let buffer = Buffer::new(&bed, 16, 16);
    for (opcode, argument) in [
        (hw::VIFA_DATA_LOCAL_BITMAP, SIZE | DIRTY),
        (hw::VIFA_DATA_LOCAL_LIST, DIRTY),
    ] {
        let answer = bed.execute(FRAME, opcode, [0, argument], Some(&buffer));
        assert_eq!(
            answer.status,
            hw::VIFA_STATUS_INVALID_ARGUMENT,
            "{opcode:#x}"
        );
    }
    assert_eq!(bitmap(&bed, 0), [5]);
    assert_eq!(list(&bed, 0, 1), [(5, 1)]);
}

/// A bitmap contains the requested granules, at any start and end.
#[test]
fn bitmaps_that_begin_and_end_anywhere() {
    let bed = bed();
    let mut engine = Engine::new(&bed, 0, 4);
    guest_write(&bed, &mut engine, 0, SIZE, 1);
    engine.succeed(
        &bed,
        Command {
            opcode: hw::VIFA_REFERENCE_LOCAL_DISCARD,
            destination: 20 * GRANULE,
            length: 3 * GRANULE,
            ..Command::default()
        },
    );
    for first in 0..SIZE / GRANULE {
        for count in [1, 7, 9, 63, 64] {
            if first + count > SIZE / GRANULE {
                continue;
            }
            let buffer = Buffer::new(&bed, 8, 8);
            let [set, _] = bed.succeed(
                FRAME,
                hw::VIFA_DATA_LOCAL_BITMAP,
                [first * GRANULE, count * GRANULE],
                Some(&buffer),
            );
            let expected: Vec<u64> = (0..count)
                .filter(|i| !(20..23).contains(&(first + i)))
                .collect();
            assert_eq!(buffer.bits(&bed, count), expected, "{first} {count}");
            assert_eq!(set, expected.len() as u64);
        }
    }
}

/// Reading a part of the bitmap clears only this part.
#[test]
fn parts_of_the_bitmap() {
    let bed = bed();
    let mut engine = Engine::new(&bed, 0, 4);
    guest_write(&bed, &mut engine, 8 * GRANULE, 8 * GRANULE, 1);
    let buffer = Buffer::new(&bed, 1, 1);
    let [set, _] = bed.succeed(
        FRAME,
        hw::VIFA_DATA_LOCAL_BITMAP,
        [10 * GRANULE, (3 * GRANULE) | DIRTY],
        Some(&buffer),
    );
    assert_eq!((set, buffer.read(&bed, 1)[0]), (3, 0b111));
    assert_eq!(list(&bed, DIRTY, 4), [(8, 2), (13, 3)]);
}

#[test]
fn the_host_migrates_local_memory() {
    let bed = bed();
    let mut engine = Engine::new(&bed, 0, 4);
    guest_write(&bed, &mut engine, 5 * GRANULE, 100_000, 0x5a);
    let buffer = Buffer::new(&bed, SIZE, 40_000);
    bed.succeed(FRAME, hw::VIFA_DATA_LOCAL_READ, [0, SIZE], Some(&buffer));
    let image = buffer.read(&bed, SIZE as usize);
    let start = 5 * GRANULE as usize;
    assert!(image[..start].iter().all(|byte| *byte == 0));
    assert!(image[start..start + 100_000]
        .iter()
        .all(|byte| *byte == 0x5a));
    assert!(image[start + 100_000..].iter().all(|byte| *byte == 0));

    // Write to the other VF, which is stopped: this maps granules but does not dirty them.
    let other = Frame::Data(1);
    let range = [5 * GRANULE, 25 * GRANULE];
    let part = Buffer::with(&bed, &image[start..start + 25 * GRANULE as usize], 5000);
    let write = || {
        bed.execute(other, hw::VIFA_DATA_LOCAL_WRITE, range, Some(&part))
            .status
    };
    assert_eq!(write(), hw::VIFA_STATUS_INVALID_STATE);
    bed.set_run_state(1, STOPPED);
    assert_eq!(write(), hw::VIFA_STATUS_SUCCESS);
    let copy = Buffer::new(&bed, SIZE, SIZE);
    bed.succeed(other, hw::VIFA_DATA_LOCAL_READ, [0, SIZE], Some(&copy));
    assert!(copy.read(&bed, SIZE as usize) == image);
    for (flag, expected) in [(0, 25), (DIRTY, 0)] {
        let bits = Buffer::new(&bed, 8, 8);
        let [set, _] = bed.succeed(
            other,
            hw::VIFA_DATA_LOCAL_BITMAP,
            [0, SIZE | flag],
            Some(&bits),
        );
        assert_eq!(set, expected);
    }

    // Local memory can be cleared only while the VF is stopped.
    bed.succeed(other, hw::VIFA_DATA_LOCAL_CLEAR, [0, 0], None);
    bed.succeed(other, hw::VIFA_DATA_LOCAL_READ, [0, SIZE], Some(&copy));
    assert!(copy.read(&bed, SIZE as usize).iter().all(|byte| *byte == 0));
    let answer = bed.execute(FRAME, hw::VIFA_DATA_LOCAL_CLEAR, [0, 0], None);
    assert_eq!(answer.status, hw::VIFA_STATUS_INVALID_STATE);
}

#[test]
fn a_reset_unmaps() {
    let bed = bed();
    let mut engine = Engine::new(&bed, 0, 4);
    guest_write(&bed, &mut engine, 0, SIZE, 1);
    bed.reset(bed.vf(0));
    assert_eq!(bitmap(&bed, 0), []);
    assert_eq!(bitmap(&bed, DIRTY), []);
}

#[test]
fn bad_arguments() {
    let bed = bed();
    bed.set_run_state(0, STOPPED);
    let buffer = Buffer::new(&bed, GRANULE, GRANULE);
    let invalid = hw::VIFA_STATUS_INVALID_ARGUMENT;
    let small = hw::VIFA_STATUS_BUFFER_TOO_SMALL;
    for (opcode, arguments, expected) in [
        (hw::VIFA_DATA_LOCAL_BITMAP, [1, SIZE], invalid),
        (hw::VIFA_DATA_LOCAL_BITMAP, [0, 0], invalid),
        (hw::VIFA_DATA_LOCAL_BITMAP, [0, SIZE | 2], invalid),
        (hw::VIFA_DATA_LOCAL_BITMAP, [GRANULE, SIZE], invalid),
        (
            hw::VIFA_DATA_LOCAL_BITMAP,
            [u64::MAX - GRANULE + 1, GRANULE],
            invalid,
        ),
        (hw::VIFA_DATA_LOCAL_LIST, [8, 0], invalid),
        (hw::VIFA_DATA_LOCAL_LIST, [0, 2], invalid),
        (hw::VIFA_DATA_LOCAL_LIST, [SIZE + GRANULE, 0], invalid),
        (hw::VIFA_DATA_LOCAL_READ, [0, 0], invalid),
        (hw::VIFA_DATA_LOCAL_READ, [SIZE, GRANULE], invalid),
        (hw::VIFA_DATA_LOCAL_READ, [0, 100], invalid),
        (hw::VIFA_DATA_LOCAL_READ, [0, 2 * GRANULE], small),
        (hw::VIFA_DATA_LOCAL_WRITE, [0, 2 * GRANULE], small),
        (hw::VIFA_DATA_LOCAL_WRITE, [8, GRANULE], invalid),
    ] {
        let answer = bed.execute(FRAME, opcode, arguments, Some(&buffer));
        assert_eq!(answer.status, expected, "{opcode:#x} {arguments:x?}");
    }
    let large = Buffer::new(&bed, 2 * GRANULE, GRANULE);
    let answer = bed.execute(FRAME, hw::VIFA_DATA_LOCAL_READ, [0, GRANULE], Some(&large));
    assert_eq!(answer.status, invalid);
    let tiny = Buffer::new(&bed, 7, 7);
    let answer = bed.execute(FRAME, hw::VIFA_DATA_LOCAL_BITMAP, [0, SIZE], Some(&tiny));
    assert_eq!((answer.status, answer.result[0]), (small, 8));
    let answer = bed.execute(FRAME, hw::VIFA_DATA_LOCAL_LIST, [0, 0], Some(&tiny));
    assert_eq!((answer.status, answer.result[0]), (small, 16));
    let end = bed.succeed(FRAME, hw::VIFA_DATA_LOCAL_LIST, [SIZE, 0], Some(&large));
    assert_eq!(end, [0, SIZE]);
}
