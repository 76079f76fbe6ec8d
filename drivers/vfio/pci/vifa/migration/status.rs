// SPDX-License-Identifier: GPL-2.0

//! The status of a migration, reported in the kernel log, in trace events and in the migration
//! region.
//!
//! The state machine and the transfers record each change here. A reader gets a snapshot, and does
//! not wait for the device, because the lock is held only to change or copy the status.

use crate::{
    bindings::{
        rate_limit::RateLimit,
        trace,
        VIFA_REGION_TEXT,
        VIFA_ROLE_OUTPUT,
        VIFA_ROLE_RECEIVER, //
    },
    layer::{
        identity::Identity,
        interface::{
            Interfaces,
            Plane, //
        },
        progress::Progress,
        state::DeviceState, //
    },
    seam::Shown, //
};
use core::fmt::{
    self,
    Write, //
};
use kernel::{
    new_mutex,
    pci,
    prelude::*,
    sync::{
        aref::ARef,
        Mutex, //
    }, //
};

/// An error and its description. The text is truncated to fit, and padded with zeroes.
#[derive(Clone, Copy)]
pub(super) struct LastError {
    /// `None` if no error occurred since the device was opened.
    pub(super) error: Option<Error>,
    pub(super) text: [u8; VIFA_REGION_TEXT as usize],
}

impl LastError {
    const NONE: Self = Self {
        error: None,
        text: [0; VIFA_REGION_TEXT as usize],
    };

    fn new(error: Error, text: impl fmt::Display) -> Self {
        let mut last = Self {
            error: Some(error),
            ..Self::NONE
        };
        // An error means that the text was truncated.
        let _ = write!(
            Text {
                rest: &mut last.text
            },
            "{text}"
        );
        last
    }
}

/// The reason why a device cannot be migrated.
pub(crate) struct Unsupported<F>(pub(crate) F);

impl<F: fmt::Display> fmt::Display for Unsupported<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "migration is not supported: {}", self.0)
    }
}

/// Writer of text into a buffer of fixed size, up to the last character that fits.
struct Text<'a> {
    rest: &'a mut [u8],
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The last byte stays zero.
        let mut length = text.len().min(self.rest.len().saturating_sub(1));
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        let (to, rest) = core::mem::take(&mut self.rest).split_at_mut(length);
        to.copy_from_slice(&text.as_bytes()[..length]);
        self.rest = rest;
        if length == text.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

/// The role of a device in a transfer.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Role {
    // CAST: The uAPI header stores the role in a byte.
    Output = VIFA_ROLE_OUTPUT as u8,
    Receiver = VIFA_ROLE_RECEIVER as u8,
}

/// The outcome of a transfer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The stream was read to its end.
    Saved,
    /// The device loaded the stream.
    Restored,
    Failed,
}

/// Numbers of transfers that ended, by outcome.
#[derive(Clone, Copy)]
pub(super) struct Counters {
    pub(super) saved: u64,
    pub(super) restored: u64,
    pub(super) failed: u64,
}

/// The guest memory that DMA logging tracks.
#[derive(Clone, Copy)]
pub(super) struct Tracked {
    /// Page size in bytes.
    pub(super) page_size: u64,
    /// Number of ranges.
    pub(super) ranges: u64,
    /// Total size of the ranges.
    pub(super) bytes: u64,
}

/// Totals of the reports of DMA logging.
#[derive(Clone, Copy)]
pub(super) struct Reports {
    pub(super) count: u64,
    pub(super) dirty_bytes: u64,
    /// Number of reports that marked the whole range dirty, because the log was lost.
    pub(super) lost: u64,
}

/// A snapshot of the status of a migration.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    /// Number of changes before this snapshot.
    pub(super) generation: u64,
    pub(super) state: DeviceState,
    pub(super) last: LastError,
    /// The present transfer, or the last one since the device was opened.
    pub(super) transfer: Option<(Role, Progress)>,
    pub(super) counters: Counters,
    /// `None` if writes are not logged.
    pub(super) tracked: Option<Tracked>,
    pub(super) reports: Reports,
}

/// The status of one device's migration.
#[pin_data]
pub(crate) struct Status {
    device: ARef<pci::Device>,
    identity: Identity,
    interfaces: Interfaces,
    /// The initial error: the reason why the device cannot be migrated, if any.
    first: LastError,
    /// Rate limit of errors that a device can repeat.
    #[pin]
    errors: RateLimit,
    /// Rate limit of errors that user space can repeat.
    #[pin]
    refusals: RateLimit,
    #[pin]
    moment: Mutex<Moment>,
}

