// SPDX-License-Identifier: GPL-2.0

//! Takes a stream, piece by piece.

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

/// What the next bytes of a stream belong to.
pub(super) enum Awaited {
    StreamHeader,
    SectionHeader,
    Payload(Section, Payload),
    /// Nothing: the stream has ended.
    Nothing,
}

/// Payload that is being received.
pub(super) enum Payload {
    Identity,
    Relations,
    /// Room for a part of the address record file.
    Address(Bytes),
    /// The header of this run of local memory.
    RunHeader(Range),
    /// This run of local memory, and its header.
    Run(Range, [u8; DataRun::LENGTH]),
    /// What stands before the records.
    ResourcesHeader,
    /// Room for the records, and what stands before them.
    Records(Bytes, [u8; ResourcesHeader::LENGTH]),
    /// Room for the records of a claim.
    Claim(Bytes),
    /// An optional section that is skipped, and the checksum so far.
    Unknown(Checksum),
    End,
}

impl Awaited {
    /// Bytes that are awaited.
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

/// Bytes of the longest piece that neither the device nor a buffer of its own holds.
const SCRATCH: usize = IdentityPayload::LENGTH;

/// Takes a stream.
///
/// After an error the stream stays broken: every later call returns the same error.
pub struct Restorer<E> {
    awaited: Awaited,
    /// Bytes of what is awaited that are there.
    filled: usize,
    pub(super) scratch: [u8; SCRATCH],
    /// For parts of the address record file.
    pub(super) buffer: Buffer,
    /// Where a claim was received, for the records to come.
    pub(super) records: Option<Bytes>,
    pub(super) phase: Phase,
    /// CRC of all headers that were received.
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
    /// Awaits a stream.
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

    /// Returns what was received so far. When a stream was refused, its bytes are those up to the
    /// end of what was wrong.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Returns where the next bytes of the stream belong; at least one byte long.
    ///
    /// To be called only when there are bytes to put there: behind the end of the stream, that
    /// alone is an error.
    ///
    /// # Errors
    ///
    /// [`RestoreError::Excess`] behind the end; otherwise what an earlier call returned.
    pub fn space<'a, D: Destination<Error = E>>(
        &'a mut self,
        destination: &'a mut D,
    ) -> Result<&'a mut [u8], RestoreError<E>> {
        self.sound()?;

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

    /// Takes the first `length` bytes of what [`Self::space`] returned.
    ///
    /// # Errors
    ///
    /// These bytes complete something that is wrong, that does not fit this device, or that the
    /// device did not take.
    pub fn filled<D: Destination<Error = E>>(
        &mut self,
        destination: &mut D,
        length: usize,
    ) -> Result<(), RestoreError<E>> {
        self.sound()?;
        self.take(destination, length)
            .inspect_err(|&error| self.failed = Some(error))
    }

    /// Ends the stream: hands the control plane to the device.
    ///
    /// # Errors
    ///
    /// The stream is not complete, it was broken before, or the device did not take the control
    /// plane.
    pub fn finish<D: Destination<Error = E>>(
        self,
        destination: &mut D,
    ) -> Result<(), RestoreError<E>> {
        self.sound()?;

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

    /// Returns the error that broke the stream.
    fn sound(&self) -> Result<(), RestoreError<E>> {
        self.failed.map_or(Ok(()), Err)
    }

    /// Returns the place of the next byte.
    fn place(&self) -> Place {
        match &self.awaited {
            Awaited::StreamHeader => Place::StreamHeader,
            Awaited::SectionHeader => Place::SectionHeader(self.progress.sections),
            Awaited::Payload(section, _) => section.place(),
            Awaited::Nothing => Place::Behind,
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

        // The totals do not cover the section that they stand in.
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

    /// Returns room for `length` bytes of records. Where there is none yet, it can grow up to
    /// `capacity` without more memory.
    pub(super) fn room(&mut self, length: usize, capacity: usize) -> Result<Bytes, OutOfMemory> {
        let mut room = match self.records.take() {
            Some(room) => room,
            None => Bytes::with_capacity(capacity)?,
        };

        room.resize_zeroed(length)?;
        Ok(room)
    }
}
