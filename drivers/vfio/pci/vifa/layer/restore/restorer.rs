// SPDX-License-Identifier: GPL-2.0

//! The reader of a stream that arrives in pieces.

use super::{
    super::{
        address::{
            Buffer,
            Range, //
        },
        check::{
            check,
            Expectation, //
        },
        identity::Identity,
        progress::Progress,
        stream::{
            unseal,
            Checksum,
            DataRun,
            IdentityPayload,
            Preamble,
            ResourcesHeader,
            Section,
            HEADER_LENGTH,
            SECTION_HEADER_LENGTH, //
        },
    },
    phase::{
        Content,
        Established,
        Phase, //
    },
    Destination,
    Place,
    RestoreError, //
};
use crate::seam::{
    Bytes,
    OutOfMemory, //
};
use core::mem;

/// The part of a stream that the next bytes belong to.
pub(super) enum Awaited {
    StreamHeader,
    SectionHeader,
    Payload(Section, Payload),
    /// The stream has ended.
    Nothing,
}

/// The payload that is being received.
pub(super) enum Payload {
    Identity,
    Relations,
    /// Room for a part of the address record file.
    Address(Bytes),
    /// The header of this run of local memory.
    RunHeader(Range),
    /// This run of local memory, and its header.
    Run(Range, [u8; DataRun::LENGTH]),
    /// The header before the records.
    ResourcesHeader,
    /// Room for the records, and the header before them.
    Records(Bytes, [u8; ResourcesHeader::LENGTH]),
    /// Room for the records of a claim.
    Claim(Bytes),
    /// A skipped optional section, and the checksum so far.
    Unknown(Checksum),
    End,
}

impl Awaited {
    /// Returns the number of awaited bytes.
    fn length(&self) -> usize {
        match self {
            Self::StreamHeader => HEADER_LENGTH,
            Self::SectionHeader => SECTION_HEADER_LENGTH,
            Self::Payload(_, Payload::RunHeader(_)) => DataRun::LENGTH,
            Self::Payload(_, Payload::Run(run, _)) => run.length as usize,
            Self::Payload(_, Payload::ResourcesHeader) => ResourcesHeader::LENGTH,
            Self::Payload(_, Payload::Records(records, _)) => records.len(),
            Self::Payload(section, _) => section.length as usize,
            Self::Nothing => 0,
        }
    }
}

/// Length of the longest piece that has neither a buffer in the device nor a separate buffer here.
const SCRATCH: usize = IdentityPayload::LENGTH;

/// Reads a stream and restores it to a device.
///
/// An error is permanent: every later call returns the same error.
pub struct Restorer<E> {
    awaited: Awaited,
    /// Number of awaited bytes that are already received.
    filled: usize,
    pub(super) scratch: [u8; SCRATCH],
    /// For parts of the address record file.
    pub(super) buffer: Buffer,
    /// The memory of a received claim, for reuse by later records.
    pub(super) records: Option<Bytes>,
    pub(super) phase: Phase,
    /// CRC of all received headers.
    pub(super) headers: Checksum,
    pub(super) progress: Progress,
    failed: Option<RestoreError<E>>,
}

impl<E: Copy> Default for Restorer<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Copy> Restorer<E> {
    /// Creates a restorer that awaits a stream header.
    pub fn new() -> Self {
        Self {
            awaited: Awaited::StreamHeader,
            filled: 0,
            scratch: [0; SCRATCH],
            buffer: Buffer::UNUSED,
            records: None,
            phase: Phase::Begun,
            headers: Checksum::EMPTY,
            progress: Progress::NONE,
            failed: None,
        }
    }

