// SPDX-License-Identifier: GPL-2.0

//! Streams for tests: a stream is parsed, changed, and sealed again, so that only the change is
//! invalid.
//!
//! A changed byte of a sealed stream fails at the next checksum. To test the checks of the content,
//! [`Stream::seal`] corrects the checksums after the change. [`Repair`] selects further
//! corrections.

use std::{borrow::Cow, mem::offset_of};

use anyhow::{bail, ensure, Context, Result};
use vifa_headers::{
    self as headers, bytes_of, value_of, vifa_address_range, vifa_address_record, vifa_data_run,
    vifa_identity, vifa_record, vifa_relation, vifa_resources, vifa_section_header,
    vifa_stream_end, vifa_stream_header, Plain,
};

/// Offset of the end of the identity section in a stream.
pub const IDENTITY_END: usize =
    size_of::<vifa_stream_header>() + size_of::<vifa_section_header>() + size_of::<vifa_identity>();

/// Offset of the end of the relations section in a stream. These bytes can be read in PRE_COPY.
pub const RELATIONS_END: usize = IDENTITY_END
    + size_of::<vifa_section_header>()
    + headers::VIFA_RELATIONS as usize * size_of::<vifa_relation>();

/// A section: its header and its payload.
#[derive(Clone, Debug)]
pub struct Section {
    pub header: vifa_section_header,
    pub payload: Vec<u8>,
}

impl Section {
    /// Creates a mandatory section of the type `kind` with `payload`, from `interface`.
    pub fn new(kind: u32, interface: u64, payload: Vec<u8>) -> Self {
        Self {
            header: vifa_section_header {
                type_: kind as u16,
                flags: headers::VIFA_SECTION_MANDATORY as u16,
                interface,
                ..Default::default()
            },
            payload,
        }
    }

    /// Returns the section's type.
    pub fn kind(&self) -> u32 {
        self.header.type_.into()
    }

    /// Takes the first section from `rest`.
    fn take(rest: &mut &[u8]) -> Result<Self> {
        let header: vifa_section_header = take_value(rest, "section header")?;
        let payload = take(rest, header.length as usize, "payload")?.to_vec();
        Ok(Self { header, payload })
    }

    /// Returns whether this is a part of the address record file that lists local memory.
    fn lists_local_memory(&self) -> bool {
        self.kind() == headers::VIFA_SECTION_ADDRESS
            && value_of::<vifa_address_record>(&self.payload)
                .is_some_and(|record| record.space == headers::VIFA_SPACE_LOCAL)
    }

    /// Sets the sequence numbers of the data sections in an address section. The data of local
    /// memory begins in section number `first`. Other memory has no data sections. Incomplete
    /// ranges are not changed.
    fn place_data(&mut self, first: u64) {
        let local = self.lists_local_memory();
        let record = size_of::<vifa_address_record>();
        let ranges = self.payload.get_mut(record..).unwrap_or_default();
        let mut next = first;
        for bytes in ranges.chunks_exact_mut(size_of::<vifa_address_range>()) {
            let Some(mut range) = value_of::<vifa_address_range>(bytes) else {
                continue;
            };
            range.sequence = if local { next } else { 0 };
            next = next.wrapping_add(range.length.div_ceil(headers::VIFA_DATA_RUN_MAX.into()));
            bytes.copy_from_slice(bytes_of(&range));
        }
    }

    /// Sets the fields of an end section that `what` selects to those of `totals`.
    fn repair_totals(&mut self, what: Totals, totals: &vifa_stream_end) {
        match what {
            Totals::Keep => {}
            Totals::HeadersCrc => {
                if let Some(mut end) = value_of::<vifa_stream_end>(&self.payload) {
                    end.headers_crc = totals.headers_crc;
                    self.payload[..size_of::<vifa_stream_end>()].copy_from_slice(bytes_of(&end));
                }
            }
            Totals::All => self.payload = bytes_of(totals).to_vec(),
        }
    }

    /// Returns the number of payload bytes after a structure of `length` bytes.
    fn after(&self, length: usize) -> u64 {
        self.payload.len().saturating_sub(length) as u64
    }
}

/// A part of the address record file.
#[derive(Clone, Debug)]
pub struct Part {
    pub record: vifa_address_record,
    pub ranges: Vec<vifa_address_range>,
}

impl Part {
    /// Creates a part with `ranges`, each a start and a length. The sequence numbers of their data
    /// sections are not yet set.
    pub fn new(space: u32, round: u32, granule: u32, ranges: &[(u64, u64)]) -> Self {
        Self {
            record: vifa_address_record {
                space,
                round,
                granule,
                count: ranges.len() as u32,
            },
            ranges: ranges
                .iter()
                .map(|&(start, length)| vifa_address_range {
                    start,
                    length,
                    sequence: 0,
                })
                .collect(),
        }
    }

