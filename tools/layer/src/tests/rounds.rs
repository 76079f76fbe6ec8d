// SPDX-License-Identifier: GPL-2.0

//! A device that goes on changing while it is saved.
//!
//! [`Live`] is a naive model of one, with none of the layer's code in it: it does as the hardware
//! interface says, and it changes whenever a test wants it to, also in the middle of a call. What it
//! then is, and what a stream gives another device, is compared; and what the layer says of how much
//! is left, with what is then read.

use super::second::{device_of, own_of};
use crate::{
    layer::{
        address::{Range, Tracked},
        granules::WINDOW,
        identity::{Identity, FEATURE_LOCAL_DIRTY, FEATURE_LOCAL_MEMORY},
        interface::{Function, Interfaces},
        restore::Destination,
        save::{Begin, InfoVersion, Outstanding, Piece, SaveError, Saver, Source},
        stream::DATA_RUN_MAX,
        tests::device::{Device, CONTROL, IDENTITY},
    },
    seam::{with_allowance, OutOfMemory},
};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use vifa_decoder::{decode, encoder::record};

/// Bytes of the stream up to the end of the relations.
const INTRODUCTION: u64 = 248;

/// What becomes of a granule.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// All of its bytes become this.
    Write(usize, u8),
    /// It is unmapped.
    Discard(usize),
}

/// What happens to a granule, for the judge of the transfer.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Changes so far.
    changes: u64,
    /// As it was when it was last read.
    read: Option<u64>,
    /// Whether it was mapped, and how many changes there had been, when that was asked.
    surveyed: Option<(bool, u64)>,
    /// How often it was read since the device stopped.
    read_stopped: u32,
}

impl Account {
    /// Whether it has to be read, lest the destination have something else.
    fn is_owed(&self) -> bool {
        match (self.read, self.surveyed) {
            (Some(read), _) => self.changes > read,
            (None, Some((mapped, changes))) => mapped || self.changes > changes,
            (None, None) => false,
        }
    }
}

/// A device that changes while it is saved. What is all the same byte is enough for a granule.
struct Live {
    identity: Identity,
    /// The byte of each granule that is mapped.
    mapped: BTreeMap<usize, u8>,
    /// The granules that have changed since the device was last asked.
    changed: BTreeMap<usize, ()>,
    configurations: u32,
    /// What it claims, of which there may be nothing.
    claim: Vec<u8>,
    /// The configurations for which it was asked what it claims.
    claimed: Option<u32>,
    /// The configurations that the reader of the stream knows of.
    known: Option<u32>,
    running: bool,
    accounts: BTreeMap<usize, Account>,
    /// What changes in the middle of calls to come: one of these in each call.
    meanwhile: VecDeque<Vec<Change>>,
    /// What was announced, and what it was then.
    ahead: Option<(u64, Vec<u8>)>,
    bitmap: Vec<u8>,
    piece: Vec<u8>,
}

impl Live {
    fn new(identity: Identity) -> Self {
        Self {
            identity,
            mapped: BTreeMap::new(),
            changed: BTreeMap::new(),
            configurations: 0,
            claim: Vec::new(),
            claimed: None,
            known: None,
            running: true,
            accounts: BTreeMap::new(),
            meanwhile: VecDeque::new(),
            ahead: None,
            bitmap: Vec::new(),
            piece: Vec::new(),
        }
    }

    /// A device with `granules` granules, of which those are mapped.
    fn with(granules: usize, mapped: impl IntoIterator<Item = usize>) -> Self {
        let mut live = Self::new(Identity {
            local_memory: (granules * 0x1000) as u64,
            ..IDENTITY
        });

        for granule in mapped {
            live.change(Change::Write(granule, granule as u8));
        }
        live
    }

    fn granule(&self) -> usize {
        self.identity.granule as usize
    }

    fn account(&mut self, granule: usize) -> &mut Account {
        self.accounts.entry(granule).or_default()
    }

    fn change(&mut self, change: Change) {
        assert!(self.running, "a device that has stopped does not change");
        let granule = match change {
            Change::Write(granule, byte) => {
                self.mapped.insert(granule, byte);
                granule
            }
            // What is not mapped does not change.
            Change::Discard(granule) => match self.mapped.remove(&granule) {
                Some(_) => granule,
                None => return,
            },
        };

        self.changed.insert(granule, ());
        self.account(granule).changes += 1;
    }

