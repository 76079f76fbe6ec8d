// SPDX-License-Identifier: GPL-2.0

//! Makes a stream, piece by piece.

use super::{
    super::{
        address::{
            Buffer,
            Part,
            Range,
            Tracked,
            RANGES_MAX, //
        },
        check::{
            check,
            Expectation, //
        },
        identity::{
            Identity,
            FEATURE_LOCAL_DIRTY, //
        },
        interface::Interfaces,
        progress::Progress,
        records::Table,
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
            SECTION_HEADER_LENGTH, //
        },
    },
    claims::Claims,
    piece::Loaded,
    rounds::{
        Pending,
        Rounds, //
    },
    Begin,
    InfoVersion,
    Outstanding,
    Phase,
    Piece,
    SaveError,
    Source, //
};
use crate::seam::{
    Bytes,
    OutOfMemory, //
};
use core::mem;

/// What the present piece is.
enum At {
    /// Nothing was sent.
    Start,
    /// The identity.
    Identity,
    /// The relations.
    Relations,
    /// There is none: the next section is a claim, a part of the address record file, or the control
    /// plane.
    Pause,
    /// A claim.
    Claim(Bytes),
    /// A part of the address record file, whose data is next.
    Address(Part),
    /// Local memory, which is in the source's buffer. The rest of the part's data is next.
    Data(Part),
    /// The control plane, which is in the source's buffer.
    Control,
    /// The totals.
    End,
}

/// Whether there is a piece.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Advance {
    Piece,
    /// Not before the device changes something, or has stopped.
    Pause,
    End,
}

