// SPDX-License-Identifier: GPL-2.0

//! Tests that recorded streams load, and that saving still results in the recorded streams.
//!
//! `VIFA_RECORD=1 cargo test` records missing streams. An existing one is never changed, because it
//! is a stream of a released version.

use std::{env, fs, io::ErrorKind, path::Path};

use vifa_decoder::{
    decode,
    encoder::{
        address, crc, head, range, record, records, Section, Stream, CONTROL_INTERFACE,
        DATA_INTERFACE, RECEIVING_CONTROL_INTERFACE, RECEIVING_DATA_INTERFACE,
    },
};

use super::second::{device_of, own};
use crate::{
    layer::{
        address::{Range, Tracked},
        identity::{Identity, FEATURE_LOCAL_DIRTY},
        interface::Function,
        restore::{Destination, LocalDestination},
        save::{Begin, Saver},
        tests::device::{self, Device, CONTROL},
    },
    seam::Bytes,
};

/// The identity of the devices of the first recorded streams.
const IDENTITY: Identity = Identity {
    features: device::IDENTITY.features & !FEATURE_LOCAL_DIRTY,
    ..device::IDENTITY
};

/// Reads a recorded stream. If it is missing and recording is requested, records `stream`.
fn recorded(name: &str, stream: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name);

    match fs::read(&path) {
        Err(error)
            if error.kind() == ErrorKind::NotFound && env::var_os("VIFA_RECORD").is_some() =>
        {
            fs::write(&path, stream).unwrap();
            stream.to_vec()
        }
        golden => golden.unwrap(),
    }
}

/// Returns `stream` with the minor version of `other`, sealed again.
fn with_minor_of(other: &[u8], stream: &[u8]) -> Vec<u8> {
    let mut stream = stream.to_vec();
    let end = stream.len() - 64;
    let mut at = 16;
    let put = |place: &mut [u8], crc: u32| place[..4].copy_from_slice(&crc.to_le_bytes());

    stream[10..12].copy_from_slice(&other[10..12]);
    let mut headers = stream[..12].to_vec();
    put(&mut stream[12..], crc(&headers));
    while at < end {
        let header = &stream[at..at + 28];
        let length = u32::from_le_bytes(header[4..8].try_into().unwrap());
        headers.extend(header);
        at += 32 + length as usize;
    }
    // The totals, the end section's payload, and its header.
    put(&mut stream[end + 56..], crc(&headers));
    let payload = crc(&stream[end + 32..]);
    put(&mut stream[end + 24..], payload);
    let header = crc(&stream[end..end + 28]);
    put(&mut stream[end + 28..], header);
    stream
}

/// The expected state of a destination after a stream.
struct Expected {
    identity: Identity,
    /// The address of the destination.
    function: Function,
    control_interface: u64,
    /// Offsets and bytes of mapped memory.
    local: Vec<(u64, Vec<u8>)>,
    sections: u64,
    local_ranges: u64,
    guest_ranges: u64,
    /// The claims, in order.
    claims: Vec<Vec<u8>>,
}

impl Default for Expected {
    fn default() -> Self {
        Self {
            identity: IDENTITY,
            function: Function {
                domain: 0,
                bus: 2,
                devfn: 0x11,
            },
            control_interface: CONTROL_INTERFACE,
            local: vec![],
            sections: 0,
            local_ranges: 0,
            guest_ranges: 0,
            claims: vec![],
        }
    }
}

impl Expected {
    fn device(&self) -> Device {
        let mut device = Device::new(self.identity).unwrap();

        for (offset, bytes) in &self.local {
            for (start, run) in (*offset..).step_by(0x10_0000).zip(bytes.chunks(0x10_0000)) {
                device.buffer()[..run.len()].copy_from_slice(run);
                device.write_local(start, run.len()).unwrap();
            }
        }
        device.write_control(&CONTROL).unwrap();
        device
    }

    /// Asserts that a device has this state after the recorded stream, and that the decoder reads
    /// the same state.
    fn check(&self, name: &str, today: &[u8]) {
        let golden = recorded(name, today);

        // Only the version itself may differ: a minor version does not change existing sections.
        assert!(
            with_minor_of(&golden, today) == golden,
            "{name} is not what is sent today"
        );
        self.check_with(self.identity, &golden);
        // A current device, which has more features.
        self.check_with(
            Identity {
                features: device::IDENTITY.features,
                ..self.identity
            },
            &golden,
        );
    }

    /// Asserts that a device with this identity has this state after `golden`.
    fn check_with(&self, identity: Identity, golden: &[u8]) {
        let device = self.device();
        let mut destination = Device::new(identity).unwrap();

        destination.function = self.function;
        destination.fill(5);
        destination.control.fill(0);
        let progress = destination.restore(golden, &[usize::MAX]).unwrap();
        assert!(destination.has_state_of(&device));
        assert_eq!(progress.sections, self.sections);
        assert_eq!(progress.addresses.local_ranges, self.local_ranges);
        assert_eq!(progress.addresses.guest_ranges, self.guest_ranges);
        assert_eq!(progress.stream_bytes, golden.len() as u64);
        assert_eq!(destination.claims as usize, self.claims.len());
        assert!(destination.tried[..] == self.claims.last().map_or(&[][..], Vec::as_slice)[..]);
        assert!(destination.obtained[..] == CONTROL);

        let own = own(&identity, self.control_interface);
        let decoded = decode(golden, &own).unwrap();
        assert!(device_of(&decoded, identity).has_state_of(&device));
        assert_eq!(decoded.sections, self.sections);
        assert_eq!(decoded.local.0, self.local_ranges);
        assert_eq!(decoded.guest.0, self.guest_ranges);
        assert_eq!(decoded.claims, self.claims);
    }
}

