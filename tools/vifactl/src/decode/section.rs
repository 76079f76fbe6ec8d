// SPDX-License-Identifier: GPL-2.0

//! A section of a stream as the file contains it, valid or not.
//!
//! Decodes as much as the available bytes allow. Validation is not done here.

use std::fmt::Write;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::structure::{
    Fields, ADDRESS_RANGE, ADDRESS_RECORD, DATA_RUN, IDENTITY, RECORD, RELATION, RESOURCES,
    SECTION_HEADER, STREAM_END,
};
use crate::headers as uapi;

/// A section type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Identity,
    Relations,
    Address,
    Data,
    Control,
    End,
    Claim,
    /// A type that the header does not define.
    Unknown,
}

impl Kind {
    /// Returns the type with the number `raw`.
    pub(crate) fn of(raw: u64) -> Self {
        const NAMED: [(u32, Kind); 7] = [
            (uapi::VIFA_SECTION_IDENTITY, Kind::Identity),
            (uapi::VIFA_SECTION_RELATIONS, Kind::Relations),
            (uapi::VIFA_SECTION_ADDRESS, Kind::Address),
            (uapi::VIFA_SECTION_DATA, Kind::Data),
            (uapi::VIFA_SECTION_CONTROL, Kind::Control),
            (uapi::VIFA_SECTION_END, Kind::End),
            (uapi::VIFA_SECTION_CLAIM, Kind::Claim),
        ];

        NAMED
            .into_iter()
            .find(|(number, _)| u64::from(*number) == raw)
            .map_or(Self::Unknown, |(_, kind)| kind)
    }

    /// Returns the type's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Relations => "relations",
            Self::Address => "address",
            Self::Data => "data",
            Self::Control => "control",
            Self::End => "end",
            Self::Claim => "claim",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the number of payload bytes before the records.
    pub(crate) fn before_records(self) -> usize {
        match self {
            Self::Control => RESOURCES.length,
            _ => 0,
        }
    }

    /// Returns how many bytes of a payload of `length` bytes are decoded.
    pub(crate) fn decoded(self, length: u64) -> u64 {
        match self {
            Self::Data => length.min(DATA_RUN.length as u64),
            Self::Unknown => 0,
            _ => length,
        }
    }
}

/// A record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    /// Offset from the start of the records.
    pub(crate) offset: usize,
    pub(crate) header: Fields<'a>,
    /// The available part of the content.
    pub(crate) content: &'a [u8],
}

/// The records at the start of a table.
#[derive(Clone, Copy)]
pub(crate) struct Records<'a> {
    table: &'a [u8],
    offset: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let offset = self.offset;
        let (header, rest) = Fields::split(&RECORD, self.table.get(offset..)?)?;
        let length = usize::try_from(header.integer("length")).ok()?;
        let padded = length.checked_next_multiple_of(uapi::VIFA_RECORD_ALIGN as usize)?;

        self.offset = offset
            .checked_add(RECORD.length)?
            .checked_add(padded)?
            .min(self.table.len().saturating_add(1));
        Some(Record {
            offset,
            header,
            content: rest.get(..length).unwrap_or(rest),
        })
    }
}

