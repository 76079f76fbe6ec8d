// SPDX-License-Identifier: GPL-2.0

//! The output party: makes a stream of a device.
//!
//! A stream is made as it is read, one piece at a time. A piece is a section's header, which
//! [`Saver`] holds, and the payload that the device has put into the [`Source`]'s buffer, or that
//! stands in a part of the address record file. Bulk data is never copied on its way from there to
//! the reader.
//!
//! The sections that say who sends what to whom can go out while the device runs; the rest follows
//! when it has stopped.

use super::{
    address::{
        Buffer,
        Composer,
        Part,
        Range,
        RANGES_MAX, //
    },
    check::{
        check,
        Expectation,
        Violation, //
    },
    identity::Identity,
    interface::Interfaces,
    progress::Progress,
    records::{
        InvalidRecord,
        Table, //
    },
    relation::Relations,
    stream::{
        AddressEntry,
        AddressHeader,
        Checksum,
        DataRun,
        End,
        IdentityPayload,
        Kind,
        Preamble,
        ResourcesHeader,
        Section,
        DATA_RUN_MAX,
        HEADER_LENGTH,
        MANDATORY,
        SECTION_HEADER_LENGTH, //
    },
};
use crate::seam::OutOfMemory;
use core::{
    fmt,
    mem, //
};

/// A device whose state is saved.
///
/// While it runs, only [`Self::identity`] and [`Self::interfaces`] are asked for.
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

    /// Takes a hint: unless something fails, the next call of [`Self::read_local`] will have these
    /// arguments. The device may begin with it now.
    ///
    /// What [`Self::piece`] returns stays as it is.
    fn prefetch_local(&mut self, _offset: u64, _length: usize) {}

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
    /// There was no memory for the address record file.
    OutOfMemory,
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
            Self::OutOfMemory => write!(f, "no memory for the address record file"),
            Self::Device(error) => write!(f, "the device failed: {error:?}"),
        }
    }
}

impl<E> From<OutOfMemory> for SaveError<E> {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
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

/// When a stream is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// While the device runs: the stream pauses behind the relations.
    PreCopy,
    /// When the device has stopped.
    Stopped,
}

/// What can be read of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// These bytes; at least one.
    Bytes(&'a [u8]),
    /// Nothing more before the device has stopped.
    Pause,
    /// Nothing more.
    End,
}

/// The section that comes next.
enum Stage {
    Identity,
    Relations,
    /// Another part of the address record file, if there is more mapped local memory.
    Address,
    /// The data of this part.
    Data(Part),
    End,
    Finished,
}

/// Where the part of a piece is that [`Saver`] does not hold in its [`Head`].
#[derive(Clone, Copy)]
enum Body {
    /// There is none.
    Empty,
    /// In the part of the address record file.
    Part,
    /// In the source's buffer.
    Source,
}

/// Finds mapped local memory.
struct Survey {
    /// Everything before this offset was found.
    from: u64,
    /// A range that was found and is yet to be returned.
    ahead: Option<Range>,
}

impl Survey {
    /// Nothing was found yet.
    const BEGIN: Self = Self {
        from: 0,
        ahead: None,
    };

    /// Returns the next run that the device names.
    fn find<S: Source>(&mut self, source: &mut S) -> Result<Option<Range>, SaveError<S::Error>> {
        if let Some(range) = self.ahead.take() {
            return Ok(Some(range));
        }

        let &Identity {
            granule,
            local_memory,
            ..
        } = source.identity();
        if self.from >= local_memory {
            return Ok(None);
        }

        let found = source.next_mapped(self.from).map_err(SaveError::Device)?;
        self.from = match found {
            Some(range) => {
                let from = Expectation::AtLeast(self.from);

                range
                    .validate(Some(from), granule.into(), local_memory)
                    .map_err(SaveError::Mapped)?;
                range.end()
            }
            None => local_memory,
        };
        Ok(found)
    }

    /// Returns the next range: all adjacent runs together.
    fn next<S: Source>(&mut self, source: &mut S) -> Result<Option<Range>, SaveError<S::Error>> {
        let Some(mut range) = self.find(source)? else {
            return Ok(None);
        };

        while let Some(run) = self.find(source)? {
            if run.start != range.end() {
                self.ahead = Some(run);
                break;
            }
            range.length = range.length.saturating_add(run.length);
        }
        Ok(Some(range))
    }
}

/// Makes a stream.
///
/// After an error the stream stays broken: every later call returns the same error.
pub(crate) struct Saver<E> {
    stage: Stage,
    /// Whether the device has stopped.
    stopped: bool,
    survey: Survey,
    /// For parts of the address record file.
    buffer: Buffer,
    head: Head,
    body: Body,
    /// Bytes of the piece.
    length: usize,
    /// Bytes of the piece that were read.
    position: usize,
    /// CRC of all headers up to the piece's.
    headers: Checksum,
    /// What was read.
    progress: Progress,
    /// What will have been read at the end of the piece, but for the bytes of the stream.
    loaded: Progress,
    failed: Option<SaveError<E>>,
}

