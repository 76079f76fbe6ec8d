// SPDX-License-Identifier: GPL-2.0

//! The output party: makes a stream of a device.
//!
//! A stream is made as it is read, one piece at a time. A piece is a section's header, which
//! [`Saver`] holds, and the payload that the device has put into the [`Source`]'s buffer, or that
//! stands in a part of the address record file. Bulk data is never copied on its way from there to
//! the reader.
//!
//! What says who sends what to whom can go out while the device runs, and what the destination has
//! to obtain for it goes out then ([`super::claims`]). So can its local memory, if it knows what it
//! changes of that afterwards ([`super::rounds`]). The rest follows when it has stopped.

use super::{
    address::{
        Buffer,
        Part,
        Range,
        Tracked,
        RANGES_MAX, //
    },
    check::{
        check,
        Expectation,
        Violation, //
    },
    claims::Claims,
    identity::{
        Identity,
        FEATURE_LOCAL_DIRTY, //
    },
    interface::Interfaces,
    progress::Progress,
    records::{
        InvalidRecord,
        Table, //
    },
    relation::Relations,
    rounds::{
        Pending,
        Rounds, //
    },
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
        SECTION_HEADER_LENGTH, //
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

/// A device whose state is saved.
///
/// The control plane is asked for when it has stopped; local memory before only if it has
/// [`FEATURE_LOCAL_DIRTY`].
pub trait Source {
    /// Why the device did not do what it was asked, and how that is told.
    type Error: Copy + fmt::Display;

    /// Returns what the device is.
    fn identity(&self) -> &Identity;

    /// Returns the device's interfaces.
    fn interfaces(&self) -> Interfaces;

    /// Fills the buffer with the records of the control plane.
    fn read_control(&mut self) -> Result<(), Self::Error>;

    /// Returns the records of what the destination has to obtain from its own host before it can
    /// take the control plane; nothing if there is no such thing.
    ///
    /// They are as those of [`Self::read_control`] and may be some of them. Asked only of a device
    /// that runs, and again only when [`Self::configurations`] has moved.
    fn claim(&mut self) -> Result<&[u8], Self::Error> {
        Ok(&[])
    }

    /// Returns how often the guest has configured the device anew, modulo 2^32. Asked only of a
    /// device that runs.
    fn configurations(&mut self) -> Result<u32, Self::Error>;

    /// Returns the bitmap of the granules that are mapped, of those in `length` bytes of local memory
    /// from `offset` on: bit 0 of byte 0 is the first. There is a bit for each granule, and padding
    /// up to a whole byte, which may be anything.
    ///
    /// Both are multiples of the granule; these are at most [`super::granules::WINDOW`] granules.
    fn mapped(&mut self, offset: u64, length: u64) -> Result<&[u8], Self::Error>;

    /// As [`Self::mapped`], of the granules that have changed since this was last asked.
    ///
    /// A change that the device makes of what it reads for [`Self::read_local`], and from the moment
    /// when it may begin with that, is still to come.
    fn changed(&mut self, offset: u64, length: u64) -> Result<&[u8], Self::Error>;

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
    /// Says that a record for a section of type `kind` is malformed.
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
pub enum Begin {
    /// While the device runs: the stream pauses wherever there is nothing to send.
    PreCopy,
    /// When the device has stopped.
    Stopped,
}

/// What can be read of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// These bytes; at least one.
    Bytes(&'a [u8]),
    /// Nothing more before the device changes something, or has stopped.
    Pause,
    /// Nothing more.
    End,
}

/// What the reader of a stream knows of `VFIO_MIG_GET_PRECOPY_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InfoVersion {
    /// Initial data comes once.
    V1,
    /// Initial data may come again: `VFIO_PRECOPY_INFO_REINIT`.
    V2,
}

/// What is left to read of a device that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outstanding {
    /// Bytes that have to be read before the device should be stopped.
    pub initial: u64,
    /// Bytes that the device has changed since.
    pub changed: u64,
    /// Since this was last asked, the guest has configured the device anew: what is left has become
    /// initial data.
    pub reinitialised: bool,
}

/// What is being sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// What has to be sent before the device should be stopped.
    Initial,
    /// What the device has changed meanwhile.
    Changes,
}

/// The section that comes next.
enum Stage {
    Identity,
    Relations,
    /// A claim, if there is one; another part of the address record file; the control plane, if
    /// there is none.
    Address,
    /// What follows this claim.
    Claim(Bytes),
    /// The data of this part.
    Data(Part),
    End,
    Finished,
}