/// A payload, decoded as far as possible.
#[derive(Clone, Copy)]
pub(crate) enum Payload<'a> {
    Identity(Option<Fields<'a>>),
    /// An array of relations, two in a valid section.
    Relations(&'a [u8]),
    Address(Option<Fields<'a>>, &'a [u8]),
    /// The run's header and the number of bytes of local memory.
    Data(Option<Fields<'a>>, u64),
    Control(Option<Fields<'a>>, &'a [u8]),
    /// Records only.
    Claim(&'a [u8]),
    End(Option<Fields<'a>>),
    Unknown,
    /// Not read, because the section's header is invalid.
    Unread,
}

/// A section.
pub(crate) struct Section<'a> {
    /// Offset of the section in the file.
    pub(crate) offset: u64,
    pub(crate) header: Fields<'a>,
    pub(crate) payload: Payload<'a>,
}

/// Returns an array of structures.
pub(crate) fn array<'a>(
    structure: &'static super::structure::Structure,
    bytes: &'a [u8],
) -> impl Iterator<Item = Fields<'a>> + Clone {
    bytes
        .chunks_exact(structure.length)
        .filter_map(move |bytes| Fields::at(structure, bytes))
}

impl<'a> Section<'a> {
    /// Returns the section at `offset` with this header and this start of its payload.
    pub(crate) fn decode(offset: u64, header: Fields<'a>, payload: &'a [u8]) -> Self {
        let section = Self::unread(offset, header);
        let payload = match section.kind() {
            Kind::Identity => Payload::Identity(Fields::at(&IDENTITY, payload)),
            Kind::Relations => Payload::Relations(payload),
            Kind::Address => match Fields::split(&ADDRESS_RECORD, payload) {
                Some((record, ranges)) => Payload::Address(Some(record), ranges),
                None => Payload::Address(None, &[]),
            },
            Kind::Data => Payload::Data(
                Fields::at(&DATA_RUN, payload),
                section.length().saturating_sub(DATA_RUN.length as u64),
            ),
            Kind::Control => match Fields::split(&RESOURCES, payload) {
                Some((resources, table)) => Payload::Control(Some(resources), table),
                None => Payload::Control(None, &[]),
            },
            Kind::End => Payload::End(Fields::at(&STREAM_END, payload)),
            Kind::Claim => Payload::Claim(payload),
            Kind::Unknown => Payload::Unknown,
        };

        Self { payload, ..section }
    }

    /// Returns the section at `offset` with this header and an unread payload.
    pub(crate) fn unread(offset: u64, header: Fields<'a>) -> Self {
        Self {
            offset,
            header,
            payload: Payload::Unread,
        }
    }

    /// Returns the section's type.
    pub(crate) fn kind(&self) -> Kind {
        Kind::of(self.header.integer("type"))
    }

    /// Returns the length of the payload in bytes, from the header.
    pub(crate) fn length(&self) -> u64 {
        self.header.integer("length")
    }

    /// Returns the offset of the payload in the file.
    pub(crate) fn payload_offset(&self) -> u64 {
        self.offset.saturating_add(SECTION_HEADER.length as u64)
    }

    /// Returns the records of a control section or of a claim.
    pub(crate) fn records(&self) -> Records<'a> {
        let table = match self.payload {
            Payload::Control(_, table) | Payload::Claim(table) => table,
            _ => &[],
        };

        Records { table, offset: 0 }
    }

    /// Returns the file offset of the record at `offset` of the table.
    pub(crate) fn record_offset(&self, offset: usize) -> u64 {
        self.payload_offset()
            .saturating_add(self.kind().before_records() as u64)
            .saturating_add(offset as u64)
    }

    /// Returns whether `table` contains nothing but the records.
    fn is_table(&self, table: &[u8]) -> bool {
        let end = self.records().last().map_or(0, |record| {
            let length = record.header.integer("length");
            let align = u64::from(uapi::VIFA_RECORD_ALIGN);

            (record.offset + RECORD.length) as u64 + length.next_multiple_of(align)
        });

        end == table.len() as u64
    }

    /// Returns the ranges of an address section, at most its `count`.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Fields<'a>> + Clone + use<'a> {
        let (count, ranges) = match self.payload {
            Payload::Address(Some(record), ranges) => (record.integer("count"), ranges),
            _ => (0, [].as_slice()),
        };

        array(&ADDRESS_RANGE, ranges).take(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Returns whether the decoded structures cover exactly the payload.
    pub(crate) fn is_consistent(&self) -> bool {
        let exactly = |length: u64| length == self.length();

        match self.payload {
            Payload::Identity(identity) => identity.is_some() && exactly(IDENTITY.length as u64),
            Payload::Relations(bytes) => {
                exactly(u64::from(uapi::VIFA_RELATIONS) * RELATION.length as u64)
                    && exactly(bytes.len() as u64)
            }
            Payload::Address(record, ranges) => record.is_some_and(|record| {
                record
                    .integer("count")
                    .checked_mul(ADDRESS_RANGE.length as u64)
                    == Some(ranges.len() as u64)
                    && exactly((ADDRESS_RECORD.length + ranges.len()) as u64)
            }),
            Payload::Data(run, length) => {
                run.is_some() && exactly((DATA_RUN.length as u64).saturating_add(length))
            }
            Payload::Control(resources, table) => {
                resources.is_some_and(|resources| {
                    resources.integer("length") == table.len() as u64
                        && resources.integer("records") == self.records().count() as u64
                }) && self.is_table(table)
                    && exactly((RESOURCES.length + table.len()) as u64)
            }
            Payload::Claim(table) => self.is_table(table) && exactly(table.len() as u64),
            Payload::End(end) => end.is_some() && exactly(STREAM_END.length as u64),
            Payload::Unknown => true,
            Payload::Unread => false,
        }
    }

    /// Returns the section as JSON; `content` adds the content of records.
    pub(crate) fn to_json(&self, content: bool) -> impl Serialize + use<'_, 'a> {
        Json {
            section: self,
            content,
        }
    }
}

struct Json<'s, 'a> {
    section: &'s Section<'a>,
    content: bool,
}

impl<'s, 'a> Json<'s, 'a> {
    /// Returns the records of the section as JSON.
    fn records(&self) -> impl Serialize + use<'s, 'a> {
        let Self { section, content } = *self;

        Sequence(section.records().map(move |record| JsonRecord {
            offset: section.record_offset(record.offset),
            record,
            content,
        }))
    }
}

impl Serialize for Json<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let section = self.section;
        let mut map = serializer.serialize_map(None)?;

        map.serialize_entry("offset", &section.offset)?;
        map.serialize_entry("name", section.kind().name())?;
        map.serialize_entry("header", &section.header)?;
        match section.payload {
            Payload::Identity(Some(fields)) | Payload::End(Some(fields)) => {
                map.serialize_entry(section.kind().name(), &fields)?;
            }
            Payload::Relations(bytes) => {
                map.serialize_entry("relations", &Sequence(array(&RELATION, bytes)))?;
            }
            Payload::Address(Some(record), _) => {
                map.serialize_entry("address", &record)?;
                map.serialize_entry("ranges", &Sequence(section.ranges()))?;
            }
            Payload::Data(Some(run), bytes) => {
                map.serialize_entry("data", &run)?;
                map.serialize_entry("bytes", &bytes)?;
            }
            Payload::Control(Some(resources), _) => {
                map.serialize_entry("control", &resources)?;
                map.serialize_entry("records", &self.records())?;
            }
            Payload::Claim(_) => map.serialize_entry("records", &self.records())?,
            Payload::Identity(None)
            | Payload::Address(None, _)
            | Payload::Data(None, _)
            | Payload::Control(None, _)
            | Payload::End(None)
            | Payload::Unknown
            | Payload::Unread => {}
        }
        map.end()
    }
}

/// An array of an iterator's items.
struct Sequence<I>(I);

impl<I: Iterator<Item: Serialize> + Clone> Serialize for Sequence<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(None)?;

        for item in self.0.clone() {
            sequence.serialize_element(&item)?;
        }
        sequence.end()
    }
}

struct JsonRecord<'a> {
    offset: u64,
    record: Record<'a>,
    content: bool,
}

impl Serialize for JsonRecord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;

        map.serialize_entry("offset", &self.offset)?;
        for (field, value) in self.record.header.values() {
            map.serialize_entry(field.name(), &value)?;
        }
        if self.content {
            map.serialize_entry("content", &hexadecimal(self.record.content))?;
        }
        map.end()
    }
}

/// Formats `bytes` as hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}
