// SPDX-License-Identifier: GPL-2.0

//! Properties for any device, any segmentation, and any bytes.

use proptest::{prelude::*, sample::Index, strategy::ValueTree, test_runner::TestRunner};
use vifa_decoder::{
    decode,
    encoder::{
        address, head, range, record, records, relation, sound, Section, Stream, CONTROL_INTERFACE,
        DATA_INTERFACE, RECEIVING_CONTROL_INTERFACE, RECEIVING_DATA_INTERFACE,
    },
    State,
};

use super::second::{device_of, own_at, own_of};
use crate::{
    layer::{
        identity::Identity,
        interface::{Function, Plane},
        progress::Progress,
        restore::{Class, Destination, LocalDestination, RestoreError},
        save::Saver,
        stream::DATA_RUN_MAX,
        tests::device::{Device, IDENTITY},
    },
    seam::{with_allowance, Bytes, OutOfMemory},
};

/// Maximum length of a part of the address record file, in bytes.
const PART_MAX: usize = 16 + 24 * 1024;

/// The content of a device: its identity, the mapped ranges as first granule and number of
/// granules, and its records.
type Content = (Identity, Vec<(usize, usize)>, Vec<Vec<u8>>);

/// A device with any content.
fn device() -> impl Strategy<Value = Content> {
    let identity = (0u32..5, 1u64..0x28_0000).prop_map(|(order, size)| {
        let granule = 0x1000 << order;
        Identity {
            granule,
            local_memory: size.next_multiple_of(granule.into()),
            ..IDENTITY
        }
    });
    let mapped = prop::collection::vec((any::<usize>(), 1..400usize), 0..8);

    (identity, mapped, control())
}

/// Any valid records of the test devices.
fn control() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let record = (
        1u16..=4,
        any::<Index>(),
        prop::collection::vec(any::<u8>(), 0..40),
    );

    prop::collection::vec(record, 1..12).prop_map(|records| {
        let mut there = [false; 16];
        let mut control = Vec::new();

        for (index, (kind, version, content)) in records.into_iter().enumerate() {
            let versions = usize::from(IDENTITY.record_version[usize::from(kind)]);
            let version = 1 + version.index(versions) as u16;
            // At most one record of each of the first three types is valid.
            let kind = if there[usize::from(kind)] { 4 } else { kind };
            let index = if kind == 4 { index as u32 * 3 } else { 0 };
            let version = version.min(IDENTITY.record_version[usize::from(kind)]);

            there[usize::from(kind)] = true;
            control.push(self::record(kind, version, index, &content));
        }
        control
    })
}

/// Any division of a stream.
fn segments() -> impl Strategy<Value = Vec<usize>> {
    let segment = prop_oneof![1..64usize, 1..5000usize, Just(usize::MAX)];
    // At least one long piece limits the run time for a long stream.
    prop::collection::vec(segment, 0..6).prop_map(|mut segments| {
        segments.push(1 << 16);
        segments
    })
}

/// Creates a device with this content.
fn make((identity, mapped, control): &Content) -> Device {
    let mut device = Device::new(*identity).unwrap();
    let granule = identity.granule as usize;
    let granules = identity.local_memory as usize / granule;

    for (first, count) in mapped {
        let first = first % granules;
        for number in first..granules.min(first + count) {
            for (position, byte) in device.buffer()[..granule].iter_mut().enumerate() {
                *byte = (position ^ (position >> 8) ^ (number * *count)) as u8;
            }
            device
                .write_local((number * granule) as u64, granule)
                .unwrap();
        }
    }
    device.write_control(&control.concat()).unwrap();
    device
}

