// SPDX-License-Identifier: GPL-2.0

//! What a migration tells of itself, to the kernel log, to trace events, and to whoever reads the
//! migration region.
//!
//! The state machine and the transfers note here what changes. Whoever reads sees one moment, and
//! waits for no device: what is behind the lock is only copied.

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

/// An error and what it was about; the text is cut where it does not fit, and padded with zeroes.
#[derive(Clone, Copy)]
pub(super) struct LastError {
    /// `None`: there was none since the device was opened.
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
        // What does not fit is cut.
        let _ = write!(
            Text {
                rest: &mut last.text
            },
            "{text}"
        );
        last
    }
}

/// Why a device cannot be migrated.
pub(crate) struct Unsupported<F>(pub(crate) F);

impl<F: fmt::Display> fmt::Display for Unsupported<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "migration is not supported: {}", self.0)
    }
}

/// Writes text into a buffer of fixed size, up to the last character that fits.
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

/// What a device is in a transfer.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Role {
    /// The output party.
    // CAST: The uAPI header has the roles in a byte.
    Output = VIFA_ROLE_OUTPUT as u8,
    /// The receiver.
    Receiver = VIFA_ROLE_RECEIVER as u8,
}

/// How a transfer ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The stream was read to its end.
    Saved,
    /// The device took the stream.
    Restored,
    /// Neither.
    Failed,
}

/// Transfers that ended.
#[derive(Clone, Copy)]
pub(super) struct Counters {
    pub(super) saved: u64,
    pub(super) restored: u64,
    pub(super) failed: u64,
}

/// What is logged.
#[derive(Clone, Copy)]
pub(super) struct Tracked {
    /// Bytes of a page.
    pub(super) page_size: u64,
    pub(super) ranges: u64,
    /// In these ranges.
    pub(super) bytes: u64,
}

/// What the reports came to.
#[derive(Clone, Copy)]
pub(super) struct Reports {
    pub(super) count: u64,
    pub(super) dirty_bytes: u64,
    /// Of the reports, those of all that was asked for, since the log did not know.
    pub(super) lost: u64,
}

/// One moment of a migration.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    /// Number of changes before.
    pub(super) generation: u64,
    pub(super) state: DeviceState,
    pub(super) last: LastError,
    /// The present transfer, or the last one since the device was opened.
    pub(super) transfer: Option<(Role, Progress)>,
    pub(super) counters: Counters,
    /// `None`: writes are not logged.
    pub(super) tracked: Option<Tracked>,
    pub(super) reports: Reports,
}

/// The status of one device's migration.
#[pin_data]
pub(super) struct Status {
    device: ARef<pci::Device>,
    identity: Identity,
    interfaces: Interfaces,
    /// What is wrong with the device from the beginning.
    first: LastError,
    /// For what a device can repeat.
    #[pin]
    errors: RateLimit,
    /// For what user space can repeat.
    #[pin]
    refusals: RateLimit,
    #[pin]
    moment: Mutex<Moment>,
}

impl Status {
    pub(super) fn new(
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

    /// What the device is.
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The device's interfaces.
    pub(super) fn interfaces(&self) -> Interfaces {
        self.interfaces
    }

    /// Returns the present moment.
    pub(super) fn moment(&self) -> Moment {
        *self.moment.lock()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Moment) -> T) -> T {
        let mut moment = self.moment.lock();
        moment.generation += 1;
        change(&mut moment)
    }

    /// The device was opened: forgets its former user's transfers and errors.
    pub(super) fn opened(&self) {
        self.change(|moment| {
            moment.last = self.first;
            moment.transfer = None;
        });
    }

    /// The device is in another state.
    pub(super) fn entered(&self, state: DeviceState) {
        self.change(|moment| moment.state = state);
    }

    /// A transfer got on, in which the device has this role.
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

    /// A transfer ended.
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

    /// Writes are logged, or no more.
    pub(super) fn logs(&self, tracked: Option<Tracked>) {
        self.change(|moment| moment.tracked = tracked);
    }

    /// A report told so many bytes dirty; `lost`: since the log did not know.
    pub(super) fn reported(&self, dirty_bytes: u64, lost: bool) {
        self.change(|moment| {
            let reports = &mut moment.reports;
            reports.count += 1;
            reports.dirty_bytes = reports.dirty_bytes.saturating_add(dirty_bytes);
            reports.lost += u64::from(lost);
        });
    }

    /// Keeps `error` of the device, which was about `text`, logs it at a limited rate, and returns
    /// it.
    pub(super) fn error(&self, error: Error, text: impl fmt::Display) -> Error {
        self.log(&self.errors, &text);
        self.keep(error, text)
    }

    /// As [`Self::error`], for what user space can cause.
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
