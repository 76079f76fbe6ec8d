// SPDX-License-Identifier: GPL-2.0

//! Surgery on migration streams: taking one apart, changing it, and closing it up so that only what
//! was changed is wrong.

use std::mem::offset_of;

use anyhow::{bail, ensure, Context, Result};

use crate::{
    engine::crc32c,
    hw::{
        self, bytes_of, value_of, vifa_address_range, vifa_address_record, vifa_data_run,
        vifa_identity, vifa_record, vifa_relation, vifa_resources, vifa_section_header,
        vifa_stream_end, vifa_stream_header, Plain,
    },
};

/// Bytes of a stream up to the end of its identity section.
pub const IDENTITY_END: usize =
    size_of::<vifa_stream_header>() + size_of::<vifa_section_header>() + size_of::<vifa_identity>();

/// Bytes of a stream up to the end of its relations section: what PRE_COPY yields.
pub const RELATIONS_END: usize = IDENTITY_END
    + size_of::<vifa_section_header>()
    + hw::VIFA_RELATIONS as usize * size_of::<vifa_relation>();

/// A section: its header and what follows it.
#[derive(Clone, Debug)]
pub struct Section {
    pub header: vifa_section_header,
    pub payload: Vec<u8>,
}

impl Section {
    /// A mandatory section of the type `kind` with `payload`, from `interface`.
    pub fn new(kind: u32, interface: u64, payload: Vec<u8>) -> Self {
        Self {
            header: vifa_section_header {
                type_: kind as u16,
                flags: hw::VIFA_SECTION_MANDATORY as u16,
                interface,
                ..Default::default()
            },
            payload,
        }
    }

    /// The section's type.
    pub fn kind(&self) -> u32 {
        self.header.type_.into()
    }
}

/// A part of the address record file.
#[derive(Clone, Debug)]
pub struct Part {
    pub record: vifa_address_record,
    pub ranges: Vec<vifa_address_range>,
}

impl Part {
    /// A part with `ranges`, each as start and length; their data sections are not placed yet.
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

    /// Takes the payload of an address section apart.
    pub fn parse(mut payload: &[u8]) -> Result<Self> {
        let rest = &mut payload;
        let record: vifa_address_record = take_value(rest, "address record")?;
        let ranges = (0..record.count)
            .map(|_| take_value(rest, "address range"))
            .collect::<Result<_>>()?;
        ensure!(rest.is_empty(), "bytes behind the address ranges");
        Ok(Self { record, ranges })
    }

    /// The payload of the part's address section.
    pub fn payload(&self) -> Vec<u8> {
        let ranges = self.ranges.iter().flat_map(bytes_of);
        bytes_of(&self.record)
            .iter()
            .chain(ranges)
            .copied()
            .collect()
    }

    /// Gives each range the number of its first data section, the first of which is `first`.
    fn place(&mut self, first: u64) {
        if self.record.space != hw::VIFA_SPACE_LOCAL {
            return;
        }
        let mut next = first;
        for range in &mut self.ranges {
            range.sequence = next;
            next += range.length.div_ceil(hw::VIFA_DATA_RUN_MAX.into());
        }
    }
}

/// A record of the control plane: its header and what follows it, without the padding.
#[derive(Clone, Debug)]
pub struct Record {
    pub header: vifa_record,
    pub content: Vec<u8>,
}

/// The payload of a data section: a run of local memory.
pub fn run(offset: u64, bytes: &[u8]) -> Vec<u8> {
    [bytes_of(&vifa_data_run { offset }), bytes].concat()
}

/// A stream in its parts.
#[derive(Clone, Debug)]
pub struct Stream {
    pub header: vifa_stream_header,
    pub sections: Vec<Section>,
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

/// Taking apart.
impl Stream {
    /// Takes `bytes` apart.
    pub fn parse(mut bytes: &[u8]) -> Result<Self> {
        let rest = &mut bytes;
        let header = take_value(rest, "stream header")?;
        let mut sections = Vec::new();
        while !rest.is_empty() {
            let header: vifa_section_header = take_value(rest, "section header")?;
            let payload = take(rest, header.length as usize, "payload")?.to_vec();
            sections.push(Section { header, payload });
        }
        Ok(Self { header, sections })
    }

