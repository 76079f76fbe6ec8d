// SPDX-License-Identifier: GPL-2.0

//! The receiver: takes a stream into a stopped device.
//!
//! A stream comes in pieces of any size. [`Restorer`] says where the next bytes belong and is told
//! when they are there. What the source is, and who sends what to whom, is verified before anything
//! else is accepted. Local memory goes to the device run by run, each after its checksum was
//! verified; the control plane goes to the device when the whole stream was found to be sound.
//!
//! Part of a control plane may have to be obtained from the destination's host, which can refuse it.
//! That comes out while the source still exists: claims are tried as they come, and everything is
//! obtained with the last byte of the stream. What is left for the end of the transfer is between
//! the device and its records.

mod error;

use super::{
    address::{
        self,
        Buffer,
        InvalidPart,
        Part,
        Range,
        LENGTH_MAX,
        LENGTH_MIN, //
    },
    check::{
        check,
        Expectation,
        Violation, //
    },
    identity::Identity,
    interface::{
        InterfaceId,
        Interfaces,
        Plane, //
    },
    progress::Progress,
    records::{
        InvalidRecord,
        Table, //
    },
    relation::Relations,
    stream::{
        unseal,
        Checksum,
        DataRun,
        End,
        IdentityPayload,
        Kind,
        Preamble,
        Record,
        ResourcesHeader,
        Section,
        HEADER_LENGTH,
        MANDATORY,
        SECTION_HEADER_LENGTH,
        SECTION_LENGTH_MAX, //
    },
};
use crate::seam::{
    Bytes,
    OutOfMemory, //
};
use core::{
    fmt,
    mem, //
};

pub use error::{
    Class,
    Place,
    RestoreError, //
};

/// A stopped device that takes another's state.
pub trait Destination {
    /// Why the device did not do what it was asked, and how that is told.
    type Error: Copy + fmt::Display;

    /// Returns what the device is.
    fn identity(&self) -> &Identity;

    /// Returns the device's interfaces.
    fn interfaces(&self) -> Interfaces;

    /// Returns the buffer that [`Self::write_local`] writes from: at least
    /// [`DATA_RUN_MAX`](super::stream::DATA_RUN_MAX) bytes, or as many as local memory has; one if
    /// there is no local memory. What is skipped goes there, too.
    ///
    /// It holds what was put into it until the next call of another method.
    fn buffer(&mut self) -> &mut [u8];

    /// Unmaps all of the local memory.
    fn clear_local(&mut self) -> Result<(), Self::Error>;

    /// Writes the first `length` bytes of the buffer to local memory from `offset` on.
    ///
    /// Both are multiples of the granule; `length` is at most
    /// [`DATA_RUN_MAX`](super::stream::DATA_RUN_MAX). May return before the device has the bytes; an
    /// error is then returned by a later call, at the latest by [`Self::write_control`].
    fn write_local(&mut self, offset: u64, length: usize) -> Result<(), Self::Error>;

    /// Tries whether what these records ask for can be obtained from the host, and keeps nothing of
    /// it.
    ///
    /// They are sound, and part of a control plane that is to come; the source still runs. May be
    /// called any number of times, each of which replaces the one before.
    ///
    /// # Errors
    ///
    /// What is not to be had, and why.
    fn claim(&mut self, _records: &[u8]) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Obtains from the host all that these records, the whole control plane, ask for and that can
    /// be refused.
    ///
    /// The whole stream was found to be sound; the source has stopped, and would go on if this
    /// failed. [`Self::write_control`] follows with the same records, unless the transfer is given
    /// up.
    ///
    /// # Errors
    ///
    /// What is not to be had, and why.
    fn prepare(&mut self, _records: &[u8]) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Replaces the control plane by these records, for which [`Self::prepare`] has succeeded.
    ///
    /// The source may be gone: this asks nobody for anything that can be refused. It fails only if
    /// the device does.
    fn write_control(&mut self, records: &[u8]) -> Result<(), Self::Error>;
}

