// SPDX-License-Identifier: GPL-2.0

//! Composition of valid and invalid streams, as documented.

/// Returns the CRC-32C of `bytes`.
pub fn crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// The interfaces of 0000:02:02.1, the source.
pub const CONTROL_INTERFACE: u64 = 0x21101;
pub const DATA_INTERFACE: u64 = 0x21102;

/// The interfaces of 0001:03:00.2, a destination.
pub const RECEIVING_CONTROL_INTERFACE: u64 = 0x1_0003_0201;
pub const RECEIVING_DATA_INTERFACE: u64 = 0x1_0003_0202;

/// A section before it is sealed.
#[derive(Clone, Debug)]
pub struct Section {
    pub kind: u16,
    pub flags: u16,
    pub interface: u64,
    /// The sequence number. By default it is the section's position.
    pub sequence: Option<u64>,
    /// The payload's CRC. By default it is the correct one.
    pub payload_crc: Option<u32>,
    pub payload: Vec<u8>,
}

impl Section {
    /// Creates a mandatory section.
    pub fn new(kind: u16, payload: Vec<u8>) -> Self {
        Self {
            kind,
            flags: 1,
            interface: if [3, 4].contains(&kind) {
                DATA_INTERFACE
            } else {
                CONTROL_INTERFACE
            },
            sequence: None,
            payload_crc: None,
            payload,
        }
    }

    /// Creates the identity section of the test devices.
    pub fn identity() -> Self {
        Self::new(1, identity())
    }

    /// Creates the relations section of the test source, with these receivers.
    pub fn relations(control: u64, data: u64) -> Self {
        let relations = [
            relation(1, CONTROL_INTERFACE, control),
            relation(2, DATA_INTERFACE, data),
        ];

        Self::new(2, relations.concat())
    }

    /// Creates a data section: a run of local memory.
    pub fn data(offset: u64, bytes: &[u8]) -> Self {
        Self::new(4, [&offset.to_le_bytes(), bytes].concat())
    }

    /// Creates a control section with these records.
    pub fn control(records: &[Vec<u8>]) -> Self {
        let bytes = records.concat();
        let header = resources(records.len() as u32, bytes.len() as u32);

        Self::new(5, [header, bytes].concat())
    }

    /// Creates a claim section with these records.
    pub fn claim(records: &[Vec<u8>]) -> Self {
        Self {
            flags: 0,
            ..Self::new(7, records.concat())
        }
    }

    /// Creates an optional section of an unknown type.
    pub fn optional(payload: Vec<u8>) -> Self {
        Self {
            flags: 0,
            ..Self::new(0x700, payload)
        }
    }
}

/// A stream before it is sealed.
#[derive(Clone, Debug)]
pub struct Stream {
    pub magic: [u8; 8],
    pub major: u16,
    pub minor: u16,
    pub sections: Vec<Section>,
}

/// The totals of the sections so far.
pub struct Totals {
    pub sections: u64,
    pub data_bytes: u64,
    pub control_bytes: u64,
    pub headers_crc: u32,
    pub reserved: u32,
}

impl Stream {
    /// Creates a stream of version 1.0 with these sections.
    pub fn new(sections: Vec<Section>) -> Self {
        Self {
            magic: *b"VIFASTRM",
            major: 1,
            minor: 0,
            sections,
        }
    }

    /// Appends a part of local memory: its address section, and the data of its ranges. Each range
    /// is an offset and its bytes.
    pub fn push_part(&mut self, round: u32, ranges: &[(u64, Vec<u8>)]) {
        let mut sequence = self.sections.len() as u64 + 1;
        let mut entries = Vec::new();
        let mut data = Vec::new();

        for (start, bytes) in ranges {
            entries.push(range(*start, bytes.len() as u64, sequence));
            let runs = (*start..).step_by(0x10_0000).zip(bytes.chunks(0x10_0000));
            data.extend(runs.map(|(offset, bytes)| Section::data(offset, bytes)));
            sequence = (self.sections.len() + 1 + data.len()) as u64;
        }
        self.sections
            .push(Section::new(3, address(1, round, 0x1000, &entries)));
        self.sections.extend(data);
    }

    /// Returns the stream with an end section with correct totals.
    pub fn sealed(&self) -> Vec<u8> {
        self.sealed_with(|_| {})
    }

    /// Returns the stream with an end section. `change` can modify the correct totals.
    pub fn sealed_with(&self, change: impl FnOnce(&mut Totals)) -> Vec<u8> {
        let (mut stream, headers) = self.without_end();
        let sum = |kind, header| {
            let sections = self.sections.iter().filter(|section| section.kind == kind);
            sections
                .map(|section| (section.payload.len() as u64).saturating_sub(header))
                .sum()
        };
        let mut totals = Totals {
            sections: self.sections.len() as u64,
            data_bytes: sum(4, 8),
            control_bytes: sum(5, 16),
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
            &Section::new(6, end),
            self.sections.len() as u64,
        );
        stream
    }

    /// Returns the stream without an end section, and all its headers without their CRCs.
    pub fn without_end(&self) -> (Vec<u8>, Vec<u8>) {
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

/// Returns the identity of the test devices.
pub fn identity() -> Vec<u8> {
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

/// Returns a padded record.
pub fn record(kind: u16, version: u16, index: u32, content: &[u8]) -> Vec<u8> {
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

/// Returns a transfer relationship.
pub fn relation(plane: u8, output: u64, receiver: u64) -> Vec<u8> {
    let mut relation = vec![plane, 0, 0, 0, 0, 0, 0, 0];

    relation.extend(output.to_le_bytes());
    relation.extend(receiver.to_le_bytes());
    relation
}

/// Returns a part of the address record file with the correct count.
pub fn address(space: u32, round: u32, granule: u32, ranges: &[Vec<u8>]) -> Vec<u8> {
    let mut part = Vec::new();

    for field in [space, round, granule, ranges.len() as u32] {
        part.extend(field.to_le_bytes());
    }
    part.extend(ranges.concat());
    part
}

/// Returns a range of the address record file.
pub fn range(start: u64, length: u64, sequence: u64) -> Vec<u8> {
    [start, length, sequence]
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect()
}

/// Returns the header before the records.
pub fn resources(records: u32, length: u32) -> Vec<u8> {
    let mut header = Vec::new();

    header.extend(1u16.to_le_bytes());
    header.extend(2u16.to_le_bytes());
    for field in [records, length, 0] {
        header.extend(field.to_le_bytes());
    }
    header
}

/// Returns the records of the test devices.
pub fn records() -> Vec<Vec<u8>> {
    vec![
        record(1, 1, 0, &[0xc0, 0xff, 0xee, 0x11]),
        record(4, 2, 3, &[1, 2, 3, 4, 5, 6, 7, 8]),
    ]
}

/// Returns the head of a stream of the test source.
pub fn head() -> Stream {
    Stream::new(vec![Section::identity(), Section::relations(0, 0)])
}

/// Returns a valid stream: a part with two ranges of local memory, and two records.
///
/// Its sections are 0 identity, 1 relations, 2 address, 3 and 4 data, 5 control, 6 end.
pub fn sound() -> Stream {
    let mut stream = head();

    stream.push_part(
        0,
        &[(0x1000, vec![0xa5; 0x2000]), (0xf000, vec![0x5a; 0x1000])],
    );
    stream.sections.push(Section::control(&records()));
    stream
}