/// Asserts that both have the same totals.
fn assert_accounts(progress: &Progress, state: &State, length: usize) {
    let relations = progress.relations.unwrap();
    let outputs = [Plane::Control, Plane::Data].map(|plane| relations.plane(plane).output.as_raw());
    let data_bytes: usize = state.runs.iter().map(|(_, bytes)| bytes.len()).sum();

    assert_eq!(progress.stream_bytes, length as u64);
    assert_eq!(progress.sections, state.sections);
    assert_eq!(outputs[..], state.outputs);
    assert_eq!(
        (
            progress.addresses.local_ranges,
            progress.addresses.local_bytes,
        ),
        state.local,
    );
    assert_eq!(
        (
            progress.addresses.guest_ranges,
            progress.addresses.guest_bytes,
        ),
        state.guest,
    );
    assert_eq!(progress.data_bytes, data_bytes as u64);
    assert_eq!(progress.records.count, state.count);
    assert_eq!(progress.records.bytes, state.control.len() as u64);
}

/// Asserts that the restorer and the decoder agree on `stream`, that the restorer allocates no more
/// than its limit, and that a refusal does not change the device's control plane. Returns whether
/// both accept.
fn assert_agrees(stream: &[u8], control_interface: u64, segments: &[usize]) -> bool {
    let mut destination = Device::new(IDENTITY).unwrap();
    let untouched = Device::new(IDENTITY).unwrap();
    let bound = IDENTITY.control_plane_max as usize + PART_MAX;
    destination.fill(9);
    destination.function = Function {
        domain: (control_interface >> 32) as u32,
        bus: (control_interface >> 16) as u8,
        devfn: (control_interface >> 8) as u8,
    };

    let result = with_allowance(bound, || destination.restore(stream, segments));
    match (result, decode(stream, &own_at(control_interface))) {
        (Ok(progress), Ok(state)) => {
            assert_accounts(&progress, &state, stream.len());
            assert!(destination.has_state_of(&device_of(&state, IDENTITY)));
            assert_eq!(destination.claims as usize, state.claims.len());
            let last = state.claims.last().map_or(&[][..], Vec::as_slice);
            assert!(destination.tried[..] == *last);
            assert!(destination.obtained[..] == state.control[..]);
            true
        }
        (Err(error), Err(_)) => {
            assert!(matches!(
                error.class(),
                Class::Invalid | Class::Incompatible
            ));
            assert!(destination.control[..] == untouched.control[..]);
            assert!(destination.obtained.is_empty() || error == RestoreError::Excess);
            false
        }
        (Ok(_), Err(refusal)) => panic!("accepted, but the decoder refuses: {refusal}"),
        (Err(error), Ok(_)) => panic!("refused, but the decoder accepts: {error}"),
    }
}

/// A change of bytes.
#[derive(Clone, Debug)]
enum Edit {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize, Index),
    Truncate(Index),
    Append(Vec<u8>),
}

fn edit() -> impl Strategy<Value = Edit> {
    let bytes = || prop::collection::vec(any::<u8>(), 1..40);
    let position = any::<Index>;

    prop_oneof![
        4 => (position(), 1u8..).prop_map(|(at, bits)| Edit::Flip(at, bits)),
        1 => (position(), bytes()).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        1 => (position(), 1..5000usize).prop_map(|(at, count)| Edit::Remove(at, count)),
        1 => (position(), 1..5000usize, position())
            .prop_map(|(from, count, to)| Edit::Repeat(from, count, to)),
        1 => position().prop_map(Edit::Truncate),
        1 => bytes().prop_map(Edit::Append),
    ]
}

impl Edit {
    fn apply(&self, stream: &mut Vec<u8>) {
        if stream.is_empty() {
            return;
        }
        let length = stream.len();
        match self {
            Self::Flip(at, bits) => stream[at.index(length)] ^= bits,
            Self::Insert(at, bytes) => {
                let at = at.index(length);
                stream.splice(at..at, bytes.iter().copied());
            }
            Self::Remove(at, count) => {
                let at = at.index(length);
                stream.drain(at..length.min(at + count));
            }
            Self::Repeat(from, count, to) => {
                let from = from.index(length);
                let bytes = stream[from..length.min(from + count)].to_vec();
                let to = to.index(length);
                stream.splice(to..to, bytes);
            }
            Self::Truncate(at) => stream.truncate(at.index(length)),
            Self::Append(bytes) => stream.extend(bytes),
        }
    }
}

