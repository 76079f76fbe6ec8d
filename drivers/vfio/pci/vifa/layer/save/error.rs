// SPDX-License-Identifier: GPL-2.0

//! Why a device could not be saved.

use super::super::{
    check::Violation,
    records::InvalidRecord,
    stream::Kind, //
};
use crate::seam::OutOfMemory;
use core::fmt;

/// A malformed record, and the type of the section that it was to stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTable {
    /// The type of the section.
    pub kind: Kind,
    /// The record.
    pub record: InvalidRecord,
}

/// Why a device could not be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveError<E> {
    /// The device's identity cannot be true.
    Identity(Violation),
    /// A bitmap of local memory is not one.
    Bitmap(Violation),
    /// The device did not give as many bytes as it had to.
    Piece(Violation),
    /// The device gave a control plane, or a claim, that is malformed.
    Record(InvalidTable),
    /// There was no memory for the address record file, or for a claim.
    OutOfMemory,
    /// The device did not do what it was asked.
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
            Self::Piece(violation) => write!(f, "what the device gave: {violation}"),
            Self::Record(InvalidTable { kind, record }) => {
                write!(f, "what the device gave: {kind} section, {record}")
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
