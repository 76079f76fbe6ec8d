// SPDX-License-Identifier: GPL-2.0

//! Locates in the file what the driver's layer rejects.
//!
//! The layer reports the section and the field that it rejects; [`structure`](super::structure) has
//! the offset of that field.

use std::fmt::Display;

use super::{
    damage::{Damage, Found},
    section::Kind,
    structure::{
        Fields, Structure, ADDRESS_RANGE, ADDRESS_RECORD, DATA_RUN, IDENTITY, RECORD, RELATION,
        RESOURCES, SECTION_HEADER, STREAM_END, STREAM_HEADER,
    },
};
use crate::{
    layer::{
        check::Violation,
        restore::{Place, RestoreError},
    },
    verdict::Refusal,
};

/// The part of a stream that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    StreamHeader,
    /// A section at this offset of the file.
    Section {
        offset: u64,
        sequence: u64,
        kind: Kind,
    },
    /// Data after the end section.
    After,
}

/// Returns the offset of the structure's field in the file, if the field exists.
fn field_at(structure: &Structure, start: u64, field: &str) -> Option<u64> {
    Some(start.saturating_add(structure.offset_of(field)?))
}

/// Returns the offset of the element `index` of an array at `start`.
fn element_at(structure: &Structure, start: u64, index: u64) -> u64 {
    start.saturating_add(index.saturating_mul(structure.length as u64))
}

fn damage(offset: u64, part: impl Display, violation: &Violation) -> Damage {
    Damage::of_field(
        offset,
        part,
        violation.field,
        violation.expected,
        Found::Number(violation.found),
    )
}

/// Returns the offset of a field of a section's payload, if the field exists.
fn payload_field_at(kind: Kind, start: u64, field: &str) -> Option<u64> {
    let structure = match kind {
        Kind::Identity => &IDENTITY,
        Kind::Relations => {
            let (index, field) = field.strip_prefix("relation[")?.split_once("].")?;
            let start = element_at(&RELATION, start, index.parse().ok()?);

            return field_at(&RELATION, start, field);
        }
        Kind::Address => &ADDRESS_RECORD,
        Kind::Data => &DATA_RUN,
        Kind::Control => &RESOURCES,
        Kind::End => &STREAM_END,
        Kind::Claim | Kind::Unknown => return None,
    };

    field_at(structure, start, field)
}

/// Returns the offset, in a payload of type `kind`, of the first non-zero padding byte after the
/// record at `offset` of its table.
fn padding_at(kind: Kind, payload: &[u8], offset: usize) -> Option<usize> {
    let record = kind.before_records().checked_add(offset)?;
    let header = Fields::at(&RECORD, payload.get(record..)?)?;
    let length = usize::try_from(header.integer("length")).ok()?;
    let padding = record.checked_add(RECORD.length)?.checked_add(length)?;
    let bytes = payload.get(padding..)?;

    Some(padding + bytes.iter().position(|&byte| byte != 0)?)
}

/// Locates `refusal` in a stream that begins at `start` of its file. The layer had read up to
/// `end`, in `part`; `content` is the start of the payload if `part` is a payload.
pub(super) fn locate(
    refusal: &Refusal,
    start: u64,
    part: &Part,
    content: &[u8],
    end: u64,
) -> Damage {
    let (section, kind, sequence) = match *part {
        Part::StreamHeader => (start, Kind::Unknown, None),
        Part::Section {
            offset,
            kind,
            sequence,
        } => (offset, kind, Some(sequence)),
        Part::After => (end, Kind::Unknown, None),
    };
    let payload = section.saturating_add(SECTION_HEADER.length as u64);
    let damage = match refusal {
        RestoreError::Malformed(place, violation) => {
            let (at, known) = match *place {
                Place::StreamHeader => (start, field_at(&STREAM_HEADER, start, violation.field)),
                Place::SectionHeader(_) => {
                    (section, field_at(&SECTION_HEADER, section, violation.field))
                }
                Place::Payload(..) => (
                    payload,
                    payload_field_at(kind, payload, violation.field)
                        .or_else(|| field_at(&SECTION_HEADER, section, violation.field)),
                ),
                Place::Range(_, index) => {
                    let ranges = payload.saturating_add(ADDRESS_RECORD.length as u64);
                    let range = element_at(&ADDRESS_RANGE, ranges, index.into());

                    (range, field_at(&ADDRESS_RANGE, range, violation.field))
                }
                Place::Record(_, _, offset) => {
                    let record = payload
                        .saturating_add(kind.before_records() as u64)
                        .saturating_add(offset as u64);
                    let field = match violation.field {
                        "padding" => padding_at(kind, content, offset)
                            .map(|padding| payload.saturating_add(padding as u64)),
                        field => field_at(&RECORD, record, field),
                    };

                    (record, field)
                }
                Place::AfterEnd => (end, None),
            };

            damage(known.unwrap_or(at), place, violation)
        }
        RestoreError::Excess => {
            Damage::of_part(end, Place::AfterEnd, "nothing may follow the end section")
        }
        RestoreError::Incomplete(place) => {
            Damage::of_part(end, place, "the stream is incomplete: it ends here")
        }
        RestoreError::Incompatible(_)
        | RestoreError::Buffer
        | RestoreError::OutOfMemory
        | RestoreError::Unobtainable(_)
        | RestoreError::Device(_) => Damage::of_part(section, "stream", refusal),
    };

    damage.in_section(sequence)
}
