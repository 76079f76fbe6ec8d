// SPDX-License-Identifier: GPL-2.0

//! Tests of the queries of a log for reports of written guest memory.
//!
//! The models here use single bytes, pages and bits, and share no code with the layer.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use crate::layer::{
    address::Range,
    log::{self, Capacity, Piece, Pieces, Windows},
};

/// Returns the bytes from `start` up to `end`.
fn range(start: u64, end: u64) -> Range {
    Range {
        start,
        length: end - start,
    }
}

/// Returns the bytes of a range, in units smaller than any page.
fn units(range: Range) -> impl Iterator<Item = u64> {
    assert_eq!((range.start % UNIT, range.length % UNIT), (0, 0));
    (range.start / UNIT)..(range.start / UNIT + range.length / UNIT)
}

const UNIT: u64 = 0x200;

/// The capacity of a small log: 4 KiB pages, and 4 pages per bit of the summary.
const CAPACITY: Capacity = Capacity {
    page_size: 0x1000,
    summary_pages: 4,
    summary_bits: 5,
    window_bits: 6,
    gap_bits: 2,
};

/// Any ranges of whole pages that neither overlap nor touch, up to some hundreds of pages.
fn ranges(page_size: u64) -> impl Strategy<Value = Vec<Range>> {
    vec((1..20u64, 1..60u64), 0..5).prop_map(move |gaps_and_lengths| {
        let mut end = 0;
        gaps_and_lengths
            .into_iter()
            .map(|(gap, length)| {
                let start = end + gap * page_size;
                end = start + length * page_size;
                range(start, end)
            })
            .collect()
    })
}

/// Any range of bytes, often at page boundaries.
fn report() -> impl Strategy<Value = Range> {
    let edge = prop_oneof![0..3000u64, (0..375u64).prop_map(|page| page * 8)];
    (edge.clone(), edge)
        .prop_filter("a report has a length", |(one, other)| one != other)
        .prop_map(|(one, other)| range(one.min(other) * UNIT, one.max(other) * UNIT))
}

#[test]
fn page_sizes() {
    for page_size in [0x1000, 0x2000, 0x20_0000, 1 << 63] {
        assert_eq!(log::check_page_size(page_size), Ok(()));
    }
    for (page_size, reason) in [
        (0, "page_size: expected a power of two, found 0x0"),
        (3, "page_size: expected a power of two, found 0x3"),
        (0x1800, "page_size: expected a power of two, found 0x1800"),
        (
            u64::MAX,
            "page_size: expected a power of two, found 0xffffffffffffffff",
        ),
        (1, "page_size: expected at least 0x1000, found 0x1"),
        (0x800, "page_size: expected at least 0x1000, found 0x800"),
    ] {
        let violation = log::check_page_size(page_size).unwrap_err();
        assert_eq!(violation.to_string(), reason);
    }
}

#[test]
fn any_hint_is_a_page_size() {
    for (hint, page_size) in [
        (0, 0x1000),
        (1, 0x1000),
        (0x1000, 0x1000),
        (0x1fff, 0x1000),
        (0x3000, 0x2000),
        (0x20_0000, 0x20_0000),
        (0xffff_ffff, 1 << 31),
        (u64::MAX, 1 << 31),
    ] {
        assert_eq!(log::page_size(hint), page_size, "hint {hint:#x}");
    }
}

#[test]
fn ranges_have_whole_pages() {
    for ((first, last), pages) in [
        ((0, 0), range(0, 0x1000)),
        ((0x800, 0x17ff), range(0, 0x2000)),
        ((0x1fff, 0x2000), range(0x1000, 0x3000)),
        ((0x1000, 0x1fff), range(0x1000, 0x2000)),
    ] {
        assert_eq!(log::range(first, last, 0x1000), Ok(pages));
    }
}

