// SPDX-License-Identifier: GPL-2.0

//! Scatter lists: where the pieces of a buffer are, and how many of them one command can have.

use core::ops::Range;
use kernel::{
    dma::DmaAddress,
    prelude::*, //
};

/// Bytes that the device reaches at consecutive addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) address: DmaAddress,
    pub(super) length: usize,
}

/// The segments of a buffer, in the order of its bytes.
pub(super) struct Segments {
    list: KVec<Segment>,
    /// Entries that one scatter list can have.
    entries: usize,
}

impl Segments {
    /// `entries` is how many entries a scatter list can have, at least one.
    pub(super) fn new(list: KVec<Segment>, entries: usize) -> Self {
        Self { list, entries }
    }

    /// Returns how many entries the longest scatter list for the buffer has.
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

    /// Returns the first part of `range` that one command can have: all of it, or else a multiple of
    /// `unit` bytes. It is empty where not even that many bytes fit in a scatter list.
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

    /// Returns whether commands of multiples of `unit` bytes can have all of `size` bytes.
    pub(super) fn suffice(&self, size: usize, unit: usize) -> bool {
        let mut left = 0..size;

        while !left.is_empty() {
            let part = self.part(left.clone(), unit);
            if part.is_empty() {
                return false;
            }
            left.start = part.end;
        }
        true
    }
}

#[kunit_tests(vifa_scatter)]
mod tests {
    use super::*;

    /// Segments of so many pages, none of which touches another.
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
    fn part_is_all_that_a_list_can_have() -> Result {
        let segments = segments(&[1, 2, 1, 4], 2)?;

        assert_eq!(segments.part(0..4096, 4096), 0..4096);
        assert_eq!(segments.part(0..0x8000, 4096), 0..0x3000);
        assert_eq!(segments.part(0x3000..0x8000, 4096), 0x3000..0x8000);
        assert_eq!(segments.part(0x1000..0x1234, 4096), 0x1000..0x1234);
        assert_eq!(segments.longest(), 2);
        Ok(())
    }

    #[test]
    fn part_has_whole_units() -> Result {
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
