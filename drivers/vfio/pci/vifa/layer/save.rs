// SPDX-License-Identifier: GPL-2.0

//! The output party: makes a stream of a stopped device.
//!
//! A stream is made as it is read, one piece at a time. A piece is a section's header, which
//! [`Saver`] holds, and the payload that the device has put into the [`Source`]'s buffer. Bulk data
//! is never copied on its way from there to the reader.

use super::{
    check::{
        check,
        Expectation,
        Violation, //
    },
    identity::Identity,
    interface::Interfaces,
    records::{
        self,
        InvalidRecord, //
    },
    stream::{
        Checksum,
        DataRun,
        End,
        IdentityPayload,
        Kind,
        Preamble,
        Section,
        Totals,
        DATA_RUN_MAX,
        HEADER_LENGTH,
        MANDATORY,
        SECTION_HEADER_LENGTH, //
    },
};
use core::fmt;

/// A run of local memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// Offset of the first byte.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) length: u64,
}

impl Range {
    /// Checks that a device with this identity can have this as its next run behind `from`.
    fn validate(&self, from: u64, identity: &Identity) -> Result<(), Violation> {
        use Expectation::*;

        let granule = identity.granule.into();

        check("start", self.start, MultipleOf(granule))?;
        check("start", self.start, AtLeast(from))?;
        check("start", self.start, AtMost(identity.local_memory))?;
        check("length", self.length, MultipleOf(granule))?;
        check("length", self.length, AtLeast(granule))?;
        check(
            "length",
            self.length,
            AtMost(identity.local_memory.saturating_sub(self.start)),
        )
    }
}

/// A stopped device whose state is saved.
pub(crate) trait Source {
    /// Why the device did not do what it was asked.
    type Error: Copy;

    /// Returns what the device is.
    fn identity(&self) -> &Identity;

    /// Returns the device's interfaces.
    fn interfaces(&self) -> Interfaces;

    /// Fills the buffer with the records of the control plane.
    fn read_control(&mut self) -> Result<(), Self::Error>;

    /// Returns the first run of mapped local memory that begins at or behind the offset `from`;
    /// `None` if there is none.
    fn next_mapped(&mut self, from: u64) -> Result<Option<Range>, Self::Error>;

    /// Fills the buffer with `length` bytes of local memory from `offset` on.
    ///
    /// Both are multiples of the granule; `length` is at most [`DATA_RUN_MAX`].
    fn read_local(&mut self, offset: u64, length: usize) -> Result<(), Self::Error>;

    /// Returns what the last of [`Self::read_control`] and [`Self::read_local`] put into the
    /// buffer, to its full length.
    fn piece(&self) -> &[u8];
}

/// Why a device could not be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SaveError<E> {
    /// The device's identity cannot be true.
    Identity(Violation),
    /// A run of mapped local memory is not in local memory, or not in order.
    Mapped(Violation),
    /// The device did not give as many bytes as it had to.
    Piece(Violation),
    /// The device gave a control plane that is malformed.
    Record(InvalidRecord),
    /// The device did not do what it was asked.
    Device(E),
}

impl<E: fmt::Debug> fmt::Display for SaveError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(violation) => write!(f, "identity: {violation}"),
            Self::Mapped(violation) => write!(f, "mapped local memory: {violation}"),
            Self::Piece(violation) => write!(f, "what the device gave: {violation}"),
            Self::Record(invalid) => write!(f, "control plane: {invalid}"),
            Self::Device(error) => write!(f, "the device failed: {error:?}"),
        }
    }
}

/// Most bytes of a piece that [`Saver`] itself holds.
const HEAD_MAX: usize = HEADER_LENGTH + SECTION_HEADER_LENGTH + IdentityPayload::LENGTH;

/// The part of a piece that [`Saver`] itself holds.
struct Head {
    bytes: [u8; HEAD_MAX],
    length: usize,
}

impl Head {
    const EMPTY: Self = Self {
        bytes: [0; HEAD_MAX],
        length: 0,
    };

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = self.bytes.get_mut(self.length..).unwrap_or_default();

        for (to, &from) in room.iter_mut().zip(bytes) {
            *to = from;
            self.length = self.length.saturating_add(1);
        }
    }

    /// Appends a header and its CRC.
    fn push_sealed(&mut self, header: &[u8]) {
        self.push(header);
        self.push(&Checksum::of(header).to_le_bytes());
    }
}

/// The piece that comes next.
#[derive(Clone, Copy)]
enum Stage {
    Identity,
    /// The mapped local memory from this offset on.
    Data(u64),
    Control,
    End,
    Finished,
}

/// Makes a stream.
///
/// After an error the stream stays broken: every later call returns the same error.
pub(crate) struct Saver<E> {
    stage: Stage,
    head: Head,
    /// Bytes of the piece that the source's buffer holds.
    body: usize,
    /// Bytes of the piece that were consumed.
    position: usize,
    /// Mapped local memory that was found and not yet read.
    mapped: Option<Range>,
    totals: Totals,
    failed: Option<SaveError<E>>,
}

