// SPDX-License-Identifier: GPL-2.0

//! Tests of a device that continues to change while it is saved.
//!
//! [`Live`] is a naive model of such a device, without code of the layer. It follows the hardware
//! interface, and changes on a test's request, also during a call. The tests compare its final
//! state with the state of another device after the stream. They also compare the reported numbers
//! of outstanding bytes with the bytes that are then read.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use vifa_decoder::{decode, encoder::record};

use super::second::{device_of, own_of};
use crate::{
    layer::{
        address::{Range, Tracked},
        granules::WINDOW,
        identity::{Identity, FEATURE_LOCAL_DIRTY, FEATURE_LOCAL_MEMORY},
        interface::{Function, Interfaces},
        restore::{Destination, LocalDestination},
        save::{Begin, InfoVersion, LocalSource, Outstanding, Piece, SaveError, Saver, Source},
        stream::DATA_RUN_MAX,
        tests::device::{Device, CONTROL, IDENTITY},
    },
    seam::{with_allowance, OutOfMemory},
};

/// Length of the stream up to the end of the relations.
const INTRODUCTION: u64 = 248;

/// A change of a granule.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// Sets all bytes of the granule to this value.
    Write(usize, u8),
    /// Unmaps the granule.
    Discard(usize),
}

/// The history of a granule.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Number of changes.
    changes: u64,
    /// Number of changes at the last read.
    read: Option<u64>,
    /// Whether it was mapped, and the number of changes, at the query of mapped granules.
    surveyed: Option<(bool, u64)>,
    /// Number of reads since the device stopped.
    read_stopped: u32,
}

impl Account {
    /// Returns whether the destination does not have the current content.
    fn is_stale(&self) -> bool {
        match (self.read, self.surveyed) {
            (Some(read), _) => self.changes > read,
            (None, Some((mapped, changes))) => mapped || self.changes > changes,
            (None, None) => false,
        }
    }
}

/// A device that changes while it is saved. All bytes of a granule have the same value.
struct Live {
    identity: Identity,
    /// The value of each mapped granule's bytes.
    mapped: BTreeMap<usize, u8>,
    /// The granules that have changed since the last query.
    changed: BTreeMap<usize, ()>,
    configurations: u32,
    /// The claim, or nothing.
    claim: Vec<u8>,
    /// The number of configurations at the last query of the claim.
    claimed: Option<u32>,
    /// The number of configurations at the last report to the reader of the stream.
    known: Option<u32>,
    running: bool,
    accounts: BTreeMap<usize, Account>,
    /// Changes during later calls: one element per call.
    meanwhile: VecDeque<Vec<Change>>,
    /// The offset of the announced run, and its content at the announcement.
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

    /// Creates a device with `granules` granules, with those in `mapped` mapped.
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
        assert!(self.running, "a stopped device does not change");
        let granule = match change {
            Change::Write(granule, byte) => {
                self.mapped.insert(granule, byte);
                granule
            }
            // Unmapped granules do not change.
            Change::Discard(granule) => match self.mapped.remove(&granule) {
                Some(_) => granule,
                None => return,
            },
        };

        self.changed.insert(granule, ());
        self.account(granule).changes += 1;
    }

    /// Applies the changes during a call.
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

    /// Fills the bitmap for the granules in a range with the results of `set`.
    fn fill_bitmap(&mut self, offset: u64, length: u64, set: impl Fn(&Self, usize) -> bool) {
        let granules = self.numbers(offset, length);
        let first = granules.start;
        // The padding is arbitrary.
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

    /// Returns the current content of a run.
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

    /// Returns the granules whose current content the destination does not have.
    fn stale(&self) -> Vec<usize> {
        let stale = self
            .accounts
            .iter()
            .filter(|(_, account)| account.is_stale());
        stale.map(|(&granule, _)| granule).collect()
    }

    /// Returns the current bytes of a granule.
    fn bytes(&self, granule: usize) -> Vec<u8> {
        vec![self.mapped.get(&granule).copied().unwrap_or(0); self.granule()]
    }
}

