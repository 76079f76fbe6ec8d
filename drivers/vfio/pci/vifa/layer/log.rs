// SPDX-License-Identifier: GPL-2.0

//! Reports of written guest memory, divided into queries of a log.
//!
//! A log records which pages of its tracked ranges were written. A caller may request a report of
//! any bytes, including bytes outside the ranges and parts of pages. A report is therefore divided
//! into [`Pieces`]. A log may have a summary, in which one bit represents many pages. It is then
//! read only where a summary bit is set: in the [`Windows`]. The log returns a bitmap of pages,
//! and [`take_runs`] joins its set bits.

use super::{
    address::Range,
    check::{
        check,
        Expectation,
        Violation, //
    },
};

/// Smallest page of a log, in bytes.
pub const PAGE_SIZE_MIN: u64 = 0x1000;

/// Largest page of a log, in bytes. The stream has a 32-bit field for it.
pub const PAGE_SIZE_MAX: u64 = 1 << 31;

/// Checks the page size that a device reports for its log.
///
/// # Errors
///
/// Returns an error unless it is a power of two and at least [`PAGE_SIZE_MIN`].
pub fn check_page_size(page_size: u64) -> Result<(), Violation> {
    check("page_size", page_size, Expectation::PowerOfTwo)?;
    check("page_size", page_size, Expectation::AtLeast(PAGE_SIZE_MIN))
}

/// Returns the page size to request from a log for user space's `hint`: the largest power of two
/// that does not exceed it, limited to [`PAGE_SIZE_MIN`] and [`PAGE_SIZE_MAX`].
pub fn page_size(hint: u64) -> u64 {
    let hint = hint.clamp(PAGE_SIZE_MIN, PAGE_SIZE_MAX);

    1 << hint.ilog2()
}

/// Returns the pages of `page_size` bytes, a power of two, that contain the bytes from `first` to
/// `last`, both inclusive.
///
/// # Errors
///
/// Returns an error if the range is empty, which VFIO expresses as `last` before `first`, or if its
/// last page is the last of the address space.
pub fn range(first: u64, last: u64, page_size: u64) -> Result<Range, Violation> {
    let mask = page_size.saturating_sub(1);
    let start = first & !mask;
    let length = (last | mask).wrapping_sub(start).wrapping_add(1);

    check_length(last.wrapping_sub(first).wrapping_add(1))?;
    check(
        "length",
        length.wrapping_sub(1),
        Expectation::Below(u64::MAX.saturating_sub(start)),
    )?;
    Ok(Range { start, length })
}

/// Combines neighbours, those with the smallest gaps first, until at most `most` ranges, or one,
/// remain.
///
/// The ranges must ascend and must not overlap. Returns the number of remaining ranges. The rest of
/// the slice is unspecified.
pub fn combine(ranges: &mut [Range], most: usize) -> usize {
    let mut left = ranges.len();

    while left > most.max(1) {
        let present = ranges.get(..left).unwrap_or_default();
        let gaps = present.windows(2).map(|pair| match pair {
            [before, after] => after.start.saturating_sub(before.end()),
            _ => u64::MAX,
        });
        let Some((place, _)) = gaps.enumerate().min_by_key(|&(_, gap)| gap) else {
            break;
        };
        let next = place.saturating_add(1);
        if let Some([before, after]) = ranges.get_mut(place..=next) {
            before.length = after.end().saturating_sub(before.start);
        }
        ranges.copy_within(next.saturating_add(1)..left, next);
        left = left.saturating_sub(1);
    }
    left
}

/// Checks the length in bytes of a requested report.
///
/// # Errors
///
/// Returns an error if `length` is 0.
pub fn check_length(length: u64) -> Result<(), Violation> {
    check("length", length, Expectation::AtLeast(1))
}

/// A piece of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes outside the tracked ranges.
    Untracked(Range),
    /// Part of a page of the log.
    Part {
        /// The whole page.
        page: Range,
        /// The bytes of the page that are in the report.
        part: Range,
    },
    /// Whole pages of the log, in one range.
    Pages(Range),
}