    /// Changes in the middle of a call.
    fn pass(&mut self) {
        if self.running {
            for change in self.meanwhile.pop_front().unwrap_or_default() {
                self.change(change);
            }
        }
    }

    fn stop(&mut self) {
        self.pass();
        self.running = false;
    }

    /// Makes the bitmap of those of the granules in a range for which `set` says so.
    fn fill_bitmap(&mut self, offset: u64, length: u64, set: impl Fn(&Self, usize) -> bool) {
        let granules = self.numbers(offset, length);
        let first = granules.start;
        // What the padding is does not matter.
        let mut bitmap = vec![0xff; granules.len().div_ceil(8)];

        for granule in granules {
            if !set(self, granule) {
                bitmap[(granule - first) / 8] &= !(1 << ((granule - first) % 8));
            }
        }
        self.bitmap = bitmap;
    }

    fn numbers(&self, offset: u64, length: u64) -> std::ops::Range<usize> {
        let granule = u64::from(self.identity.granule);

        assert!(offset % granule == 0 && length % granule == 0 && length != 0);
        assert!(offset + length <= self.identity.local_memory);
        (offset / granule) as usize..((offset + length) / granule) as usize
    }

    /// Reads a run as it is now.
    fn snapshot(&mut self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();

        assert!(length <= DATA_RUN_MAX);
        for granule in self.numbers(offset, length as u64) {
            let byte = self.mapped.get(&granule).copied().unwrap_or(0);
            let running = self.running;
            let account = self.account(granule);

            account.read = Some(account.changes);
            account.read_stopped += u32::from(!running);
            bytes.resize(bytes.len() + self.granule(), byte);
        }
        bytes
    }

    /// The granules that the destination does not have as they are.
    fn owed(&self) -> Vec<usize> {
        let owed = self
            .accounts
            .iter()
            .filter(|(_, account)| account.is_owed());
        owed.map(|(&granule, _)| granule).collect()
    }

    /// The bytes of local memory as they are now.
    fn bytes(&self, granule: usize) -> Vec<u8> {
        vec![self.mapped.get(&granule).copied().unwrap_or(0); self.granule()]
    }
}

impl Source for Live {
    type Error = OutOfMemory;

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn interfaces(&self) -> Interfaces {
        Interfaces::of(Function {
            domain: 0,
            bus: 2,
            devfn: 0x11,
        })
    }

    fn read_control(&mut self) -> Result<(), OutOfMemory> {
        assert!(!self.running, "the control plane of a device that runs");
        self.piece = CONTROL.to_vec();
        Ok(())
    }

    fn claim(&mut self) -> Result<&[u8], OutOfMemory> {
        assert!(self.running, "what a device claims that has stopped");
        assert_ne!(self.claimed, Some(self.configurations), "asked in vain");
        self.claimed = Some(self.configurations);
        self.pass();
        Ok(&self.claim)
    }

    fn configurations(&mut self) -> Result<u32, OutOfMemory> {
        assert!(
            self.running,
            "how often a device was configured that has stopped"
        );
        let configurations = self.configurations;

        self.known.get_or_insert(configurations);
        self.pass();
        Ok(configurations)
    }

    fn mapped(&mut self, offset: u64, length: u64) -> Result<&[u8], OutOfMemory> {
        self.pass();
        self.fill_bitmap(offset, length, |live, granule| {
            live.mapped.contains_key(&granule)
        });
        for granule in self.numbers(offset, length) {
            let mapped = self.mapped.contains_key(&granule);
            if mapped || self.accounts.contains_key(&granule) {
                let account = self.account(granule);
                account.surveyed = Some((mapped, account.changes));
            }
        }
        self.pass();
        Ok(&self.bitmap)
    }

    fn changed(&mut self, offset: u64, length: u64) -> Result<&[u8], OutOfMemory> {
        assert!(self.identity.features & 0x8 != 0, "it cannot be asked");
        self.pass();
        self.fill_bitmap(offset, length, |live, granule| {
            live.changed.contains_key(&granule)
        });
        for granule in self.numbers(offset, length) {
            self.changed.remove(&granule);
        }
        self.pass();
        Ok(&self.bitmap)
    }

