// SPDX-License-Identifier: GPL-2.0

//! The output party: makes a stream of a device.
//!
//! A stream is made as it is read, one piece at a time. A piece is a section's header, which
//! [`Saver`] holds, and the payload that the device has put into the [`Source`]'s buffer, or that
//! stands in a part of the address record file. Bulk data is never copied on its way from there to
//! the reader.
//!
//! Identity and relationships can be sent while the device runs, and so can claims, which list what
//! the destination has to obtain ([`claims`]). Local memory can be sent then, too, if the device
//! knows what it changes of it afterwards ([`rounds`]). The rest follows when it has stopped.

mod claims;
mod error;
mod piece;
mod rounds;
mod saver;
mod source;

pub use error::SaveError;
pub use saver::Saver;
pub use source::Source;

/// When a stream is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// While the device runs: the stream pauses wherever there is nothing to send.
    PreCopy,
    /// When the device has stopped.
    Stopped,
}

/// What can be read of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// These bytes; at least one.
    Bytes(&'a [u8]),
    /// Nothing more before the device changes something, or has stopped.
    Pause,
    /// Nothing more.
    End,
}

/// What the reader of a stream knows of `VFIO_MIG_GET_PRECOPY_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InfoVersion {
    /// Initial data comes once.
    V1,
    /// Initial data may come again: `VFIO_PRECOPY_INFO_REINIT`.
    V2,
}

/// What is left to read of a device that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outstanding {
    /// Bytes that have to be read before the device should be stopped.
    pub initial: u64,
    /// Bytes that the device has changed since.
    pub changed: u64,
    /// Since this was last asked, the guest has configured the device anew: what is left has become
    /// initial data.
    pub reinitialised: bool,
}

/// What the device does, and what is known of its changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It runs. What has to be sent before it should be stopped is not yet sent.
    Initial,
    /// It runs. What it has changed meanwhile is sent.
    Changes,
    /// It has stopped. What it changed before that is not yet known.
    Stopped,
    /// It has stopped, and all changes are known.
    Complete,
}

impl Phase {
    /// Returns whether the device may change its state.
    fn is_running(self) -> bool {
        matches!(self, Self::Initial | Self::Changes)
    }
}