/// Iterator over the pieces of a report, in ascending order and without gaps.
pub struct Pieces<'a> {
    /// The ranges that end after `at`.
    ranges: &'a [Range],
    page_size: u64,
    at: u64,
    end: u64,
}

impl<'a> Pieces<'a> {
    /// Divides `report` at the bounds of the tracked `ranges` and of pages of `page_size` bytes.
    ///
    /// The ranges must ascend, must not overlap, and must consist of whole pages. Neither the
    /// ranges nor the report may include the last byte of the address space.
    pub fn new(ranges: &'a [Range], page_size: u64, report: Range) -> Self {
        let passed = ranges.partition_point(|range| range.end() <= report.start);

        Self {
            ranges: ranges.get(passed..).unwrap_or_default(),
            page_size,
            at: report.start,
            end: report.end(),
        }
    }

    /// Takes the bytes up to `end`, or up to the end of the report.
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
        let (range, rest) = match self.ranges.split_first() {
            Some((range, rest)) if range.start <= self.at => (range, rest),
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
            self.ranges = rest;
        }
        Some(piece)
    }
}

/// The amount of data that a log reports per command.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Page size in bytes.
    pub page_size: u64,
    /// Number of pages per bit of the summary.
    pub summary_pages: u64,
    /// Maximum number of bits in a summary.
    pub summary_bits: u64,
    /// Maximum number of summary bits whose pages are read at a time.
    pub window_bits: u64,
    /// Maximum number of clear summary bits whose pages are read together with their neighbours,
    /// because that costs less than another command.
    pub gap_bits: u64,
}

impl Capacity {
    /// Returns the number of bytes per bit of the summary.
    fn summary_unit(&self) -> u64 {
        self.summary_pages.saturating_mul(self.page_size)
    }

    /// Returns the number of bits in a bitmap of the pages of `range`.
    pub fn pages(&self, range: Range) -> u64 {
        range.length / self.page_size.max(1)
    }

    /// Returns the number of bits in the summary of `range`.
    pub fn bits(&self, range: Range) -> u64 {
        range.length.div_ceil(self.summary_unit().max(1))
    }

    /// Returns whether reading `range` costs less than reading its summary first.
    pub fn is_small(&self, range: Range) -> bool {
        range.length <= self.summary_unit()
    }

    /// Divides `range` into ranges that fit in one summary each.
    pub fn summaries(&self, range: Range) -> impl Iterator<Item = Range> {
        split(range, self.summary_unit().saturating_mul(self.summary_bits))
    }
}

/// Divides `range` into ranges of `step` bytes. The last one may be shorter.
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

/// Iterator over the parts of a range with set bits in its summary, each small enough for one read.
pub struct Windows<'a> {
    summary: &'a [u8],
    range: Range,
    capacity: Capacity,
    /// The next bit to examine.
    bit: u64,
}

impl<'a> Windows<'a> {
    /// Returns the windows of `range`, whose summary is `summary`. Bits after the last one of the
    /// range are ignored.
    pub fn new(summary: &'a [u8], range: Range, capacity: Capacity) -> Self {
        Self {
            summary,
            range,
            capacity,
            bit: 0,
        }
    }