#[test]
fn ranges_that_share_a_page_become_one() {
    let mut first = range(0, 0x2000);
    assert!(first.join(range(0x1000, 0x2000)));
    assert_eq!(first, range(0, 0x2000));
    assert!(first.join(range(0x1000, 0x4000)));
    assert_eq!(first, range(0, 0x4000));
    assert!(first.join(range(0x4000, 0x5000)));
    assert_eq!(first, range(0, 0x5000));
    assert!(!first.join(range(0x6000, 0x7000)));
}

#[test]
fn smallest_gaps_are_combined_first() {
    let ranges = [
        range(0, 1),
        range(5, 6),
        range(8, 10),
        range(20, 25),
        range(26, 27),
    ];
    for (most, expected) in [
        (5, &ranges[..]),
        (4, &[range(0, 1), range(5, 6), range(8, 10), range(20, 27)]),
        (3, &[range(0, 1), range(5, 10), range(20, 27)]),
        (2, &[range(0, 10), range(20, 27)]),
        (1, &[range(0, 27)]),
        (0, &[range(0, 27)]),
    ] {
        let mut combined = ranges;
        let left = log::combine(&mut combined, most);
        assert_eq!(&combined[..left], expected, "at most {most}");
    }
    assert_eq!(log::combine(&mut [], 1), 0);
}

#[test]
fn ranges_of_vfio() {
    assert_eq!(log::range(0, 0xfff, 0x1000), Ok(range(0, 0x1000)));
    assert_eq!(
        log::range(0x3000, u64::MAX - 0x1000, 0x1000),
        Ok(range(0x3000, u64::MAX - 0xfff))
    );
    for ((first, last), reason) in [
        // The encoding of an empty range in VFIO, at 0 and at 0x2000.
        ((0, u64::MAX), "length: expected at least 0x1, found 0x0"),
        ((0x2000, 0x1fff), "length: expected at least 0x1, found 0x0"),
        // The last page is the last of the address space.
        (
            (0x1000, u64::MAX),
            "length: expected less than 0xffffffffffffefff, found 0xffffffffffffefff",
        ),
        (
            (0x1000, u64::MAX - 0x800),
            "length: expected less than 0xffffffffffffefff, found 0xffffffffffffefff",
        ),
    ] {
        let violation = log::range(first, last, 0x1000).unwrap_err();
        assert_eq!(violation.to_string(), reason);
    }
}

