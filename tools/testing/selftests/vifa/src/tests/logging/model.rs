// SPDX-License-Identifier: GPL-2.0

//! The expected contents of a log, computed from the device's writes: compared with the driver's
//! reports, and based on the uAPI only.

use std::collections::BTreeSet;

use crate::vfio::IovaRange;

/// The writes of a device, as its log must record them.
#[derive(Debug)]
pub struct Model {
    tracked: Vec<IovaRange>,
    page_size: u64,
    /// The first byte of each page written since its last complete report.
    dirty: BTreeSet<u64>,
}

/// Returns the intersection of two ranges.
fn common(a: IovaRange, b: IovaRange) -> Option<IovaRange> {
    let start = a.iova.max(b.iova);
    let end = a.end().min(b.end());
    (start < end).then(|| IovaRange::new(start, end - start))
}

/// Returns the bits of a report on `range` with `page_size` that cover bytes of `part` of the
/// range.
fn bits(range: IovaRange, page_size: u64, part: IovaRange) -> impl Iterator<Item = u64> {
    let first = (part.iova - range.iova) / page_size;
    let last = (part.end() - 1 - range.iova) / page_size;
    (first..=last).map(move |bit| range.iova + bit * page_size)
}

impl Model {
    /// Creates a log of `tracked` in pages of `page_size` bytes.
    pub fn new(tracked: &[IovaRange], page_size: u64) -> Self {
        let mut tracked = tracked.to_vec();
        tracked.sort_by_key(|range| range.iova);
        Self {
            tracked,
            page_size,
            dirty: BTreeSet::new(),
        }
    }

    /// Records that the device has written `range`.
    pub fn write(&mut self, range: IovaRange) {
        for part in self.tracked.iter().filter_map(|own| common(*own, range)) {
            let first = part.iova - part.iova % self.page_size;
            let pages = (first..part.end()).step_by(self.page_size as usize);
            self.dirty.extend(pages);
        }
    }

    /// Returns the expected report on `range`: the first byte of each dirty page of `page_size`. A
    /// page of the log is clean afterwards if the report covers it completely. Writes outside of
    /// the tracked ranges are unknown.
    pub fn report(&mut self, range: IovaRange, page_size: u64) -> BTreeSet<u64> {
        let mut reported = BTreeSet::new();
        for page in &self.dirty {
            let part = common(IovaRange::new(*page, self.page_size), range);
            reported.extend(
                part.into_iter()
                    .flat_map(|part| bits(range, page_size, part)),
            );
        }
        for gap in self.untracked(range) {
            reported.extend(bits(range, page_size, gap));
        }
        let size = self.page_size;
        self.dirty
            .retain(|page| *page < range.iova || page + size > range.end());
        reported
    }

    /// Returns the untracked parts of `range`.
    fn untracked(&self, range: IovaRange) -> Vec<IovaRange> {
        let mut at = range.iova;
        let mut gaps = Vec::new();
        for part in self.tracked.iter().filter_map(|own| common(*own, range)) {
            gaps.push(IovaRange::new(at, part.iova - at));
            at = part.end();
        }
        gaps.push(IovaRange::new(at, range.end() - at));
        gaps.retain(|gap| gap.length > 0);
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn model() -> Model {
        let tracked = [(4, 2), (6, 1), (10, 4)]
            .map(|(page, pages)| IovaRange::new(page * PAGE, pages * PAGE));
        Model::new(&tracked, PAGE)
    }

    fn report(model: &mut Model, first: u64, pages: u64, size: u64) -> Vec<u64> {
        let range = IovaRange::new(first * PAGE, pages * PAGE);
        let reported = model.report(range, size * PAGE);
        reported.into_iter().map(|iova| iova / PAGE).collect()
    }

    #[test]
    fn write_dirties_the_pages_that_it_touches_once() {
        let mut model = model();
        model.write(IovaRange::new(5 * PAGE - 1, PAGE + 2));
        assert_eq!(report(&mut model, 4, 3, 1), [4, 5, 6]);
        assert!(report(&mut model, 4, 3, 1).is_empty());
    }

    #[test]
    fn write_outside_dirties_nothing() {
        let mut model = model();
        model.write(IovaRange::new(0, 4 * PAGE));
        model.write(IovaRange::new(7 * PAGE, 3 * PAGE));
        assert!(report(&mut model, 4, 3, 1).is_empty());
        assert!(report(&mut model, 10, 4, 1).is_empty());
    }

    #[test]
    fn untracked_pages_are_dirty() {
        assert_eq!(report(&mut model(), 2, 10, 1), [2, 3, 7, 8, 9]);
        assert_eq!(report(&mut model(), 2, 10, 4), [2, 6]);
    }

    #[test]
    fn page_that_is_reported_in_part_stays_dirty() {
        let mut model = model();
        model.write(IovaRange::new(5 * PAGE, 1));
        let part = IovaRange::new(5 * PAGE + 512, PAGE);
        assert_eq!(model.report(part, PAGE), BTreeSet::from([part.iova]));
        assert_eq!(report(&mut model, 5, 1, 1), [5]);
    }
}