/// A change of meaning. All CRCs are corrected afterwards.
#[derive(Clone, Debug)]
enum Change {
    Kind(Index, u16),
    Flags(Index, u16),
    Interface(Index, u64),
    Sequence(Index, u64),
    PayloadCrc(Index, u32),
    Byte(Index, Index, u8),
    Field(Index, Index, u8),
    Resize(Index, usize),
    Offset(Index, u64),
    Remove(Index),
    Repeat(Index, Index),
    Swap(Index, Index),
    Insert(Index, Vec<u8>),
    Control(Vec<Vec<u8>>),
    Relations([u64; 4]),
    Version(u16, u16),
}

fn change() -> impl Strategy<Value = Change> {
    let section = any::<Index>;
    let interface = prop_oneof![
        Just(CONTROL_INTERFACE),
        Just(DATA_INTERFACE),
        (0..64u32).prop_map(|bit| CONTROL_INTERFACE ^ (1 << bit)),
        (0..64u32).prop_map(|bit| DATA_INTERFACE ^ (1 << bit)),
    ]
    .boxed();
    let party = prop_oneof![
        Just(0),
        Just(RECEIVING_CONTROL_INTERFACE),
        Just(RECEIVING_DATA_INTERFACE),
        interface.clone(),
    ];
    let offset = prop_oneof![(0..17u64).prop_map(|granule| granule << 12), any::<u64>()];
    let size = prop_oneof![
        (0..17usize).prop_map(|granules| 8 + (granules << 12)),
        0..200usize,
    ];

    prop_oneof![
        (section(), prop_oneof![0..9u16, any::<u16>()]).prop_map(|(s, kind)| Change::Kind(s, kind)),
        (section(), prop_oneof![0..4u16, any::<u16>()])
            .prop_map(|(s, flags)| Change::Flags(s, flags)),
        (section(), interface).prop_map(|(s, interface)| Change::Interface(s, interface)),
        (section(), 0..6u64).prop_map(|(s, sequence)| Change::Sequence(s, sequence)),
        (section(), any::<u32>()).prop_map(|(s, crc)| Change::PayloadCrc(s, crc)),
        (section(), any::<Index>(), any::<u8>())
            .prop_map(|(s, at, byte)| Change::Byte(s, at, byte)),
        (section(), any::<Index>(), any::<u8>())
            .prop_map(|(s, at, byte)| Change::Field(s, at, byte)),
        (section(), size).prop_map(|(s, size)| Change::Resize(s, size)),
        (section(), offset).prop_map(|(s, offset)| Change::Offset(s, offset)),
        section().prop_map(Change::Remove),
        (section(), section()).prop_map(|(from, to)| Change::Repeat(from, to)),
        (section(), section()).prop_map(|(one, other)| Change::Swap(one, other)),
        (section(), prop::collection::vec(any::<u8>(), 0..100))
            .prop_map(|(at, payload)| Change::Insert(at, payload)),
        control().prop_map(Change::Control),
        prop::array::uniform4(party).prop_map(Change::Relations),
        (0..3u16, 0..9u16).prop_map(|(major, minor)| Change::Version(major, minor)),
    ]
}

