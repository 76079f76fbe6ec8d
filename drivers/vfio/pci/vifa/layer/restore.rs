// SPDX-License-Identifier: GPL-2.0

//! The receiver: takes a stream into a stopped device.
//!
//! A stream comes in pieces of any size. [`Restorer`] says where the next bytes belong and is told
//! when they are there. Local memory goes to the device run by run, each after its checksum was
//! verified; the control plane goes to the device when the whole stream was found to be sound.

mod error;

use super::{
    check::{
        check,
        Expectation,
        Violation, //
    },
    identity::Identity,
    interface::{
        Interfaces,
        Plane, //
    },
    records,
    stream::{
        unseal,
        Checksum,
        DataRun,
        End,
        IdentityPayload,
        Kind,
        Preamble,
        Record,
        Section,
        Totals,
        HEADER_LENGTH,
        MANDATORY,
        SECTION_HEADER_LENGTH,
        SECTION_LENGTH_MAX, //
    },
};
use crate::seam::Bytes;
use core::mem;

pub(crate) use error::{
    Class,
    Place,
    RestoreError, //
};

/// A stopped device that takes another's state.
pub(crate) trait Destination {
    /// Why the device did not do what it was asked.
    type Error: Copy;

    /// Returns what the device is.
    fn identity(&self) -> &Identity;

    /// Returns the buffer that [`Self::write_local`] writes from: at least
    /// [`DATA_RUN_MAX`](super::stream::DATA_RUN_MAX) bytes.
    ///
    /// It holds what was put into it until the next call of another method.
    fn buffer(&mut self) -> &mut [u8];

    /// Unmaps all of the local memory.
    fn clear_local(&mut self) -> Result<(), Self::Error>;

    /// Writes the first `length` bytes of the buffer to local memory from `offset` on.
    ///
    /// Both are multiples of the granule; `length` is at most
    /// [`DATA_RUN_MAX`](super::stream::DATA_RUN_MAX).
    fn write_local(&mut self, offset: u64, length: usize) -> Result<(), Self::Error>;

    /// Replaces the control plane by these records.
    fn write_control(&mut self, records: &[u8]) -> Result<(), Self::Error>;
}

/// What the next bytes of a stream belong to.
enum Part {
    StreamHeader,
    SectionHeader,
    Payload(Section, Payload),
    Behind,
}

/// Payload that is being received.
enum Payload {
    Identity,
    /// The header of a run of local memory.
    RunHeader,
    /// A run of local memory, its offset, and the checksum of its header.
    Run(u64, Checksum),
    /// Room for the records.
    Control(Bytes),
    /// An optional section that is skipped, and the checksum so far.
    Unknown(Checksum),
    End,
}

impl Part {
    /// Bytes of this part.
    fn length(&self) -> usize {
        match self {
            Self::StreamHeader => HEADER_LENGTH,
            Self::SectionHeader => SECTION_HEADER_LENGTH,
            Self::Payload(_, Payload::RunHeader) => DataRun::LENGTH,
            Self::Payload(section, Payload::Run(..)) => section.run_length(),
            Self::Payload(section, _) => section.length as usize,
            Self::Behind => 0,
        }
    }
}

/// The source, once its identity was accepted, and what came from it.
struct Accepted {
    identity: Identity,
    interfaces: Interfaces,
    /// Lowest offset that the next run of local memory may have.
    next_offset: u64,
    control: Option<Bytes>,
}

/// Bytes of the longest part that is neither bulk data nor records.
const SCRATCH: usize = IdentityPayload::LENGTH;

/// Takes a stream.
///
/// After an error the stream stays broken: every later call returns the same error.
pub(crate) struct Restorer<E> {
    part: Part,
    /// Bytes of the part that are there.
    filled: usize,
    scratch: [u8; SCRATCH],
    accepted: Option<Accepted>,
    totals: Totals,
    failed: Option<RestoreError<E>>,
}

impl<E: Copy> Restorer<E> {
    /// Awaits a stream.
    pub(crate) fn new() -> Self {
        Self {
            part: Part::StreamHeader,
            filled: 0,
            scratch: [0; SCRATCH],
            accepted: None,
            totals: Totals::NONE,
            failed: None,
        }
    }