    /// Parses the payload of an address section.
    pub fn parse(mut payload: &[u8]) -> Result<Self> {
        let rest = &mut payload;
        let record: vifa_address_record = take_value(rest, "address record")?;
        let ranges = (0..record.count)
            .map(|_| take_value(rest, "address range"))
            .collect::<Result<_>>()?;
        ensure!(rest.is_empty(), "bytes after the address ranges");
        Ok(Self { record, ranges })
    }

    /// Returns the payload of the part's address section.
    pub fn payload(&self) -> Vec<u8> {
        let ranges = self.ranges.iter().flat_map(bytes_of);
        bytes_of(&self.record)
            .iter()
            .chain(ranges)
            .copied()
            .collect()
    }
}

/// A record of the control plane: its header and its content, without the padding.
#[derive(Clone, Debug)]
pub struct Record {
    pub header: vifa_record,
    pub content: Vec<u8>,
}

/// Returns the payload of a data section: a run of local memory.
pub fn run(offset: u64, bytes: &[u8]) -> Vec<u8> {
    [bytes_of(&vifa_data_run { offset }), bytes].concat()
}

/// A parsed stream.
#[derive(Clone, Debug)]
pub struct Stream {
    pub header: vifa_stream_header,
    pub sections: Vec<Section>,
    /// The bytes after the last complete section.
    pub tail: Vec<u8>,
}

/// Corrections of end sections when a stream is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Totals {
    /// No correction.
    Keep,
    /// The CRC of all headers.
    HeadersCrc,
    /// All totals: numbers, sizes and the CRC.
    All,
}

/// Corrections when a stream is sealed. Lengths and checksums of sections are always corrected.
#[derive(Clone, Copy, Debug)]
pub struct Repair {
    /// The sequence numbers of the sections.
    pub sequence: bool,
    /// The sequence numbers of data sections in address sections.
    pub places: bool,
    /// The totals in end sections.
    pub totals: Totals,
}

impl Repair {
    /// All derived fields.
    pub const EVERYTHING: Self = Self {
        sequence: true,
        places: true,
        totals: Totals::All,
    };

    /// All checksums and sequence numbers.
    const CHECKSUMS: Self = Self {
        sequence: true,
        places: false,
        totals: Totals::HeadersCrc,
    };
}

fn take<'a>(rest: &mut &'a [u8], length: usize, what: &str) -> Result<&'a [u8]> {
    if rest.len() < length {
        bail!("expected {length} bytes of {what}, got {}", rest.len());
    }
    let (taken, left) = rest.split_at(length);
    *rest = left;
    Ok(taken)
}

fn take_value<T: Plain>(rest: &mut &[u8], what: &str) -> Result<T> {
    let bytes = take(rest, size_of::<T>(), what)?;
    value_of(bytes).context(what.to_owned())
}

/// Parsing.
impl Stream {
    /// Parses `bytes`.
    pub fn parse(mut bytes: &[u8]) -> Result<Self> {
        let rest = &mut bytes;
        let header = take_value(rest, "stream header")?;
        let mut sections = Vec::new();
        while !rest.is_empty() {
            sections.push(Section::take(rest)?);
        }
        Ok(Self {
            header,
            sections,
            tail: Vec::new(),
        })
    }

    /// Parses the complete sections at the start of `bytes`. Returns `None` if they are too short
    /// for a stream header.
    pub fn parse_prefix(mut bytes: &[u8]) -> Option<Self> {
        let header = take_value(&mut bytes, "stream header").ok()?;
        let mut sections = Vec::new();
        let mut tail = bytes;
        while let Ok(section) = Section::take(&mut bytes) {
            sections.push(section);
            tail = bytes;
        }
        Some(Self {
            header,
            sections,
            tail: tail.to_vec(),
        })
    }

    /// Returns the sections of the type `kind`.
    pub fn of_kind(&self, kind: u32) -> impl Iterator<Item = &Section> {
        self.sections
            .iter()
            .filter(move |section| section.kind() == kind)
    }

    /// Returns the index of the first section of the type `kind`.
    pub fn position(&self, kind: u32) -> Result<usize> {
        self.sections
            .iter()
            .position(|section| section.kind() == kind)
            .with_context(|| format!("the stream has no section of type {kind}"))
    }

    /// Returns the payload of the first section of the type `kind`.
    pub fn payload(&mut self, kind: u32) -> Result<&mut Vec<u8>> {
        let index = self.position(kind)?;
        Ok(&mut self.sections[index].payload)
    }