impl Source for Live {
    type Error = OutOfMemory;
    type Local = Self;

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
        assert!(!self.running, "read of a running device's control plane");
        self.piece = CONTROL.to_vec();
        Ok(())
    }

    fn control(&self) -> &[u8] {
        &self.piece
    }

    fn claim(&mut self) -> Result<&[u8], OutOfMemory> {
        assert!(self.running, "query of a stopped device's claim");
        assert_ne!(self.claimed, Some(self.configurations), "redundant query");
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

    fn local(&mut self) -> Option<&mut Self> {
        (self.identity.local_memory != 0).then_some(self)
    }
}

impl LocalSource<OutOfMemory> for Live {
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
        assert!(self.identity.features & 0x8 != 0, "unsupported query");
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
        // Read as early as possible, so that most changes occur after the read.
        let bytes = self.snapshot(offset, length);

        self.ahead = Some((offset, bytes));
        self.pass();
    }

    fn run(&self) -> &[u8] {
        &self.piece
    }
}

/// A transfer of a [`Live`] device.
struct Transfer {
    live: Live,
    saver: Saver<OutOfMemory>,
    stream: Vec<u8>,
    /// Whether all initial bytes were reported as read.
    initial_read: bool,
}

/// Returns the places in a stream of local memory's bytes, and of claims with their headers. The
/// last section may be incomplete.
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
    // An incomplete header of a claim counts, too.
    if stream.get(at..at + 2) == Some(&[7, 0]) {
        places.push(at..stream.len());
    }
    places
}

/// Returns the last claim in a stream, or an empty slice.
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

    /// Reads at most `most` bytes once. Returns whether there were any.
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
                    assert_eq!(self.live.stale(), [], "paused");
                }
                self.assert_claimed();
                false
            }
            Piece::End => {
                assert!(!self.live.running);
                assert_eq!(self.live.stale(), [], "ended");
                false
            }
        }
    }

    /// Asserts that the device's claim is in the stream.
    fn assert_claimed(&self) {
        assert!(self.live.claim.is_empty() || last_claim(&self.stream) == self.live.claim);
    }

    /// Reads until the stream pauses or ends.
    fn read_to_pause(&mut self, most: usize) {
        while self.read(most) {}
    }

    /// Queries the outstanding bytes. Reinitialisation must be reported exactly if the device was
    /// reconfigured since the last report, and only for version 2. A device without rounds may omit
    /// it.
    fn left(&mut self, version: InfoVersion) -> Outstanding {
        let is_new = version == InfoVersion::V2
            && self
                .live
                .known
                .is_some_and(|known| known != self.live.configurations);
        let outstanding = self.saver.outstanding(&mut self.live, version).unwrap();

        if self.live.identity.features & FEATURE_LOCAL_DIRTY != 0 {
            assert_eq!(outstanding.reinitialised, is_new);
        } else {
            assert!(is_new || !outstanding.reinitialised);
        }
        if version == InfoVersion::V2 {
            self.live.known = Some(self.live.configurations);
        }
        if is_new {
            assert_eq!(outstanding.changed, 0);
            self.initial_read = false;
        }
        assert!(
            !self.initial_read || outstanding.initial == 0,
            "{outstanding:?}"
        );
        self.initial_read = outstanding.initial == 0;
        if self.initial_read && (version == InfoVersion::V2 || outstanding.changed == 0) {
            self.assert_claimed();
        }
        outstanding
    }

    fn stop(&mut self) {
        self.live.stop();
        self.saver.stopped();
    }

    /// Asserts that another device has the state of this one after the stream. It has exactly the
    /// granules that were ever read.
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
    /// Reads at most this number of bytes once.
    Read(usize),
    /// Reads until the stream pauses.
    ReadToPause,
    Change(Change),
    /// Sets the changes during each of the next calls.
    Meanwhile(Vec<Vec<Change>>),
    /// Queries the outstanding bytes.
    Left,
    /// Queries the outstanding bytes with version 2.
    LeftV2,
    /// Queries the maximum length of the rest of the stream.
    Rest,
    /// Reconfigures the device, with this claim.
    Configure(Vec<u8>),
}

