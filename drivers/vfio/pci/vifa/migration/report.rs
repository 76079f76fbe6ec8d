// SPDX-License-Identifier: GPL-2.0

//! What went wrong last.
//!
//! Goes to the kernel log, for the administrator, and is kept for the migration region, for whoever
//! holds the device.

use crate::{
    bindings::VIFA_REGION_TEXT,
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

/// Where errors of one device go.
#[pin_data]
pub(super) struct Report {
    device: ARef<pci::Device>,
    #[pin]
    last: Mutex<LastError>,
}

impl Report {
    pub(super) fn new(device: ARef<pci::Device>) -> impl PinInit<Self> {
        pin_init!(Self {
            device,
            last <- new_mutex!(LastError::NONE, "vifa_report"),
        })
    }

    /// Takes note of `error`, which was about `text`, and returns it.
    pub(super) fn error(&self, error: Error, text: impl fmt::Display) -> Error {
        dev_err!(self.device, "{}\n", Shown(&text));
        let mut last = LastError {
            error: Some(error),
            ..LastError::NONE
        };
        // What does not fit is cut.
        let _ = write!(
            Text {
                rest: &mut last.text
            },
            "{text}"
        );
        *self.last.lock() = last;
        error
    }

    /// Forgets the last error.
    pub(super) fn clear(&self) {
        *self.last.lock() = LastError::NONE;
    }

    /// Returns the last error.
    pub(super) fn last(&self) -> LastError {
        *self.last.lock()
    }
}