proptest! {
    /// The pieces cover the whole report, in order. A page of a range is a whole page exactly if
    /// the report contains all of it. Other bytes are untracked.
    #[test]
    fn pieces((page_size, tracked) in (3..7u32).prop_flat_map(|order| {
        let page_size = UNIT << order;
        (Just(page_size), ranges(page_size))
    }), report in report()) {
        let mut at = report.start;

        for piece in Pieces::new(&tracked, page_size, report) {
            let bytes = match piece {
                Piece::Untracked(bytes) | Piece::Pages(bytes) => bytes,
                Piece::Part { part, .. } => part,
            };
            prop_assert_eq!(bytes.start, at);
            prop_assert!(bytes.length > 0);
            at = bytes.end();

            for unit in units(bytes) {
                let byte = unit * UNIT;
                let page = byte / page_size * page_size;
                let home = tracked.iter().find(|range| range.start <= byte && byte < range.end());
                let is_whole = report.start <= page && page + page_size <= report.end();

                match (home, piece) {
                    (None, Piece::Untracked(_)) => {}
                    (Some(home), Piece::Pages(pages)) => {
                        prop_assert!(is_whole, "{:#x} is read", byte);
                        prop_assert!(home.start <= pages.start && pages.end() <= home.end());
                        let rest = (pages.start % page_size, pages.length % page_size);
                        prop_assert_eq!(rest, (0, 0));
                    }
                    (Some(_), Piece::Part { page: looked_at, .. }) => {
                        prop_assert!(!is_whole, "{:#x} is not read", byte);
                        prop_assert_eq!(looked_at, range(page, page + page_size));
                    }
                    (home, piece) => prop_assert!(false, "{:?} is {:?}", home, piece),
                }
            }
        }
        prop_assert_eq!(at, report.end());
    }

    /// The windows contain all pages with a set summary bit, and otherwise only short gaps. No
    /// window exceeds its maximum, and none could be joined with the next.
    #[test]
    fn windows(summary in vec(any::<u8>(), 1..9), pages in 1..250u64) {
        let bits = pages.div_ceil(CAPACITY.summary_pages);
        prop_assume!(bits <= 8 * summary.len() as u64);
        let base = 0x7000;
        let whole = range(base, base + pages * CAPACITY.page_size);
        let is_set = |bit: u64| (summary[bit as usize / 8] >> (bit % 8)) & 1 != 0;
        let unit = CAPACITY.summary_pages * CAPACITY.page_size;
        let mut read = BTreeSet::new();
        let mut before: Option<(u64, u64)> = None;

        for window in Windows::new(&summary, whole, CAPACITY) {
            prop_assert_eq!((window.start - base) % unit, 0);
            prop_assert!(window.end() == whole.end() || window.length % unit == 0);
            let first = (window.start - base) / unit;
            let end = first + window.length.div_ceil(unit);

            prop_assert!(first < end && end <= first + CAPACITY.window_bits);
            prop_assert!(is_set(first) && is_set(end - 1));
            let set = (first..end).filter(|&bit| is_set(bit)).collect::<Vec<_>>();
            prop_assert!(set.windows(2).all(|pair| pair[1] - pair[0] <= CAPACITY.gap_bits + 1));
            if let Some((before_first, before_end)) = before {
                let gap = first - before_end;
                let joined = first + 1 - before_first;
                prop_assert!(gap > CAPACITY.gap_bits || joined > CAPACITY.window_bits);
            }
            before = Some((first, end));
            read.extend(first..end);
        }
        prop_assert!((0..bits).filter(|&bit| is_set(bit)).all(|bit| read.contains(&bit)));
    }

    /// A range is divided into summaries with at most the maximum number of bits.
    #[test]
    fn summaries(pages in 1..200u64) {
        let whole = range(0x9000, 0x9000 + pages * CAPACITY.page_size);
        let mut at = whole.start;

        for part in CAPACITY.summaries(whole) {
            prop_assert_eq!(part.start, at);
            prop_assert!((1..=CAPACITY.summary_bits).contains(&CAPACITY.bits(part)));
            at = part.end();
            prop_assert!(CAPACITY.bits(part) == CAPACITY.summary_bits || at == whole.end());
        }
        prop_assert_eq!(at, whole.end());
    }

    /// The runs are those of the bits, whatever follows the last one. Afterwards all bits are set.
    #[test]
    fn runs(stretches in vec((prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 1..200usize), 0..8),
            cut in 0..8u64) {
        let bytes: Vec<u8> = stretches
            .iter()
            .flat_map(|&(byte, length)| std::iter::repeat_n(byte, length))
            .collect();
        let bits = (8 * bytes.len() as u64).saturating_sub(cut);
        let mut found = Vec::new();
        let mut taken = bytes.clone();
        log::take_runs(&mut taken, bits, |first, count| found.push((first, count)));
        prop_assert!(taken.iter().all(|&byte| byte == 0xff));

        let mut expected: Vec<(u64, u64)> = Vec::new();
        for bit in (0..bits).filter(|bit| (bytes[*bit as usize / 8] >> (bit % 8)) & 1 != 0) {
            match expected.last_mut() {
                Some((first, count)) if *first + *count == bit => *count += 1,
                _ => expected.push((bit, 1)),
            }
        }
        prop_assert_eq!(found, expected);
    }
}

/// All bits of a bitmap that is too short count as dirty.
#[test]
fn short_bitmap() {
    let mut found = Vec::new();
    log::take_runs(&mut [0; 7], 57, |first, count| found.push((first, count)));
    assert_eq!(found, [(0, 57)]);
}

/// A log with a set of dirty pages, and the model of its reports.
struct Log {
    tracked: Vec<Range>,
    dirty: BTreeSet<u64>,
}

