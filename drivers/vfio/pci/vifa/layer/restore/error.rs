// SPDX-License-Identifier: GPL-2.0

//! Why a stream is refused, and where in it.

use super::super::{
    check::Violation,
    identity::Mismatch,
    stream::Kind, //
};
use crate::seam::OutOfMemory;
use core::fmt;

/// The part of a stream in which something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The stream header.
    StreamHeader,
    /// The header of the section with this sequence number.
    SectionHeader(u64),
    /// The payload of the section with this sequence number; the type if it is known.
    Payload(u64, Option<Kind>),
    /// In the address section with this sequence number, this range, counted from 0.
    Range(u64, u32),
    /// In the section with this sequence number and of this type, the record that begins at this
    /// byte of the records.
    Record(u64, Kind, usize),
    /// Behind the end section.
    Behind,
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
            Self::Behind => write!(f, "behind the end section"),
        }
    }
}

/// Why a stream was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError<E> {
    /// A field of the stream is not what it has to be.
    Malformed(Place, Violation),
    /// This device cannot take the source's state.
    Incompatible(Mismatch),
    /// Bytes follow the end section.
    Excess,
    /// The stream ended here, before the end section was complete.
    Incomplete(Place),
    /// The buffer of the destination is too short.
    Buffer,
    /// There was no memory for the control plane, a claim, or a part of the address record file.
    OutOfMemory,
    /// What the source had from its host is not to be had here.
    Unobtainable(E),
    /// The device did not do what it was asked.
    Device(E),
}

/// What kind of failure a [`RestoreError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class<E> {
    /// The stream is no sound stream.
    Invalid,
    /// The stream is of a device that this one cannot replace.
    Incompatible,
    /// There was not enough memory.
    OutOfMemory,
    /// The device, or its host, did not do what it was asked.
    Device(E),
}

impl<E: Copy> RestoreError<E> {
    /// Returns what kind of failure this is.
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
            Self::OutOfMemory => write!(f, "no memory for what the stream holds"),
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