    fn read_local(&mut self, offset: u64, length: usize) -> Result<(), OutOfMemory> {
        self.pass();
        self.piece = match self.ahead.take() {
            Some((start, bytes)) if start == offset && bytes.len() == length => bytes,
            _ => self.snapshot(offset, length),
        };
        self.pass();
        Ok(())
    }

    fn prefetch_local(&mut self, offset: u64, length: usize) {
        // As early as it can: what changes behind its back has the most time for it.
        let bytes = self.snapshot(offset, length);

        self.ahead = Some((offset, bytes));
        self.pass();
    }

    fn piece(&self) -> &[u8] {
        &self.piece
    }
}

/// A transfer of a [`Live`] device.
struct Transfer {
    live: Live,
    saver: Saver<OutOfMemory>,
    stream: Vec<u8>,
    /// All initial bytes were read, as was told.
    initial_read: bool,
}

/// Where the bytes of local memory stand in a stream, of which the last section may be cut off, and
/// where claims stand, with their headers.
fn counted_bytes(stream: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut places = Vec::new();
    let mut at = 16;

    while let Some(header) = stream.get(at..at + 32) {
        let length = u32::from_le_bytes(header[4..8].try_into().unwrap()) as usize;
        at += 32;
        if header[..2] == [4, 0] {
            places.push((at + 8).min(stream.len())..(at + length).min(stream.len()));
        }
        if header[..2] == [7, 0] {
            places.push(at - 32..(at + length).min(stream.len()));
        }
        at += length;
    }
    // A header that is cut off: of a claim it counts, too.
    if stream.get(at..at + 2) == Some(&[7, 0]) {
        places.push(at..stream.len());
    }
    places
}

/// The last claim in a stream; nothing if there is none.
fn last_claim(stream: &[u8]) -> &[u8] {
    let mut claim = &[][..];
    let mut at = 16;

    while let Some(header) = stream.get(at..at + 32) {
        let length = u32::from_le_bytes(header[4..8].try_into().unwrap()) as usize;
        at += 32;
        if header[..2] == [7, 0] {
            claim = stream.get(at..at + length).unwrap_or_default();
        }
        at += length;
    }
    claim
}

impl Transfer {
    fn of(live: Live) -> Self {
        Self {
            live,
            saver: Saver::new(Begin::PreCopy),
            stream: Vec::new(),
            initial_read: false,
        }
    }

    /// Reads once, as much as `most`. Returns whether there was something.
    fn read(&mut self, most: usize) -> bool {
        let quiet = self.live.meanwhile.is_empty();

        match self.saver.remaining(&mut self.live).unwrap() {
            Piece::Bytes(piece) => {
                assert!(!piece.is_empty());
                let length = piece.len().min(most);
                self.stream.extend(&piece[..length]);
                self.saver.consume(length);
                true
            }
            Piece::Pause => {
                assert!(self.live.running);
                if quiet {
                    assert_eq!(self.live.owed(), [], "paused");
                }
                self.assert_claimed();
                false
            }
            Piece::End => {
                assert!(!self.live.running);
                assert_eq!(self.live.owed(), [], "ended");
                false
            }
        }
    }

    /// Asserts that what the device claims stands in the stream.
    fn assert_claimed(&self) {
        assert!(self.live.claim.is_empty() || last_claim(&self.stream) == self.live.claim);
    }

    /// Reads until it pauses or ends.
    fn read_on(&mut self, most: usize) {
        while self.read(most) {}
    }

    /// Asks how much is left. There is new initial data just when the device was configured since
    /// that was last known, and it is told just to those who know of such a thing. A device without
    /// rounds may have none all the same.
    fn left(&mut self, version: InfoVersion) -> Outstanding {
        let is_new = version == InfoVersion::V2
            && self
                .live
                .known
                .is_some_and(|known| known != self.live.configurations);
        let told = self.saver.outstanding(&mut self.live, version).unwrap();

        if self.live.identity.features & FEATURE_LOCAL_DIRTY != 0 {
            assert_eq!(told.reinitialised, is_new);
        } else {
            assert!(is_new || !told.reinitialised);
        }
        if version == InfoVersion::V2 {
            self.live.known = Some(self.live.configurations);
        }
        if is_new {
            assert_eq!(told.changed, 0);
            self.initial_read = false;
        }
        assert!(!self.initial_read || told.initial == 0, "{told:?}");
        self.initial_read = told.initial == 0;
        if self.initial_read && (version == InfoVersion::V2 || told.changed == 0) {
            self.assert_claimed();
        }
        told
    }