impl<E: Copy> Saver<E> {
    /// Bytes of the stream that say who sends what to whom.
    const INITIAL: usize = HEADER_LENGTH
        + SECTION_HEADER_LENGTH
        + IdentityPayload::LENGTH
        + SECTION_HEADER_LENGTH
        + Relations::LENGTH;

    /// Begins a stream.
    pub(crate) fn new(begin: Begin) -> Self {
        Self {
            stage: Stage::Identity,
            stopped: begin == Begin::Stopped,
            survey: Survey::BEGIN,
            buffer: Buffer::UNUSED,
            head: Head::EMPTY,
            body: Body::Empty,
            length: 0,
            position: 0,
            headers: Checksum::EMPTY,
            progress: Progress::NONE,
            loaded: Progress::NONE,
            failed: None,
        }
    }

    /// Returns the most bytes that a stream can have for a device with this identity of whose local
    /// memory `mapped` bytes are mapped.
    pub(crate) fn estimate(identity: &Identity, mapped: u64) -> u64 {
        let section = |payload: usize| payload.saturating_add(SECTION_HEADER_LENGTH) as u64;
        let granules = |bytes: u64| bytes.checked_div(identity.granule.into()).unwrap_or(0);

        // No range is shorter than a granule, nor is what lies between two ranges.
        let unmapped = identity.local_memory.saturating_sub(mapped);
        let ranges = granules(mapped).min(granules(unmapped).saturating_add(1));
        let parts = ranges.div_ceil(RANGES_MAX.into());
        let runs = ranges.saturating_add(mapped / DATA_RUN_MAX as u64);

        [
            Self::INITIAL as u64,
            section(AddressHeader::LENGTH).saturating_mul(parts),
            (AddressEntry::LENGTH as u64).saturating_mul(ranges),
            section(DataRun::LENGTH).saturating_mul(runs),
            mapped,
            section(ResourcesHeader::LENGTH),
            identity.control_plane_max.into(),
            section(End::LENGTH),
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    /// Takes note that the device has stopped: the rest of the stream may follow.
    pub(crate) fn stopped(&mut self) {
        self.stopped = true;
    }

    /// Returns whether the device has stopped, as far as is known here.
    pub(crate) fn has_stopped(&self) -> bool {
        self.stopped
    }

    /// Returns how many bytes are left of those that can be read while the device runs.
    pub(crate) fn initial_bytes(&self) -> u64 {
        (Self::INITIAL as u64).saturating_sub(self.progress.stream_bytes)
    }

    /// Returns what was read so far.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Returns the rest of the present piece, or the next piece if that was used up.
    ///
    /// # Errors
    ///
    /// The device failed, or what it says cannot be true.
    pub(crate) fn remaining<'a, S: Source<Error = E>>(
        &'a mut self,
        source: &'a mut S,
    ) -> Result<Piece<'a>, SaveError<E>> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.position >= self.length {
            match self.stage {
                Stage::Finished => return Ok(Piece::End),
                Stage::Address if !self.stopped => return Ok(Piece::Pause),
                _ => self
                    .load(source)
                    .inspect_err(|&error| self.failed = Some(error))?,
            }
        }

        self.check_body(source)
            .inspect_err(|&error| self.failed = Some(error))?;

