// SPDX-License-Identifier: GPL-2.0

//! The writer of a stream, which is read in pieces.

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
    LocalSource,
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

/// The current piece of the stream.
enum At {
    /// No piece yet.
    Start,
    /// The identity.
    Identity,
    /// The relations.
    Relations,
    /// No piece. The next section is a claim, a part of the address record file, or the control
    /// plane.
    Pause,
    /// A claim.
    Claim(Bytes),
    /// A part of the address record file. Its data follows.
    Address(Part),
    /// Local memory, which is in the source's buffer. The rest of the part's data follows.
    Data(Part),
    /// The control plane, which is in the source's buffer.
    Control,
    /// The totals.
    End,
}

/// The result of advancing to the next piece.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Advance {
    Piece,
    /// No piece before the device changes its state or stops.
    Pause,
    End,
}

/// Writes the stream of a device.
///
/// An error is permanent: every later call returns the same error.
pub struct Saver<E> {
    at: At,
    phase: Phase,
    /// The device's number of configurations at the last report to the reader, or at the first
    /// query. `None` before the first query.
    configurations: Option<u32>,
    claims: Claims,
    /// `None` before local memory is first read.
    rounds: Option<Rounds>,
    /// Guest memory that is not yet listed.
    tracked: Option<Tracked>,
    /// The run that was announced to the source.
    announced: Option<Range>,
    /// For parts of the address record file.
    buffer: Buffer,
    piece: Loaded,
    /// CRC of all headers up to those of the current piece.
    headers: Checksum,
    /// Totals of the bytes that were read.
    progress: Progress,
    /// Totals at the end of the current piece, without the bytes of the stream.
    loaded: Progress,
    failed: Option<SaveError<E>>,
}

impl<E: Copy> Saver<E> {
    /// Length of the stream header and of the identity and relations sections, in bytes.
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