    fn stop(&mut self) {
        self.live.stop();
        self.saver.stopped();
    }

    /// Asserts that another device has what this one has after the stream, sparse as far as it can
    /// be: it has what was ever read, and nothing else.
    fn assert_arrives(&self, write: usize) {
        let own = own_of(&self.live.identity);
        let state = decode(&self.stream, &own).unwrap();
        let mut expected = Device::new(self.live.identity).unwrap();
        let mut destination = Device::new(self.live.identity).unwrap();

        let read = self
            .live
            .accounts
            .iter()
            .filter(|(_, account)| account.read.is_some());
        for (&granule, _) in read {
            let bytes = self.live.bytes(granule);
            expected.buffer()[..bytes.len()].copy_from_slice(&bytes);
            expected
                .write_local((granule * bytes.len()) as u64, bytes.len())
                .unwrap();
        }
        for granule in self.live.mapped.keys() {
            assert!(
                self.live.accounts[granule].read.is_some(),
                "granule {granule} was never read"
            );
        }
        destination.fill(0);
        destination.restore(&self.stream, &[write]).unwrap();
        assert!(destination.tried[..] == *last_claim(&self.stream));
        assert!(destination.has_state_of(&expected));
        assert!(device_of(&state, self.live.identity).has_state_of(&expected));
    }
}

/// A step of a test.
#[derive(Clone, Debug)]
enum Step {
    /// One read of up to so many bytes.
    Read(usize),
    /// Reads up to the pause.
    ReadOn,
    Change(Change),
    /// What changes in the middle of each of the calls to come.
    Meanwhile(Vec<Vec<Change>>),
    /// Somebody asks how much is left.
    Left,
    /// As above, and knows of reinitialisation.
    LeftV2,
    /// Somebody asks how long the rest of the stream can be.
    Rest,
    /// The guest configures the device anew; it then claims this.
    Configure(Vec<u8>),
}

/// Granules of the devices of [`steps`].
const GRANULES: usize = 24;

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0..GRANULES, any::<u8>()).prop_map(|(granule, byte)| Change::Write(granule, byte)),
        1 => (0..GRANULES).prop_map(Change::Discard),
    ]
}

