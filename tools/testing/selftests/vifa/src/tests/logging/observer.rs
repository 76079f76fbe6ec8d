// SPDX-License-Identifier: GPL-2.0

//! The judge of a log that is read while the device writes.
//!
//! Writes have numbers, from 1 on, in the order in which the device gets them. It does them in that
//! order, so that two numbers tell all: up to which one it was given writes, and up to which one they
//! are done. A write that was done when a report began is in it or was in one before; one that was not
//! yet given when a report returned is in a later one; what is between may be in either.

use std::{
    fmt,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

/// A page, by the numbers of its writes.
#[derive(Default)]
struct Page {
    /// The last one.
    written: AtomicU64,
    /// What a report has told that has come: no write up to here is in one that begins now.
    told: AtomicU64,
    /// What it may have told.
    perhaps_told: AtomicU64,
}

/// What is wrong with a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The page `page` was written, the last time by the write `write`, and no report told so.
    Lost { page: usize, write: u64 },
    /// The page `page` was reported, and not written since it had been reported before.
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

/// What was written and what was reported.
pub struct Observer {
    pages: Vec<Page>,
    given: AtomicU64,
    done: AtomicU64,
}

/// A report that is under way.
pub struct Began {
    /// The writes up to here were done before.
    done: u64,
}

impl Observer {
    /// Of a memory of `pages` pages that nobody has written.
    pub fn new(pages: usize) -> Self {
        Self {
            pages: (0..pages).map(|_| Page::default()).collect(),
            given: AtomicU64::new(0),
            done: AtomicU64::new(0),
        }
    }

    /// The device will be given the next write, which is to `page`; returns its number.
    pub fn give(&self, page: usize) -> u64 {
        let write = self.given.load(Ordering::Relaxed) + 1;
        self.pages[page].written.store(write, Ordering::Release);
        self.given.store(write, Ordering::Release);
        write
    }

    /// Writes that the device was given.
    pub fn given(&self) -> u64 {
        self.given.load(Ordering::Acquire)
    }

    /// The device has done all writes up to `write`.
    pub fn has_done(&self, write: u64) {
        self.done.store(write, Ordering::Release);
    }

    /// A report begins.
    pub fn begin(&self) -> Began {
        Began {
            done: self.done.load(Ordering::Acquire),
        }
    }

    /// The report that `began` has returned, and tells that some of `pages` was written.
    pub fn is_dirty(&self, began: &Began, pages: Range<usize>) -> Option<Finding> {
        let of_one = pages.len() == 1;
        let first = pages.start;
        let mut written = false;
        for page in &self.pages[pages.clone()] {
            let told = page.told.load(Ordering::Acquire);
            // A report that began after this one may have told of a later write already.
            written |= told > began.done || page.written.load(Ordering::Acquire) > told;
            // Where there are several, it may have been another one that was written, and a report
            // that has not come yet may tell of this one.
            if of_one {
                page.told.fetch_max(began.done, Ordering::AcqRel);
            }
        }
        self.may_be_dirty(pages);
        (!written).then_some(Finding::Spurious { page: first })
    }

    /// A report has returned, and tells that some of `pages` was written, or of what is beside them.
    pub fn may_be_dirty(&self, pages: Range<usize>) {
        let given = self.given();
        for page in &self.pages[pages] {
            page.perhaps_told.fetch_max(given, Ordering::AcqRel);
        }
    }

    /// The report that `began` has returned, and tells that `page` was not written. No other report
    /// was under way meanwhile.
    pub fn is_clean(&self, began: &Began, page: usize) -> Option<Finding> {
        let state = &self.pages[page];
        let write = state.written.load(Ordering::Acquire);
        if write > began.done || write <= state.perhaps_told.load(Ordering::Acquire) {
            return None;
        }
        // Once is enough.
        state.perhaps_told.store(write, Ordering::Release);
        Some(Finding::Lost { page, write })
    }

    /// How many pages were written, and how many of them no report ever told of.
    pub fn totals(&self) -> (usize, usize) {
        let written = self
            .pages
            .iter()
            .filter(|page| page.written.load(Ordering::Acquire) > 0);
        let unreported = written
            .clone()
            .filter(|page| page.perhaps_told.load(Ordering::Acquire) == 0);
        (written.count(), unreported.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report that tells of the pages `dirty`, exactly.
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
        // The one to page 1 may have been logged after the report had come by.
        assert_eq!(report(&observer, &[0, 1]), []);
        assert_eq!(report(&observer, &[]), []);
        assert_eq!(report(&observer, &[1]), [Finding::Spurious { page: 1 }]);
    }

    #[test]
    fn report_of_a_larger_page_does_not_accuse_one_that_comes_late() {
        let observer = Observer::new(2);
        observer.give(0);
        observer.give(1);
        observer.has_done(2);
        let [early, late] = [observer.begin(), observer.begin()];
        // The log told the one of page 0, then the other of page 1.
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
