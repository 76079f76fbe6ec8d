// SPDX-License-Identifier: GPL-2.0

//! What a report of written guest memory has to ask of a log.
//!
//! A log knows which pages of the ranges that it tracks were written. Who asks for a report may
//! name any bytes: beyond the ranges, and parts of pages. A report is therefore divided into
//! [`Pieces`]. A log with a summary, of which one bit stands for many pages, need be read only
//! where such a bit is set: these are the [`Windows`]. What was read is a bitmap of pages, whose
//! set bits [`take_runs`] joins.

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

/// Largest page of a log, in bytes: the stream has 32 bits for them.
pub const PAGE_SIZE_MAX: u64 = 1 << 31;

/// Checks the page size that a device says it logs in.
///
/// # Errors
///
/// It is not a power of two from [`PAGE_SIZE_MIN`].
pub fn check_page_size(page_size: u64) -> Result<(), Violation> {
    check("page_size", page_size, Expectation::PowerOfTwo)?;
    check("page_size", page_size, Expectation::AtLeast(PAGE_SIZE_MIN))
}

/// Returns the page size to ask a log for, where user space hints at `hint`: the power of two at or
/// below it, from [`PAGE_SIZE_MIN`] to [`PAGE_SIZE_MAX`].
pub fn page_size(hint: u64) -> u64 {
    let hint = hint.clamp(PAGE_SIZE_MIN, PAGE_SIZE_MAX);

    1 << hint.ilog2()
}

/// Returns the pages of `page_size` bytes, a power of two, that have the bytes from `first` to
/// `last`, both inclusive.
///
/// # Errors
///
/// The range is empty, which VFIO writes as a `last` before `first`; or its last page ends the
/// address space.
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

/// Combines neighbours, those with the smallest gaps first, until there are at most `most` ranges,
/// or one. They ascend and do not overlap. Returns how many are left; the rest of the slice does not
/// matter any more.
pub fn combine(ranges: &mut [Range], most: usize) -> usize {
    let mut left = ranges.len();

    while left > most.max(1) {
        let present = ranges.get(..left).unwrap_or_default();
        let gaps = present.windows(2).map(|pair| match pair {
            [before, behind] => behind.start.saturating_sub(before.end()),
            _ => u64::MAX,
        });
        let Some((place, _)) = gaps.enumerate().min_by_key(|&(_, gap)| gap) else {
            break;
        };
        let next = place.saturating_add(1);
        if let Some([before, behind]) = ranges.get_mut(place..=next) {
            before.length = behind.end().saturating_sub(before.start);
        }
        ranges.copy_within(next.saturating_add(1)..left, next);
        left = left.saturating_sub(1);
    }
    left
}

/// Checks how many bytes somebody asks to report.
///
/// # Errors
///
/// There are none.
pub fn check_length(length: u64) -> Result<(), Violation> {
    check("length", length, Expectation::AtLeast(1))
}

/// A piece of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
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
pub struct Pieces<'a> {
    /// Those ranges that the report has not yet passed.
    ranges: &'a [Range],
    page_size: u64,
    at: u64,
    end: u64,
}

impl<'a> Pieces<'a> {
    /// Divides `report` by the `ranges` that a log tracks, which ascend and do not overlap, in
    /// pages of `page_size` bytes, of which each range is a multiple. Nothing ends behind the last
    /// byte but one of the address space.
    pub fn new(ranges: &'a [Range], page_size: u64, report: Range) -> Self {
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
pub struct Capacity {
    /// Bytes of a page.
    pub page_size: u64,
    /// Pages that a bit of the summary stands for.
    pub summary_pages: u64,
    /// Bits of a summary, at the most.
    pub summary_bits: u64,
    /// Bits of the summary whose pages are read at a time, at the most.
    pub window_bits: u64,
    /// Clear bits of the summary that cost less to read with what is around them than another
    /// command does.
    pub gap_bits: u64,
}

impl Capacity {
    /// Bytes that a bit of the summary stands for.
    fn summary_unit(&self) -> u64 {
        self.summary_pages.saturating_mul(self.page_size)
    }

    /// Returns how many bits a bitmap of the pages of `range` has.
    pub fn pages(&self, range: Range) -> u64 {
        range.length / self.page_size.max(1)
    }

    /// Returns how many bits the summary of `range` has.
    pub fn bits(&self, range: Range) -> u64 {
        range.length.div_ceil(self.summary_unit().max(1))
    }

    /// Returns whether it costs less to read `range` than to ask for its summary first.
    pub fn is_small(&self, range: Range) -> bool {
        range.length <= self.summary_unit()
    }

    /// Divides `range` into ranges that one summary can have.
    pub fn summaries(&self, range: Range) -> impl Iterator<Item = Range> {
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
pub struct Windows<'a> {
    summary: &'a [u8],
    range: Range,
    capacity: Capacity,
    /// The next bit to look at.
    bit: u64,
}

impl<'a> Windows<'a> {
    /// `summary` is the one of `range`; bits behind its last one do not matter.
    pub fn new(summary: &'a [u8], range: Range, capacity: Capacity) -> Self {
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

/// Words that are looked at together.
const GROUP: usize = 8;

const GROUP_BYTES: usize = 8 * GROUP;
const GROUP_BITS: u64 = 64 * GROUP as u64;

/// Makes words of bytes.
#[inline(always)]
fn load(bytes: &[u8; GROUP_BYTES]) -> [u64; GROUP] {
    core::array::from_fn(|index| {
        bytes
            .get(8 * index..)
            .and_then(|rest| rest.first_chunk())
            .map_or(0, |word| u64::from_le_bytes(*word))
    })
}

/// Returns whether all bits are as `set` says. Most of a bitmap that is mostly the same passes
/// here.
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
    /// Where the present run begins; `None`: the last bit was clear.
    first: Option<u64>,
    found: F,
}

impl<F: FnMut(u64, u64)> Runs<F> {
    /// Takes the next words, of which bit 0 is the bitmap's bit `base`.
    #[inline(never)]
    fn take(&mut self, base: u64, words: [u64; GROUP]) {
        for (base, word) in (base..).step_by(64).zip(words) {
            self.take_word(base, word);
        }
    }

    fn take_word(&mut self, base: u64, word: u64) {
        // The bits that differ from the one before.
        let mut edges = word ^ ((word << 1) | u64::from(self.first.is_some()));

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
/// Then all bits are set, so that of what is not written of the next bitmap nothing seems clear.
///
/// Of a bitmap that is too short, all bits are taken for set.
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
    // Behind the last of the bits there may be others in its byte. With all of them clear, a run
    // ends there.
    if let Some(byte) = last.get_mut((bits % GROUP_BITS / 8) as usize) {
        *byte &= !(u8::MAX << (bits % 8));
    }
    runs.take(whole, load(&last));
}