/// What the next bytes of a stream belong to.
enum Awaited {
    StreamHeader,
    SectionHeader,
    Payload(Section, Payload),
    /// Nothing: the stream has ended.
    Nothing,
}

/// Payload that is being received.
enum Payload {
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

/// What a section carries.
enum Content {
    Identity,
    Relations,
    Address,
    /// This run of local memory.
    Data(Range),
    Control,
    Claim,
    End,
    /// Something that this version does not know and need not know.
    Unknown,
}

/// How far the stream has come.
enum Phase {
    /// Nothing was accepted yet.
    Begun,
    /// The source fits.
    Identified(Identity, Interfaces),
    /// The transfer relationships are established.
    Established(Established),
}

/// What was received on established relationships.
struct Established {
    source: Identity,
    relations: Relations,
    addresses: address::Received,
    /// The part whose data is being received.
    part: Option<Part>,
    /// Whether the destination's local memory was unmapped.
    cleared: bool,
    control: Option<Bytes>,
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
    scratch: [u8; SCRATCH],
    /// For parts of the address record file.
    buffer: Buffer,
    /// Where a claim was received, for the records to come.
    records: Option<Bytes>,
    phase: Phase,
    /// CRC of all headers that were received.
    headers: Checksum,
    progress: Progress,
    failed: Option<RestoreError<E>>,
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
        let content = self.expect(&section, own).map_err(malformed)?;

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
    fn room(&mut self, length: usize, capacity: usize) -> Result<Bytes, OutOfMemory> {
        let mut room = match self.records.take() {
            Some(room) => room,
            None => Bytes::with_capacity(capacity)?,
        };

        room.resize_zeroed(length)?;
        Ok(room)
    }

    /// Checks that a section with this header may come now, and returns what it carries.
    fn expect(&self, section: &Section, own: &Identity) -> Result<Content, Violation> {
        check(
            "flags",
            section.flags,
            Expectation::SubsetOf(MANDATORY.into()),
        )?;
        check(
            "length",
            section.length,
            Expectation::AtMost(SECTION_LENGTH_MAX.into()),
        )?;

        match &self.phase {
            Phase::Begun => {
                section.expect(Kind::Identity)?;
                section.expect_length(IdentityPayload::LENGTH)?;
                Interfaces::of_control(section.interface)?;
                Ok(Content::Identity)
            }
            Phase::Identified(_, source) => {
                section.expect(Kind::Relations)?;
                section.expect_length(Relations::LENGTH)?;
                section.expect_interface(source.plane(Plane::Control))?;
                Ok(Content::Relations)
            }
            Phase::Established(established) => established.expect(section, own),
        }
    }

