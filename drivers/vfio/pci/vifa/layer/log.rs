// SPDX-License-Identifier: GPL-2.0

//! What a report of written guest memory has to ask of a log.
//!
//! A log knows which pages of the ranges that it tracks were written. Who asks for a report may name
//! any bytes: beyond the ranges, and parts of pages. A report is therefore divided into [`Pieces`].
//! A log with a summary, of which one bit stands for many pages, need be read only where such a bit
//! is set: these are the [`Windows`]. What was read is a bitmap of pages, whose set bits
//! [`for_each_run`] joins.

use super::{
    address::Range,
    check::{
        check,
        Expectation,
        Violation, //
    },
};

/// Smallest page of a log, in bytes.
pub(crate) const PAGE_SIZE_MIN: u64 = 0x1000;

/// Checks the page size that somebody asks a log for.
///
/// # Errors
///
/// It is not a power of two from [`PAGE_SIZE_MIN`].
pub(crate) fn check_page_size(page_size: u64) -> Result<(), Violation> {
    check("page_size", page_size, Expectation::PowerOfTwo)?;
    check("page_size", page_size, Expectation::AtLeast(PAGE_SIZE_MIN))
}

/// Returns the range from `first` to `last`, both inclusive, of pages of `page_size` bytes.
///
/// # Errors
///
/// The range is empty, which VFIO writes as a `last` before `first`; or it is not of whole pages.
pub(crate) fn range(first: u64, last: u64, page_size: u64) -> Result<Range, Violation> {
    let length = last.wrapping_sub(first).wrapping_add(1);

    check("length", length, Expectation::AtLeast(1))?;
    check("iova", first, Expectation::MultipleOf(page_size))?;
    check("length", length, Expectation::MultipleOf(page_size))?;
    check(
        "length",
        length,
        Expectation::AtMost(u64::MAX.saturating_sub(first)),
    )?;
    Ok(Range {
        start: first,
        length,
    })
}

/// A piece of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Beyond what is tracked.
    Untracked(Range),
    /// Bytes of a page of the log, `page`, of which the report has no more than these.
    Part {
        /// The whole page.
        page: Range,
        /// What the report has of it.
        part: Range,
    },
    /// Whole pages of the log, in one range.
    Pages(Range),
}

/// The pieces of a report, in ascending order and without a gap.
pub(crate) struct Pieces<'a> {
    /// Those ranges that the report has not yet passed.
    ranges: &'a [Range],
    page_size: u64,
    at: u64,
    end: u64,
}

impl<'a> Pieces<'a> {
    /// Divides `report` by the `ranges` that a log tracks, which ascend and do not overlap, in pages of
    /// `page_size` bytes, of which each range is a multiple. Nothing ends behind the last byte but one
    /// of the address space.
    pub(crate) fn new(ranges: &'a [Range], page_size: u64, report: Range) -> Self {
        let passed = ranges.partition_point(|range| range.end() <= report.start);

        Self {
            ranges: ranges.get(passed..).unwrap_or_default(),
            page_size,
            at: report.start,
            end: report.end(),
        }
    }

    /// Takes the bytes up to `end`, or to the end of the report.
    fn take(&mut self, end: u64) -> Range {
        let start = self.at;

        self.at = end.min(self.end);
        Range {
            start,
            length: self.at.saturating_sub(start),
        }
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.at >= self.end {
            return None;
        }
        let (range, behind) = match self.ranges.split_first() {
            Some((range, behind)) if range.start <= self.at => (range, behind),
            Some((range, _)) => return Some(Piece::Untracked(self.take(range.start))),
            None => return Some(Piece::Untracked(self.take(self.end))),
        };

        let into_page = self.at & self.page_size.saturating_sub(1);
        let page = Range {
            start: self.at.saturating_sub(into_page),
            length: self.page_size,
        };
        let whole = self.end.min(range.end()) & !self.page_size.saturating_sub(1);
        let piece = if into_page == 0 && self.at < whole {
            Piece::Pages(self.take(whole))
        } else {
            Piece::Part {
                page,
                part: self.take(page.end()),
            }
        };
        if self.at >= range.end() {
            self.ranges = behind;
        }
        Some(piece)
    }
}

/// How much a log tells at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// Bytes of a page.
    pub(crate) page_size: u64,
    /// Pages that a bit of the summary stands for.
    pub(crate) summary_pages: u64,
    /// Bits of a summary, at the most.
    pub(crate) summary_bits: u64,
    /// Pages that are read at a time, at the most: a multiple of `summary_pages`.
    pub(crate) window_pages: u64,
}

impl Capacity {
    /// Bytes that a bit of the summary stands for.
    fn summary_unit(&self) -> u64 {
        self.summary_pages.saturating_mul(self.page_size)
    }

    /// Returns how many bits a bitmap of the pages of `range` has.
    pub(crate) fn pages(&self, range: Range) -> u64 {
        range.length / self.page_size.max(1)
    }

    /// Returns how many bits the summary of `range` has.
    pub(crate) fn bits(&self, range: Range) -> u64 {
        range.length.div_ceil(self.summary_unit().max(1))
    }

    /// Returns whether it costs less to read `range` than to ask for its summary first.
    pub(crate) fn is_small(&self, range: Range) -> bool {
        range.length <= self.summary_unit()
    }

