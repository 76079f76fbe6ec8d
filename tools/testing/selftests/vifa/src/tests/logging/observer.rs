// SPDX-License-Identifier: GPL-2.0

//! Checks a log that is read while the device writes.
//!
//! Writes are numbered from 1 in the order in which the device receives them. It executes them in
//! that order, so that two numbers describe its progress: the last submitted write and the last
//! completed one. A write completed before a report began is in that report or in an earlier one. A
//! write submitted after a report returned is in a later one. Any other write may be in either.

use std::{
    fmt,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

/// A page, with the numbers of its writes.
#[derive(Default)]
struct Page {
    /// The last write.
    written: AtomicU64,
    /// The last write covered by a completed report: a report that begins now contains no write up
    /// to it.
    reported: AtomicU64,
    /// The last write that a report may have covered.
    maybe_reported: AtomicU64,
}

/// A defect of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The page `page` was last written by the write `write`, and no report contained it.
    Lost { page: usize, write: u64 },
    /// The page `page` was reported without a write since its last report.
    Spurious { page: usize },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { page, write } => write!(f, "page {page:#x}: write {write} was lost"),
            Self::Spurious { page } => write!(f, "page {page:#x}: reported, but not written"),
        }
    }
}

/// The record of writes and reports.
pub struct Observer {
    pages: Vec<Page>,
    given: AtomicU64,
    done: AtomicU64,
}

/// A report in progress.
pub struct Began {
    /// The last write completed before the report.
    done: u64,
}

impl Observer {
    /// Creates the record of `pages` unwritten pages.
    pub fn new(pages: usize) -> Self {
        Self {
            pages: (0..pages).map(|_| Page::default()).collect(),
            given: AtomicU64::new(0),
            done: AtomicU64::new(0),
        }
    }

    /// Records that the device will receive the next write, to `page`; returns its number.
    pub fn give(&self, page: usize) -> u64 {
        let write = self.given.load(Ordering::Relaxed) + 1;
        self.pages[page].written.store(write, Ordering::Release);
        self.given.store(write, Ordering::Release);
        write
    }

    /// Returns the number of submitted writes.
    pub fn given(&self) -> u64 {
        self.given.load(Ordering::Acquire)
    }

    /// Records that the device has completed all writes up to `write`.
    pub fn has_done(&self, write: u64) {
        self.done.store(write, Ordering::Release);
    }

    /// Begins a report.
    pub fn begin(&self) -> Began {
        Began {
            done: self.done.load(Ordering::Acquire),
        }
    }

    /// Ends the report that `began`, which contains a write to at least one of `pages`.
    pub fn is_dirty(&self, began: &Began, pages: Range<usize>) -> Option<Finding> {
        let of_one = pages.len() == 1;
        let first = pages.start;
        let mut written = false;
        for page in &self.pages[pages.clone()] {
            let reported = page.reported.load(Ordering::Acquire);
            // A report that began after this one may already have covered a later write.
            written |= reported > began.done || page.written.load(Ordering::Acquire) > reported;
            // With several pages, another one may have been written, and a report in progress may
            // cover this one.
            if of_one {
                page.reported.fetch_max(began.done, Ordering::AcqRel);
            }
        }
        self.may_be_dirty(pages);
        (!written).then_some(Finding::Spurious { page: first })
    }

    /// Ends a report that contains a write to `pages` or to pages beside them.
    pub fn may_be_dirty(&self, pages: Range<usize>) {
        let given = self.given();
        for page in &self.pages[pages] {
            page.maybe_reported.fetch_max(given, Ordering::AcqRel);
        }
    }

    /// Ends the report that `began`, in which `page` is clean. No other report was in progress.
    pub fn is_clean(&self, began: &Began, page: usize) -> Option<Finding> {
        let state = &self.pages[page];
        let write = state.written.load(Ordering::Acquire);
        if write > began.done || write <= state.maybe_reported.load(Ordering::Acquire) {
            return None;
        }
        // One finding is enough.
        state.maybe_reported.store(write, Ordering::Release);
        Some(Finding::Lost { page, write })
    }