/// Returns the offset of a granule and the bytes that [`Device::fill`] writes.
fn pattern(granule: usize) -> (u64, Vec<u8>) {
    let start = granule * 0x1000;
    let bytes =
        (start..start + 0x1000).map(|position| (position ^ (position >> 8) ^ granule) as u8);

    (start as u64, bytes.collect())
}

#[test]
fn sparse() {
    let mut source = Device::new(IDENTITY).unwrap();

    for granule in [3, 4, 15] {
        source.fill(granule);
    }
    Expected {
        local: [3, 4, 15].map(pattern).to_vec(),
        sections: 7,
        local_ranges: 2,
        ..Expected::default()
    }
    .check("1.0-sparse.stream", &source.save(&[usize::MAX]).unwrap());
}

#[test]
fn no_local_memory() {
    let identity = Identity {
        features: 0,
        granule: 0,
        local_memory: 0,
        ..IDENTITY
    };
    let mut source = Device::new(identity).unwrap();

    Expected {
        identity,
        sections: 4,
        ..Expected::default()
    }
    .check(
        "1.0-no-local-memory.stream",
        &source.save(&[usize::MAX]).unwrap(),
    );
}

/// Several parts, and a range with two data sections.
#[test]
fn parts() {
    let local_memory = 0x20_0000u64;
    let identity = Identity {
        local_memory,
        ..IDENTITY
    };
    let mut stream = head();
    let long = (0..0x10_2000u32).map(|position| (position >> 12) as u8);
    let first = [(0, vec![1; 0x1000]), (0x2000, long.collect())];
    let second = [(0x10_5000, vec![2; 0x2000])];
    let third = [(0x10_8000, vec![3; 0x1000]), (0x1f_f000, vec![4; 0x1000])];

    stream.sections[0].payload[72..80].copy_from_slice(&local_memory.to_le_bytes());
    for part in [&first[..], &second, &third] {
        stream.push_part(0, part);
    }
    stream.sections.push(Section::control(&records()));
    Expected {
        identity,
        local: [&first[..], &second, &third].concat(),
        sections: 13,
        local_ranges: 5,
        ..Expected::default()
    }
    .check("1.0-parts.stream", &stream.sealed());
}

/// Memory that changes after it was sent is sent again.
#[test]
fn rounds() {
    let rounds = [
        vec![(0x1000, vec![1; 0x3000]), (0x8000, vec![2; 0x1000])],
        vec![(0x2000, vec![3; 0x1000]), (0x9000, vec![4; 0x1000])],
        vec![(0x2000, vec![5; 0x1000])],
    ];
    let mut stream = head();

    for (round, ranges) in (0..).zip(&rounds) {
        stream.push_part(round, ranges);
    }
    stream.sections.push(Section::control(&records()));
    Expected {
        local: rounds.concat(),
        sections: 12,
        local_ranges: 5,
        ..Expected::default()
    }
    .check("1.0-rounds.stream", &stream.sealed());
}

#[test]
fn addressed() {
    let mut stream = Stream::new(vec![
        Section::identity(),
        Section::relations(RECEIVING_CONTROL_INTERFACE, RECEIVING_DATA_INTERFACE),
    ]);

    stream.push_part(0, &[(0x4000, vec![7; 0x1000])]);
    stream.sections.push(Section::control(&records()));
    Expected {
        function: Function {
            domain: 1,
            bus: 3,
            devfn: 2,
        },
        control_interface: RECEIVING_CONTROL_INTERFACE,
        local: vec![(0x4000, vec![7; 0x1000])],
        sections: 6,
        local_ranges: 1,
        ..Expected::default()
    }
    .check("1.0-addressed.stream", &stream.sealed());
}

/// Tracked guest memory between parts of local memory.
#[test]
fn guest_memory() {
    let mut stream = head();
    let guest = |granule, ranges: &[Vec<u8>]| Section::new(3, address(2, 0, granule, ranges));

    stream.sections.push(guest(
        0x1000,
        &[range(0, 0x8_0000, 0), range(0x10_0000, 0x4000_0000, 0)],
    ));
    stream.push_part(0, &[(0x4000, vec![8; 0x1000])]);
    stream
        .sections
        .push(guest(0x20_0000, &[range(0x1_0000_0000, 0x4000_0000, 0)]));
    stream.push_part(0, &[(0x6000, vec![9; 0x1000])]);
    stream.sections.push(Section::control(&records()));
    Expected {
        local: vec![(0x4000, vec![8; 0x1000]), (0x6000, vec![9; 0x1000])],
        sections: 10,
        local_ranges: 2,
        guest_ranges: 3,
        ..Expected::default()
    }
    .check("1.0-guest-memory.stream", &stream.sealed());
}

