// SPDX-License-Identifier: GPL-2.0

//! The output party: writes the stream of a device.
//!
//! The stream is composed while it is read, one piece at a time. A piece consists of a section's
//! header, which [`Saver`] holds, and of its payload. The payload is in a buffer of the [`Source`]
//! or of its [`LocalSource`], filled by the device, or in a part of the address record file. Bulk
//! data is not copied between these buffers and the reader.
//!
//! While the device runs, the saver can send identity, relationships and claims, which list the
//! resources that the destination has to obtain ([`claims`]). It can also send local memory, if the
//! device tracks later changes ([`rounds`]). The rest follows after the device has stopped.

mod claims;
mod error;
mod piece;
mod rounds;
mod saver;
mod source;

pub use error::SaveError;
pub use saver::Saver;
pub use source::{
    LocalSource,
    Source, //
};

/// The run state of the device at the start of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// The device runs. The stream pauses whenever there is nothing to send.
    PreCopy,
    /// The device has stopped.
    Stopped,
}

/// The next bytes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// At least one byte.
    Bytes(&'a [u8]),
    /// No bytes before the device changes its state or stops.
    Pause,
    /// The end of the stream.
    End,
}

/// The version of `VFIO_MIG_GET_PRECOPY_INFO` that the reader of a stream uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InfoVersion {
    /// Initial data occurs once.
    V1,
    /// Initial data may occur again: `VFIO_PRECOPY_INFO_REINIT`.
    V2,
}

/// The data of a running device that is not yet read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outstanding {
    /// Number of bytes to read before the device should be stopped.
    pub initial: u64,
    /// Number of bytes that the device has changed since.
    pub changed: u64,
    /// Whether the guest has reconfigured the device since the last query. The unread data has then
    /// become initial data.
    pub reinitialised: bool,
}

/// The run state of the device, and the state of its change tracking.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The device runs. Initial data is not yet sent.
    Initial,
    /// The device runs. Initial data is sent, and later changes are being sent.
    Changes,
    /// The device has stopped. Its last changes are not yet read.
    Stopped,
    /// The device has stopped, and all changes are read.
    Complete,
}

impl Phase {
    /// Returns whether the device may change its state.
    fn is_running(self) -> bool {
        matches!(self, Self::Initial | Self::Changes)
    }
}