    fn take_payload<D: Destination<Error = E>>(
        &mut self,
        destination: &mut D,
        section: Section,
        payload: Payload,
    ) -> Result<Awaited, RestoreError<E>> {
        let malformed = |violation| RestoreError::Malformed(section.place(), violation);
        let scratch = self.scratch.as_slice();

        match (payload, &mut self.phase) {
            (Payload::Identity, phase) => {
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
                *phase = Phase::Identified(source, interfaces);
            }
            (Payload::Relations, &mut Phase::Identified(source, interfaces)) => {
                let payload = scratch.get(..Relations::LENGTH).unwrap_or_default();

                section.verify(Checksum::EMPTY.and(payload))?;
                let relations = Relations::accept(payload, interfaces, destination.interfaces())
                    .map_err(malformed)?;

                self.progress.relations = Some(relations);
                self.phase = Phase::Established(Established {
                    source,
                    relations,
                    addresses: address::Received::NONE,
                    part: None,
                    cleared: false,
                    control: None,
                });
            }
            (Payload::Address(bytes), Phase::Established(established)) => {
                section.verify(Checksum::EMPTY.and(&bytes))?;
                let part = established
                    .addresses
                    .accept(bytes, section.sequence, &established.source)
                    .map_err(|invalid| section.invalid_part(invalid))?;

                established
                    .clear(destination)
                    .map_err(RestoreError::Device)?;
                self.progress.addresses.count(&part);
                match part.run() {
                    Some(_) => established.part = Some(part),
                    None => self.buffer.put_back(part),
                }
            }
            (Payload::RunHeader(run), Phase::Established(_)) => {
                let header = scratch.first_chunk().copied().unwrap_or_default();

                return Ok(Awaited::Payload(section, Payload::Run(run, header)));
            }
            (Payload::Run(run, header), Phase::Established(established)) => {
                let bytes = destination
                    .buffer()
                    .get(..run.length as usize)
                    .unwrap_or_default();

                section.verify(Checksum::EMPTY.and(&header).and(bytes))?;
                let DataRun { offset } = DataRun::decode(&header).map_err(malformed)?;
                check("offset", offset, Expectation::Equal(run.start)).map_err(malformed)?;
                destination
                    .write_local(offset, run.length as usize)
                    .map_err(RestoreError::Device)?;
                self.progress.count_data(run.length);
                established.advance(&mut self.buffer);
            }
            (Payload::ResourcesHeader, Phase::Established(_)) => {
                let header = scratch.first_chunk().copied().unwrap_or_default();
                let length = (section.length as usize).saturating_sub(ResourcesHeader::LENGTH);
                let records = self.room(length, length)?;

                return Ok(Awaited::Payload(section, Payload::Records(records, header)));
            }
            (Payload::Records(records, header), Phase::Established(established)) => {
                section.verify(Checksum::EMPTY.and(&header).and(&records))?;
                let header = ResourcesHeader::decode(&header).map_err(malformed)?;
                header.validate(&records).map_err(malformed)?;
                let table = Table::new(&records, destination.identity())
                    .map_err(|invalid| section.invalid_record(Kind::Control, invalid))?;
                header.validate_count(&table).map_err(malformed)?;

                established
                    .clear(destination)
                    .map_err(RestoreError::Device)?;
                self.progress.records = table.summary();
                established.control = Some(records);
            }
            (Payload::Claim(records), Phase::Established(_)) => {
                section.verify(Checksum::EMPTY.and(&records))?;
                Table::new(&records, destination.identity())
                    .map_err(|invalid| section.invalid_record(Kind::Claim, invalid))?;
                destination
                    .claim(&records)
                    .map_err(RestoreError::Unobtainable)?;
                self.records = Some(records);
            }
            (Payload::Unknown(checksum), _) => section.verify(checksum)?,
            (
                Payload::End,
                Phase::Established(Established {
                    control: Some(records),
                    ..
                }),
            ) => {
                let payload = scratch.get(..End::LENGTH).unwrap_or_default();
                let expected = self.progress.totals(self.headers);

                section.verify(Checksum::EMPTY.and(payload))?;
                End::decode(payload)
                    .and_then(|end| end.validate(&expected))
                    .map_err(malformed)?;
                destination
                    .prepare(records)
                    .map_err(RestoreError::Unobtainable)?;
                self.progress.count_section();
                return Ok(Awaited::Nothing);
            }
            _ => return Err(RestoreError::Incomplete(section.place())),
        }
        self.progress.count_section();
        Ok(Awaited::SectionHeader)
    }
}

impl Established {
    /// Checks that a section with this header may come now, and returns what it carries.
    fn expect(&self, section: &Section, own: &Identity) -> Result<Content, Violation> {
        use Expectation::*;

        let interface = |plane| self.relations.plane(plane).output;

        if let Some(run) = self.part.as_ref().and_then(Part::run) {
            section.expect(Kind::Data)?;
            section.expect_length(DataRun::LENGTH.saturating_add(run.length as usize))?;
            section.expect_interface(interface(Plane::Data))?;
            return Ok(Content::Data(run));
        }
        let Some(kind) = Kind::from_raw(section.kind) else {
            if section.flags & MANDATORY != 0 {
                check("type", section.kind, Known)?;
            }
            check(
                "interface",
                section.interface,
                Either(
                    interface(Plane::Control).as_raw(),
                    interface(Plane::Data).as_raw(),
                ),
            )?;
            return Ok(Content::Unknown);
        };

        let refused = |expected| Violation {
            field: "type",
            expected,
            found: section.kind.into(),
        };
        let content = match (&self.control, kind) {
            (None, Kind::Address) => Content::Address,
            (None, Kind::Control) => Content::Control,
            (None, Kind::Claim) => Content::Claim,
            (None, _) => {
                return Err(refused(Either(Kind::Address as u64, Kind::Control as u64)));
            }
            (Some(_), Kind::End) => Content::End,
            (Some(_), _) => return Err(refused(Equal(Kind::End as u64))),
        };

        section.expect(kind)?;
        match content {
            Content::Address => {
                check("length", section.length, AtLeast(LENGTH_MIN as u64))?;
                check("length", section.length, AtMost(LENGTH_MAX as u64))?;
            }
            Content::Control => section.expect_records(ResourcesHeader::LENGTH, own)?,
            Content::Claim => section.expect_records(0, own)?,
            _ => section.expect_length(End::LENGTH)?,
        }
        section.expect_interface(interface(kind.plane()))?;
        Ok(content)
    }

