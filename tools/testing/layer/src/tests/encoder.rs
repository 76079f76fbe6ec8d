// SPDX-License-Identifier: GPL-2.0

//! Composes streams, sound ones and others, from what the documentation says.

/// CRC-32C, bit by bit.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    let mut register = u32::MAX;

    for byte in bytes {
        register ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = register & 1 == 1;
            register >>= 1;
            if carry {
                register ^= 0x82f6_3b78;
            }
        }
    }
    register ^ u32::MAX
}

/// The interfaces of 0000:02:02.1.
pub(crate) const CONTROL_INTERFACE: u64 = 0x21101;
pub(crate) const DATA_INTERFACE: u64 = 0x21102;

/// A section before it is sealed.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) interface: u64,
    /// The sequence number; by default that of its place.
    pub(crate) sequence: Option<u64>,
    /// The payload's CRC; by default the true one.
    pub(crate) payload_crc: Option<u32>,
    pub(crate) payload: Vec<u8>,
}

impl Section {
    /// A mandatory section of a type that version 0.1 knows.
    pub(crate) fn new(kind: u16, payload: Vec<u8>) -> Self {
        Self {
            kind,
            flags: 1,
            interface: if kind == 2 {
                DATA_INTERFACE
            } else {
                CONTROL_INTERFACE
            },
            sequence: None,
            payload_crc: None,
            payload,
        }
    }

    /// A run of local memory.
    pub(crate) fn data(offset: u64, bytes: &[u8]) -> Self {
        Self::new(2, [&offset.to_le_bytes(), bytes].concat())
    }

    /// An optional section of an unknown type.
    pub(crate) fn optional(payload: Vec<u8>) -> Self {
        Self {
            flags: 0,
            ..Self::new(0x700, payload)
        }
    }
}

/// A stream before it is sealed.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) magic: [u8; 8],
    pub(crate) major: u16,
    pub(crate) minor: u16,
    pub(crate) sections: Vec<Section>,
}

/// The totals of the sections so far.
pub(crate) struct Totals {
    pub(crate) sections: u64,
    pub(crate) data_bytes: u64,
    pub(crate) control_bytes: u64,
    pub(crate) headers_crc: u32,
    pub(crate) reserved: u32,
}

impl Stream {
    /// A stream of version 0.1 with these sections.
    pub(crate) fn new(sections: Vec<Section>) -> Self {
        Self {
            magic: *b"VIFASTRM",
            major: 0,
            minor: 1,
            sections,
        }
    }

    /// Returns the stream with an end section whose totals are true.
    pub(crate) fn sealed(&self) -> Vec<u8> {
        self.sealed_with(|_| {})
    }

    /// Returns the stream with an end section whose totals are what `change` makes of the true ones.
    pub(crate) fn sealed_with(&self, change: impl FnOnce(&mut Totals)) -> Vec<u8> {
        let (mut stream, headers) = self.without_end();
        let sum = |kind, header| {
            let sections = self.sections.iter().filter(|section| section.kind == kind);
            sections
                .map(|section| (section.payload.len() as u64).saturating_sub(header))
                .sum()
        };
        let mut totals = Totals {
            sections: self.sections.len() as u64,
            data_bytes: sum(2, 8),
            control_bytes: sum(3, 0),
            headers_crc: crc(&headers),
            reserved: 0,
        };

        change(&mut totals);
        let mut end = Vec::new();
        end.extend(totals.sections.to_le_bytes());
        end.extend(totals.data_bytes.to_le_bytes());
        end.extend(totals.control_bytes.to_le_bytes());
        end.extend(totals.headers_crc.to_le_bytes());
        end.extend(totals.reserved.to_le_bytes());
        push(
            &mut stream,
            &Section::new(4, end),
            self.sections.len() as u64,
        );
        stream
    }

    /// Returns the stream as far as the sections go, and all its headers without their CRCs.
    pub(crate) fn without_end(&self) -> (Vec<u8>, Vec<u8>) {
        let mut stream = Vec::new();

        stream.extend(self.magic);
        stream.extend(self.major.to_le_bytes());
        stream.extend(self.minor.to_le_bytes());
        let mut headers = stream.clone();
        stream.extend(crc(&stream).to_le_bytes());
        for (sequence, section) in self.sections.iter().enumerate() {
            headers.extend(push(&mut stream, section, sequence as u64));
        }
        (stream, headers)
    }
}

/// Appends a section and returns its header without the CRC.
fn push(stream: &mut Vec<u8>, section: &Section, sequence: u64) -> Vec<u8> {
    let mut header = Vec::new();

    header.extend(section.kind.to_le_bytes());
    header.extend(section.flags.to_le_bytes());
    header.extend((section.payload.len() as u32).to_le_bytes());
    header.extend(section.interface.to_le_bytes());
    header.extend(section.sequence.unwrap_or(sequence).to_le_bytes());
    let payload_crc = section.payload_crc.unwrap_or(crc(&section.payload));
    header.extend(payload_crc.to_le_bytes());
    stream.extend(&header);
    stream.extend(crc(&header).to_le_bytes());
    stream.extend(&section.payload);
    header
}

/// The identity of the tests' devices.
pub(crate) fn identity() -> Vec<u8> {
    let mut payload = Vec::new();

    for id in [0x1234u16, 0x5656, 0x1af4, 0x1100] {
        payload.extend(id.to_le_bytes());
    }
    payload.extend([1, 0]);
    payload.extend(1u16.to_le_bytes());
    payload.extend(5u32.to_le_bytes());
    for size in [0x1000u64, 0, 0, 0, 0x4000, 0] {
        payload.extend(size.to_le_bytes());
    }
    for count in [1u16, 1] {
        payload.extend(count.to_le_bytes());
    }
    payload.extend(0x1000u32.to_le_bytes());
    payload.extend(0x1_0000u64.to_le_bytes());
    payload.extend(0x1000u32.to_le_bytes());
    payload.extend([0; 4]);
    for version in [0u16, 1, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] {
        payload.extend(version.to_le_bytes());
    }
    payload
}

/// A record, padded.
pub(crate) fn record(kind: u16, version: u16, index: u32, content: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();

    record.extend(kind.to_le_bytes());
    record.extend(version.to_le_bytes());
    record.extend(index.to_le_bytes());
    record.extend((content.len() as u32).to_le_bytes());
    record.extend([0; 4]);
    record.extend(content);
    record.resize(record.len().next_multiple_of(8), 0);
    record
}

/// A sound stream: two runs of local memory, two records.
pub(crate) fn sound() -> Stream {
    let control = [
        record(1, 1, 0, &[0xc0, 0xff, 0xee, 0x11]),
        record(4, 2, 3, &[1, 2, 3, 4, 5, 6, 7, 8]),
    ];

    Stream::new(vec![
        Section::new(1, identity()),
        Section::data(0x1000, &[0xa5; 0x2000]),
        Section::data(0xf000, &[0x5a; 0x1000]),
        Section::new(3, control.concat()),
    ])
}