/// Whether there is a piece.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Advance {
    Piece,
    /// Not before the device changes something, or has stopped.
    Pause,
    End,
}

/// How much is known of what a device changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Knowledge {
    /// It runs, and may change anything.
    Running,
    /// It has stopped; what it changed before that was not yet asked for.
    Stopped,
    /// It has stopped, and all is known.
    Complete,
}

/// Where the part of a piece is that [`Saver`] does not hold in its [`Head`].
#[derive(Clone, Copy)]
enum Body {
    /// There is none.
    Empty,
    /// In the claim.
    Claim,
    /// In the part of the address record file.
    Part,
    /// In the source's buffer.
    Source,
}

/// Makes a stream.
///
/// After an error the stream stays broken: every later call returns the same error.
pub struct Saver<E> {
    stage: Stage,
    knowledge: Knowledge,
    content: Content,
    /// How often the guest had configured the device when the reader was last told of that, or when
    /// the device was first asked; `None`: it was not asked yet.
    configurations: Option<u32>,
    claims: Claims,
    /// `None`: local memory was not yet looked at.
    rounds: Option<Rounds>,
    /// Guest memory that is yet to be listed.
    tracked: Option<Tracked>,
    /// The run that the source was told of ahead.
    announced: Option<Range>,
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
    pub fn new(begin: Begin) -> Self {
        Self {
            stage: Stage::Identity,
            knowledge: match begin {
                Begin::PreCopy => Knowledge::Running,
                Begin::Stopped => Knowledge::Stopped,
            },
            content: Content::Initial,
            configurations: None,
            claims: Claims::NONE,
            rounds: None,
            tracked: None,
            announced: None,
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
    pub fn estimate(identity: &Identity, mapped: u64) -> u64 {
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
    pub fn stopped(&mut self) {
        if self.knowledge == Knowledge::Running {
            self.knowledge = Knowledge::Stopped;
            // The control plane is about to say it.
            self.claims.take();
        }
    }

    /// Returns whether the device has stopped, as far as is known here.
    pub fn has_stopped(&self) -> bool {
        self.knowledge != Knowledge::Running
    }

    /// Has the address record file list guest memory that is tracked.
    pub fn track(&mut self, tracked: Tracked) {
        self.tracked = Some(tracked);
    }

    /// Returns what is left to read of a device that runs.
    ///
    /// # Errors
    ///
    /// As for [`Self::remaining`].
    pub fn outstanding<S: Source<Error = E>>(
        &mut self,
        source: &mut S,
        version: InfoVersion,
    ) -> Result<Outstanding, SaveError<E>> {
        self.guarded(|saver| {
            saver.begin(source)?;
            saver.refresh(source)?;
            let reinitialised = version == InfoVersion::V2 && saver.reinitialise();
            let Pending {
                mut initial,
                mut changed,
            } = saver.pending(source.identity());

            let unread = saver.unread();
            match saver.content {
                Content::Initial => initial = initial.saturating_add(unread),
                Content::Changes => changed = changed.saturating_add(unread),
            }
            Ok(Outstanding {
                initial,
                changed,
                reinitialised,
            })
        })
    }

    /// Returns the most bytes that are left to read if the device stops now, or has stopped; `None`
    /// if that is not yet known.
    ///
    /// # Errors
    ///
    /// As for [`Self::remaining`].
    pub fn left<S: Source<Error = E>>(
        &mut self,
        source: &mut S,
    ) -> Result<Option<u64>, SaveError<E>> {
        self.guarded(|saver| {
            saver.begin(source)?;
            saver.refresh(source)?;
            let identity = source.identity();
            if saver.rounds.is_none() && identity.local_memory != 0 {
                return Ok(None);
            }
            let Pending { initial, changed } = saver.pending(identity);
            let bytes = [saver.unread(), initial, changed]
                .into_iter()
                .fold(0, u64::saturating_add);

            Ok(Some(Self::estimate(identity, bytes)))
        })
    }

    /// Returns what is left of local memory, but for the present part.
    fn pending(&self, identity: &Identity) -> Pending {
        match &self.rounds {
            Some(rounds) => rounds.pending(identity.local_memory, self.content),
            None => Pending {
                initial: 0,
                changed: 0,
            },
        }
    }

    /// Returns how many bytes are left of the sections that say who sends what to whom, of claims, and
    /// of the local memory in the present part.
    fn unread(&self) -> u64 {
        let introduction = (Self::INITIAL as u64).saturating_sub(self.progress.stream_bytes);
        let (piece, part) = match &self.stage {
            Stage::Claim(_) => (self.length.saturating_sub(self.position), 0),
            Stage::Data(part) => (
                match self.body {
                    Body::Source => self
                        .length
                        .saturating_sub(self.position.max(self.head.length)),
                    Body::Empty | Body::Claim | Body::Part => 0,
                },
                part.left()
                    .fold(0_u64, |bytes, range| bytes.saturating_add(range.length)),
            ),
            _ => (0, 0),
        };

        introduction
            .saturating_add(piece as u64)
            .saturating_add(part)
            .saturating_add(self.claims.pending())
    }

    /// Asks the device what has changed, and what it claims if it runs. What the present part has of
    /// that, and is yet to be read, will be sent with it.
    fn refresh<S: Source<Error = E>>(&mut self, source: &mut S) -> Result<(), SaveError<E>> {
        if self.content == Content::Initial
            && self.unread() == 0
            && self.pending(source.identity()).initial == 0
        {
            // What comes up when all initial data was read is none.
            self.content = Content::Changes;
        }
        if !self.has_stopped() {
            self.claims.refresh(source)?;
        }
        let Some(rounds) = &mut self.rounds else {
            return Ok(());
        };
        rounds.refresh(source)?;

        if let Stage::Data(part) = &self.stage {
            let mut announced = self.announced.map_or(0, |run| run.length);
            for range in part.left() {
                rounds.reading(Range {
                    start: range.start.saturating_add(announced),
                    length: range.length.saturating_sub(announced),
                });
                announced = 0;
            }
        }
        Ok(())
    }

    /// If the guest has configured the device anew since the reader was last told, all that is yet to
    /// be sent becomes initial data. Returns whether there is such a thing.
    fn reinitialise(&mut self) -> bool {
        let configurations = self.claims.configurations();

        if self.configurations == configurations {
            return false;
        }
        self.configurations = configurations;
        self.begin_round(Content::Initial);
        self.rounds.is_some() || self.claims.pending() != 0
    }

    /// Begins another round, of `content`.
    fn begin_round(&mut self, content: Content) {
        self.content = content;
        if let Some(rounds) = &mut self.rounds {
            rounds.restart();
        }
    }

    /// Returns what was read so far.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Returns the rest of the present piece, or the next piece if that was used up.
    ///
    /// # Errors
    ///
    /// The device failed, or what it says cannot be true.
    pub fn remaining<'a, S: Source<Error = E>>(
        &'a mut self,
        source: &'a mut S,
    ) -> Result<Piece<'a>, SaveError<E>> {
        match self.guarded(|saver| saver.advance(source))? {
            Advance::Piece => {}
            Advance::Pause => return Ok(Piece::Pause),
            Advance::End => return Ok(Piece::End),
        }

        let head = self.head.as_slice();
        let bytes = match self.position.checked_sub(head.len()) {
            None => head.get(self.position..),
            Some(position) => match (self.body, &self.stage) {
                (Body::Claim, Stage::Claim(records)) => records.get(position..),
                (Body::Part, Stage::Data(part)) => part.as_bytes().get(position..),
                (Body::Source, _) => source.piece().get(position..),
                _ => None,
            },
        };
        Ok(Piece::Bytes(bytes.unwrap_or_default()))
    }

    /// Does `work`, unless something failed before; keeps the error if it fails.
    fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, SaveError<E>>,
    ) -> Result<T, SaveError<E>> {
        match self.failed {
            Some(error) => Err(error),
            None => work(self).inspect_err(|&error| self.failed = Some(error)),
        }
    }