    /// Returns whether this bit of the summary is set, or `None` after the last one.
    fn is_set(&self, bit: u64) -> Option<bool> {
        if bit >= self.capacity.bits(self.range) {
            return None;
        }
        let byte = usize::try_from(bit / 8).ok()?;
        // Missing bytes of the summary count as dirty.
        Some(
            self.summary
                .get(byte)
                .is_none_or(|byte| (byte >> (bit % 8)) & 1 != 0),
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
        let limit = first.saturating_add(self.capacity.window_bits.max(1));
        let mut ahead = first;
        while ahead < limit && ahead.saturating_sub(self.bit) <= self.capacity.gap_bits {
            match self.is_set(ahead) {
                Some(true) => self.bit = ahead.saturating_add(1),
                Some(false) => {}
                None => break,
            }
            ahead = ahead.saturating_add(1);
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

/// Number of words that are examined together.
const GROUP: usize = 8;

const GROUP_BYTES: usize = 8 * GROUP;
const GROUP_BITS: u64 = 64 * GROUP as u64;

/// Converts bytes to words.
#[inline(always)]
fn load(bytes: &[u8; GROUP_BYTES]) -> [u64; GROUP] {
    core::array::from_fn(|index| {
        bytes
            .get(8 * index..)
            .and_then(|rest| rest.first_chunk())
            .map_or(0, |word| u64::from_le_bytes(*word))
    })
}

/// Returns whether all bits are set, or clear if `set` is false.
///
/// This is the fast path for a bitmap with long runs of equal bits.
#[inline(always)]
fn is_all(bytes: &[u8; GROUP_BYTES], set: bool) -> bool {
    let words = load(bytes).into_iter();

    if set {
        words.fold(u64::MAX, |all, word| all & word) == u64::MAX
    } else {
        words.fold(0, |any, word| any | word) == 0
    }
}

/// Joins set bits.
struct Runs<F> {
    /// The first bit of the current run. `None` if the last bit was clear.
    first: Option<u64>,
    found: F,
}

impl<F: FnMut(u64, u64)> Runs<F> {
    /// Processes the next words. Their bit 0 is bit `base` of the bitmap.
    #[inline(never)]
    fn take(&mut self, base: u64, words: [u64; GROUP]) {
        for (base, word) in (base..).step_by(64).zip(words) {
            self.take_word(base, word);
        }
    }

    fn take_word(&mut self, base: u64, word: u64) {
        // The bits that differ from the previous bit.
        let mut edges = word ^ ((word << 1) | u64::from(self.first.is_some()));

        while edges != 0 {
            self.toggle(base.saturating_add(edges.trailing_zeros().into()));
            edges &= edges.wrapping_sub(1);
        }
    }

    /// Ends the current run before bit `at`, or begins a run with it.
    fn toggle(&mut self, at: u64) {
        match self.first.take() {
            Some(first) => (self.found)(first, at.saturating_sub(first)),
            None => self.first = Some(at),
        }
    }
}

/// Calls `found` with the first bit and the length of each run of set bits among the first `bits`
/// of `bitmap`. Bit 0 of byte 0 is the first. Runs ascend and do not touch.
///
/// Afterwards sets all bits of `bitmap`: if the device writes the next bitmap only in part, the
/// unwritten bits then count as dirty.
///
/// If the bitmap is too short, all `bits` count as set.
pub fn take_runs(bitmap: &mut [u8], bits: u64, mut found: impl FnMut(u64, u64)) {
    let length = usize::try_from(bits.div_ceil(8)).unwrap_or(usize::MAX);
    let Some(bitmap) = bitmap.get_mut(..length) else {
        return found(0, bits);
    };
    let whole = bits / GROUP_BITS * GROUP_BITS;
    let (groups, rest) = bitmap.split_at_mut((whole / 8) as usize);
    let mut runs = Runs { first: None, found };
    let mut base = 0_u64;

    for group in groups.chunks_exact_mut(GROUP_BYTES) {
        if let Some(group) = group.first_chunk_mut() {
            let is_run = runs.first.is_some();
            if !is_all(group, is_run) {
                runs.take(base, load(group));
                group.fill(u8::MAX);
            } else if !is_run {
                group.fill(u8::MAX);
            }
        }
        base = base.saturating_add(GROUP_BITS);
    }
    let mut last = [0; GROUP_BYTES];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = core::mem::replace(from, u8::MAX);
    }
    // Clear the rest of the last byte, so that a run ends with the last bit.
    if let Some(byte) = last.get_mut((bits % GROUP_BITS / 8) as usize) {
        *byte &= !(u8::MAX << (bits % 8));
    }
    runs.take(whole, load(&last));
}