/// What a device claims: nothing, or a record.
fn claim() -> impl Strategy<Value = Vec<u8>> {
    let content = prop::collection::vec(any::<u8>(), 0..300);

    prop_oneof![
        1 => Just(Vec::new()),
        4 => content.prop_map(|content| record(1, 1, 0, &content)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let meanwhile = prop::collection::vec(prop::collection::vec(change(), 0..3), 1..8);

    prop::collection::vec(
        prop_oneof![
            6 => prop_oneof![1..200usize, 1..9000usize, Just(usize::MAX)].prop_map(Step::Read),
            1 => Just(Step::ReadOn),
            6 => change().prop_map(Step::Change),
            3 => meanwhile.prop_map(Step::Meanwhile),
            2 => Just(Step::Left),
            1 => Just(Step::LeftV2),
            1 => Just(Step::Rest),
            1 => claim().prop_map(Step::Configure),
        ],
        0..60,
    )
}

/// A device of which these granules are mapped, brought so far by `steps`.
fn after(mapped: &[usize], steps: &[Step]) -> Transfer {
    brought_by(steps, Live::with(GRANULES, mapped.iter().copied()))
}

/// A device without local memory, brought so far by those of `steps` that have to do with none.
fn after_without_local_memory(steps: &[Step]) -> Transfer {
    let steps: Vec<_> = steps
        .iter()
        .filter(|step| !matches!(step, Step::Change(_) | Step::Meanwhile(_)))
        .cloned()
        .collect();

    brought_by(
        &steps,
        Live::new(Identity {
            features: 0,
            granule: 0,
            local_memory: 0,
            ..IDENTITY
        }),
    )
}

fn brought_by(steps: &[Step], live: Live) -> Transfer {
    let mut transfer = Transfer::of(live);

    for step in steps {
        match step {
            Step::Read(most) => {
                transfer.read(*most);
            }
            Step::ReadOn => {
                transfer.live.meanwhile.clear();
                transfer.read_on(usize::MAX);
            }
            Step::Change(change) => transfer.live.change(*change),
            Step::Meanwhile(changes) => transfer.live.meanwhile.extend(changes.iter().cloned()),
            Step::Left => {
                transfer.left(InfoVersion::V1);
            }
            Step::LeftV2 => {
                transfer.left(InfoVersion::V2);
            }
            Step::Rest => {
                transfer.saver.left(&mut transfer.live).unwrap();
            }
            Step::Configure(claim) => {
                transfer.live.configurations += 1;
                transfer.live.claim = claim.clone();
            }
        }
    }
    transfer
}

/// What is read of the introduction, of claims and of local memory, from `from` on.
fn counted(stream: &[u8], from: usize) -> u64 {
    let introduction = INTRODUCTION.saturating_sub(from as u64);
    let data = counted_bytes(stream)
        .into_iter()
        .map(|place| place.end.saturating_sub(place.start.max(from)) as u64);

    introduction + data.sum::<u64>()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// However a device changes and whenever it is stopped, another device has in the end what this
    /// one has. What it has to read of a stopped device, it reads once.
    #[test]
    fn changing_device_arrives(
        mapped in prop::collection::vec(0..GRANULES, 0..GRANULES),
        steps in steps(),
        last in 1..9000usize,
        write in 1..9000usize,
    ) {
        let mut transfer = after(&mapped, &steps);

        transfer.stop();
        transfer.read_on(last);
        for (granule, account) in &transfer.live.accounts {
            prop_assert!(account.read_stopped <= 1, "granule {} was read twice", granule);
        }
        transfer.assert_arrives(write);
    }

    /// Of a device that has nothing more to give before it stops, nothing is read afterwards.
    #[test]
    fn paused_device_has_sent_everything(
        mapped in prop::collection::vec(0..GRANULES, 0..GRANULES),
        steps in steps(),
    ) {
        let mut transfer = after(&mapped, &steps);

        transfer.live.meanwhile.clear();
        transfer.read_on(usize::MAX);
        let paused = transfer.stream.len();
        transfer.stop();
        transfer.read_on(usize::MAX);
        prop_assert_eq!(counted(&transfer.stream, paused), 0);
        transfer.assert_arrives(usize::MAX);
    }

    /// What is told to be left is what is then read of a device that does not change any more: the
    /// introduction, a claim, and bytes of local memory. Initial bytes only become less.
    #[test]
    fn numbers_are_exact(
        mapped in prop::collection::vec(0..GRANULES, 0..GRANULES),
        steps in steps(),
        version in prop_oneof![Just(InfoVersion::V1), Just(InfoVersion::V2)],
        piece in 1..9000usize,
    ) {
        let mut transfer = after(&mapped, &steps);
        transfer.live.meanwhile.clear();
        let mut told = transfer.left(version);
        let mut positions = vec![(transfer.stream.len(), told)];

        while transfer.read(piece) {
            let now = transfer.left(InfoVersion::V1);
            prop_assert!(now.initial <= told.initial, "{:?} after {:?}", now, told);
            told = now;
            positions.push((transfer.stream.len(), now));
        }
        for (position, told) in positions {
            prop_assert_eq!(
                told.initial + told.changed,
                counted(&transfer.stream, position),
                "{:?} at byte {}",
                told,
                position
            );
        }
        prop_assert_eq!((told.initial, told.changed), (0, 0));
        prop_assert_eq!(transfer.live.owed(), []);
    }

    /// All of it holds for a device without local memory, too.
    #[test]
    fn device_without_local_memory_arrives(
        steps in steps(),
        version in prop_oneof![Just(InfoVersion::V1), Just(InfoVersion::V2)],
        pause in any::<bool>(),
        piece in 1..300usize,
    ) {
        let mut transfer = after_without_local_memory(&steps);

        if pause {
            let told = transfer.left(version);
            let before = transfer.stream.len();
            transfer.read_on(piece);
            prop_assert_eq!(
                told.initial + told.changed,
                (transfer.stream.len() - before) as u64
            );
            let told = transfer.left(InfoVersion::V1);
            prop_assert_eq!((told.initial, told.changed), (0, 0));
        }
        let told = transfer.saver.left(&mut transfer.live).unwrap().unwrap();
        let before = transfer.stream.len();
        transfer.stop();
        transfer.read_on(piece);
        prop_assert!((transfer.stream.len() - before) as u64 <= told);
        transfer.assert_arrives(piece);
    }

    /// The rest of the stream of a device that is stopped now is no longer than was told.
    #[test]
    fn rest_is_bounded(
        mapped in prop::collection::vec(0..GRANULES, 0..GRANULES),
        steps in steps(),
    ) {
        let mut transfer = after(&mapped, &steps);

        transfer.live.meanwhile.clear();
        let told = transfer.saver.left(&mut transfer.live).unwrap().unwrap();
        let before = transfer.stream.len();
        transfer.stop();
        transfer.read_on(usize::MAX);
        prop_assert!((transfer.stream.len() - before) as u64 <= told);
    }
}

/// Asserts that the second decoder reads of `transfer`, which has ended, what the device has. For
/// devices whose memory is too large to make another one.
fn assert_decodes(transfer: &Transfer) {
    let own = own_of(&transfer.live.identity);
    let granule = transfer.live.granule();
    let mut read = BTreeMap::new();

    for (offset, bytes) in decode(&transfer.stream, &own).unwrap().runs {
        for (number, bytes) in (offset as usize / granule..).zip(bytes.chunks(granule)) {
            assert!(bytes.iter().all(|&byte| byte == bytes[0]));
            read.insert(number, bytes[0]);
        }
    }
    assert_eq!(read, transfer.live.mapped);
}

/// A device that is asked in two windows, with a range that is in both of them.
#[test]
fn windows() {
    let border = WINDOW as usize;
    let granules = border + 70;
    let mapped = [0, border - 1, border, border + 1, granules - 1];
    let mut transfer = Transfer::of(Live::with(granules, mapped));

    let told = transfer.left(InfoVersion::V1);
    assert_eq!((told.initial, told.changed), (INTRODUCTION + 0x5000, 0));
    transfer.read_on(usize::MAX);
    for (granule, byte) in [(1, 7), (border - 1, 8), (border, 9), (granules - 1, 10)] {
        transfer.live.change(Change::Write(granule, byte));
    }
    let told = transfer.left(InfoVersion::V1);
    assert_eq!((told.initial, told.changed), (0, 0x4000));
    transfer.read_on(usize::MAX);
    transfer.live.change(Change::Write(border + 2, 11));
    transfer.stop();
    transfer.read_on(usize::MAX);
    assert_decodes(&transfer);
}

/// Rounds with several parts each, of a device that changes all the while, before and behind the
/// place that the round has come to.
#[test]
fn rounds_of_several_parts() {
    let granules = 2 * 1024 + 200;
    let mut transfer = Transfer::of(Live::with(granules, (0..granules).step_by(2)));
    let mut granule = 0;

    for byte in 0..250 {
        granule = (granule + 1009) % granules;
        transfer.live.change(Change::Write(granule, byte));
        for _ in 0..9 {
            transfer.read(usize::MAX);
        }
    }
    transfer.stop();
    transfer.read_on(usize::MAX);
    assert_decodes(&transfer);
}

/// What is changed between two parts of a round, just behind the last range of the one, does not make
/// the other begin there.
#[test]
fn parts_of_a_round_do_not_touch() {
    let most = 1024;
    let mut transfer = Transfer::of(Live::with(2 * most + 4, (0..=most).map(|n| 2 * n)));
    let behind = 2 * most - 1;

    // The introduction, and a part with its data.
    while transfer.saver.progress().sections < 3 + most as u64 {
        assert!(transfer.read(usize::MAX));
    }
    transfer.live.change(Change::Write(behind, 7));
    let told = transfer.left(InfoVersion::V1);
    assert_eq!(told.initial + told.changed, 0x2000);
    transfer.read_on(usize::MAX);
    transfer.stop();
    transfer.read_on(usize::MAX);
    assert_decodes(&transfer);
}

/// A range that is read in several runs, which change before, while and after they are read.
#[test]
fn ranges_of_several_runs() {
    let granules = 3 * DATA_RUN_MAX / 0x1000 + 1;

    for moment in 0..12 {
        let mut transfer = Transfer::of(Live::with(granules, 0..granules));
        let everywhere = (0..granules).step_by(100);
        let changes = everywhere.map(|granule| Change::Write(granule, 0xee));

        transfer.live.meanwhile = vec![vec![]; moment].into();
        transfer.live.meanwhile.push_back(changes.collect());
        transfer.read_on(usize::MAX);
        transfer.stop();
        transfer.read_on(usize::MAX);
        assert_decodes(&transfer);
    }
}

/// A device that does not know what it changes gives its local memory when it has stopped, as it is
/// then.
#[test]
fn device_that_does_not_know_what_it_changes() {
    let mut live = Live::with(GRANULES, [1, 2, 5]);
    live.identity.features = FEATURE_LOCAL_MEMORY;
    let mut transfer = Transfer::of(live);

    let told = transfer.left(InfoVersion::V2);
    assert_eq!((told.initial, told.changed), (INTRODUCTION, 0));
    transfer.read_on(usize::MAX);
    assert_eq!(transfer.stream.len() as u64, INTRODUCTION);
    transfer.live.change(Change::Write(2, 9));
    transfer.live.change(Change::Write(7, 9));
    transfer.live.change(Change::Discard(5));
    let told = transfer.left(InfoVersion::V2);
    assert_eq!((told.initial, told.changed), (0, 0));
    assert!(!transfer.read(1));
    transfer.stop();
    transfer.read_on(usize::MAX);
    assert_decodes(&transfer);
    transfer.assert_arrives(usize::MAX);
}

/// Guest memory that is tracked is listed once, in as many parts as it takes, behind all of the local
/// memory; ranges without a gap between them are one.
#[test]
fn tracked_guest_memory() {
    for (count, sections) in [(0, 0), (1, 1), (1024, 1), (1025, 2), (2500, 3)] {
        let mut transfer = Transfer::of(Live::with(GRANULES, [3]));
        let pages = |page: u64, length| Range {
            start: page * 0x2000,
            length,
        };
        // Two ranges that touch, and a gap.
        let ranges = (0..count)
            .flat_map(|number| [pages(4 * number, 0x2000), pages(4 * number + 1, 0x4000)]);

        transfer.read_on(usize::MAX);
        transfer.live.change(Change::Write(4, 4));
        transfer.stop();
        transfer.saver.track(Tracked::new(0x2000, ranges).unwrap());
        transfer.read_on(usize::MAX);
        let own = own_of(&transfer.live.identity);
        let state = decode(&transfer.stream, &own).unwrap();
        assert_eq!(state.guest, (count, count * 0x6000));
        assert_eq!(state.local, (2, 0x2000));
        assert_eq!(state.sections, 2 + 2 * 2 + sections + 2);
        transfer.assert_arrives(usize::MAX);
    }
}

/// A set of granules takes a bit for each, and nothing is taken before it is looked for.
#[test]
fn memory() {
    const PART: usize = 16 + 1024 * 24;
    let mut transfer = Transfer::of(Live::with(130, [3]));

    with_allowance(0, || {
        for _ in 0..2 {
            assert!(transfer.read(usize::MAX));
        }
    });
    with_allowance(24 + PART, || transfer.read_on(usize::MAX));
    transfer.live.change(Change::Write(129, 1));
    transfer.stop();
    with_allowance(0, || transfer.read_on(usize::MAX));
    transfer.assert_arrives(usize::MAX);
}

/// Whatever fails while a device is asked how much is left fails for good.
#[test]
fn without_memory_there_is_no_set() {
    let mut transfer = Transfer::of(Live::with(130, [3]));
    let error = Err(SaveError::OutOfMemory);

    let told = with_allowance(23, || {
        transfer
            .saver
            .outstanding(&mut transfer.live, InfoVersion::V1)
    });
    assert_eq!(told, error);
    assert!(transfer.saver.remaining(&mut transfer.live) == Err(SaveError::OutOfMemory));
}
