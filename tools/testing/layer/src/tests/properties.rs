// SPDX-License-Identifier: GPL-2.0

//! What holds for any device, any segmentation, and any bytes.

use super::{
    decoder::decode,
    encoder::{record, sound, Section, Stream, CONTROL_INTERFACE, DATA_INTERFACE},
};
use crate::{
    layer::{
        identity::Identity,
        restore::{Class, Destination},
        save::Saver,
        stream::DATA_RUN_MAX,
        tests::device::{Device, IDENTITY},
    },
    seam::{with_allowance, Bytes, OutOfMemory},
};
use proptest::{prelude::*, sample::Index};

/// A device with any content.
fn device() -> impl Strategy<Value = (Identity, Vec<(usize, usize)>, Vec<u8>)> {
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

/// Any control plane that the tests' devices load.
fn control() -> impl Strategy<Value = Vec<u8>> {
    let record = (
        1u16..=4,
        any::<Index>(),
        prop::collection::vec(any::<u8>(), 0..40),
    );

    prop::collection::vec(record, 1..12).prop_map(|records| {
        let mut control = Vec::new();
        for (index, (kind, version, content)) in records.into_iter().enumerate() {
            let versions = usize::from(IDENTITY.record_version[usize::from(kind)]);
            let version = 1 + version.index(versions) as u16;
            control.extend(self::record(kind, version, index as u32 * 3, &content));
        }
        control
    })
}

/// Any division of a stream.
fn segments() -> impl Strategy<Value = Vec<usize>> {
    let segment = prop_oneof![1..64usize, 1..5000usize, Just(usize::MAX)];
    // One long piece at the least, lest a long stream take for ever.
    prop::collection::vec(segment, 0..6).prop_map(|mut segments| {
        segments.push(1 << 16);
        segments
    })
}

/// Makes such a device; what is mapped is given as first granule and number of granules.
fn make((identity, mapped, control): &(Identity, Vec<(usize, usize)>, Vec<u8>)) -> Device {
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
    device.write_control(control).unwrap();
    device
}

/// Asserts that the restorer does what the decoder does with `stream`, within its bound of memory,
/// and that it leaves the device's control plane alone when it refuses.
fn assert_agrees(stream: &[u8], identity: Identity, segments: &[usize]) {
    let mut destination = Device::new(identity).unwrap();
    let untouched = Device::new(identity).unwrap();
    let bound = identity.control_plane_max as usize;
    destination.fill(9);

    let result = with_allowance(bound, || destination.restore(stream, segments));
    match (result, decode(stream, &identity)) {
        (Ok(()), Ok(state)) => {
            assert!(destination.has_state_of(&state.device(identity).unwrap()));
        }
        (Err(error), Err(_)) => {
            assert!(matches!(
                error.class(),
                Class::Invalid | Class::Incompatible
            ));
            assert!(destination.control[..] == untouched.control[..]);
        }
        (Ok(()), Err(refusal)) => panic!("accepted, though the decoder refuses: {refusal}"),
        (Err(error), Ok(_)) => panic!("refused, though the decoder accepts: {error}"),
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

/// A change of meaning: all CRCs are right again afterwards.
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
    Control(Vec<u8>),
    Version(u16, u16),
}

fn change() -> impl Strategy<Value = Change> {
    let section = any::<Index>;
    let interface = prop_oneof![
        Just(CONTROL_INTERFACE),
        Just(DATA_INTERFACE),
        (0..64u32).prop_map(|bit| CONTROL_INTERFACE ^ (1 << bit)),
        (0..64u32).prop_map(|bit| DATA_INTERFACE ^ (1 << bit)),
    ];
    let offset = prop_oneof![(0..17u64).prop_map(|granule| granule << 12), any::<u64>()];
    let size = prop_oneof![
        (0..17usize).prop_map(|granules| 8 + (granules << 12)),
        0..200usize,
    ];

    prop_oneof![
        (section(), prop_oneof![0..6u16, any::<u16>()]).prop_map(|(s, kind)| Change::Kind(s, kind)),
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
        (0..2u16, 0..9u16).prop_map(|(major, minor)| Change::Version(major, minor)),
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
            // Changes a byte where structures are, not bulk data.
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
                sections[count - 1] = Section::new(3, control.clone());
            }
            Self::Version(major, minor) => {
                stream.major = *major;
                stream.minor = *minor;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is written reads back, in any segmentation, and the length was estimated.
    #[test]
    fn round_trip(content in device(), read in segments(), write in segments()) {
        let mut source = make(&content);
        let mut destination = Device::new(content.0).unwrap();
        let stream = source.save(&read).unwrap();
        let state = decode(&stream, &content.0).unwrap();
        let mapped = state.runs.iter().map(|(_, bytes)| bytes.len() as u64).sum();

        destination.fill(0);
        destination.restore(&stream, &write).unwrap();
        prop_assert!(destination.has_state_of(&source));
        prop_assert!(state.device(content.0).unwrap().has_state_of(&source));
        prop_assert!(state.runs.iter().all(|(_, bytes)| bytes.len() <= DATA_RUN_MAX));
        prop_assert!(
            stream.len() as u64 <= Saver::<OutOfMemory>::estimate(&content.0, mapped)
        );
    }
}

proptest! {
    /// Bytes that were changed are refused, unless they are the same again.
    #[test]
    fn edited(edits in prop::collection::vec(edit(), 1..4), segments in segments()) {
        let sound = sound().sealed();
        let mut stream = sound.clone();

        for edit in &edits {
            edit.apply(&mut stream);
        }
        assert_agrees(&stream, IDENTITY, &segments);
        if stream != sound {
            prop_assert!(decode(&stream, &IDENTITY).is_err());
        }
    }

    /// A stream whose meaning was changed means to the layer what the documentation says.
    #[test]
    fn changed(changes in prop::collection::vec(change(), 1..4), segments in segments()) {
        let mut stream = sound();

        for change in &changes {
            change.apply(&mut stream);
        }
        assert_agrees(&stream.sealed(), IDENTITY, &segments);
        assert_agrees(&stream.without_end().0, IDENTITY, &segments);
    }

    /// Any bytes at all.
    #[test]
    fn foreign(stream in prop::collection::vec(any::<u8>(), 0..500)) {
        assert_agrees(&stream, IDENTITY, &[usize::MAX]);
    }

    /// Any control plane from a device is refused or sent whole.
    #[test]
    fn any_control(control in prop::collection::vec(any::<u8>(), 0..64), sound in control()) {
        for control in [control, sound] {
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

/// The host's seam does not hand out more than it is allowed to.
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
