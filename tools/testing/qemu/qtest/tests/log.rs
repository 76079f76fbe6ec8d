// SPDX-License-Identifier: GPL-2.0

//! The log of writes to guest memory.

use vifa_qtest::{hw, Bed, Buffer, Command, Engine, Frame};

const FRAME: Frame = Frame::Data(0);
const PAGE: u64 = 4096;
/// Memory that the tests write; 8 MiB are far from what the bed gives away.
const BASE: u64 = 0x800_0000;

/// Starts the log over `ranges`; the page size.
fn start(bed: &Bed, page_size: u64, ranges: &[(u64, u64)]) -> vifa_qtest::Answer {
    let bytes: Vec<u8> = ranges
        .iter()
        .flat_map(|(start, length)| [start.to_le_bytes(), length.to_le_bytes()].concat())
        .collect();
    let buffer = Buffer::with(bed, &bytes, 1000);
    bed.execute(
        FRAME,
        hw::VIFA_DATA_LOG_START,
        [page_size, ranges.len() as u64],
        Some(&buffer),
    )
}

/// The numbers of the bits that a command reports for a range, and whether the log was lost.
fn report(bed: &Bed, opcode: u32, start: u64, length: u64, bits: u64) -> (Vec<u64>, bool) {
    let buffer = Buffer::new(bed, bits.div_ceil(8), 700);
    let [_, lost] = bed.succeed(FRAME, opcode, [start, length], Some(&buffer));
    let bytes = buffer.read(bed, bits.div_ceil(8) as usize);
    let set = (0..bits)
        .filter(|i| bytes[*i as usize / 8] & (1 << (i % 8)) != 0)
        .collect();
    (set, lost != 0)
}

fn dirty(bed: &Bed, start: u64, length: u64) -> Vec<u64> {
    let (pages, lost) = report(
        bed,
        hw::VIFA_DATA_LOG_READ_AND_CLEAR,
        start,
        length,
        length / PAGE,
    );
    assert!(!lost);
    pages
}

fn fill(bed: &Bed, engine: &mut Engine, destination: u64, length: u64) {
    engine.succeed(
        bed,
        Command {
            opcode: hw::VIFA_REFERENCE_FILL,
            destination,
            length,
            ..Command::default()
        },
    );
}

#[test]
fn every_page_written_is_logged_once() {
    let bed = Bed::new("", 1);
    let mut engine = Engine::new(&bed, 0, 4);
    let second = BASE + 256 * PAGE;
    let answer = start(&bed, PAGE, &[(BASE, 100 * PAGE), (second, 64 * PAGE)]);
    assert_eq!((answer.status, answer.result[0]), (0, PAGE));

    fill(&bed, &mut engine, BASE, 8);
    fill(&bed, &mut engine, BASE + 3 * PAGE - 8, 16);
    // Out of the first range, over the hole, into the second.
    fill(&bed, &mut engine, BASE + 98 * PAGE, 160 * PAGE);
    assert_eq!(dirty(&bed, BASE, 50 * PAGE), [0, 2, 3]);
    assert_eq!(dirty(&bed, BASE, 100 * PAGE), [98, 99]);
    assert_eq!(dirty(&bed, BASE, 100 * PAGE), []);
    assert_eq!(dirty(&bed, second + PAGE, 63 * PAGE), [0]);
    assert_eq!(dirty(&bed, second, 64 * PAGE), [0]);

    // Reads leave no trace.
    engine.succeed(
        &bed,
        Command {
            opcode: hw::VIFA_REFERENCE_CHECKSUM,
            source: BASE,
            length: 100 * PAGE,
            ..Command::default()
        },
    );
    assert_eq!(dirty(&bed, BASE, 100 * PAGE), []);
}

/// Completions are writes too.
#[test]
fn completions_are_logged() {
    let bed = Bed::new("", 1);
    let mut engine = Engine::new(&bed, 0, 4);
    let ring = engine.read(&bed, hw::VIFA_REFERENCE_COMPLETION_LOW);
    start(&bed, PAGE, &[(0, 1024 * PAGE)]);
    engine.succeed(&bed, Command::default());
    assert_eq!(dirty(&bed, 0, 1024 * PAGE), [u64::from(ring) / PAGE]);
}

/// So is the part of a write that ends in a fault, which the guest may see.
#[test]
fn faulting_writes_are_logged() {
    let bed = Bed::new("", 1);
    let mut engine = Engine::new(&bed, 0, 4);
    let end_of_memory = 256 << 20;
    start(&bed, PAGE, &[(BASE, end_of_memory - BASE)]);
    let completion = engine.execute(
        &bed,
        Command {
            opcode: hw::VIFA_REFERENCE_FILL,
            destination: end_of_memory - 2 * PAGE,
            length: 4 * PAGE,
            pattern: 1,
            ..Command::default()
        },
    );
    assert_eq!(completion.status, hw::VIFA_REFERENCE_COMPLETION_FAULT);
    let last = (end_of_memory - BASE) / PAGE;
    let pages = dirty(&bed, BASE, end_of_memory - BASE);
    assert_eq!(pages, [last - 2, last - 1]);
}