    /// Takes note that a run was received; gives the part back to `buffer` when that was its last.
    fn advance(&mut self, buffer: &mut Buffer) {
        if let Some(mut part) = self.part.take() {
            part.advance();
            match part.run() {
                Some(_) => self.part = Some(part),
                None => buffer.put_back(part),
            }
        }
    }

    /// Unmaps the destination's local memory, unless that was done before.
    fn clear<D: Destination>(&mut self, destination: &mut D) -> Result<(), D::Error> {
        if !self.cleared && destination.identity().local_memory != 0 {
            destination.clear_local()?;
        }
        self.cleared = true;
        Ok(())
    }
}

impl Section {
    /// Returns where the payload stands.
    fn place(&self) -> Place {
        Place::Payload(self.sequence, Kind::from_raw(self.kind))
    }

    /// Checks that this is a section of type `kind`.
    fn expect(&self, kind: Kind) -> Result<(), Violation> {
        use Expectation::Equal;

        check("type", self.kind, Equal(kind as u64))?;
        check("flags", self.flags, Equal(kind.flags().into()))
    }

    /// Checks that there can be records behind `header` bytes of the payload, no more than a device
    /// that is as `own` says has room for.
    fn expect_records(&self, header: usize, own: &Identity) -> Result<(), Violation> {
        let shortest = header.saturating_add(Record::LENGTH);
        let longest = header.saturating_add(own.control_plane_max as usize);

        check("length", self.length, Expectation::AtLeast(shortest as u64))?;
        check("length", self.length, Expectation::AtMost(longest as u64))
    }

    fn expect_length(&self, length: usize) -> Result<(), Violation> {
        check("length", self.length, Expectation::Equal(length as u64))
    }

    fn expect_interface(&self, interface: InterfaceId) -> Result<(), Violation> {
        let expected = Expectation::Equal(interface.as_raw());

        check("interface", self.interface, expected)
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

    fn invalid_part<E>(&self, invalid: InvalidPart) -> RestoreError<E> {
        let place = match invalid.range {
            Some(range) => Place::Range(self.sequence, range),
            None => self.place(),
        };

        RestoreError::Malformed(place, invalid.violation)
    }

    fn invalid_record<E>(&self, kind: Kind, invalid: InvalidRecord) -> RestoreError<E> {
        let place = Place::Record(self.sequence, kind, invalid.offset);

        RestoreError::Malformed(place, invalid.violation)
    }
}