/// Sections that a later minor version may send.
#[test]
fn optional_sections() {
    let optional = |interface, payload| Section {
        interface,
        ..Section::optional(payload)
    };
    let mut later = head();

    later.minor = 7;
    later
        .sections
        .push(optional(CONTROL_INTERFACE, vec![9; 5000]));
    later.push_part(
        0,
        &[(0x1000, vec![0xa5; 0x2000]), (0xf000, vec![0x5a; 0x1000])],
    );
    later.sections.push(optional(DATA_INTERFACE, vec![]));
    later.sections.push(Section::control(&records()));
    later.sections.push(optional(DATA_INTERFACE, vec![1, 2, 3]));
    Expected {
        local: vec![(0x1000, vec![0xa5; 0x2000]), (0xf000, vec![0x5a; 0x1000])],
        sections: 10,
        local_ranges: 2,
        ..Expected::default()
    }
    .check("1.7-optional-sections.stream", &later.sealed());
}

/// A device that changes while it is saved, and whose writes to guest memory are logged.
#[test]
fn pre_copy() {
    let range = |start, length| Range { start, length };
    let mut source = Device::new(device::IDENTITY).unwrap();
    let mut saver = Saver::new(Begin::PreCopy);
    let mut stream = Bytes::with_capacity(0).unwrap();
    let mut read_on = |source: &mut Device, saver: &mut Saver<_>| {
        source.read(saver, &[usize::MAX], &mut stream).unwrap();
    };

    for granule in [1, 2, 3, 8] {
        source.fill(granule);
    }
    read_on(&mut source, &mut saver);
    source.change(2, 0x22);
    source.change(9, 0x99);
    read_on(&mut source, &mut saver);
    source.change(2, 0x33);
    saver.stopped();
    let ranges = [
        range(0, 0x8_0000),
        range(0x10_0000, 0x2000),
        range(0x10_2000, 0x3fff_e000),
        range(0x1_0000_0000, 0x4000_0000),
    ];
    saver.track(Tracked::new(0x1000, ranges).unwrap());
    read_on(&mut source, &mut saver);

    let written = |granule: u64, byte| (granule * 0x1000, vec![byte; 0x1000]);
    let mut local = [1, 3, 8].map(pattern).to_vec();
    local.extend([written(2, 0x33), written(9, 0x99)]);
    Expected {
        identity: device::IDENTITY,
        local,
        sections: 13,
        local_ranges: 5,
        guest_ranges: 3,
        ..Expected::default()
    }
    .check("1.0-pre-copy.stream", &stream);
}

/// A device that its guest reconfigures while it is saved.
#[test]
fn claims() {
    let claims = [
        record(1, 1, 0, &[0xc0, 0xff, 0xee]),
        [
            record(1, 1, 0, &[0xc0, 0xff, 0xee, 0x11]),
            record(4, 2, 9, &[]),
        ]
        .concat(),
        record(4, 1, 0, &[7; 100]),
    ];
    let mut source = Device::new(device::IDENTITY).unwrap();
    let mut saver = Saver::new(Begin::PreCopy);
    let mut stream = Bytes::with_capacity(0).unwrap();

    source.fill(3);
    for (claim, granule) in claims.iter().zip([8, 9, 8]) {
        source.configure(claim).unwrap();
        source.read(&mut saver, &[usize::MAX], &mut stream).unwrap();
        source.change(granule, granule as u8);
    }
    // The last configuration is only in the control plane.
    source.configure(&record(1, 1, 0, &[])).unwrap();
    saver.stopped();
    source.read(&mut saver, &[usize::MAX], &mut stream).unwrap();

    let written = |granule: u64| (granule * 0x1000, vec![granule as u8; 0x1000]);
    Expected {
        identity: device::IDENTITY,
        local: vec![pattern(3), written(8), written(9)],
        sections: 15,
        local_ranges: 4,
        claims: claims.to_vec(),
        ..Expected::default()
    }
    .check("1.1-claims.stream", &stream);
}

/// A device without local memory, which sends only records.
#[test]
fn claims_without_local_memory() {
    let identity = Identity {
        features: 0,
        granule: 0,
        local_memory: 0,
        ..IDENTITY
    };
    let claims = [record(1, 1, 0, &[1]), record(1, 1, 0, &[2])];
    let mut source = Device::new(identity).unwrap();
    let mut saver = Saver::new(Begin::PreCopy);
    let mut stream = Bytes::with_capacity(0).unwrap();

    for claim in &claims {
        source.configure(claim).unwrap();
        source.read(&mut saver, &[usize::MAX], &mut stream).unwrap();
    }
    saver.stopped();
    source.read(&mut saver, &[usize::MAX], &mut stream).unwrap();
    Expected {
        identity,
        sections: 6,
        claims: claims.to_vec(),
        ..Expected::default()
    }
    .check("1.1-claims-alone.stream", &stream);
}
