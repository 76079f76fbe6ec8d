// SPDX-License-Identifier: GPL-2.0

//! Errors of a received stream, and their places.

use super::super::{
    check::Violation,
    identity::Mismatch,
    stream::Kind, //
};
use crate::seam::OutOfMemory;
use core::fmt;

/// The place of an error in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The stream header.
    StreamHeader,
    /// The header of the section with this sequence number.
    SectionHeader(u64),
    /// The payload of the section with this sequence number, and the type if it is known.
    Payload(u64, Option<Kind>),
    /// The range with this number, from 0, in the address section with this sequence number.
    Range(u64, u32),
    /// The record at this offset of the records, in the section with this sequence number and type.
    Record(u64, Kind, usize),
    /// After the end section.
    AfterEnd,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StreamHeader => write!(f, "stream header"),
            Self::SectionHeader(sequence) => write!(f, "header of section {sequence}"),
            Self::Payload(sequence, Some(kind)) => write!(f, "section {sequence} ({kind})"),
            Self::Payload(sequence, None) => write!(f, "section {sequence} (unknown, optional)"),
            Self::Range(sequence, range) => {
                write!(f, "section {sequence} ({}), range {range}", Kind::Address)
            }
            Self::Record(sequence, kind, offset) => {
                write!(f, "section {sequence} ({kind}), record at byte {offset:#x}")
            }
            Self::AfterEnd => write!(f, "after the end section"),
        }
    }
}

/// The reason for refusing a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError<E> {
    /// A field of the stream is invalid.
    Malformed(Place, Violation),
    /// This device cannot take the source's state.
    Incompatible(Mismatch),
    /// Bytes follow the end section.
    Excess,
    /// The stream ended here, before the end section was complete.
    Incomplete(Place),
    /// The buffer of the destination is too short.
    Buffer,
    /// The allocation for the control plane, a claim, or a part of the address record file failed.
    OutOfMemory,
    /// A resource that the source obtained from its host is not available on this host.
    Unobtainable(E),
    /// The device failed to execute a command.
    Device(E),
}

/// The class of a [`RestoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class<E> {
    /// The stream is invalid.
    Invalid,
    /// The source is a device that this one cannot replace.
    Incompatible,
    /// An allocation failed.
    OutOfMemory,
    /// The device, or its host, failed.
    Device(E),
}

impl<E: Copy> RestoreError<E> {
    /// Returns the class of the error.
    pub fn class(&self) -> Class<E> {
        match *self {
            Self::Malformed(..) | Self::Excess | Self::Incomplete(_) => Class::Invalid,
            Self::Incompatible(_) => Class::Incompatible,
            Self::Buffer | Self::OutOfMemory => Class::OutOfMemory,
            Self::Unobtainable(error) | Self::Device(error) => Class::Device(error),
        }
    }
}

impl<E: fmt::Display> fmt::Display for RestoreError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(place, violation) => write!(f, "{place}: {violation}"),
            Self::Incompatible(mismatch) => write!(f, "incompatible: {mismatch}"),
            Self::Excess => write!(f, "bytes follow the end section"),
            Self::Incomplete(place) => write!(f, "the stream is incomplete: it ends in {place}"),
            Self::Buffer => write!(f, "the destination's buffer is too short"),
            Self::OutOfMemory => write!(f, "no memory for the content of the stream"),
            Self::Unobtainable(error) => write!(f, "unobtainable: {error}"),
            Self::Device(error) => write!(f, "the device failed: {error}"),
        }
    }
}

impl<E> From<OutOfMemory> for RestoreError<E> {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}
