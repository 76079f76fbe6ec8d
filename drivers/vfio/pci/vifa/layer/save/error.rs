// SPDX-License-Identifier: GPL-2.0

//! Errors of saving a device.

use super::super::{
    check::Violation,
    records::InvalidRecord,
    stream::Kind, //
};
use crate::seam::OutOfMemory;
use core::fmt;

/// A malformed record and the type of its section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTable {
    /// The type of the section.
    pub kind: Kind,
    /// The record.
    pub record: InvalidRecord,
}

/// The reason for a failed save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveError<E> {
    /// The device's identity is invalid.
    Identity(Violation),
    /// A bitmap of local memory is invalid.
    Bitmap(Violation),
    /// The device returned the wrong number of bytes.
    Piece(Violation),
    /// The device returned a malformed control plane or claim.
    Record(InvalidTable),
    /// The allocation for the address record file or for a claim failed.
    OutOfMemory,
    /// The device failed to execute a command.
    Device(E),
}

impl<E> SaveError<E> {
    /// Returns the error for a malformed record of a section of type `kind`.
    pub(super) fn invalid_record(kind: Kind, record: InvalidRecord) -> Self {
        Self::Record(InvalidTable { kind, record })
    }
}

impl<E: fmt::Display> fmt::Display for SaveError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(violation) => write!(f, "identity: {violation}"),
            Self::Bitmap(violation) => write!(f, "bitmap of local memory: {violation}"),
            Self::Piece(violation) => write!(f, "data from the device: {violation}"),
            Self::Record(InvalidTable { kind, record }) => {
                write!(f, "data from the device: {kind} section, {record}")
            }
            Self::OutOfMemory => write!(f, "no memory for the address record file or a claim"),
            Self::Device(error) => write!(f, "the device failed: {error}"),
        }
    }
}

impl<E> From<OutOfMemory> for SaveError<E> {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}
