// SPDX-License-Identifier: GPL-2.0

//! DMA logging: which guest memory the device has written.
//!
//! What the log does not know is reported dirty, so that a migration moves more than it had to
//! rather than less: all that a report asks for, where the device has lost count or fails, and what
//! a report has beyond the ranges that are logged. That is counted, and said once for each start.

use super::status::{
    Status,
    Tracked, //
};
use crate::{
    backend::{
        Backend,
        Log,
        Unreported, //
    },
    layer::{
        address::{
            self,
            Range, //
        },
        check::Violation,
        log, //
    },
    vfio::logging::{
        DirtyBitmap,
        Ranges, //
    },
};
use core::fmt;
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// A log that was started.
struct Active<L> {
    log: L,
    /// It was said that the log did not know something.
    said: bool,
}

/// The DMA logging of one device.
pub(super) struct Logging<B: Backend> {
    status: Arc<Status>,
    active: Option<Active<B::Log>>,
}

impl<B: Backend> Logging<B> {
    /// Nothing is logged.
    pub(super) fn new(status: Arc<Status>) -> Self {
        Self {
            status,
            active: None,
        }
    }

    /// Begins to log, in pages of about `page_size` bytes, any number; returns how many a page has.
    pub(super) fn start(
        &mut self,
        backend: &Arc<B>,
        ranges: Ranges<'_>,
        page_size: u64,
    ) -> Result<u64> {
        if self.active.is_some() {
            return Err(self.refuse_to("start", EINVAL, "it was started before"));
        }
        let page_size = log::page_size(page_size);
        let ranges = self.collect(ranges, page_size)?;
        let log = B::start_log(backend, ranges, page_size)
            .map_err(|fault| self.refuse_to("start", fault.into(), fault))?;
        let page_size = log.page_size().into();
        self.status.logs(Some(Tracked {
            page_size,
            ranges: log.ranges().len() as u64,
            bytes: log.ranges().iter().map(|range| range.length).sum(),
        }));
        self.active = Some(Active { log, said: false });
        Ok(page_size)
    }

    /// Checks what user space wants logged, in whole pages. Ranges that touch one another become one.
    fn collect(&self, intervals: Ranges<'_>, page_size: u64) -> Result<KVec<Range>> {
        let refuse = |violation: Violation| self.refuse_to("start", EINVAL, violation);
        let mut ranges: KVec<Range> = KVec::new();
        for (first, last) in intervals {
            let range = log::range(first, last, page_size).map_err(refuse)?;
            if !ranges.last_mut().is_some_and(|before| before.join(range)) {
                ranges.push(range, GFP_KERNEL_ACCOUNT)?;
            }
        }
        Ok(ranges)
    }

    /// What is logged, for the address record file.
    pub(super) fn tracked(&self) -> Result<Option<address::Tracked>> {
        let Some(Active { log, .. }) = &self.active else {
            return Ok(None);
        };
        let ranges = log.ranges().iter().copied();
        let tracked = address::Tracked::new(log.page_size(), ranges);
        tracked.map(Some).map_err(|_| ENOMEM)
    }

    /// Logs no more, if something was logged.
    pub(super) fn stop(&mut self) -> Result {
        let Some(Active { log, .. }) = self.active.take() else {
            return Ok(());
        };
        self.status.logs(None);
        log.stop()
            .map_err(|fault| self.refuse_to("stop", fault.into(), fault))
    }

    /// The device has forgotten its log.
    pub(super) fn forget(&mut self) {
        if self.active.take().is_some() {
            self.status.logs(None);
        }
    }

    /// Reports what was written of the `length` bytes from `iova`.
    pub(super) fn report(&mut self, iova: u64, length: u64, dirty: &mut DirtyBitmap<'_>) -> Result {
        let Some(active) = &mut self.active else {
            return Err(self.refuse_to("report", EINVAL, "it was not started"));
        };
        if let Err(violation) = log::check_length(length) {
            return Err(self.refuse_to("report", EINVAL, violation));
        }
        let part = Range {
            start: iova,
            length,
        };
        let mut bytes = 0;
        let result = active.log.report(part, |range| {
            bytes += range.length;
            dirty.set(range.start, range.length);
        });
        match result {
            Ok(()) => self.status.reported(bytes, false),
            Err(Unreported::Killed) => return Err(EINTR),
            Err(Unreported::Unknown(fault)) => {
                dirty.set(iova, length);
                self.status.reported(length, true);
                if !core::mem::replace(&mut active.said, true) {
                    self.status.error(
                        fault.into(),
                        format_args!("failed to report DMA logging, all pages are dirty: {fault}"),
                    );
                }
            }
        }
        Ok(())
    }

    /// Takes note that something was not done, and why.
    fn refuse_to(&self, what: &str, error: Error, why: impl fmt::Display) -> Error {
        self.status
            .refusal(error, format_args!("failed to {what} DMA logging: {why}"))
    }
}