/// Number of granules of the devices of [`steps`].
const GRANULES: usize = 24;

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0..GRANULES, any::<u8>()).prop_map(|(granule, byte)| Change::Write(granule, byte)),
        1 => (0..GRANULES).prop_map(Change::Discard),
    ]
}

/// A claim: nothing, or a record.
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
            1 => Just(Step::ReadToPause),
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

/// Executes `steps` with a device with these mapped granules.
fn after(mapped: &[usize], steps: &[Step]) -> Transfer {
    brought_by(steps, Live::with(GRANULES, mapped.iter().copied()))
}

/// Executes those of `steps` that require no local memory with a device without local memory.
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
            Step::ReadToPause => {
                transfer.live.meanwhile.clear();
                transfer.read_to_pause(usize::MAX);
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

/// Returns the number of bytes of the introduction, of claims and of local memory from `from` on.
fn counted(stream: &[u8], from: usize) -> u64 {
    let introduction = INTRODUCTION.saturating_sub(from as u64);
    let data = counted_bytes(stream)
        .into_iter()
        .map(|place| place.end.saturating_sub(place.start.max(from)) as u64);

    introduction + data.sum::<u64>()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// However a device changes and whenever it stops, another device has its state in the end.
    /// Each granule of the stopped device is read at most once.
    #[test]
    fn changing_device_arrives(
        mapped in prop::collection::vec(0..GRANULES, 0..GRANULES),
        steps in steps(),
        last in 1..9000usize,
        write in 1..9000usize,
    ) {
        let mut transfer = after(&mapped, &steps);

        transfer.stop();
        transfer.read_to_pause(last);
        for (granule, account) in &transfer.live.accounts {
            prop_assert!(account.read_stopped <= 1, "granule {} was read twice", granule);
        }
        transfer.assert_arrives(write);
    }

    /// If the stream has paused before the device stops, no local memory is read afterwards.
    #[test]
    fn paused_device_has_sent_everything(
        mapped in prop::collection::vec(0..GRANULES, 0..GRANULES),
        steps in steps(),
    ) {
        let mut transfer = after(&mapped, &steps);

        transfer.live.meanwhile.clear();
        transfer.read_to_pause(usize::MAX);
        let paused = transfer.stream.len();
        transfer.stop();
        transfer.read_to_pause(usize::MAX);
        prop_assert_eq!(counted(&transfer.stream, paused), 0);
        transfer.assert_arrives(usize::MAX);
    }

    /// If a device no longer changes, the reported outstanding bytes are exactly those that are
    /// then read: the introduction, a claim, and local memory. Initial bytes only decrease.
    #[test]
    fn numbers_are_exact(
        mapped in prop::collection::vec(0..GRANULES, 0..GRANULES),
        steps in steps(),
        version in prop_oneof![Just(InfoVersion::V1), Just(InfoVersion::V2)],
        piece in 1..9000usize,
    ) {
        let mut transfer = after(&mapped, &steps);
        transfer.live.meanwhile.clear();
        let mut outstanding = transfer.left(version);
        let mut positions = vec![(transfer.stream.len(), outstanding)];

        while transfer.read(piece) {
            let now = transfer.left(InfoVersion::V1);
            prop_assert!(now.initial <= outstanding.initial, "{:?} after {:?}", now, outstanding);
            outstanding = now;
            positions.push((transfer.stream.len(), now));
        }
        for (position, outstanding) in positions {
            prop_assert_eq!(
                outstanding.initial + outstanding.changed,
                counted(&transfer.stream, position),
                "{:?} at byte {}",
                outstanding,
                position
            );
        }
        prop_assert_eq!((outstanding.initial, outstanding.changed), (0, 0));
        prop_assert_eq!(transfer.live.stale(), []);
    }

    /// The same properties hold for a device without local memory.
    #[test]
    fn device_without_local_memory_arrives(
        steps in steps(),
        version in prop_oneof![Just(InfoVersion::V1), Just(InfoVersion::V2)],
        pause in any::<bool>(),
        piece in 1..300usize,
    ) {
        let mut transfer = after_without_local_memory(&steps);

        if pause {
            let outstanding = transfer.left(version);
            let before = transfer.stream.len();
            transfer.read_to_pause(piece);
            prop_assert_eq!(
                outstanding.initial + outstanding.changed,
                (transfer.stream.len() - before) as u64
            );
            let outstanding = transfer.left(InfoVersion::V1);
            prop_assert_eq!((outstanding.initial, outstanding.changed), (0, 0));
        }
        let bound = transfer.saver.left(&mut transfer.live).unwrap().unwrap();
        let before = transfer.stream.len();
        transfer.stop();
        transfer.read_to_pause(piece);
        prop_assert!((transfer.stream.len() - before) as u64 <= bound);
        transfer.assert_arrives(piece);
    }

    /// After a stop, the rest of the stream does not exceed the reported maximum.
    #[test]
    fn rest_is_bounded(
        mapped in prop::collection::vec(0..GRANULES, 0..GRANULES),
        steps in steps(),
    ) {
        let mut transfer = after(&mapped, &steps);

        transfer.live.meanwhile.clear();
        let bound = transfer.saver.left(&mut transfer.live).unwrap().unwrap();
        let before = transfer.stream.len();
        transfer.stop();
        transfer.read_to_pause(usize::MAX);
        prop_assert!((transfer.stream.len() - before) as u64 <= bound);
    }
}

/// Asserts that the second decoder reads the device's state from the completed `transfer`. For
/// devices whose memory is too large for another device.
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

/// A device whose bitmaps are read in two windows, with a range in both of them.
#[test]
fn windows() {
    let border = WINDOW as usize;
    let granules = border + 70;
    let mapped = [0, border - 1, border, border + 1, granules - 1];
    let mut transfer = Transfer::of(Live::with(granules, mapped));

    let outstanding = transfer.left(InfoVersion::V1);
    assert_eq!(
        (outstanding.initial, outstanding.changed),
        (INTRODUCTION + 0x5000, 0)
    );
    transfer.read_to_pause(usize::MAX);
    for (granule, byte) in [(1, 7), (border - 1, 8), (border, 9), (granules - 1, 10)] {
        transfer.live.change(Change::Write(granule, byte));
    }
    let outstanding = transfer.left(InfoVersion::V1);
    assert_eq!((outstanding.initial, outstanding.changed), (0, 0x4000));
    transfer.read_to_pause(usize::MAX);
    transfer.live.change(Change::Write(border + 2, 11));
    transfer.stop();
    transfer.read_to_pause(usize::MAX);
    assert_decodes(&transfer);
}

/// Rounds with several parts each, of a device that changes continuously, before and after the
/// current position of the round.
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
    transfer.read_to_pause(usize::MAX);
    assert_decodes(&transfer);
}