    /// Divides `range` into ranges that one summary can have.
    pub(crate) fn summaries(&self, range: Range) -> impl Iterator<Item = Range> {
        split(range, self.summary_unit().saturating_mul(self.summary_bits))
    }
}

/// Divides `range` into ranges of `step` bytes, but for the last one.
fn split(range: Range, step: u64) -> impl Iterator<Item = Range> {
    let mut rest = range;

    core::iter::from_fn(move || {
        let first = Range {
            start: rest.start,
            length: rest.length.min(step),
        };
        rest = Range {
            start: first.end(),
            length: rest.length.saturating_sub(first.length),
        };
        (first.length != 0).then_some(first)
    })
}

/// The parts of a range that its summary names, each small enough to be read at a time.
pub(crate) struct Windows<'a> {
    summary: &'a [u8],
    range: Range,
    capacity: Capacity,
    /// The next bit to look at.
    bit: u64,
}

impl<'a> Windows<'a> {
    /// `summary` is the one of `range`; bits behind its last one do not matter.
    pub(crate) fn new(summary: &'a [u8], range: Range, capacity: Capacity) -> Self {
        Self {
            summary,
            range,
            capacity,
            bit: 0,
        }
    }

    /// Returns whether this bit of the summary is set; `None` behind the last one.
    fn is_set(&self, bit: u64) -> Option<bool> {
        if bit >= self.capacity.bits(self.range) {
            return None;
        }
        let byte = usize::try_from(bit / 8).ok()?;
        // What the summary lacks is not known to be clean.
        Some(
            self.summary
                .get(byte)
                .is_none_or(|byte| byte >> (bit % 8) & 1 != 0),
        )
    }
}

impl Iterator for Windows<'_> {
    type Item = Range;

    fn next(&mut self) -> Option<Range> {
        while !self.is_set(self.bit)? {
            self.bit = self.bit.saturating_add(1);
        }

        let first = self.bit;
        let most = self.capacity.window_pages / self.capacity.summary_pages.max(1);
        let limit = first.saturating_add(most.max(1));
        while self.bit < limit && self.is_set(self.bit) == Some(true) {
            self.bit = self.bit.saturating_add(1);
        }

        let unit = self.capacity.summary_unit();
        let start = first.saturating_mul(unit);
        let end = self.bit.saturating_mul(unit).min(self.range.length);
        Some(Range {
            start: self.range.start.saturating_add(start),
            length: end.saturating_sub(start),
        })
    }
}

/// Bytes of a word.
const WORD: usize = 8;

/// Words that are looked at together.
const GROUP: usize = 4;

/// Joins set bits.
struct Runs<F> {
    /// Where the present run begins; `None`: the last bit was clear.
    first: Option<u64>,
    found: F,
}

impl<F: FnMut(u64, u64)> Runs<F> {
    /// Returns whether no run begins or ends in these words.
    fn goes_on(&self, words: [u64; GROUP]) -> bool {
        let same = if self.first.is_some() { u64::MAX } else { 0 };

        words.into_iter().all(|word| word == same)
    }

    /// Takes the next word, whose bit 0 is the bitmap's bit `base`.
    fn take(&mut self, base: u64, word: u64) {
        // The bits that differ from the one before.
        let mut edges = word ^ (word << 1 | u64::from(self.first.is_some()));

        while edges != 0 {
            self.toggle(base.saturating_add(edges.trailing_zeros().into()));
            edges &= edges.wrapping_sub(1);
        }
    }

    /// The present run ends before this bit, or one begins with it.
    fn toggle(&mut self, at: u64) {
        match self.first.take() {
            Some(first) => (self.found)(first, at.saturating_sub(first)),
            None => self.first = Some(at),
        }
    }
}

/// Calls `found` with each run of set bits among the first `bits` of `bitmap`: the first bit of the
/// run, and how many it has. Bit 0 of byte 0 is the first. Runs ascend, and none touches another.
///
/// Of a bitmap that is too short, all bits are taken for set.
pub(crate) fn for_each_run(bitmap: &[u8], bits: u64, mut found: impl FnMut(u64, u64)) {
    let length = usize::try_from(bits.div_ceil(8)).unwrap_or(usize::MAX);
    let Some(bitmap) = bitmap.get(..length) else {
        return found(0, bits);
    };
    // CAST: Less than `length`.
    let (words, rest) = bitmap.split_at((bits / 64) as usize * WORD);
    let mut runs = Runs { first: None, found };
    let mut at = 0_u64;

    for group in words.chunks(GROUP * WORD) {
        let mut loaded = [0; GROUP];
        for (word, bytes) in loaded.iter_mut().zip(group.chunks_exact(WORD)) {
            *word = load(bytes);
        }
        if group.len() == GROUP * WORD && runs.goes_on(loaded) {
            at = at.saturating_add(64 * GROUP as u64);
            continue;
        }
        for &word in loaded.iter().take(group.len() / WORD) {
            runs.take(at, word);
            at = at.saturating_add(64);
        }
    }
    let beyond = u64::MAX << (bits % 64);
    runs.take(at, load(rest) & !beyond);
    if runs.first.is_some() {
        runs.toggle(bits);
    }
}

/// Makes a word of up to eight bytes.
fn load(bytes: &[u8]) -> u64 {
    let mut word = [0; WORD];

    for (to, from) in word.iter_mut().zip(bytes) {
        *to = *from;
    }
    u64::from_le_bytes(word)
}