/// Makes a stream.
///
/// After an error the stream stays broken: every later call returns the same error.
pub struct Saver<E> {
    at: At,
    phase: Phase,
    /// How often the guest had configured the device when this was last reported to the reader, or
    /// when the device was first asked; `None`: it was not asked yet.
    configurations: Option<u32>,
    claims: Claims,
    /// `None`: local memory was not yet looked at.
    rounds: Option<Rounds>,
    /// Guest memory that is yet to be listed.
    tracked: Option<Tracked>,
    /// The run that the source was announced.
    announced: Option<Range>,
    /// For parts of the address record file.
    buffer: Buffer,
    piece: Loaded,
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
            at: At::Start,
            phase: match begin {
                Begin::PreCopy => Phase::Initial,
                Begin::Stopped => Phase::Stopped,
            },
            configurations: None,
            claims: Claims::NONE,
            rounds: None,
            tracked: None,
            announced: None,
            buffer: Buffer::UNUSED,
            piece: Loaded::EMPTY,
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
        if self.phase.is_running() {
            self.phase = Phase::Stopped;
            // The control plane, which follows, has them.
            self.claims.take();
        }
    }

    /// Returns whether the device has stopped, as far as is known here.
    pub fn has_stopped(&self) -> bool {
        !self.phase.is_running()
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
            match saver.phase {
                Phase::Initial => initial = initial.saturating_add(unread),
                _ => changed = changed.saturating_add(unread),
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
            Some(rounds) => rounds.pending(identity.local_memory, self.phase),
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
        let (piece, part) = match &self.at {
            At::Claim(_) => (self.piece.unread(), 0),
            At::Address(part) => (0, part.left_bytes()),
            At::Data(part) => (self.piece.unread_body(), part.left_bytes()),
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
        if self.phase == Phase::Initial
            && self.unread() == 0
            && self.pending(source.identity()).initial == 0
        {
            // What comes up after all initial data was read is none.
            self.phase = Phase::Changes;
        }
        if !self.has_stopped() {
            self.claims.refresh(source)?;
        }
        let Some(rounds) = &mut self.rounds else {
            return Ok(());
        };
        rounds.refresh(source)?;

        if let At::Address(part) | At::Data(part) = &self.at {
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
        self.begin_round(Phase::Initial);
        self.rounds.is_some() || self.claims.pending() != 0
    }

    /// Begins another round; in `phase`, if the device runs.
    fn begin_round(&mut self, phase: Phase) {
        if self.phase.is_running() {
            self.phase = phase;
        }
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

        Ok(Piece::Bytes(self.piece.remaining(match &self.at {
            At::Claim(records) => records,
            At::Address(part) => part.as_bytes(),
            At::Data(_) | At::Control => source.piece(),
            At::Start | At::Identity | At::Relations | At::Pause | At::End => &[],
        })))
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
        if self.piece.unread() == 0 {
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
        match self.at {
            At::Data(_) | At::Control => check(
                "length",
                source.piece().len() as u64,
                Expectation::Equal(self.piece.body() as u64),
            )
            .map_err(SaveError::Piece),
            _ => Ok(()),
        }
    }

    /// Marks the first `length` bytes of what [`Self::remaining`] returned as read.
    pub fn consume(&mut self, length: usize) {
        let length = length.min(self.piece.unread());

        self.piece.consume(length);
        self.progress.count_stream(length as u64);
        if self.piece.unread() == 0 {
            self.progress = Progress {
                stream_bytes: self.progress.stream_bytes,
                ..self.loaded
            };
        }
    }

    /// Loads the next piece, if there is one.
    fn load<S: Source<Error = E>>(&mut self, source: &mut S) -> Result<Advance, SaveError<E>> {
        self.piece = Loaded::EMPTY;
        if self.phase == Phase::Stopped && self.rounds.is_some() {
            self.refresh(source)?;
            self.phase = Phase::Complete;
        }
        match mem::replace(&mut self.at, At::Pause) {
            At::Start => self.load_identity(source)?,
            At::Identity => self.load_relations(source.interfaces()),
            At::Relations | At::Pause | At::Claim(_) => return self.load_address(source),
            At::Address(part) | At::Data(part) => match part.run() {
                Some(run) => self.load_run(source, part, run)?,
                None => {
                    self.buffer.put_back(part);
                    return self.load_address(source);
                }
            },
            At::Control => self.load_end(source.interfaces()),
            At::End => {
                self.at = At::End;
                return Ok(Advance::End);
            }
        }
        Ok(Advance::Piece)
    }

    fn load_identity<S: Source<Error = E>>(&mut self, source: &S) -> Result<(), SaveError<E>> {
        let identity = source.identity();
        let preamble = Preamble::CURRENT.encode();

        identity.validate().map_err(SaveError::Identity)?;
        self.at = At::Identity;
        self.piece.push_sealed(&preamble);
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

        self.at = At::Relations;
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
        self.begin(source)?;
        if self.load_claim(source.interfaces()) {
            return Ok(Advance::Piece);
        }
        let mut part = self.compose(source.identity())?;
        if part.is_none() {
            if self.phase.is_running() {
                self.refresh(source)?;
            }
            self.begin_round(Phase::Changes);
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
        self.load_section(source.interfaces(), Kind::Address, &[], part.as_bytes());
        self.at = At::Address(part);
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
                self.phase = Phase::Complete;
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

        self.load_section(interfaces, Kind::Claim, &[], &records);
        self.at = At::Claim(records);
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
        self.at = At::Data(part);
        self.loaded.count_data(run.length);
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

        self.at = At::Control;
        self.loaded.records = table.summary();
        self.load_section(
            source.interfaces(),
            Kind::Control,
            &table.header().encode(),
            bytes,
        );
        Ok(())
    }

    fn load_end(&mut self, interfaces: Interfaces) {
        let end = self.loaded.totals(self.headers);

        self.at = At::End;
        self.load_section(interfaces, Kind::End, &end.encode(), &[]);
    }

    /// Loads a section whose payload is `head`, followed by `body`, which stands where [`Self::at`]
    /// has it.
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

        self.piece.push_sealed(&header);
        self.piece.push(head);
        self.piece.set_body(body.len());
        self.headers = self.headers.and(&header);
        self.loaded.count_section();
    }
}