    /// Returns the totals of the received part of the stream. For a refused stream,
    /// [`Progress::stream_bytes`] includes the invalid header or payload.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Returns the space for the next bytes of the stream, at least one byte.
    ///
    /// Must be called only if there are bytes to put there: a call after the end of the stream is
    /// an error.
    ///
    /// # Errors
    ///
    /// Returns [`RestoreError::Excess`] after the end of the stream, [`RestoreError::Buffer`] if
    /// the destination's buffer is too short, or the error of an earlier call.
    pub fn space<'a, D: Destination<Error = E>>(
        &'a mut self,
        destination: &'a mut D,
    ) -> Result<&'a mut [u8], RestoreError<E>> {
        self.ensure_valid()?;

        let length = self.awaited.length();
        let space = match &mut self.awaited {
            Awaited::Nothing => {
                self.failed = Some(RestoreError::Excess);
                return Err(RestoreError::Excess);
            }
            Awaited::Payload(_, Payload::Run(..)) => {
                destination.buffer().get_mut(self.filled..length)
            }
            Awaited::Payload(_, Payload::Unknown(_)) => {
                let buffer = destination.buffer();
                let length = length.saturating_sub(self.filled).min(buffer.len());

                buffer.get_mut(..length)
            }
            Awaited::Payload(
                _,
                Payload::Address(bytes) | Payload::Claim(bytes) | Payload::Records(bytes, _),
            ) => bytes.get_mut(self.filled..length),
            _ => self.scratch.get_mut(self.filled..length),
        };

        space
            .filter(|space| !space.is_empty())
            .ok_or(RestoreError::Buffer)
    }

    /// Processes the first `length` bytes of the space that [`Self::space`] returned.
    ///
    /// # Errors
    ///
    /// Returns an error if these bytes complete a header or a payload that is invalid or
    /// incompatible with this device, or that the device did not accept.
    pub fn filled<D: Destination<Error = E>>(
        &mut self,
        destination: &mut D,
        length: usize,
    ) -> Result<(), RestoreError<E>> {
        self.ensure_valid()?;
        self.take(destination, length)
            .inspect_err(|&error| self.failed = Some(error))
    }

    /// Ends the stream: writes the control plane to the device.
    ///
    /// # Errors
    ///
    /// Returns an error if the stream is incomplete, if an earlier call failed, or if the device
    /// did not accept the control plane.
    pub fn finish<D: Destination<Error = E>>(
        self,
        destination: &mut D,
    ) -> Result<(), RestoreError<E>> {
        self.ensure_valid()?;

        let place = self.place();
        match (self.awaited, self.phase) {
            (
                Awaited::Nothing,
                Phase::Established(Established {
                    control: Some(records),
                    ..
                }),
            ) => destination
                .write_control(&records)
                .map_err(RestoreError::Device),
            _ => Err(RestoreError::Incomplete(place)),
        }
    }

    /// Returns the error of an earlier call, if any.
    fn ensure_valid(&self) -> Result<(), RestoreError<E>> {
        self.failed.map_or(Ok(()), Err)
    }

    /// Returns the place of the next byte.
    fn place(&self) -> Place {
        match &self.awaited {
            Awaited::StreamHeader => Place::StreamHeader,
            Awaited::SectionHeader => Place::SectionHeader(self.progress.sections),
            Awaited::Payload(section, _) => section.place(),
            Awaited::Nothing => Place::AfterEnd,
        }
    }

    fn take<D: Destination<Error = E>>(
        &mut self,
        destination: &mut D,
        length: usize,
    ) -> Result<(), RestoreError<E>> {
        let left = self.awaited.length().saturating_sub(self.filled);
        let length = length.min(left);

        self.progress.count_stream(length as u64);
        if let Awaited::Payload(_, Payload::Unknown(checksum)) = &mut self.awaited {
            let skipped = destination.buffer().get(..length).unwrap_or_default();

            *checksum = checksum.and(skipped);
        }
        if length < left {
            self.filled = self.filled.saturating_add(length);
            return Ok(());
        }

        self.filled = 0;
        self.awaited = match mem::replace(&mut self.awaited, Awaited::SectionHeader) {
            Awaited::StreamHeader => self.take_stream_header()?,
            Awaited::SectionHeader => self.take_section_header(destination.identity())?,
            Awaited::Payload(section, payload) => {
                self.take_payload(destination, section, payload)?
            }
            Awaited::Nothing => Awaited::Nothing,
        };
        Ok(())
    }

    fn take_stream_header(&mut self) -> Result<Awaited, RestoreError<E>> {
        let header = self.scratch.get(..HEADER_LENGTH).unwrap_or_default();

        let preamble = unseal("crc", header)
            .and_then(Preamble::decode)
            .and_then(Preamble::validated)
            .map_err(|violation| RestoreError::Malformed(Place::StreamHeader, violation))?;
        self.headers = self.headers.and(&preamble.encode());
        Ok(Awaited::SectionHeader)
    }

    fn take_section_header(&mut self, own: &Identity) -> Result<Awaited, RestoreError<E>> {
        let place = Place::SectionHeader(self.progress.sections);
        let malformed = |violation| RestoreError::Malformed(place, violation);
        let header = self
            .scratch
            .get(..SECTION_HEADER_LENGTH)
            .unwrap_or_default();
        let section = unseal("header_crc", header)
            .and_then(Section::decode)
            .map_err(malformed)?;

        check(
            "sequence",
            section.sequence,
            Expectation::Equal(self.progress.sections),
        )
        .map_err(malformed)?;
        let content = self.phase.expect(&section, own).map_err(malformed)?;

        let payload = match content {
            Content::Identity => Payload::Identity,
            Content::Relations => Payload::Relations,
            Content::Address => Payload::Address(self.buffer.take(section.length as usize)?),
            Content::Data(run) => Payload::RunHeader(run),
            Content::Control => Payload::ResourcesHeader,
            Content::Claim => {
                let room = own.control_plane_max as usize;

                Payload::Claim(self.room(section.length as usize, room)?)
            }
            Content::End => Payload::End,
            Content::Unknown => Payload::Unknown(Checksum::EMPTY),
        };

        // The totals do not cover the end section, which contains them.
        if !matches!(payload, Payload::End) {
            self.headers = self.headers.and(&section.encode());
        }
        if section.length == 0 {
            section.verify(Checksum::EMPTY)?;
            self.progress.count_section();
            return Ok(Awaited::SectionHeader);
        }
        Ok(Awaited::Payload(section, payload))
    }

    /// Returns memory for `length` bytes of records. New memory can grow up to `capacity` bytes
    /// without another allocation.
    pub(super) fn room(&mut self, length: usize, capacity: usize) -> Result<Bytes, OutOfMemory> {
        let mut room = match self.records.take() {
            Some(room) => room,
            None => Bytes::with_capacity(capacity)?,
        };

        room.resize_zeroed(length)?;
        Ok(room)
    }
}
