// SPDX-License-Identifier: GPL-2.0

//! Scatter lists, which describe the segments of a buffer for one command.

use core::ops::Range;
use kernel::{
    dma::DmaAddress,
    prelude::*, //
};

/// A range of consecutive DMA addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) address: DmaAddress,
    pub(super) length: usize,
}

/// The segments of a buffer, in the order of its bytes.
pub(super) struct Segments {
    list: KVec<Segment>,
    /// Maximum number of entries of a scatter list.
    entries: usize,
}

impl Segments {
    /// Creates the segments of a buffer. A scatter list can have `entries` entries, at least one.
    pub(super) fn new(list: KVec<Segment>, entries: usize) -> Self {
        Self { list, entries }
    }

    /// Returns the number of entries of the longest scatter list for the buffer.
    pub(super) fn longest(&self) -> usize {
        self.list.len().min(self.entries)
    }

    /// Returns the segments of `range`.
    pub(super) fn within(&self, range: Range<usize>) -> impl Iterator<Item = Segment> + '_ {
        let mut start = 0;

        self.list.iter().filter_map(move |segment| {
            let end = start + segment.length;
            let from = range.start.max(start);
            let to = range.end.min(end);
            let skipped = from - start;
            start = end;
            (from < to).then(|| Segment {
                address: segment.address + skipped as DmaAddress,
                length: to - from,
            })
        })
    }

    /// Returns the first part of `range` that fits in the scatter list of one command: the whole
    /// range, or a multiple of `unit` bytes. The part is empty if not even `unit` bytes fit.
    pub(super) fn part(&self, range: Range<usize>, unit: usize) -> Range<usize> {
        let described: usize = self
            .within(range.clone())
            .take(self.entries)
            .map(|segment| segment.length)
            .sum();
        let length = if described < range.len() {
            described.checked_div(unit).unwrap_or(0) * unit
        } else {
            described
        };

        range.start..range.start + length
    }

    /// Returns whether commands for multiples of `unit` bytes can cover all of `size` bytes.
    pub(super) fn suffice(&self, size: usize, unit: usize) -> bool {
        let mut remaining = 0..size;

        while !remaining.is_empty() {
            let part = self.part(remaining.clone(), unit);
            if part.is_empty() {
                return false;
            }
            remaining.start = part.end;
        }
        true
    }
}

#[kunit_tests(vifa_scatter)]
mod tests {
    use super::*;

    /// Returns segments with the given numbers of pages. No two of them are adjacent.
    fn segments(pages: &[usize], entries: usize) -> Result<Segments> {
        let mut list = KVec::new();
        for (place, count) in pages.iter().enumerate() {
            let segment = Segment {
                address: (place as DmaAddress + 1) << 32,
                length: count * 4096,
            };
            list.push(segment, GFP_KERNEL)?;
        }
        Ok(Segments::new(list, entries))
    }

    #[test]
    fn part_is_limited_by_the_entries_of_a_list() -> Result {
        let segments = segments(&[1, 2, 1, 4], 2)?;

        assert_eq!(segments.part(0..4096, 4096), 0..4096);
        assert_eq!(segments.part(0..0x8000, 4096), 0..0x3000);
        assert_eq!(segments.part(0x3000..0x8000, 4096), 0x3000..0x8000);
        assert_eq!(segments.part(0x1000..0x1234, 4096), 0x1000..0x1234);
        assert_eq!(segments.longest(), 2);
        Ok(())
    }

    #[test]
    fn part_is_a_multiple_of_the_unit() -> Result {
        let segments = segments(&[1, 2, 1, 4], 2)?;

        assert_eq!(segments.part(0..0x8000, 0x2000), 0..0x2000);
        assert_eq!(segments.part(0..0x8000, 0x4000), 0..0);
        assert!(segments.suffice(0x8000, 0x2000));
        assert!(!segments.suffice(0x8000, 0x4000));
        Ok(())
    }

    #[test]
    fn entries_begin_and_end_inside_segments() -> Result {
        let segments = segments(&[1, 2, 1], 8)?;
        let mut found = segments.within(0x800..0x3004);

        let first = found.next().ok_or(EINVAL)?;
        assert_eq!((first.address, first.length), ((1 << 32) + 0x800, 0x800));
        let second = found.next().ok_or(EINVAL)?;
        assert_eq!((second.address, second.length), (2 << 32, 0x2000));
        let third = found.next().ok_or(EINVAL)?;
        assert_eq!((third.address, third.length), (3 << 32, 4));
        assert!(found.next().is_none());
        Ok(())
    }
}