impl Status {
    pub(crate) fn new(
        device: ARef<pci::Device>,
        identity: Identity,
        interfaces: Interfaces,
        unsupported: Option<Unsupported<impl fmt::Display>>,
    ) -> impl PinInit<Self> {
        let first = unsupported.map_or(LastError::NONE, |text| LastError::new(EOPNOTSUPP, text));

        pin_init!(Self {
            device,
            identity,
            interfaces,
            first,
            errors <- RateLimit::new(5000, 10),
            refusals <- RateLimit::new(5000, 10),
            moment <- new_mutex!(
                Moment {
                    generation: 0,
                    state: DeviceState::Running,
                    last: *first,
                    transfer: None,
                    counters: Counters {
                        saved: 0,
                        restored: 0,
                        failed: 0,
                    },
                    tracked: None,
                    reports: Reports {
                        count: 0,
                        dirty_bytes: 0,
                        lost: 0,
                    },
                },
                "vifa_status"
            ),
        })
    }

    /// Returns the identity of the device.
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the device's interfaces.
    pub(super) fn interfaces(&self) -> Interfaces {
        self.interfaces
    }

    /// Returns a snapshot of the present status.
    pub(super) fn moment(&self) -> Moment {
        *self.moment.lock()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Moment) -> T) -> T {
        let mut moment = self.moment.lock();
        moment.generation += 1;
        change(&mut moment)
    }

    /// Clears the transfer and the error of the previous user, when the device is opened.
    pub(crate) fn opened(&self) {
        self.change(|moment| {
            moment.last = self.first;
            moment.transfer = None;
        });
    }

    /// Records that the device entered `state`.
    pub(super) fn entered(&self, state: DeviceState) {
        self.change(|moment| moment.state = state);
    }

    /// Records the progress of a transfer in which the device has the given role.
    pub(super) fn progressed(&self, role: Role, progress: &Progress) {
        let before = self.change(|moment| moment.transfer.replace((role, *progress)));

        let known = before.is_some_and(|(_, before)| before.relations.is_some());
        if let (false, Some(relations)) = (known, progress.relations) {
            for plane in [Plane::Control, Plane::Data] {
                let relation = relations.plane(plane);
                trace::vifa_relation(
                    self.device.as_ref(),
                    role as u8,
                    plane as u8,
                    relation.output.as_raw(),
                    relation.receiver.map_or(0, |receiver| receiver.as_raw()),
                );
            }
        }
    }

    /// Counts a transfer that ended.
    pub(super) fn ended(&self, outcome: Outcome) {
        self.change(|moment| {
            let counters = &mut moment.counters;
            *match outcome {
                Outcome::Saved => &mut counters.saved,
                Outcome::Restored => &mut counters.restored,
                Outcome::Failed => &mut counters.failed,
            } += 1;
        });
    }

    /// Records the memory that is tracked, or `None` when logging stops.
    pub(super) fn logs(&self, tracked: Option<Tracked>) {
        self.change(|moment| moment.tracked = tracked);
    }

    /// Counts a report of `dirty_bytes` bytes. `lost` states that the log was lost.
    pub(super) fn reported(&self, dirty_bytes: u64, lost: bool) {
        self.change(|moment| {
            let reports = &mut moment.reports;
            reports.count += 1;
            reports.dirty_bytes = reports.dirty_bytes.saturating_add(dirty_bytes);
            reports.lost += u64::from(lost);
        });
    }

    /// Records `error` of the device, described by `text`, logs it at a limited rate, and returns
    /// it.
    pub(crate) fn error(&self, error: Error, text: impl fmt::Display) -> Error {
        self.log(&self.errors, &text);
        self.keep(error, text)
    }

    /// Like [`Self::error`], for errors that user space can cause.
    pub(super) fn refusal(&self, error: Error, text: impl fmt::Display) -> Error {
        self.log(&self.refusals, &text);
        self.keep(error, text)
    }

    fn log(&self, limit: &RateLimit, text: &impl fmt::Display) {
        if limit.allows(c"vifa-vfio-pci") {
            dev_err!(self.device, "{}\n", Shown(text));
        }
    }

    fn keep(&self, error: Error, text: impl fmt::Display) -> Error {
        let last = LastError::new(error, text);
        self.change(|moment| moment.last = last);
        error
    }
}