    /// Returns the maximum length in bytes of the stream of a device with this identity and with
    /// `mapped` bytes of mapped local memory.
    pub fn estimate(identity: &Identity, mapped: u64) -> u64 {
        let section = |payload: usize| payload.saturating_add(SECTION_HEADER_LENGTH) as u64;
        let granules = |bytes: u64| bytes.checked_div(identity.granule.into()).unwrap_or(0);

        // A range, and a gap between two ranges, has at least one granule.
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

    /// Records that the device has stopped, so that the rest of the stream may follow.
    pub fn stopped(&mut self) {
        if self.phase.is_running() {
            self.phase = Phase::Stopped;
            // The control plane, which follows, contains the claims.
            self.claims.take();
        }
    }

    /// Returns whether [`Self::stopped`] was called, or the stream began with a stopped device.
    pub fn has_stopped(&self) -> bool {
        !self.phase.is_running()
    }

    /// Sets the tracked guest memory that the address record file lists.
    pub fn track(&mut self, tracked: Tracked) {
        self.tracked = Some(tracked);
    }

    /// Returns the unread data of a running device.
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

    /// Returns the maximum number of unread bytes if the device stops now or has stopped, or `None`
    /// if it is not yet known.
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

    /// Returns the unsent local memory without the current part.
    fn pending(&self, identity: &Identity) -> Pending {
        match &self.rounds {
            Some(rounds) => rounds.pending(identity.local_memory, self.phase),
            None => Pending {
                initial: 0,
                changed: 0,
            },
        }
    }

    /// Returns the number of unread bytes of the introduction, of claims, and of local memory in
    /// the current part. The introduction is [`Self::INITIAL`] bytes long.
    fn unread(&self) -> u64 {
        let introduction = (Self::INITIAL as u64).saturating_sub(self.progress.stream_bytes);
        let (piece, part) = match &self.at {
            At::Claim(_) => (self.piece.unread(), 0),
            At::Address(part) => (0, part.pending_bytes()),
            At::Data(part) => (self.piece.unread_body(), part.pending_bytes()),
            _ => (0, 0),
        };

        introduction
            .saturating_add(piece as u64)
            .saturating_add(part)
            .saturating_add(self.claims.pending())
    }

    /// Reads the changes from the device, and its claim if it runs.
    ///
    /// Changes of unread granules of the current part are dropped, because the part sends them.
    fn refresh<S: Source<Error = E>>(&mut self, source: &mut S) -> Result<(), SaveError<E>> {
        if self.phase == Phase::Initial
            && self.unread() == 0
            && self.pending(source.identity()).initial == 0
        {
            // Changes after all initial data was read are not initial data.
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
            for range in part.pending() {
                rounds.reading(Range {
                    start: range.start.saturating_add(announced),
                    length: range.length.saturating_sub(announced),
                });
                announced = 0;
            }
        }
        Ok(())
    }

    /// Makes all unsent data initial data if the guest has reconfigured the device since the last
    /// report to the reader. Returns whether it did so and unsent data may exist.
    fn reinitialise(&mut self) -> bool {
        let configurations = self.claims.configurations();

        if self.configurations == configurations {
            return false;
        }
        self.configurations = configurations;
        self.begin_round(Phase::Initial);
        self.rounds.is_some() || self.claims.pending() != 0
    }

    /// Begins another round, and enters `phase` if the device runs.
    fn begin_round(&mut self, phase: Phase) {
        if self.phase.is_running() {
            self.phase = phase;
        }
        if let Some(rounds) = &mut self.rounds {
            rounds.restart();
        }
    }

    /// Returns the totals of the bytes that were read.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Returns the unread bytes of the current piece, or the next piece after its last byte.
    ///
    /// # Errors
    ///
    /// Returns an error if the device failed, if its data is invalid, if an allocation failed, or
    /// if an earlier call failed.
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
            At::Data(_) => Self::run(source),
            At::Control => source.control(),
            At::Start | At::Identity | At::Relations | At::Pause | At::End => &[],
        })))
    }

    /// Calls `work` unless an earlier call failed, and stores its error.
    fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, SaveError<E>>,
    ) -> Result<T, SaveError<E>> {
        match self.failed {
            Some(error) => Err(error),
            None => work(self).inspect_err(|&error| self.failed = Some(error)),
        }
    }

    /// Loads the next piece after the last byte of the current one.
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

    /// Checks that the source's buffer still has the length of the current body.
    fn check_body<S: Source<Error = E>>(&self, source: &mut S) -> Result<(), SaveError<E>> {
        let body = match self.at {
            At::Data(_) => Self::run(source),
            At::Control => source.control(),
            _ => return Ok(()),
        };

        check(
            "length",
            body.len() as u64,
            Expectation::Equal(self.piece.body() as u64),
        )
        .map_err(SaveError::Piece)
    }

    /// Returns the run that was read last, or an empty slice if there is no local memory.
    fn run<S: Source<Error = E>>(source: &mut S) -> &[u8] {
        match source.local() {
            Some(local) => local.run(),
            None => &[],
        }
    }

    /// Marks the first `length` bytes that [`Self::remaining`] returned as read.
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

    /// Loads the next piece, if any.
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

    /// Loads a claim, or else the next part of the address record file, or else the control plane.
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

    /// Reads the device's first claim and begins round 0 of local memory, as soon as possible.
    fn begin<S: Source<Error = E>>(&mut self, source: &mut S) -> Result<(), SaveError<E>> {
        let features = source.identity().features;
        let running = !self.has_stopped();

        if running && self.configurations.is_none() {
            self.claims.refresh(source)?;
            self.configurations = self.claims.configurations();
        }
        if self.rounds.is_none() && (!running || features & FEATURE_LOCAL_DIRTY != 0) {
            self.rounds = Rounds::begin(source, running)?;
            if self.rounds.is_some() && !running {
                self.phase = Phase::Complete;
            }
        }
        Ok(())
    }

    /// Composes the next part of the current round of local memory, if any.
    fn compose(&mut self, identity: &Identity) -> Result<Option<Part>, OutOfMemory> {
        let sequence = self.loaded.sections;

        match &mut self.rounds {
            Some(rounds) => rounds.compose(&mut self.buffer, identity.granule, sequence),
            None => Ok(None),
        }
    }

    /// Loads the unsent claim, if any, and returns whether there was one.
    fn load_claim(&mut self, interfaces: Interfaces) -> bool {
        let Some(records) = self.claims.take() else {
            return false;
        };

        self.load_section(interfaces, Kind::Claim, &[], &records);
        self.at = At::Claim(records);
        true
    }

    /// Records that the device may now begin to read `run`.
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
        // An announced run is already recorded. Changes since then must stay in the set.
        if self.announced.take() != Some(run) {
            self.reading(run);
        }
        if let Some(local) = source.local() {
            local
                .read_local(run.start, run.length as usize)
                .map_err(SaveError::Device)?;
        }
        check(
            "length",
            Self::run(source).len() as u64,
            Expectation::Equal(run.length),
        )
        .map_err(SaveError::Piece)?;

        part.advance();
        if let Some(next) = part.run() {
            self.reading(next);
            self.announced = Some(next);
            if let Some(local) = source.local() {
                local.prefetch_local(next.start, next.length as usize);
            }
        }
        self.at = At::Data(part);
        self.loaded.count_data(run.length);
        let header = DataRun { offset: run.start };
        let interfaces = source.interfaces();
        self.load_section(interfaces, Kind::Data, &header.encode(), Self::run(source));
        Ok(())
    }

    fn load_control<S: Source<Error = E>>(&mut self, source: &mut S) -> Result<(), SaveError<E>> {
        source.read_control().map_err(SaveError::Device)?;

        let bytes = source.control();
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

    /// Loads a section with the payload `head` and `body`. [`Self::at`] states the place of `body`.
    ///
    /// The caller ensures that together they are at most `SECTION_LENGTH_MAX` bytes long.
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