impl Change {
    fn apply(&self, stream: &mut Stream) {
        let sections = &mut stream.sections;
        let count = sections.len();
        if count == 0 {
            return;
        }
        match self {
            Self::Kind(at, kind) => sections[at.index(count)].kind = *kind,
            Self::Flags(at, flags) => sections[at.index(count)].flags = *flags,
            Self::Interface(at, interface) => sections[at.index(count)].interface = *interface,
            Self::Sequence(at, sequence) => sections[at.index(count)].sequence = Some(*sequence),
            Self::PayloadCrc(at, crc) => sections[at.index(count)].payload_crc = Some(*crc),
            Self::Byte(at, position, byte) => {
                let payload = &mut sections[at.index(count)].payload;
                if !payload.is_empty() {
                    let position = position.index(payload.len());
                    payload[position] = *byte;
                }
            }
            // Changes a byte of a structure, not of bulk data.
            Self::Field(at, position, byte) => {
                let payload = &mut sections[at.index(count)].payload;
                if !payload.is_empty() {
                    let position = position.index(payload.len().min(120));
                    payload[position] = payload[position].wrapping_add(byte % 4);
                }
            }
            Self::Resize(at, size) => sections[at.index(count)].payload.resize(*size, 0),
            Self::Offset(at, offset) => {
                let payload = &mut sections[at.index(count)].payload;
                if payload.len() >= 8 {
                    payload[..8].copy_from_slice(&offset.to_le_bytes());
                }
            }
            Self::Remove(at) => {
                sections.remove(at.index(count));
            }
            Self::Repeat(from, to) => {
                let section = sections[from.index(count)].clone();
                sections.insert(to.index(count), section);
            }
            Self::Swap(one, other) => sections.swap(one.index(count), other.index(count)),
            Self::Insert(at, payload) => {
                sections.insert(at.index(count), Section::optional(payload.clone()));
            }
            Self::Control(control) => {
                sections[count - 1] = Section::control(control);
            }
            Self::Relations([output, receiver, data_output, data_receiver]) => {
                let relations = [
                    relation(1, *output, *receiver),
                    relation(2, *data_output, *data_receiver),
                ];
                sections[1.min(count - 1)] = Section::new(2, relations.concat());
            }
            Self::Version(major, minor) => {
                stream.major = *major;
                stream.minor = *minor;
            }
        }
    }
}

/// An element of a composed stream.
#[derive(Clone, Debug)]
enum Item {
    /// A part of local memory: the increment of the round, and ranges as gap and length in
    /// granules.
    Local(u32, Vec<(u64, u64)>),
    /// A part of guest memory: the order of the page size, and ranges as above.
    Guest(u32, Vec<(u64, u64)>),
    Optional(Vec<u8>),
    Claim(Vec<Vec<u8>>),
}

fn item() -> impl Strategy<Value = Item> {
    let ranges = move || {
        let gap = prop_oneof![9 => 1..3u64, 1 => Just(0)];
        prop::collection::vec((gap, prop_oneof![9 => Just(1), 1 => 0..3u64]), 1..4)
    };

    prop_oneof![
        3 => (prop_oneof![6 => 0..2u32, 1 => Just(2)], ranges())
            .prop_map(|(step, ranges)| Item::Local(step, ranges)),
        1 => (prop_oneof![9 => Just(0), 1 => 0..3u32], ranges())
            .prop_map(|(order, ranges)| Item::Guest(order, ranges)),
        1 => prop::collection::vec(any::<u8>(), 0..50).prop_map(Item::Optional),
        1 => control().prop_map(Item::Claim),
    ]
}

/// Composes a stream of these items with the records `control`.
fn compose(items: &[Item], control: &[Vec<u8>]) -> Stream {
    let mut stream = head();
    let mut round = 0;
    let mut next = [0; 2];
    let mut first = true;

    for (number, item) in items.iter().enumerate() {
        match item {
            Item::Local(step, ranges) => {
                let step = if first { 0 } else { *step };
                first = false;
                if step != 0 {
                    next[0] = 0;
                }
                round += step;
                let mut parts = Vec::new();
                for (gap, length) in ranges {
                    let start = next[0] + gap;
                    next[0] = start + length;
                    parts.push((start << 12, vec![number as u8; (*length as usize) << 12]));
                }
                stream.push_part(round, &parts);
            }
            Item::Guest(order, ranges) => {
                let granule = 0x1000u32 << order;
                let mut entries = Vec::new();
                for (gap, length) in ranges {
                    let start = (next[1] + gap).next_multiple_of(1 << order);
                    let length = (length << order).max(*length);
                    next[1] = start + length;
                    entries.push(range(start << 12, length << 12, 0));
                }
                stream
                    .sections
                    .push(Section::new(3, address(2, 0, granule, &entries)));
            }
            Item::Optional(payload) => stream.sections.push(Section::optional(payload.clone())),
            Item::Claim(records) => stream.sections.push(Section::claim(records)),
        }
    }
    stream.sections.push(Section::control(control));
    stream
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A saved device is restored, in any segmentation, and the length does not exceed the
    /// estimate.
    #[test]
    fn round_trip(content in device(), read in segments(), write in segments()) {
        let mut source = make(&content);
        let mut destination = Device::new(content.0).unwrap();
        let own = own_of(&content.0);
        let stream = source.save(&read).unwrap();
        let state = decode(&stream, &own).unwrap();
        let mapped = state.runs.iter().map(|(_, bytes)| bytes.len() as u64).sum();

        destination.fill(0);
        let progress = destination.restore(&stream, &write).unwrap();
        assert_accounts(&progress, &state, stream.len());
        prop_assert!(destination.has_state_of(&source));
        prop_assert!(device_of(&state, content.0).has_state_of(&source));
        prop_assert!(state.runs.iter().all(|(_, bytes)| bytes.len() <= DATA_RUN_MAX));
        prop_assert!(
            stream.len() as u64 <= Saver::<OutOfMemory>::estimate(&content.0, mapped)
        );
    }
}