#[test]
fn page_sizes() {
    let bed = Bed::new("", 1);
    let mut engine = Engine::new(&bed, 0, 4);
    for (asked, given) in [
        (4096, 4096),
        (32 << 10, 4096),
        (64 << 10, 64 << 10),
        (1 << 20, 64 << 10),
        (2 << 20, 2 << 20),
        (1 << 40, 2 << 20),
    ] {
        let answer = start(&bed, asked, &[(BASE, 8 << 20)]);
        assert_eq!((answer.status, answer.result[0]), (0, given), "{asked:#x}");
        fill(&bed, &mut engine, BASE + (8 << 20) - 8, 8);
        let pages = (8 << 20) / given;
        let read = report(&bed, hw::VIFA_DATA_LOG_READ_AND_CLEAR, BASE, 8 << 20, pages);
        assert_eq!(read, (vec![pages - 1], false));
        bed.succeed(FRAME, hw::VIFA_DATA_LOG_STOP, [0, 0], None);
    }
}

#[test]
fn summary() {
    let bed = Bed::new("", 1);
    let mut engine = Engine::new(&bed, 0, 4);
    let group = u64::from(hw::VIFA_LOG_SUMMARY_PAGES) * PAGE;
    let length = 3 * group + 10 * PAGE;
    start(&bed, PAGE, &[(0, length)]);
    let summary =
        |from, length, bits| report(&bed, hw::VIFA_DATA_LOG_SUMMARY, from, length, bits).0;
    assert_eq!(summary(0, length, 4), []);
    fill(&bed, &mut engine, BASE, 8);
    // The bed's rings are in the first group, what was filled is in the second.
    assert_eq!(summary(0, length, 4), [0, 1]);
    assert_eq!(summary(0, length, 4), [0, 1], "clears nothing");
    assert_eq!(summary(BASE - 5 * PAGE, group, 1), [0]);
    assert_eq!(summary(BASE + PAGE, group, 1), []);
    dirty(&bed, BASE, PAGE);
    assert_eq!(summary(0, length, 4), [0]);
}

#[test]
fn states() {
    let bed = Bed::new("", 1);
    let buffer = Buffer::new(&bed, 64, 64);
    let stop = || {
        bed.execute(FRAME, hw::VIFA_DATA_LOG_STOP, [0, 0], None)
            .status
    };
    let read = || {
        bed.execute(
            FRAME,
            hw::VIFA_DATA_LOG_READ_AND_CLEAR,
            [BASE, PAGE],
            Some(&buffer),
        )
        .status
    };
    let begin = || start(&bed, PAGE, &[(BASE, PAGE)]).status;
    let invalid = hw::VIFA_STATUS_INVALID_STATE;

    assert_eq!((stop(), read()), (invalid, invalid));
    assert_eq!((begin(), begin()), (0, invalid));
    assert_eq!((read(), stop(), read()), (0, 0, invalid));
    assert_eq!(begin(), 0);
    bed.reset(bed.vf(0));
    assert_eq!(stop(), invalid);
}

#[test]
fn bad_arguments() {
    let bed = Bed::new("", 1);
    let invalid = hw::VIFA_STATUS_INVALID_ARGUMENT;
    for (page_size, ranges) in [
        (0, vec![(BASE, PAGE)]),
        (2048, vec![(BASE, PAGE)]),
        (12288, vec![(BASE, PAGE)]),
        (PAGE, vec![(BASE, 0)]),
        (PAGE, vec![(BASE + 1, PAGE)]),
        (PAGE, vec![(BASE, PAGE + 8)]),
        (2 << 20, vec![(BASE, PAGE)]),
        (PAGE, vec![(BASE, 2 * PAGE), (BASE + PAGE, PAGE)]),
        (PAGE, vec![(BASE, PAGE), (0, PAGE)]),
        (PAGE, vec![(u64::MAX - PAGE + 1, 2 * PAGE)]),
        (PAGE, vec![(0, 1 << 39)]),
        (PAGE, vec![(0, 1 << 38), (1 << 38, PAGE)]),
        (PAGE, vec![(BASE, PAGE); 1025]),
    ] {
        let answer = start(&bed, page_size, &ranges);
        assert_eq!(
            answer.status,
            invalid,
            "page size {page_size}, {} ranges from {:x?}",
            ranges.len(),
            ranges[0]
        );
    }
    // As much as there may be, up to the last byte of all.
    let answer = start(&bed, PAGE, &[(u64::MAX - (1 << 37) + 1, 1 << 37)]);
    assert_eq!(answer.status, hw::VIFA_STATUS_SUCCESS);
    bed.succeed(FRAME, hw::VIFA_DATA_LOG_STOP, [0, 0], None);

    assert_eq!(
        start(&bed, PAGE, &[(BASE, 64 * PAGE), (BASE + 64 * PAGE, PAGE)]).status,
        0
    );
    let buffer = Buffer::new(&bed, 7, 7);
    for opcode in [hw::VIFA_DATA_LOG_READ_AND_CLEAR, hw::VIFA_DATA_LOG_SUMMARY] {
        for arguments in [
            [BASE, 0],
            [BASE + 1, PAGE],
            [BASE, PAGE + 1],
            [BASE - PAGE, 2 * PAGE],
            // Two ranges, though one follows the other.
            [BASE, 65 * PAGE],
            [BASE, 0u64.wrapping_sub(BASE)],
        ] {
            let answer = bed.execute(FRAME, opcode, arguments, Some(&buffer));
            assert_eq!(answer.status, invalid, "{opcode:#x} {arguments:x?}");
        }
    }
    let answer = bed.execute(
        FRAME,
        hw::VIFA_DATA_LOG_READ_AND_CLEAR,
        [BASE, 64 * PAGE],
        Some(&buffer),
    );
    assert_eq!(
        (answer.status, answer.result[0]),
        (hw::VIFA_STATUS_BUFFER_TOO_SMALL, 8)
    );
}
