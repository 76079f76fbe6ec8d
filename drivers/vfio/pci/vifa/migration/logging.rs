// SPDX-License-Identifier: GPL-2.0

//! DMA logging: tracks the guest memory that the device writes.
//!
//! Unknown is dirty, so that a migration transfers too much rather than too little. If the device
//! lost its log or fails, the whole range of a report is dirty. Memory outside of the logged ranges
//! is dirty, too. Lost reports are counted, and logged once for each start.

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
    /// Whether a loss of the log was reported.
    loss_reported: bool,
}

/// The DMA logging of one device.
pub(crate) struct Logging<B: Backend> {
    backend: Arc<B>,
    status: Arc<Status>,
    active: Option<Active<B::Log>>,
}

impl<B: Backend> Logging<B> {
    /// Creates the DMA logging of a device. Writes are not logged yet.
    pub(super) fn new(backend: Arc<B>, status: Arc<Status>) -> Self {
        Self {
            backend,
            status,
            active: None,
        }
    }

    /// Starts the log. `page_size` may be any number; returns the page size in use, in bytes.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the log is already started, or if a range is invalid. Otherwise the error of the
    /// device.
    pub(crate) fn start(&mut self, ranges: Ranges<'_>, page_size: u64) -> Result<u64> {
        if self.active.is_some() {
            return Err(self.refuse_to("start", EINVAL, "already started"));
        }
        let page_size = log::page_size(page_size);
        let ranges = self.collect(ranges, page_size)?;
        let log = B::start_log(&self.backend, ranges, page_size)
            .map_err(|fault| self.refuse_to("start", fault.into(), fault))?;
        let page_size = log.page_size().into();
        self.status.logs(Some(Tracked {
            page_size,
            ranges: log.ranges().len() as u64,
            bytes: log.ranges().iter().map(|range| range.length).sum(),
        }));
        self.active = Some(Active {
            log,
            loss_reported: false,
        });
        Ok(page_size)
    }

    /// Checks the ranges that user space asks to log, and extends them to whole pages. Joins ranges
    /// that touch one another.
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

    /// Returns the tracked ranges, for the address record file.
    pub(super) fn tracked(&self) -> Result<Option<address::Tracked>> {
        let Some(Active { log, .. }) = &self.active else {
            return Ok(None);
        };
        let ranges = log.ranges().iter().copied();
        let tracked = address::Tracked::new(log.page_size(), ranges);
        tracked.map(Some).map_err(|_| ENOMEM)
    }

    /// Stops the log, if it was started.
    pub(crate) fn stop(&mut self) -> Result {
        let Some(Active { log, .. }) = self.active.take() else {
            return Ok(());
        };
        self.status.logs(None);
        log.stop()
            .map_err(|fault| self.refuse_to("stop", fault.into(), fault))
    }

    /// Drops the log, which the device has lost.
    pub(super) fn forget(&mut self) {
        if self.active.take().is_some() {
            self.status.logs(None);
        }
    }

    /// Reports the dirty pages among the `length` bytes from `iova`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the log is not started, `EINTR` if the task is being killed.
    pub(crate) fn report(&mut self, iova: u64, length: u64, dirty: &mut DirtyBitmap<'_>) -> Result {
        let Some(active) = &mut self.active else {
            return Err(self.refuse_to("report", EINVAL, "not started"));
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
                if !core::mem::replace(&mut active.loss_reported, true) {
                    self.status.error(
                        fault.into(),
                        format_args!("failed to report DMA logging, all pages are dirty: {fault}"),
                    );
                }
            }
        }
        Ok(())
    }

    /// Reports that the operation `verb` failed with `error`, and the reason.
    fn refuse_to(&self, verb: &str, error: Error, reason: impl fmt::Display) -> Error {
        self.status.refusal(
            error,
            format_args!("failed to {verb} DMA logging: {reason}"),
        )
    }
}