proptest! {
    /// Changed bytes are refused, unless the result is the original.
    #[test]
    fn edited(edits in prop::collection::vec(edit(), 1..4), segments in segments()) {
        let sound = sound().sealed();
        let mut stream = sound.clone();

        for edit in &edits {
            edit.apply(&mut stream);
        }
        let accepted = assert_agrees(&stream, CONTROL_INTERFACE, &segments);
        prop_assert_eq!(accepted, stream == sound);
    }

    /// The layer and the decoder agree on a stream with a changed meaning.
    #[test]
    fn changed(
        items in prop::collection::vec(item(), 0..4),
        control in control(),
        changes in prop::collection::vec(change(), 0..3),
        segments in segments(),
        control_interface in prop_oneof![
            Just(CONTROL_INTERFACE),
            Just(RECEIVING_CONTROL_INTERFACE),
        ],
    ) {
        let mut stream = compose(&items, &control);

        for change in &changes {
            change.apply(&mut stream);
        }
        assert_agrees(&stream.sealed(), control_interface, &segments);
        assert_agrees(&stream.without_end().0, control_interface, &segments);
    }

    /// The layer and the decoder agree on any bytes.
    #[test]
    fn foreign(stream in prop::collection::vec(any::<u8>(), 0..500)) {
        assert_agrees(&stream, CONTROL_INTERFACE, &[usize::MAX]);
    }

    /// Any control plane of a device is refused or sent completely.
    #[test]
    fn any_control(control in prop::collection::vec(any::<u8>(), 0..64), sound in control()) {
        for control in [control, sound.concat()] {
            let mut source = Device::new(IDENTITY).unwrap();
            let mut destination = Device::new(IDENTITY).unwrap();

            source.write_control(&control).unwrap();
            if let Ok(stream) = source.save(&[usize::MAX]) {
                destination.restore(&stream, &[usize::MAX]).unwrap();
                prop_assert!(destination.has_state_of(&source));
            }
        }
    }
}

/// Most composed streams of [`changed`] are valid, so that the test is meaningful.
#[test]
fn composed_streams_are_mostly_valid() {
    let mut runner = TestRunner::deterministic();
    let items = prop::collection::vec(item(), 0..4);
    let accepted = (0..200).filter(|_| {
        let items = items.new_tree(&mut runner).unwrap().current();
        let stream = compose(&items, &records()).sealed();
        assert_agrees(&stream, CONTROL_INTERFACE, &[usize::MAX])
    });
    let accepted = accepted.count();

    assert!((100..190).contains(&accepted), "{accepted} of 200");
}

/// The host's seam allocates no more than its allowance.
#[test]
fn allowance() {
    let allocate = |length| Bytes::with_capacity(length).map(|_| ());

    assert_eq!(with_allowance(10, || allocate(11)), Err(OutOfMemory));
    assert_eq!(with_allowance(10, || allocate(10)), Ok(()));
    assert_eq!(
        with_allowance(10, || allocate(5).and_then(|()| allocate(6))),
        Err(OutOfMemory),
    );
}