    /// Returns the number of written pages, and the number of those in no report.
    pub fn totals(&self) -> (usize, usize) {
        let written = self
            .pages
            .iter()
            .filter(|page| page.written.load(Ordering::Acquire) > 0);
        let unreported = written
            .clone()
            .filter(|page| page.maybe_reported.load(Ordering::Acquire) == 0);
        (written.count(), unreported.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends a report of exactly the pages `dirty`.
    fn report(observer: &Observer, dirty: &[usize]) -> Vec<Finding> {
        let began = observer.begin();
        (0..observer.pages.len())
            .filter_map(|page| {
                if dirty.contains(&page) {
                    observer.is_dirty(&began, page..page + 1)
                } else {
                    observer.is_clean(&began, page)
                }
            })
            .collect()
    }

    #[test]
    fn exact_reports_are_right() {
        let observer = Observer::new(4);
        assert_eq!(report(&observer, &[]), []);
        for round in 1..4 {
            observer.give(2);
            observer.give(3);
            observer.has_done(2 * round);
            assert_eq!(report(&observer, &[2, 3]), []);
            assert_eq!(report(&observer, &[]), []);
        }
        assert_eq!(observer.totals(), (2, 0));
    }

    #[test]
    fn lost_write_is_named_once() {
        let observer = Observer::new(4);
        observer.give(1);
        observer.give(2);
        observer.has_done(2);
        assert_eq!(
            report(&observer, &[1]),
            [Finding::Lost { page: 2, write: 2 }]
        );
        assert_eq!(report(&observer, &[]), []);
    }

    #[test]
    fn lost_write_to_a_page_that_was_reported_before_is_found() {
        let observer = Observer::new(1);
        observer.give(0);
        observer.has_done(1);
        assert_eq!(report(&observer, &[0]), []);
        observer.give(0);
        observer.has_done(2);
        assert_eq!(
            report(&observer, &[]),
            [Finding::Lost { page: 0, write: 2 }]
        );
    }

    #[test]
    fn page_that_was_not_written_is_spurious() {
        let observer = Observer::new(2);
        observer.give(0);
        observer.has_done(1);
        assert_eq!(report(&observer, &[0, 1]), [Finding::Spurious { page: 1 }]);
        assert_eq!(report(&observer, &[0]), [Finding::Spurious { page: 0 }]);
    }

    #[test]
    fn write_that_is_not_done_may_be_reported_now_or_later() {
        let observer = Observer::new(2);
        observer.give(0);
        observer.give(1);
        assert_eq!(report(&observer, &[1]), []);
        observer.has_done(2);
        // The write to page 1 may have been logged after the report had passed it.
        assert_eq!(report(&observer, &[0, 1]), []);
        assert_eq!(report(&observer, &[]), []);
        assert_eq!(report(&observer, &[1]), [Finding::Spurious { page: 1 }]);
    }

    #[test]
    fn report_of_a_larger_page_does_not_accuse_a_late_one() {
        let observer = Observer::new(2);
        observer.give(0);
        observer.give(1);
        observer.has_done(2);
        let [early, late] = [observer.begin(), observer.begin()];
        // The log had the one of page 0, then the one of page 1.
        assert_eq!(observer.is_dirty(&late, 0..2), None);
        assert_eq!(observer.is_dirty(&early, 0..1), None);
    }

    #[test]
    fn larger_page_is_dirty_if_any_in_it_is() {
        let observer = Observer::new(4);
        observer.give(3);
        observer.has_done(1);
        let began = observer.begin();
        assert_eq!(observer.is_dirty(&began, 2..4), None);
        assert_eq!(
            observer.is_dirty(&began, 0..2),
            Some(Finding::Spurious { page: 0 })
        );
    }
}