    /// The sections of the type `kind`.
    pub fn of_kind(&self, kind: u32) -> impl Iterator<Item = &Section> {
        self.sections
            .iter()
            .filter(move |section| section.kind() == kind)
    }

    /// Where the first section of the type `kind` stands among the sections.
    pub fn position(&self, kind: u32) -> Result<usize> {
        self.sections
            .iter()
            .position(|section| section.kind() == kind)
            .with_context(|| format!("the stream has no section of type {kind}"))
    }

    /// The payload of the first section of the type `kind`.
    pub fn payload(&mut self, kind: u32) -> Result<&mut Vec<u8>> {
        let index = self.position(kind)?;
        Ok(&mut self.sections[index].payload)
    }

    /// The structure at the start of the first section of the type `kind`.
    pub fn value<T: Plain>(&self, kind: u32) -> Result<T> {
        let section = &self.sections[self.position(kind)?];
        value_of(&section.payload).context("a payload that is too short")
    }

    /// What the source is.
    pub fn identity(&self) -> Result<vifa_identity> {
        self.value(hw::VIFA_SECTION_IDENTITY)
    }

    /// The transfer relationships.
    pub fn relations(&self) -> Result<[vifa_relation; hw::VIFA_RELATIONS as usize]> {
        let section = &self.sections[self.position(hw::VIFA_SECTION_RELATIONS)?];
        let rest = &mut &section.payload[..];
        let relations = [
            take_value(rest, "relation of the control plane")?,
            take_value(rest, "relation of the data plane")?,
        ];
        ensure!(rest.is_empty(), "bytes behind the relations");
        Ok(relations)
    }

    /// The parts of the address record file.
    pub fn parts(&self) -> Result<Vec<Part>> {
        self.of_kind(hw::VIFA_SECTION_ADDRESS)
            .map(|section| Part::parse(&section.payload))
            .collect()
    }

    /// Offset and length of the data runs.
    pub fn runs(&self) -> Result<Vec<(u64, u64)>> {
        self.of_kind(hw::VIFA_SECTION_DATA)
            .map(|section| {
                let rest = &mut &section.payload[..];
                let run: vifa_data_run = take_value(rest, "data run")?;
                Ok((run.offset, rest.len() as u64))
            })
            .collect()
    }

    /// The records of the control plane.
    pub fn records(&self) -> Result<Vec<Record>> {
        let section = &self.sections[self.position(hw::VIFA_SECTION_CONTROL)?];
        let rest = &mut &section.payload[..];
        let resources: vifa_resources = take_value(rest, "resources")?;
        let mut records = Vec::new();
        for _ in 0..resources.records {
            let header: vifa_record = take_value(rest, "record")?;
            let length = header.length as usize;
            let content = take(rest, length, "record")?.to_vec();
            let padding = length.next_multiple_of(hw::VIFA_RECORD_ALIGN as usize) - length;
            take(rest, padding, "padding of a record")?;
            records.push(Record { header, content });
        }
        ensure!(rest.is_empty(), "bytes behind the records");
        Ok(records)
    }

    /// Where each part of the encoding begins, in bytes from the start, and the end.
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

    /// Changes the records of the control plane, and makes the table's totals right.
    pub fn edit_records(&mut self, change: impl FnOnce(&mut Vec<Record>)) -> Result<()> {
        let mut records = self.records()?;
        change(&mut records);
        let mut bytes = Vec::new();
        for record in &records {
            bytes.extend_from_slice(bytes_of(&record.header));
            bytes.extend_from_slice(&record.content);
            bytes.resize(
                bytes.len().next_multiple_of(hw::VIFA_RECORD_ALIGN as usize),
                0,
            );
        }
        let resources = vifa_resources {
            records: records.len() as u32,
            length: bytes.len() as u32,
            ..self.value(hw::VIFA_SECTION_CONTROL)?
        };
        *self.payload(hw::VIFA_SECTION_CONTROL)? = [bytes_of(&resources), &bytes].concat();
        self.settle()
    }