    /// Loads the next piece if the present one was used up.
    fn advance<S: Source<Error = E>>(&mut self, source: &mut S) -> Result<Advance, SaveError<E>> {
        if self.position >= self.length {
            match self.load(source)? {
                Advance::Piece => {}
                nothing => return Ok(nothing),
            }
        }
        self.check_body(source)?;
        Ok(Advance::Piece)
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
            Body::Empty | Body::Claim | Body::Part => Ok(()),
        }
    }

    /// Marks the first `length` bytes of what [`Self::remaining`] returned as read.
    pub fn consume(&mut self, length: usize) {
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

    /// Loads the next piece, if there is one.
    fn load<S: Source<Error = E>>(&mut self, source: &mut S) -> Result<Advance, SaveError<E>> {
        self.head = Head::EMPTY;
        self.body = Body::Empty;
        if self.knowledge == Knowledge::Stopped && self.rounds.is_some() {
            self.refresh(source)?;
            self.knowledge = Knowledge::Complete;
        }
        match mem::replace(&mut self.stage, Stage::Finished) {
            Stage::Identity => self.load_identity(source)?,
            Stage::Relations => self.load_relations(source.interfaces()),
            Stage::Address | Stage::Claim(_) => return self.load_address(source),
            Stage::Data(part) => match part.run() {
                Some(run) => self.load_run(source, part, run)?,
                None => {
                    self.buffer.put_back(part);
                    return self.load_address(source);
                }
            },
            Stage::End => self.load_end(source.interfaces()),
            Stage::Finished => return Ok(Advance::End),
        }
        Ok(Advance::Piece)
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

    /// Loads a claim, or a part of the address record file; the control plane, if there is no more to
    /// record.
    fn load_address<S: Source<Error = E>>(
        &mut self,
        source: &mut S,
    ) -> Result<Advance, SaveError<E>> {
        self.stage = Stage::Address;
        self.begin(source)?;
        if self.load_claim(source.interfaces()) {
            return Ok(Advance::Piece);
        }
        let mut part = self.compose(source.identity())?;
        if part.is_none() {
            if self.knowledge == Knowledge::Running {
                self.refresh(source)?;
            }
            self.begin_round(Content::Changes);
            if self.load_claim(source.interfaces()) {
                return Ok(Advance::Piece);
            }
            part = self.compose(source.identity())?;
        }
        let part = match part {
            Some(part) => part,
            None if !self.has_stopped() => return Ok(Advance::Pause),
            None => {
                let tracked = self.tracked.as_mut();
                match tracked.map_or(Ok(None), |tracked| tracked.compose(&mut self.buffer))? {
                    Some(part) => part,
                    None => {
                        self.load_control(source)?;
                        return Ok(Advance::Piece);
                    }
                }
            }
        };

        self.loaded.addresses.count(&part);
        self.body = Body::Part;
        self.load_section(source.interfaces(), Kind::Address, &[], part.as_bytes());
        self.stage = Stage::Data(part);
        Ok(Advance::Piece)
    }

    /// Looks at what the device claims and at its local memory for the first time, once it can be
    /// looked at.
    fn begin<S: Source<Error = E>>(&mut self, source: &mut S) -> Result<(), SaveError<E>> {
        let &Identity {
            features,
            local_memory,
            ..
        } = source.identity();
        let running = !self.has_stopped();

        if running && self.configurations.is_none() {
            self.claims.refresh(source)?;
            self.configurations = self.claims.configurations();
        }
        if self.rounds.is_none()
            && local_memory != 0
            && (!running || features & FEATURE_LOCAL_DIRTY != 0)
        {
            self.rounds = Some(Rounds::begin(source, running)?);
            if !running {
                self.knowledge = Knowledge::Complete;
            }
        }
        Ok(())
    }

    /// Composes the next part that lists local memory in the present round, if there is one.
    fn compose(&mut self, identity: &Identity) -> Result<Option<Part>, OutOfMemory> {
        let sequence = self.loaded.sections;

        match &mut self.rounds {
            Some(rounds) => rounds.compose(&mut self.buffer, identity.granule, sequence),
            None => Ok(None),
        }
    }

    /// Loads the claim that is yet to be sent; returns whether there is one.
    fn load_claim(&mut self, interfaces: Interfaces) -> bool {
        let Some(records) = self.claims.take() else {
            return false;
        };

        self.body = Body::Claim;
        self.load_section(interfaces, Kind::Claim, &[], &records);
        self.stage = Stage::Claim(records);
        true
    }

    /// The device may begin to read this run from now on.
    fn reading(&mut self, run: Range) {
        if let Some(rounds) = &mut self.rounds {
            rounds.reading(run);
        }
    }

    /// Loads the next run of `part`.
    fn load_run<S: Source<Error = E>>(
        &mut self,
        source: &mut S,
        mut part: Part,
        run: Range,
    ) -> Result<(), SaveError<E>> {
        // A run that was announced may have changed since.
        if self.announced.take() != Some(run) {
            self.reading(run);
        }
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
            self.reading(next);
            self.announced = Some(next);
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
        let table = Table::new(bytes, identity)
            .map_err(|invalid| SaveError::invalid_record(Kind::Control, invalid))?;

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
            flags: kind.flags(),
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