    /// Returns where the next bytes of the stream belong; at least one byte long.
    ///
    /// To be called only when there are bytes to put there: behind the end of the stream, that
    /// alone is an error.
    ///
    /// # Errors
    ///
    /// [`RestoreError::Excess`] behind the end; otherwise what an earlier call returned.
    pub(crate) fn space<'a, D: Destination<Error = E>>(
        &'a mut self,
        destination: &'a mut D,
    ) -> Result<&'a mut [u8], RestoreError<E>> {
        self.sound()?;

        let length = self.part.length();
        let space = match &mut self.part {
            Part::Behind => {
                self.failed = Some(RestoreError::Excess);
                return Err(RestoreError::Excess);
            }
            Part::Payload(_, Payload::Run(..)) => destination.buffer().get_mut(self.filled..length),
            Part::Payload(_, Payload::Unknown(_)) => {
                let buffer = destination.buffer();
                let length = length.saturating_sub(self.filled).min(buffer.len());

                buffer.get_mut(..length)
            }
            Part::Payload(_, Payload::Control(records)) => records.get_mut(self.filled..length),
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
    pub(crate) fn filled<D: Destination<Error = E>>(
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
    pub(crate) fn finish<D: Destination<Error = E>>(
        self,
        destination: &mut D,
    ) -> Result<(), RestoreError<E>> {
        self.sound()?;

        let place = self.place();
        match (self.part, self.accepted) {
            (
                Part::Behind,
                Some(Accepted {
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
        match &self.part {
            Part::StreamHeader => Place::StreamHeader,
            Part::SectionHeader => Place::SectionHeader(self.totals.sections()),
            Part::Payload(section, _) => section.place(),
            Part::Behind => Place::Behind,
        }
    }

    fn take<D: Destination<Error = E>>(
        &mut self,
        destination: &mut D,
        length: usize,
    ) -> Result<(), RestoreError<E>> {
        let left = self.part.length().saturating_sub(self.filled);
        let length = length.min(left);

        if let Part::Payload(_, Payload::Unknown(checksum)) = &mut self.part {
            let skipped = destination.buffer().get(..length).unwrap_or_default();

            *checksum = checksum.and(skipped);
        }
        if length < left {
            self.filled = self.filled.saturating_add(length);
            return Ok(());
        }

        self.filled = 0;
        self.part = match mem::replace(&mut self.part, Part::SectionHeader) {
            Part::StreamHeader => self.take_stream_header()?,
            Part::SectionHeader => self.take_section_header(destination.identity())?,
            Part::Payload(section, payload) => self.take_payload(destination, section, payload)?,
            Part::Behind => Part::Behind,
        };
        Ok(())
    }

    fn take_stream_header(&mut self) -> Result<Part, RestoreError<E>> {
        let header = self.scratch.get(..HEADER_LENGTH).unwrap_or_default();

        let preamble = unseal("crc", header)
            .and_then(Preamble::decode)
            .and_then(Preamble::validated)
            .map_err(|violation| RestoreError::Malformed(Place::StreamHeader, violation))?;
        self.totals.count_header(preamble);
        Ok(Part::SectionHeader)
    }

    fn take_section_header(&mut self, own: &Identity) -> Result<Part, RestoreError<E>> {
        let place = Place::SectionHeader(self.totals.sections());
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
            Expectation::Equal(self.totals.sections()),
        )
        .map_err(malformed)?;
        let payload = match self.expect(&section, own).map_err(malformed)? {
            Some(Kind::Identity) => Payload::Identity,
            Some(Kind::Data) => Payload::RunHeader,
            Some(Kind::Control) => {
                let mut records = Bytes::with_capacity(section.length as usize)?;

                records.resize_zeroed(section.length as usize)?;
                Payload::Control(records)
            }
            // The totals do not count the section that they stand in.
            Some(Kind::End) => return Ok(Part::Payload(section, Payload::End)),
            None => Payload::Unknown(Checksum::EMPTY),
        };

        self.totals.count_section(section);
        if section.length == 0 {
            section.verify(Checksum::EMPTY)?;
            return Ok(Part::SectionHeader);
        }
        Ok(Part::Payload(section, payload))
    }

    /// Checks that a section with this header may come now, and returns its type; `None` if it is
    /// unknown and to be skipped.
    fn expect(&self, section: &Section, own: &Identity) -> Result<Option<Kind>, Violation> {
        use Expectation::*;

        check("flags", section.flags, SubsetOf(MANDATORY.into()))?;
        check("length", section.length, AtMost(SECTION_LENGTH_MAX.into()))?;

        let Some(accepted) = &self.accepted else {
            check("type", section.kind, Equal(Kind::Identity as u64))?;
            check("flags", section.flags, Equal(MANDATORY.into()))?;
            check(
                "length",
                section.length,
                Equal(IdentityPayload::LENGTH as u64),
            )?;
            Interfaces::of_control(section.interface)?;
            return Ok(Some(Kind::Identity));
        };
        let Some(kind) = Kind::from_raw(section.kind) else {
            if section.flags & MANDATORY != 0 {
                check("type", section.kind, Known)?;
            }
            if section.interface != accepted.interfaces.plane(Plane::Data).as_raw() {
                accepted.check_interface(section, Plane::Control)?;
            }
            return Ok(None);
        };

        let (first, last) = match accepted.control {
            None => (Kind::Data, Kind::Control),
            Some(_) => (Kind::End, Kind::End),
        };
        check("type", section.kind, AtLeast(first as u64))?;
        check("type", section.kind, AtMost(last as u64))?;
        check("flags", section.flags, Equal(MANDATORY.into()))?;
        accepted.check_interface(section, kind.plane())?;
        match kind {
            Kind::Identity => {}
            Kind::Data => {
                let granule = accepted.identity.granule.into();

                check("length", section.run_length() as u64, AtLeast(granule))?;
                check("length", section.run_length() as u64, MultipleOf(granule))?;
            }
            Kind::Control => {
                check("length", section.length, AtLeast(Record::LENGTH as u64))?;
                check(
                    "length",
                    section.length,
                    AtMost(own.control_plane_max.into()),
                )?;
            }
            Kind::End => check("length", section.length, Equal(End::LENGTH as u64))?,
        }
        Ok(Some(kind))
    }

    fn take_payload<D: Destination<Error = E>>(
        &mut self,
        destination: &mut D,
        section: Section,
        payload: Payload,
    ) -> Result<Part, RestoreError<E>> {
        let malformed = |violation| RestoreError::Malformed(section.place(), violation);
        let scratch = self.scratch.as_slice();

        match (payload, &mut self.accepted) {
            (Payload::Identity, accepted) => {
                let payload = scratch.get(..IdentityPayload::LENGTH).unwrap_or_default();

                section.verify(Checksum::EMPTY.and(payload))?;
                let source = IdentityPayload::decode(payload)
                    .and_then(Identity::try_from)
                    .map_err(malformed)?;
                let interfaces = Interfaces::of_control(section.interface).map_err(malformed)?;

                source
                    .fits(destination.identity())
                    .map_err(RestoreError::Incompatible)?;
                source.validate().map_err(malformed)?;
                if destination.identity().local_memory != 0 {
                    destination.clear_local().map_err(RestoreError::Device)?;
                }
                *accepted = Some(Accepted {
                    identity: source,
                    interfaces,
                    next_offset: 0,
                    control: None,
                });
            }
            (Payload::RunHeader, Some(accepted)) => {
                let header = scratch.get(..DataRun::LENGTH).unwrap_or_default();
                let run = DataRun::decode(header).map_err(malformed)?;

                accepted
                    .check_run(run.offset, section.run_length() as u64)
                    .map_err(malformed)?;
                let run = Payload::Run(run.offset, Checksum::EMPTY.and(header));
                return Ok(Part::Payload(section, run));
            }
            (Payload::Run(offset, checksum), Some(accepted)) => {
                let length = section.run_length();
                let bytes = destination.buffer().get(..length).unwrap_or_default();

                section.verify(checksum.and(bytes))?;
                destination
                    .write_local(offset, length)
                    .map_err(RestoreError::Device)?;
                accepted.next_offset = offset.saturating_add(length as u64);
                self.totals.count_data(length as u64);
            }
            (Payload::Control(records), Some(accepted)) => {
                section.verify(Checksum::EMPTY.and(&records))?;
                records::validate(&records, destination.identity())
                    .map_err(RestoreError::Record)?;
                self.totals.count_control(records.len() as u64);
                accepted.control = Some(records);
            }
            (Payload::Unknown(checksum), _) => section.verify(checksum)?,
            (Payload::End, _) => {
                let payload = scratch.get(..End::LENGTH).unwrap_or_default();

                section.verify(Checksum::EMPTY.and(payload))?;
                End::decode(payload)
                    .and_then(|end| end.validate(&self.totals))
                    .map_err(malformed)?;
                return Ok(Part::Behind);
            }
            (_, None) => return Err(RestoreError::Incomplete(section.place())),
        }
        Ok(Part::SectionHeader)
    }
}

impl Accepted {
    /// Checks that `section` comes from the source's interface of `plane`.
    fn check_interface(&self, section: &Section, plane: Plane) -> Result<(), Violation> {
        check(
            "interface",
            section.interface,
            Expectation::Equal(self.interfaces.plane(plane).as_raw()),
        )
    }

    /// Checks that a run of local memory may come next. Its length is a multiple of the granule.
    fn check_run(&self, offset: u64, length: u64) -> Result<(), Violation> {
        use Expectation::*;

        let end = self.identity.local_memory;

        check("length", length, AtMost(end))?;
        check("offset", offset, MultipleOf(self.identity.granule.into()))?;
        check("offset", offset, AtLeast(self.next_offset))?;
        check("offset", offset, AtMost(end.saturating_sub(length)))
    }
}

impl Section {
    /// Returns where the payload stands.
    fn place(&self) -> Place {
        Place::Payload(self.sequence, Kind::from_raw(self.kind))
    }

    /// Returns the bytes of local memory in a data section.
    fn run_length(&self) -> usize {
        (self.length as usize).saturating_sub(DataRun::LENGTH)
    }

    /// Checks the CRC of the payload.
    fn verify<E>(&self, payload: Checksum) -> Result<(), RestoreError<E>> {
        check(
            "payload_crc",
            self.payload_crc,
            Expectation::Equal(payload.value().into()),
        )
        .map_err(|violation| RestoreError::Malformed(self.place(), violation))
    }
}