    /// Puts `section` in at `index`, and makes what refers to sections right.
    pub fn insert(&mut self, index: usize, section: Section) -> Result<()> {
        self.sections.insert(index, section);
        self.settle()
    }

    /// Takes the section at `index` out, and makes what refers to sections right.
    pub fn remove(&mut self, index: usize) -> Result<()> {
        self.sections.remove(index);
        self.settle()
    }

    /// Exchanges two sections, and makes what refers to sections right.
    pub fn swap(&mut self, one: usize, other: usize) -> Result<()> {
        self.sections.swap(one, other);
        self.settle()
    }

    /// Puts in `part` before the control section, with `data` as its data sections' payloads.
    pub fn append(&mut self, part: &Part, data: Vec<Vec<u8>>) -> Result<()> {
        let interface = self.relations()?[1].output;
        let at = self.position(hw::VIFA_SECTION_CONTROL)?;
        let sections = [(hw::VIFA_SECTION_ADDRESS, part.payload())]
            .into_iter()
            .chain(data.into_iter().map(|run| (hw::VIFA_SECTION_DATA, run)))
            .map(|(kind, payload)| Section::new(kind, interface, payload));
        self.sections.splice(at..at, sections);
        self.settle()
    }

    /// Makes the places in the address record file and the totals what the sections give.
    fn settle(&mut self) -> Result<()> {
        for (sequence, section) in self.sections.iter_mut().enumerate() {
            if section.kind() == hw::VIFA_SECTION_ADDRESS {
                let mut part = Part::parse(&section.payload)?;
                part.place(sequence as u64 + 1);
                section.payload = part.payload();
            }
        }
        let sections = self.sections.len() as u64 - 1;
        let data = self.runs()?.iter().map(|(_, length)| length).sum();
        let control = self
            .of_kind(hw::VIFA_SECTION_CONTROL)
            .map(|section| (section.payload.len() - size_of::<vifa_resources>()) as u64)
            .sum();
        for section in &mut self.sections {
            if section.kind() != hw::VIFA_SECTION_END {
                continue;
            }
            let mut end: vifa_stream_end = value_of(&section.payload).context("end section")?;
            end.sections = sections;
            end.data_bytes = data;
            end.control_bytes = control;
            section.payload = bytes_of(&end).to_vec();
        }
        Ok(())
    }
}

/// Closing up.
impl Stream {
    /// The bytes of the stream as its parts are now, with lengths, sequence numbers and CRCs made
    /// right.
    pub fn seal(&self) -> Vec<u8> {
        self.encode(true)
    }

    /// As [`Self::seal`], but the end section's CRC of all headers stays as it is.
    pub fn seal_parts(&self) -> Vec<u8> {
        self.encode(false)
    }

    fn encode(&self, whole: bool) -> Vec<u8> {
        let mut header = self.header;
        let sealed = &bytes_of(&self.header)[..offset_of!(vifa_stream_header, crc)];
        let mut headers = crc32c(0, sealed);
        header.crc = headers;
        let mut bytes = bytes_of(&header).to_vec();
        for (sequence, section) in self.sections.iter().enumerate() {
            let mut header = section.header;
            let mut payload = section.payload.clone();
            if whole && section.kind() == hw::VIFA_SECTION_END {
                if let Some(mut end) = value_of::<vifa_stream_end>(&payload) {
                    end.headers_crc = headers;
                    payload[..size_of::<vifa_stream_end>()].copy_from_slice(bytes_of(&end));
                }
            }
            header.length = payload.len() as u32;
            header.sequence = sequence as u64;
            header.payload_crc = crc32c(0, &payload);
            let sealed = &bytes_of(&header)[..offset_of!(vifa_section_header, header_crc)];
            headers = crc32c(headers, sealed);
            header.header_crc = crc32c(0, sealed);
            bytes.extend_from_slice(bytes_of(&header));
            bytes.extend_from_slice(&payload);
        }
        bytes
    }
}