/// A change between two parts of a round, directly after the last range of the first, does not make
/// the second part begin there.
#[test]
fn parts_of_a_round_do_not_touch() {
    let most = 1024;
    let mut transfer = Transfer::of(Live::with(2 * most + 4, (0..=most).map(|n| 2 * n)));
    let next = 2 * most - 1;

    // The introduction, and a part with its data.
    while transfer.saver.progress().sections < 3 + most as u64 {
        assert!(transfer.read(usize::MAX));
    }
    transfer.live.change(Change::Write(next, 7));
    let outstanding = transfer.left(InfoVersion::V1);
    assert_eq!(outstanding.initial + outstanding.changed, 0x2000);
    transfer.read_to_pause(usize::MAX);
    transfer.stop();
    transfer.read_to_pause(usize::MAX);
    assert_decodes(&transfer);
}

/// A range that is read in several runs, which change before, during and after the read.
#[test]
fn ranges_of_several_runs() {
    let granules = 3 * DATA_RUN_MAX / 0x1000 + 1;

    for moment in 0..12 {
        let mut transfer = Transfer::of(Live::with(granules, 0..granules));
        let everywhere = (0..granules).step_by(100);
        let changes = everywhere.map(|granule| Change::Write(granule, 0xee));

        transfer.live.meanwhile = vec![vec![]; moment].into();
        transfer.live.meanwhile.push_back(changes.collect());
        transfer.read_to_pause(usize::MAX);
        transfer.stop();
        transfer.read_to_pause(usize::MAX);
        assert_decodes(&transfer);
    }
}