        let head = self.head.as_slice();
        let bytes = match self.position.checked_sub(head.len()) {
            None => head.get(self.position..),
            Some(position) => match (self.body, &self.stage) {
                (Body::Part, Stage::Data(part)) => part.as_bytes().get(position..),
                (Body::Source, _) => source.piece().get(position..),
                _ => None,
            },
        };
        Ok(Piece::Bytes(bytes.unwrap_or_default()))
    }

    /// Checks that the source still has what the piece was loaded with: as many bytes as that.
    fn check_body<S: Source<Error = E>>(&self, source: &S) -> Result<(), SaveError<E>> {
        let length = self.length.saturating_sub(self.head.length);

        match self.body {
            Body::Source => check(
                "length",
                source.piece().len() as u64,
                Expectation::Equal(length as u64),
            )
            .map_err(SaveError::Piece),
            Body::Empty | Body::Part => Ok(()),
        }
    }

    /// Marks the first `length` bytes of what [`Self::remaining`] returned as read.
    pub(crate) fn consume(&mut self, length: usize) {
        let length = length.min(self.length.saturating_sub(self.position));

        self.position = self.position.saturating_add(length);
        self.progress.count_stream(length as u64);
        if self.position >= self.length {
            self.progress = Progress {
                stream_bytes: self.progress.stream_bytes,
                ..self.loaded
            };
        }
    }

    /// Loads the next piece.
    fn load<S: Source<Error = E>>(&mut self, source: &mut S) -> Result<(), SaveError<E>> {
        self.head = Head::EMPTY;
        self.body = Body::Empty;

        match mem::replace(&mut self.stage, Stage::Finished) {
            Stage::Identity => self.load_identity(source)?,
            Stage::Relations => self.load_relations(source.interfaces()),
            Stage::Address => self.load_address(source)?,
            Stage::Data(part) => match part.run() {
                Some(run) => self.load_run(source, part, run)?,
                None => {
                    self.buffer.put_back(part);
                    self.load_address(source)?;
                }
            },
            Stage::End => self.load_end(source.interfaces()),
            Stage::Finished => {}
        }
        Ok(())
    }

    fn load_identity<S: Source<Error = E>>(&mut self, source: &S) -> Result<(), SaveError<E>> {
        let identity = source.identity();
        let preamble = Preamble::CURRENT.encode();

        identity.validate().map_err(SaveError::Identity)?;
        self.stage = Stage::Relations;
        self.head.push_sealed(&preamble);
        self.headers = self.headers.and(&preamble);
        self.load_section(
            source.interfaces(),
            Kind::Identity,
            &IdentityPayload::from(identity).encode(),
            &[],
        );
        Ok(())
    }

    fn load_relations(&mut self, interfaces: Interfaces) {
        let relations = Relations::offered(interfaces);

        self.stage = Stage::Address;
        self.progress.relations = Some(relations);
        self.loaded.relations = Some(relations);
        self.load_section(interfaces, Kind::Relations, &relations.encode(), &[]);
    }

    /// Loads a part of the address record file; the control plane, if there is no more to record.
    fn load_address<S: Source<Error = E>>(&mut self, source: &mut S) -> Result<(), SaveError<E>> {
        let identity = source.identity();
        if identity.local_memory == 0 {
            return self.load_control(source);
        }

        let sequence = self.loaded.sections;
        let mut composer = Composer::new(&mut self.buffer, identity.granule, sequence)?;
        while !composer.is_full() {
            match self.survey.next(source)? {
                Some(range) => composer.push(range)?,
                None => break,
            }
        }
        let Some(part) = composer.finish() else {
            return self.load_control(source);
        };

        self.loaded.addresses.count(&part);
        self.body = Body::Part;
        self.load_section(source.interfaces(), Kind::Address, &[], part.as_bytes());
        self.stage = Stage::Data(part);
        Ok(())
    }

    /// Loads the next run of `part`.
    fn load_run<S: Source<Error = E>>(
        &mut self,
        source: &mut S,
        mut part: Part,
        run: Range,
    ) -> Result<(), SaveError<E>> {
        source
            .read_local(run.start, run.length as usize)
            .map_err(SaveError::Device)?;
        check(
            "length",
            source.piece().len() as u64,
            Expectation::Equal(run.length),
        )
        .map_err(SaveError::Piece)?;

        part.advance();
        if let Some(next) = part.run() {
            source.prefetch_local(next.start, next.length as usize);
        }
        self.stage = Stage::Data(part);
        self.loaded.count_data(run.length);
        self.body = Body::Source;
        let header = DataRun { offset: run.start };
        self.load_section(
            source.interfaces(),
            Kind::Data,
            &header.encode(),
            source.piece(),
        );
        Ok(())
    }

    fn load_control<S: Source<Error = E>>(&mut self, source: &mut S) -> Result<(), SaveError<E>> {
        source.read_control().map_err(SaveError::Device)?;

        let bytes = source.piece();
        let identity = source.identity();
        check(
            "length",
            bytes.len() as u64,
            Expectation::AtMost(identity.control_plane_max.into()),
        )
        .map_err(SaveError::Piece)?;
        let table = Table::new(bytes, identity).map_err(SaveError::Record)?;

        self.stage = Stage::End;
        self.loaded.records = table.summary();
        self.body = Body::Source;
        self.load_section(
            source.interfaces(),
            Kind::Control,
            &table.header().encode(),
            bytes,
        );
        Ok(())
    }

    fn load_end(&mut self, interfaces: Interfaces) {
        let end = End::new(&self.loaded, self.headers);

        self.load_section(interfaces, Kind::End, &end.encode(), &[]);
    }

    /// Loads a section whose payload is `head` and, behind it, `body`, which [`Self::body`] says
    /// where to find.
    ///
    /// The caller has bounded both: together they are no longer than `SECTION_LENGTH_MAX`.
    fn load_section(&mut self, interfaces: Interfaces, kind: Kind, head: &[u8], body: &[u8]) {
        let length = head.len().saturating_add(body.len());
        let header = Section {
            kind: kind as u16,
            flags: MANDATORY,
            length: length as u32,
            interface: interfaces.plane(kind.plane()).as_raw(),
            sequence: self.loaded.sections,
            payload_crc: Checksum::EMPTY.and(head).and(body).value(),
        }
        .encode();

        self.head.push_sealed(&header);
        self.head.push(head);
        self.headers = self.headers.and(&header);
        self.length = self.head.length.saturating_add(body.len());
        self.position = 0;
        self.loaded.count_section();
    }
}
