// SPDX-License-Identifier: GPL-2.0

//! The log of writes to guest memory.

use std::collections::BTreeSet;

use vifa_qtest::{hw, scattered, Answer, Bed, Buffer, Command, Engine, Frame, Mark, Random};

const FRAME: Frame = Frame::Data(0);
const PAGE: u64 = 4096;
/// Number of pages for each bit of the summary.
const GROUP: u64 = hw::VIFA_LOG_SUMMARY_PAGES as u64;
const TIB: u64 = 1 << 40;
/// Memory that the tests write, 8 MiB that the bed's allocator never reaches.
const BASE: u64 = 0x800_0000;

/// Starts the log over `ranges`. Returns the answer with the page size.
fn start(bed: &Bed, page_size: u64, ranges: &[(u64, u64)]) -> Answer {
    bed.log_start(0, page_size, ranges)
}

fn report(bed: &Bed, opcode: u32, start: u64, length: u64, bits: u64) -> (Vec<u64>, bool) {
    bed.log_bits(0, opcode, start, length, bits)
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
    // From the first range, across the hole, into the second.
    fill(&bed, &mut engine, BASE + 98 * PAGE, 160 * PAGE);
    assert_eq!(dirty(&bed, BASE, 50 * PAGE), [0, 2, 3]);
    assert_eq!(dirty(&bed, BASE, 100 * PAGE), [98, 99]);
    assert_eq!(dirty(&bed, BASE, 100 * PAGE), []);
    assert_eq!(dirty(&bed, second + PAGE, 63 * PAGE), [0]);
    assert_eq!(dirty(&bed, second, 64 * PAGE), [0]);

    // Reads are not logged.
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

/// Writes that share a single byte with a range.
#[test]
fn the_edges_of_a_range() {
    let bed = Bed::new("", 1);
    let mut engine = Engine::new(&bed, 0, 4);
    let ranges = [(BASE, 4 * PAGE), (BASE + 8 * PAGE, 4 * PAGE)];
    start(&bed, PAGE, &ranges);
    for (at, length) in ranges {
        for (destination, page) in [(at - 7, 0), (at + length - 1, length / PAGE - 1)] {
            fill(&bed, &mut engine, destination, 8);
            assert_eq!(dirty(&bed, at, length), [page], "{destination:#x}");
        }
        for destination in [at - 8, at + length] {
            fill(&bed, &mut engine, destination, 8);
            assert_eq!(dirty(&bed, at, length), [], "{destination:#x}");
        }
    }
}

/// Words scattered over a range: the log matches an independent generator page by page.
#[test]
fn scattered_words_are_logged() {
    let bed = Bed::new("", 1);
    let mut engine = Engine::new(&bed, 0, 4);
    let pages = 4000;
    start(&bed, PAGE, &[(BASE, pages * PAGE)]);
    for (pattern, words) in [(0, 1), (1 << 32, 3000), (1 << 33, 40_000)] {
        // Not aligned to words: one in 512 words is on two pages.
        let (at, window) = (BASE + 4, (pages - 1) * PAGE);
        engine.succeed(&bed, Command::scatter(at, window, words, pattern));
        let expected: BTreeSet<u64> = scattered(window, words, pattern)
            .flat_map(|(offset, _)| [offset + 4, offset + 11])
            .map(|offset| offset / PAGE)
            .collect();
        let logged = dirty(&bed, BASE, pages * PAGE);
        assert!(logged.iter().eq(&expected), "{words} words");
    }
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

/// The completed part of a write that ends in a fault is logged too, because the guest may see it.
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
    let group = GROUP * PAGE;
    let length = 3 * group + 10 * PAGE;
    start(&bed, PAGE, &[(0, length)]);
    let summary =
        |from, length, bits| report(&bed, hw::VIFA_DATA_LOG_SUMMARY, from, length, bits).0;
    assert_eq!(summary(0, length, 4), []);
    fill(&bed, &mut engine, BASE, 8);
    // The bed's rings are in the first group, the filled memory is in the second.
    assert_eq!(summary(0, length, 4), [0, 1]);
    assert_eq!(summary(0, length, 4), [0, 1], "clears nothing");
    assert_eq!(summary(BASE - 5 * PAGE, group, 1), [0]);
    assert_eq!(summary(BASE + PAGE, group, 1), []);
    dirty(&bed, BASE, PAGE);
    assert_eq!(summary(0, length, 4), [0]);
}

/// Returns the summary of a part of a log, with any start and end.
fn summary_of(bed: &Bed, start: u64, pages: u64) -> Vec<u64> {
    let bits = pages.div_ceil(GROUP);
    report(bed, hw::VIFA_DATA_LOG_SUMMARY, start, pages * PAGE, bits).0
}

#[test]
fn a_tebibyte() {
    let bed = Bed::new("fault-injection=on", 1);
    let base = 5 * TIB + 7 * PAGE;
    let groups = TIB / PAGE / GROUP;
    let all: Vec<u64> = (0..groups).collect();
    let summary = || summary_of(&bed, base, TIB / PAGE);
    assert_eq!(start(&bed, PAGE, &[(base, TIB)]).result[0], PAGE);
    assert_eq!(summary(), []);

    assert!(bed.mark(Mark::all(base, TIB)));
    assert!(summary() == all, "all of it is dirty");
    let whole: Vec<u64> = (0..GROUP).collect();
    for group in [0, 1, 4095, groups - 1] {
        let first = base + group * GROUP * PAGE;
        assert!(dirty(&bed, first, GROUP * PAGE) == whole, "group {group}");
        assert_eq!(dirty(&bed, first, GROUP * PAGE), [], "group {group}");
    }
    let left: Vec<u64> = (2..groups - 1).filter(|group| *group != 4095).collect();
    assert!(summary() == left, "all except the four read groups");
}

/// A group of pages is clean once its last dirty page was read, in any order.
#[test]
fn the_summary_follows_the_pages() {
    let bed = Bed::new("fault-injection=on", 1);
    start(&bed, PAGE, &[(BASE, 4 * GROUP * PAGE)]);
    let summary = || summary_of(&bed, BASE, 4 * GROUP);
    // From the last page of the first group to the first page of the third.
    let first = BASE + (GROUP - 1) * PAGE;
    assert!(bed.mark(Mark::all(first, (GROUP + 2) * PAGE)));
    assert_eq!(summary(), [0, 1, 2]);
    assert_eq!(dirty(&bed, first, PAGE), [0]);
    assert_eq!(summary(), [1, 2]);
    dirty(&bed, BASE + GROUP * PAGE, (GROUP - 1) * PAGE);
    assert_eq!(summary(), [1, 2], "a page of the second group remains");
    assert_eq!(summary_of(&bed, BASE + PAGE, 2 * GROUP), [1]);
    assert_eq!(summary_of(&bed, BASE + (GROUP + 5) * PAGE, GROUP), [0]);
    assert_eq!(summary_of(&bed, BASE, 2 * GROUP - 1), []);
    assert_eq!(dirty(&bed, BASE + (2 * GROUP - 1) * PAGE, 2 * PAGE), [0, 1]);
    assert_eq!(summary(), []);
}

/// A set of pages, as the log should be.
struct Model {
    /// Page size in bytes.
    page: u64,
    /// Start in bytes and number of pages of each range.
    ranges: Vec<(u64, u64)>,
    /// Whether each page of each range is dirty.
    dirty: Vec<Vec<bool>>,
}

impl Model {
    /// Returns random ranges without dirty pages.
    fn new(page: u64, random: &mut Random) -> Self {
        let mut ranges = Vec::new();
        let mut next = random.below(100) * page;
        for _ in 0..=random.below(12) {
            let pages = random.pick(&[1, 2, 7, 64, 65, 1000, GROUP - 1, GROUP, GROUP + 1, 70_000]);
            ranges.push((next, pages));
            next += (pages + random.pick(&[0, 0, 1, 63, GROUP])) * page;
        }
        let dirty = ranges
            .iter()
            .map(|(_, pages)| vec![false; *pages as usize])
            .collect();
        Self {
            page,
            ranges,
            dirty,
        }
    }

    /// Marks the pages of these bytes. Returns whether any page is in a range.
    fn mark(&mut self, from: u64, length: u64) -> bool {
        let mut hit = false;
        for ((at, _), pages) in self.ranges.iter().zip(&mut self.dirty) {
            let first = from.saturating_sub(*at) / self.page;
            let end = (from + length).saturating_sub(*at).div_ceil(self.page);
            for dirty in pages.iter_mut().take(end as usize).skip(first as usize) {
                *dirty = true;
                hit = true;
            }
        }
        hit
    }
}

/// Returns the numbers of the set bits.
fn numbers(bits: impl Iterator<Item = bool>) -> Vec<u64> {
    (0..)
        .zip(bits)
        .filter(|(_, set)| *set)
        .map(|(n, _)| n)
        .collect()
}

/// The log equals a set of pages: ranges, writes and reports with any start and end.
#[test]
fn the_log_is_a_set_of_pages() {
    let random = &mut Random::new(3);
    for round in 0..12 {
        let bed = Bed::new("fault-injection=on", 1);
        let mut model = Model::new([PAGE, 64 << 10, 2 << 20][round % 3], random);
        let page = model.page;
        let bytes: Vec<_> = model
            .ranges
            .iter()
            .map(|(at, pages)| (*at, pages * page))
            .collect();
        assert_eq!(start(&bed, page, &bytes).status, hw::VIFA_STATUS_SUCCESS);

        for _ in 0..150 {
            // Bytes in a range or slightly outside of it.
            let (at, pages) = random.pick(&model.ranges);
            let from = at + random.below(pages * page);
            let length = 1 + match random.below(3) {
                0 => 0,
                1 => random.below(3 * page),
                _ => random.below(2 * GROUP * page),
            };
            let hit = model.mark(from, length);
            assert_eq!(bed.mark(Mark::all(from, length)), hit);

            // Pages of one range, starting at any of them.
            let ranges = &model.ranges;
            let i = random.below(ranges.len() as u64) as usize;
            let (at, pages) = ranges[i];
            let first = random.below(2) * random.below(pages);
            let left = pages - first;
            let count = match random.below(3) {
                0 => left,
                1 => 1 + random.below(left),
                _ => 1 + random.below(left.min(100)),
            };
            let part = &mut model.dirty[i][first as usize..(first + count) as usize];
            let groups = part.chunks(GROUP as usize);
            let expected = (
                numbers(part.iter().copied()),
                numbers(groups.map(|pages| pages.contains(&true))),
            );
            let (from, length) = (at + first * page, count * page);
            let groups = count.div_ceil(GROUP);
            let summary = report(&bed, hw::VIFA_DATA_LOG_SUMMARY, from, length, groups);
            let pages = report(&bed, hw::VIFA_DATA_LOG_READ_AND_CLEAR, from, length, count);
            assert!(
                summary == (expected.1, false),
                "summary of {count} pages of {page} from {first} of range {i} of {ranges:?}"
            );
            assert!(
                pages == (expected.0, false),
                "bitmap of {count} pages of {page} from {first} of range {i} of {ranges:?}"
            );
            part.fill(false);
        }
    }
}

#[test]
fn maximum_number_of_ranges() {
    let bed = Bed::new("fault-injection=on", 1);
    let ranges: Vec<_> = (0..1024).map(|i| (BASE + 2 * i * PAGE, PAGE)).collect();
    assert_eq!(start(&bed, PAGE, &ranges).status, hw::VIFA_STATUS_SUCCESS);
    assert!(bed.mark(Mark::all(0, TIB)));
    for (at, _) in [ranges[0], ranges[511], ranges[1023]] {
        assert_eq!(dirty(&bed, at, PAGE), [0]);
        assert_eq!(dirty(&bed, at, PAGE), []);
    }
    assert!(
        !bed.mark(Mark::all(BASE + PAGE, PAGE)),
        "between two ranges"
    );
}

/// A long bitmap is read in slices. Concurrent writes are in this report or in the next.
#[test]
fn a_long_report_yields_to_other_work() {
    let bed = Bed::new("fault-injection=on", 1);
    let length = 128 << 30;
    start(&bed, PAGE, &[(0, length)]);
    let buffer = Buffer::new(&bed, length / PAGE / 8, 3 << 20);
    let opcode = hw::VIFA_DATA_LOG_READ_AND_CLEAR;
    let tag = bed.start(FRAME, opcode, [0, length], Some(&buffer));
    assert!(bed.busy(FRAME), "a part remains");
    let last = length - PAGE;
    assert!(bed.mark(Mark::all(0, PAGE)) && bed.mark(Mark::all(last, PAGE)));
    let answer = bed.wait(FRAME, tag);
    assert_eq!((answer.status, answer.result[0]), (0, length / PAGE));
    let end = bed.read(buffer.address(length / PAGE / 8 - 8), 8);
    assert_eq!(
        (bed.read(buffer.address(0), 8), end),
        (vec![0; 8], vec![0, 0, 0, 0, 0, 0, 0, 0x80])
    );
    assert_eq!(dirty(&bed, 0, PAGE), [0]);
    assert_eq!(dirty(&bed, last, PAGE), []);

    // A report that is aborted halfway has cleared only the pages that it had read.
    assert!(bed.mark(Mark::all(0, PAGE)) && bed.mark(Mark::all(last, PAGE)));
    let tag = bed.start(FRAME, opcode, [0, length], Some(&buffer));
    assert!(bed.busy(FRAME));
    bed.frame_write(FRAME, hw::VIFA_MAILBOX_ABORT, 1);
    assert_eq!(bed.wait(FRAME, tag).status, hw::VIFA_STATUS_ABORTED);
    assert_eq!(dirty(&bed, 0, PAGE), []);
    assert_eq!(dirty(&bed, last, PAGE), [0]);
}

/// A bitmap that cannot be written is not cleared.
#[test]
fn a_report_that_fails_clears_nothing() {
    let bed = Bed::new("fault-injection=on", 1);
    start(&bed, PAGE, &[(BASE, 8 * PAGE)]);
    assert!(bed.mark(Mark::all(BASE, 8 * PAGE)));
    let nowhere = Buffer::from_pieces(&bed, vec![(1 << 50, 1)]);
    let opcode = hw::VIFA_DATA_LOG_READ_AND_CLEAR;
    let answer = bed.execute(FRAME, opcode, [BASE, 8 * PAGE], Some(&nowhere));
    assert_eq!(answer.status, hw::VIFA_STATUS_DMA_FAULT);
    assert_eq!(dirty(&bed, BASE, 8 * PAGE), [0, 1, 2, 3, 4, 5, 6, 7]);
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
        (PAGE, vec![(u64::MAX - PAGE + 1, PAGE), (0, PAGE)]),
        (PAGE, vec![(0, TIB + PAGE)]),
        (PAGE, vec![(0, TIB), (TIB, PAGE)]),
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
    // The maximum length, up to the last byte of the address space.
    let answer = start(&bed, PAGE, &[(u64::MAX - TIB + 1, TIB)]);
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
            // Two adjacent ranges are still two ranges.
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