/// The local memory of a device without change tracking is read after the stop.
#[test]
fn device_without_change_tracking() {
    let mut live = Live::with(GRANULES, [1, 2, 5]);
    live.identity.features = FEATURE_LOCAL_MEMORY;
    let mut transfer = Transfer::of(live);

    let outstanding = transfer.left(InfoVersion::V2);
    assert_eq!(
        (outstanding.initial, outstanding.changed),
        (INTRODUCTION, 0)
    );
    transfer.read_to_pause(usize::MAX);
    assert_eq!(transfer.stream.len() as u64, INTRODUCTION);
    transfer.live.change(Change::Write(2, 9));
    transfer.live.change(Change::Write(7, 9));
    transfer.live.change(Change::Discard(5));
    let outstanding = transfer.left(InfoVersion::V2);
    assert_eq!((outstanding.initial, outstanding.changed), (0, 0));
    assert!(!transfer.read(1));
    transfer.stop();
    transfer.read_to_pause(usize::MAX);
    assert_decodes(&transfer);
    transfer.assert_arrives(usize::MAX);
}

/// Tracked guest memory is listed once, in as many parts as required, after all local memory.
/// Ranges without a gap are joined.
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

        transfer.read_to_pause(usize::MAX);
        transfer.live.change(Change::Write(4, 4));
        transfer.stop();
        transfer.saver.track(Tracked::new(0x2000, ranges).unwrap());
        transfer.read_to_pause(usize::MAX);
        let own = own_of(&transfer.live.identity);
        let state = decode(&transfer.stream, &own).unwrap();
        assert_eq!(state.guest, (count, count * 0x6000));
        assert_eq!(state.local, (2, 0x2000));
        assert_eq!(state.sections, 2 + 2 * 2 + sections + 2);
        transfer.assert_arrives(usize::MAX);
    }
}

/// A set of granules requires one bit for each, and is allocated only when local memory is first
/// read.
#[test]
fn memory() {
    const PART: usize = 16 + 1024 * 24;
    let mut transfer = Transfer::of(Live::with(130, [3]));

    with_allowance(0, || {
        for _ in 0..2 {
            assert!(transfer.read(usize::MAX));
        }
    });
    with_allowance(24 + PART, || transfer.read_to_pause(usize::MAX));
    transfer.live.change(Change::Write(129, 1));
    transfer.stop();
    with_allowance(0, || transfer.read_to_pause(usize::MAX));
    transfer.assert_arrives(usize::MAX);
}

/// An error of the query of outstanding bytes is permanent.
#[test]
fn failed_allocation_of_a_set_is_permanent() {
    let mut transfer = Transfer::of(Live::with(130, [3]));
    let error = Err(SaveError::OutOfMemory);

    let result = with_allowance(23, || {
        transfer
            .saver
            .outstanding(&mut transfer.live, InfoVersion::V1)
    });
    assert_eq!(result, error);
    assert!(transfer.saver.remaining(&mut transfer.live) == Err(SaveError::OutOfMemory));
}