impl<E: Copy> Saver<E> {
    /// Begins a stream.
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::Identity,
            head: Head::EMPTY,
            body: 0,
            position: 0,
            mapped: None,
            totals: Totals::NONE,
            failed: None,
        }
    }

    /// Returns the most bytes that a stream can have for a device with this identity of whose local
    /// memory `mapped` bytes are mapped.
    pub(crate) fn estimate(identity: &Identity, mapped: u64) -> u64 {
        let section = |payload: u64| payload.saturating_add(SECTION_HEADER_LENGTH as u64);
        // No run is shorter than a granule.
        let runs = mapped
            .checked_div(identity.granule.into())
            .unwrap_or_default();

        [
            HEADER_LENGTH as u64,
            section(IdentityPayload::LENGTH as u64),
            section(DataRun::LENGTH as u64).saturating_mul(runs),
            mapped,
            section(identity.control_plane_max.into()),
            section(End::LENGTH as u64),
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    /// Returns the rest of the present piece, or the next piece if that was used up; nothing at the
    /// end of the stream.
    ///
    /// # Errors
    ///
    /// The device failed, or what it says cannot be true.
    pub(crate) fn remaining<'a, S: Source<Error = E>>(
        &'a mut self,
        source: &'a mut S,
    ) -> Result<&'a [u8], SaveError<E>> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.position >= self.head.length.saturating_add(self.body) {
            if let Err(error) = self.load(source) {
                self.failed = Some(error);
                return Err(error);
            }
        }

        match self.position.checked_sub(self.head.length) {
            None => Ok(self
                .head
                .as_slice()
                .get(self.position..)
                .unwrap_or_default()),
            Some(position) => Ok(source.piece().get(position..self.body).unwrap_or_default()),
        }
    }

    /// Marks the first `length` bytes of what [`Self::remaining`] returned as read.
    pub(crate) fn consume(&mut self, length: usize) {
        self.position = self.position.saturating_add(length);
    }

    /// Loads the next piece.
    fn load<S: Source<Error = E>>(&mut self, source: &mut S) -> Result<(), SaveError<E>> {
        self.head = Head::EMPTY;
        self.body = 0;
        self.position = 0;

        match self.stage {
            Stage::Identity => self.load_identity(source),
            Stage::Data(from) => match self.next_mapped(source, from)? {
                Some(mapped) => self.load_run(source, mapped),
                None => self.load_control(source),
            },
            Stage::Control => self.load_control(source),
            Stage::End => {
                self.load_end(source.interfaces());
                Ok(())
            }
            Stage::Finished => Ok(()),
        }
    }

    fn load_identity<S: Source<Error = E>>(&mut self, source: &S) -> Result<(), SaveError<E>> {
        let identity = source.identity();

        identity.validate().map_err(SaveError::Identity)?;
        self.stage = if identity.local_memory == 0 {
            Stage::Control
        } else {
            Stage::Data(0)
        };

        self.head.push_sealed(&Preamble::CURRENT.encode());
        self.totals.count_header(Preamble::CURRENT);
        self.load_section(
            source.interfaces(),
            Kind::Identity,
            &IdentityPayload::from(identity).encode(),
            &[],
        );
        Ok(())
    }

    /// Returns mapped local memory that was not yet read, at or behind `from`.
    fn next_mapped<S: Source<Error = E>>(
        &mut self,
        source: &mut S,
        from: u64,
    ) -> Result<Option<Range>, SaveError<E>> {
        if let Some(mapped) = self.mapped.take() {
            return Ok(Some(mapped));
        }

        let mapped = source.next_mapped(from).map_err(SaveError::Device)?;
        if let Some(mapped) = mapped {
            mapped
                .validate(from, source.identity())
                .map_err(SaveError::Mapped)?;
        }
        Ok(mapped)
    }

    /// Loads the first run of `mapped` and keeps what is left of it.
    fn load_run<S: Source<Error = E>>(
        &mut self,
        source: &mut S,
        mapped: Range,
    ) -> Result<(), SaveError<E>> {
        let length = mapped.length.min(DATA_RUN_MAX as u64);
        let next = mapped.start.saturating_add(length);
        let left = mapped.length.saturating_sub(length);

        source
            .read_local(mapped.start, length as usize)
            .map_err(SaveError::Device)?;
        check(
            "length",
            source.piece().len() as u64,
            Expectation::Equal(length),
        )
        .map_err(SaveError::Piece)?;

        self.stage = Stage::Data(next);
        self.mapped = (left != 0).then_some(Range {
            start: next,
            length: left,
        });
        self.totals.count_data(length);
        let run = DataRun {
            offset: mapped.start,
        };
        self.load_section(
            source.interfaces(),
            Kind::Data,
            &run.encode(),
            source.piece(),
        );
        Ok(())
    }

    fn load_control<S: Source<Error = E>>(&mut self, source: &mut S) -> Result<(), SaveError<E>> {
        source.read_control().map_err(SaveError::Device)?;

        let table = source.piece();
        let identity = source.identity();
        check(
            "length",
            table.len() as u64,
            Expectation::AtMost(identity.control_plane_max.into()),
        )
        .map_err(SaveError::Piece)?;
        records::validate(table, identity).map_err(SaveError::Record)?;

        self.stage = Stage::End;
        self.totals.count_control(table.len() as u64);
        self.load_section(source.interfaces(), Kind::Control, &[], table);
        Ok(())
    }

    fn load_end(&mut self, interfaces: Interfaces) {
        let end = self.totals.end();

        self.stage = Stage::Finished;
        self.load_section(interfaces, Kind::End, &end.encode(), &[]);
    }

    /// Loads a section whose payload is `head` and, behind it, `body` from the source's buffer.
    ///
    /// The caller has bounded both: together they are no longer than `SECTION_LENGTH_MAX`.
    fn load_section(&mut self, interfaces: Interfaces, kind: Kind, head: &[u8], body: &[u8]) {
        let length = head.len().saturating_add(body.len());
        let section = Section {
            kind: kind as u16,
            flags: MANDATORY,
            length: length as u32,
            interface: interfaces.plane(kind.plane()).as_raw(),
            sequence: self.totals.sections(),
            payload_crc: Checksum::EMPTY.and(head).and(body).value(),
        };
        self.head.push_sealed(&section.encode());
        self.totals.count_section(section);
        self.head.push(head);
        self.body = body.len();
    }
}