impl Log {
    fn has(&self, byte: u64) -> bool {
        let is_home = |range: &&Range| range.start <= byte && byte < range.end();
        self.tracked.iter().any(|range| is_home(&range))
    }

    fn write(&mut self, bytes: Range) {
        let written = units(bytes).map(|unit| unit * UNIT);
        let written: Vec<_> = written.filter(|&byte| self.has(byte)).collect();
        let pages = written.into_iter().map(|byte| byte / CAPACITY.page_size);
        self.dirty.extend(pages);
    }

    /// Returns a bitmap with one bit per `unit` pages of `bytes`.
    fn bitmap(&self, bytes: Range, unit: u64) -> Vec<u8> {
        let first = bytes.start / CAPACITY.page_size;
        let pages = CAPACITY.pages(bytes);
        let mut bitmap = vec![0; pages.div_ceil(unit).div_ceil(8) as usize];
        for page in self.dirty.range(first..first + pages) {
            let bit = (page - first) / unit;
            bitmap[bit as usize / 8] |= 1 << (bit % 8);
        }
        bitmap
    }

    fn read_and_clear(&mut self, window: Range, reported: &mut BTreeSet<u64>) {
        let mut bitmap = self.bitmap(window, 1);
        let first = window.start / CAPACITY.page_size;
        let pages = CAPACITY.pages(window);
        self.dirty
            .retain(|page| !(first..first + pages).contains(page));
        log::take_runs(&mut bitmap, pages, |run, count| {
            let start = window.start + run * CAPACITY.page_size;
            reported.extend(units(range(start, start + count * CAPACITY.page_size)));
        });
    }

    /// Returns the report of a driver.
    fn report(&mut self, report: Range) -> BTreeSet<u64> {
        let mut reported = BTreeSet::new();
        let tracked = self.tracked.clone();
        for piece in Pieces::new(&tracked, CAPACITY.page_size, report) {
            match piece {
                Piece::Untracked(bytes) => reported.extend(units(bytes)),
                Piece::Part { page, part } => {
                    if self.bitmap(page, CAPACITY.summary_pages) != [0] {
                        reported.extend(units(part));
                    }
                }
                Piece::Pages(pages) if CAPACITY.is_small(pages) => {
                    self.read_and_clear(pages, &mut reported);
                }
                Piece::Pages(pages) => {
                    for part in CAPACITY.summaries(pages) {
                        let summary = self.bitmap(part, CAPACITY.summary_pages);
                        for window in Windows::new(&summary, part, CAPACITY) {
                            self.read_and_clear(window, &mut reported);
                        }
                    }
                }
            }
        }
        reported
    }
}

proptest! {
    /// Reports in any order and of any bytes contain exactly the written pages. They clear only the
    /// pages that they contain completely.
    #[test]
    fn reports(
        tracked in ranges(CAPACITY.page_size),
        rounds in vec((vec(report(), 0..8), report()), 1..6),
    ) {
        let mut log = Log { tracked, dirty: BTreeSet::new() };
        let mut model = BTreeSet::new();

        for (writes, report) in rounds {
            for write in writes {
                // A device writes few bytes at a time.
                let write = range(write.start, write.end().min(write.start + 0x3000));
                log.write(write);
                let pages = units(write).map(|unit| unit * UNIT / CAPACITY.page_size);
                model.extend(pages.filter(|page| log.has(page * CAPACITY.page_size)));
            }
            let page = |unit: u64| unit * UNIT / CAPACITY.page_size;
            let expected: BTreeSet<_> = units(report)
                .filter(|&unit| !log.has(unit * UNIT) || model.contains(&page(unit)))
                .collect();

            prop_assert_eq!(log.report(report), expected);
            model.retain(|page| {
                let start = page * CAPACITY.page_size;
                start < report.start || report.end() < start + CAPACITY.page_size
            });
            prop_assert_eq!(&log.dirty, &model);
        }
    }
}