    /// Returns the structure at the start of the first section of the type `kind`.
    pub fn value<T: Plain>(&self, kind: u32) -> Result<T> {
        let section = &self.sections[self.position(kind)?];
        value_of(&section.payload).context("a payload that is too short")
    }

    /// Returns the source's identity.
    pub fn identity(&self) -> Result<vifa_identity> {
        self.value(headers::VIFA_SECTION_IDENTITY)
    }

    /// Returns the transfer relationships.
    pub fn relations(&self) -> Result<[vifa_relation; headers::VIFA_RELATIONS as usize]> {
        let section = &self.sections[self.position(headers::VIFA_SECTION_RELATIONS)?];
        let rest = &mut &section.payload[..];
        let relations = [
            take_value(rest, "relation of the control plane")?,
            take_value(rest, "relation of the data plane")?,
        ];
        ensure!(rest.is_empty(), "bytes after the relations");
        Ok(relations)
    }

    /// Returns the parts of the address record file.
    pub fn parts(&self) -> Result<Vec<Part>> {
        self.of_kind(headers::VIFA_SECTION_ADDRESS)
            .map(|section| Part::parse(&section.payload))
            .collect()
    }

    /// Returns the offset and length of each data run.
    pub fn runs(&self) -> Result<Vec<(u64, u64)>> {
        self.of_kind(headers::VIFA_SECTION_DATA)
            .map(|section| {
                let rest = &mut &section.payload[..];
                let run: vifa_data_run = take_value(rest, "data run")?;
                Ok((run.offset, rest.len() as u64))
            })
            .collect()
    }

    /// Returns the records of the control plane.
    pub fn records(&self) -> Result<Vec<Record>> {
        let section = &self.sections[self.position(headers::VIFA_SECTION_CONTROL)?];
        let rest = &mut &section.payload[..];
        let resources: vifa_resources = take_value(rest, "resources")?;
        let mut records = Vec::new();
        for _ in 0..resources.records {
            let header: vifa_record = take_value(rest, "record")?;
            let length = header.length as usize;
            let content = take(rest, length, "record")?.to_vec();
            let padding = length.next_multiple_of(headers::VIFA_RECORD_ALIGN as usize) - length;
            take(rest, padding, "padding of a record")?;
            records.push(Record { header, content });
        }
        ensure!(rest.is_empty(), "bytes after the records");
        Ok(records)
    }

    /// Returns the offset of each header and payload, and of the end.
    pub fn borders(&self) -> Vec<usize> {
        let mut borders = vec![0];
        let mut at = size_of::<vifa_stream_header>();
        for section in &self.sections {
            borders.push(at);
            at += size_of::<vifa_section_header>();
            borders.push(at);
            at += section.payload.len();
        }
        borders.push(at);
        borders.dedup();
        borders
    }
}

/// Changing.
impl Stream {
    /// Changes the structure at the start of the first section of the type `kind`.
    pub fn edit<T: Plain>(&mut self, kind: u32, change: impl FnOnce(&mut T)) -> Result<()> {
        self.edit_at(kind, 0, change)
    }

    /// Changes the structure at `offset` of the first section of the type `kind`.
    pub fn edit_at<T: Plain>(
        &mut self,
        kind: u32,
        offset: usize,
        change: impl FnOnce(&mut T),
    ) -> Result<()> {
        let payload = self.payload(kind)?;
        let there = payload
            .get_mut(offset..)
            .context("a payload that is too short")?;
        let mut value = value_of(there).context("a payload that is too short")?;
        change(&mut value);
        there[..size_of::<T>()].copy_from_slice(bytes_of(&value));
        Ok(())
    }

    /// Changes the records of the control plane, and corrects the table's totals.
    pub fn edit_records(&mut self, change: impl FnOnce(&mut Vec<Record>)) -> Result<()> {
        let mut records = self.records()?;
        change(&mut records);
        let mut bytes = Vec::new();
        for record in &records {
            bytes.extend_from_slice(bytes_of(&record.header));
            bytes.extend_from_slice(&record.content);
            bytes.resize(
                bytes
                    .len()
                    .next_multiple_of(headers::VIFA_RECORD_ALIGN as usize),
                0,
            );
        }
        let resources = vifa_resources {
            records: records.len() as u32,
            length: bytes.len() as u32,
            ..self.value(headers::VIFA_SECTION_CONTROL)?
        };
        *self.payload(headers::VIFA_SECTION_CONTROL)? = [bytes_of(&resources), &bytes].concat();
        self.settle()
    }

    /// Inserts `section` at `index`, and corrects references to sections.
    pub fn insert(&mut self, index: usize, section: Section) -> Result<()> {
        self.sections.insert(index, section);
        self.settle()
    }

    /// Removes the section at `index`, and corrects references to sections.
    pub fn remove(&mut self, index: usize) -> Result<()> {
        self.sections.remove(index);
        self.settle()
    }

    /// Swaps two sections, and corrects references to sections.
    pub fn swap(&mut self, one: usize, other: usize) -> Result<()> {
        self.sections.swap(one, other);
        self.settle()
    }

    /// Inserts `part` before the control section, with `data` as the payloads of its data sections.
    pub fn append(&mut self, part: &Part, data: Vec<Vec<u8>>) -> Result<()> {
        let interface = self.relations()?[1].output;
        let at = self.position(headers::VIFA_SECTION_CONTROL)?;
        let sections = [(headers::VIFA_SECTION_ADDRESS, part.payload())]
            .into_iter()
            .chain(
                data.into_iter()
                    .map(|run| (headers::VIFA_SECTION_DATA, run)),
            )
            .map(|(kind, payload)| Section::new(kind, interface, payload));
        self.sections.splice(at..at, sections);
        self.settle()
    }

    /// Corrects the sequence numbers in the address record file, and the totals.
    fn settle(&mut self) -> Result<()> {
        for (sequence, section) in self.sections.iter_mut().enumerate() {
            if section.lists_local_memory() {
                section.place_data(sequence as u64 + 1);
            }
        }
        let mut totals = vifa_stream_end::default();
        for section in &self.sections {
            count(&mut totals, section);
        }
        for section in &mut self.sections {
            if section.kind() == headers::VIFA_SECTION_END {
                let end: vifa_stream_end = value_of(&section.payload).context("end section")?;
                let end = vifa_stream_end {
                    // The end section does not count.
                    sections: totals.sections - 1,
                    data_bytes: totals.data_bytes,
                    control_bytes: totals.control_bytes,
                    ..end
                };
                section.payload = bytes_of(&end).to_vec();
            }
        }
        Ok(())
    }
}

/// Adds `section` to `totals`.
fn count(totals: &mut vifa_stream_end, section: &Section) {
    totals.sections += 1;
    match section.kind() {
        headers::VIFA_SECTION_DATA => {
            totals.data_bytes += section.after(size_of::<vifa_data_run>())
        }
        headers::VIFA_SECTION_CONTROL => {
            totals.control_bytes += section.after(size_of::<vifa_resources>());
        }
        _ => {}
    }
}

/// Sealing.
impl Stream {
    /// Encodes the stream with correct lengths, sequence numbers and CRCs.
    pub fn seal(&self) -> Vec<u8> {
        self.seal_with(Repair::CHECKSUMS)
    }

    /// As [`Self::seal`], but does not correct the end section's CRC of all headers.
    pub fn seal_parts(&self) -> Vec<u8> {
        self.seal_with(Repair {
            totals: Totals::Keep,
            ..Repair::CHECKSUMS
        })
    }

    /// Encodes the stream with correct lengths and CRCs of sections, and the corrections that
    /// `repair` selects.
    pub fn seal_with(&self, repair: Repair) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut totals = vifa_stream_end::default();
        let mut header = self.header;
        header.crc = sealed(&header, offset_of!(vifa_stream_header, crc), 0);
        totals.headers_crc = header.crc;
        bytes.extend_from_slice(bytes_of(&header));
        for section in &self.sections {
            let mut section = Cow::Borrowed(section);
            match section.kind() {
                headers::VIFA_SECTION_ADDRESS if repair.places => {
                    section.to_mut().place_data(totals.sections + 1);
                }
                headers::VIFA_SECTION_END => {
                    section.to_mut().repair_totals(repair.totals, &totals);
                }
                _ => {}
            }
            let mut header = section.header;
            header.length = section.payload.len() as u32;
            header.payload_crc = crc32c::crc32c(&section.payload);
            if repair.sequence {
                header.sequence = totals.sections;
            }
            let end = offset_of!(vifa_section_header, header_crc);
            header.header_crc = sealed(&header, end, 0);
            totals.headers_crc = sealed(&header, end, totals.headers_crc);
            count(&mut totals, &section);
            bytes.extend_from_slice(bytes_of(&header));
            bytes.extend_from_slice(&section.payload);
        }
        bytes.extend_from_slice(&self.tail);
        bytes
    }
}

/// Returns the CRC of the first `end` bytes of a header, after bytes with the CRC `before`.
fn sealed<T: Plain>(header: &T, end: usize, before: u32) -> u32 {
    crc32c::crc32c_append(before, &bytes_of(header)[..end])
}
