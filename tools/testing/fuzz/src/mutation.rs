// SPDX-License-Identifier: GPL-2.0

//! Changes of streams.
//!
//! [`damage`] changes arbitrary bytes: the result must be refused, or have the same meaning as
//! before. [`edit`] changes the meaning and corrects checksums: the result may be a valid stream
//! with another meaning.

use std::{ops::Range, sync::LazyLock};

use fastrand::Rng;
use vifa_headers::{
    self as headers, bytes_of, value_of, vifa_address_range, vifa_address_record, vifa_data_run,
    vifa_identity, vifa_record, vifa_relation, vifa_resources, vifa_section_header,
    vifa_stream_end,
};
use vifa_streams::{Repair, Section, Stream, Totals};

/// The flag of a section that a receiver has to support.
const MANDATORY: u16 = headers::VIFA_SECTION_MANDATORY as u16;

/// Alignment of records in bytes.
const ALIGN: usize = headers::VIFA_RECORD_ALIGN as usize;

/// Maximum length of a changed stream in bytes. Longer ones only take more time.
pub const LENGTH_MAX: usize = 0x2_0000;

/// Changes bytes of `stream`. Some changes copy bytes from the stream `other`.
pub fn damage(stream: &[u8], other: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = stream.to_vec();

    for _ in 0..few(rng) {
        match rng.u8(..12) {
            0..=4 => flip(&mut bytes, rng),
            5 => {
                let range = range_of(bytes.len(), rng);
                bytes.drain(range);
            }
            6 => bytes.truncate(rng.usize(..=bytes.len())),
            7 => {
                let at = rng.usize(..=bytes.len());
                let noise: Vec<u8> = (0..rng.usize(1..40)).map(|_| rng.u8(..)).collect();
                bytes.splice(at..at, noise);
            }
            8 => {
                let range = range_of(bytes.len(), rng);
                let repeated = bytes[range].to_vec();
                let at = rng.usize(..=bytes.len());
                bytes.splice(at..at, repeated);
            }
            9 => {
                // The start of one stream and the end of another, often split at the same offset.
                let at = rng.usize(..=bytes.len());
                let from = if rng.bool() {
                    at.min(other.len())
                } else {
                    rng.usize(..=other.len())
                };
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            10 => {
                let from = range_of(other.len(), rng);
                let at = rng.usize(..=bytes.len());
                let to = at..bytes.len().min(at + from.len());
                bytes[to.clone()].copy_from_slice(&other[from][..to.len()]);
            }
            _ => {
                let range = range_of(bytes.len(), rng);
                let byte = *rng.choice(&[0, 0xff, 0x80, 1]).unwrap_or(&0);
                bytes[range].fill(byte);
            }
        }
    }
    bytes.truncate(LENGTH_MAX);
    bytes
}

/// Changes the meaning of `stream` and seals it again, often with all corrections. Some changes
/// copy sections from the stream `other`. Returns `None` if `stream` cannot be parsed.
pub fn edit(stream: &[u8], other: &[u8], rng: &mut Rng) -> Option<Vec<u8>> {
    let mut draft = Stream::parse_prefix(stream)?;
    let other = Stream::parse_prefix(other);

    for _ in 0..few(rng) {
        match rng.u8(..16) {
            0..=5 => edit_field(&mut draft, rng),
            6 => edit_ranges(&mut draft, rng),
            7 => split_part(&mut draft, rng),
            8 | 9 => edit_records(&mut draft, rng),
            10 => edit_header(&mut draft, rng),
            11 => edit_payload(&mut draft, rng),
            12..=14 => edit_order(&mut draft, other.as_ref(), rng),
            _ => edit_stream_header(&mut draft, rng),
        }
    }
    Some(draft.seal_with(repair(rng))).filter(|stream| stream.len() <= LENGTH_MAX)
}

/// Changes one payload of `stream` with `change`, and seals the stream again.
///
/// `change` receives the payload, extended by `room` bytes, and its length, and returns the new
/// length. Returns `None` if `stream` cannot be parsed.
pub fn edit_with(
    stream: &[u8],
    room: usize,
    rng: &mut Rng,
    change: impl FnOnce(&mut [u8], usize) -> usize,
) -> Option<Vec<u8>> {
    let mut draft = Stream::parse_prefix(stream)?;
    let repair = repair(rng);
    let section = pick(&mut draft.sections, rng)?;
    let length = section.payload.len();

    section.payload.resize(length + room, 0);
    let changed = change(&mut section.payload, length);
    section.payload.truncate(changed);
    Some(draft.seal_with(repair))
}

/// Returns a sealed stream of the first sections of `stream` and the last ones of `other`.
pub fn splice(stream: &[u8], other: &[u8], rng: &mut Rng) -> Option<Vec<u8>> {
    let mut draft = Stream::parse_prefix(stream)?;

    append(
        &mut draft.sections,
        &Stream::parse_prefix(other)?.sections,
        rng,
    );
    Some(draft.seal_with(repair(rng)))
}

/// Returns a random number of changes.
fn few(rng: &mut Rng) -> u8 {
    1 + rng.u8(..4).min(rng.u8(..4))
}

/// Returns random corrections, mostly all.
fn repair(rng: &mut Rng) -> Repair {
    if rng.u8(..4) > 0 {
        return Repair::EVERYTHING;
    }
    Repair {
        sequence: rng.bool(),
        places: rng.bool(),
        totals: if rng.bool() {
            Totals::All
        } else {
            Totals::Keep
        },
    }
}

fn pick<'a, T>(items: &'a mut [T], rng: &mut Rng) -> Option<&'a mut T> {
    let count = items.len().max(1);

    items.get_mut(rng.usize(..count))
}

/// Returns a range, mostly a short one, within `length` bytes.
fn range_of(length: usize, rng: &mut Rng) -> Range<usize> {
    let start = rng.usize(..=length);
    let most = [8, 64, 0x1000][rng.usize(..3)].min(length - start);

    start..start + rng.usize(..=most)
}

/// Flips bits of a byte.
fn flip(bytes: &mut [u8], rng: &mut Rng) {
    let bits = if rng.bool() {
        1 << rng.u8(..8)
    } else {
        rng.u8(1..)
    };

    if let Some(byte) = pick(bytes, rng) {
        *byte ^= bits;
    }
}

/// Changes a little-endian integer of up to eight bytes to an interesting value.
fn change_integer(field: &mut [u8], rng: &mut Rng) {
    let mut bytes = [0; 8];
    let width = field.len().min(bytes.len());

    bytes[..width].copy_from_slice(&field[..width]);
    let old = u64::from_le_bytes(bytes);
    let new = match rng.u8(..12) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => old.wrapping_add(1),
        4 => old.wrapping_sub(1),
        5 => old ^ (1 << rng.usize(..width * 8)),
        6 => old.wrapping_mul(2),
        7 => rng.u64(..16),
        8 => 1 << rng.usize(..width * 8),
        9 => old.wrapping_add(0x1000),
        10 => rng.u64(..20) << 12,
        _ => rng.u64(..),
    };
    field[..width].copy_from_slice(&new.to_le_bytes()[..width]);
}

/// A field that consists of integers.
trait Integers {
    /// Appends the width of each integer in bytes.
    fn push_widths(&self, widths: &mut Vec<usize>);
}

macro_rules! integers {
    ($($integer:ty),*) => {
        $(
            impl Integers for $integer {
                fn push_widths(&self, widths: &mut Vec<usize>) {
                    widths.push(size_of::<Self>());
                }
            }
        )*
    };
}

integers!(u8, u16, u32, u64);

impl<T: Integers, const N: usize> Integers for [T; N] {
    fn push_widths(&self, widths: &mut Vec<usize>) {
        for integer in self {
            integer.push_widths(widths);
        }
    }
}

/// Returns the widths of these fields of a structure.
macro_rules! widths_of {
    ($structure:ident: $($field:ident),* $(,)?) => {{
        let structure = $structure::default();
        let mut widths = Vec::new();

        $(structure.$field.push_widths(&mut widths);)*
        assert_eq!(widths.iter().sum::<usize>(), size_of::<$structure>());
        widths
    }};
}

/// The widths of the integers in the payload of a section type.
struct Widths {
    kind: u32,
    /// The widths of the first integers.
    first: Vec<usize>,
    /// The widths of the following integers, which repeat.
    repeated: Vec<usize>,
}

static WIDTHS: LazyLock<Vec<Widths>> = LazyLock::new(|| {
    let record = || widths_of!(vifa_record: type_, version, index, length, reserved);
    let resources = widths_of!(vifa_resources: version, run_state, records, length, reserved);
    let widths = |kind, first, repeated| Widths {
        kind,
        first,
        repeated,
    };

    vec![
        widths(
            headers::VIFA_SECTION_IDENTITY,
            widths_of!(
                vifa_identity: vendor, device, subsystem_vendor, subsystem, revision_id, reserved0,
                vifa_revision, features, bar_size, interrupt_vectors, queues, granule,
                local_memory, control_plane_max, reserved1, record_version,
            ),
            Vec::new(),
        ),
        widths(
            headers::VIFA_SECTION_RELATIONS,
            Vec::new(),
            widths_of!(vifa_relation: plane, reserved, output, receiver),
        ),
        widths(
            headers::VIFA_SECTION_ADDRESS,
            widths_of!(vifa_address_record: space, round, granule, count),
            widths_of!(vifa_address_range: start, length, sequence),
        ),
        widths(
            headers::VIFA_SECTION_DATA,
            widths_of!(vifa_data_run: offset),
            Vec::new(),
        ),
        widths(
            headers::VIFA_SECTION_CONTROL,
            [resources, record()].concat(),
            Vec::new(),
        ),
        widths(
            headers::VIFA_SECTION_END,
            widths_of!(
                vifa_stream_end: sections, data_bytes, control_bytes, headers_crc, reserved
            ),
            Vec::new(),
        ),
        widths(headers::VIFA_SECTION_CLAIM, record(), Vec::new()),
    ]
});

/// Changes a byte of the stream header.
fn edit_stream_header(draft: &mut Stream, rng: &mut Rng) {
    let mut bytes = bytes_of(&draft.header).to_vec();
    let at = rng.usize(..bytes.len());

    change_integer(&mut bytes[at..=at], rng);
    draft.header = value_of(&bytes).unwrap_or(draft.header);
}

/// Changes a field of a payload.
fn edit_field(draft: &mut Stream, rng: &mut Rng) {
    let Some(section) = pick(&mut draft.sections, rng) else {
        return;
    };
    let kind = section.kind();
    let Some(Widths {
        first, repeated, ..
    }) = WIDTHS.iter().find(|widths| widths.kind == kind)
    else {
        return;
    };
    let whole = repeated.iter().sum::<usize>().max(1);
    let head: usize = first.iter().sum();
    let repeats = section.payload.len().saturating_sub(head) / whole;
    let count = first.len() + repeated.len() * repeats;

    if count == 0 {
        return;
    }
    let number = rng.usize(..count);
    let widths = first.iter().chain(repeated.iter().cycle());
    let start = widths.clone().take(number).sum();
    let width = widths.copied().nth(number).unwrap_or_default();
    if let Some(field) = section.payload.get_mut(start..start + width) {
        change_integer(field, rng);
    }
}

/// Changes a section's header.
fn edit_header(draft: &mut Stream, rng: &mut Rng) {
    let Some(section) = pick(&mut draft.sections, rng) else {
        return;
    };
    let header = &mut section.header;

    match rng.u8(..6) {
        0 => header.type_ = rng.u16(..9),
        1 => header.type_ = rng.u16(..),
        2 => header.flags ^= 1 << rng.u16(..16),
        3 => header.flags ^= MANDATORY,
        // The interface of the other plane.
        4 => header.interface ^= 3,
        _ => header.interface ^= 1 << rng.u64(..64),
    }
}

/// Changes bytes of a payload, or its length.
fn edit_payload(draft: &mut Stream, rng: &mut Rng) {
    let Some(section) = pick(&mut draft.sections, rng) else {
        return;
    };
    let payload = &mut section.payload;
    let granule = 0x1000 << rng.usize(..3);

    match rng.u8(..6) {
        0 | 1 => flip(payload, rng),
        2 => payload.truncate(rng.usize(..=payload.len())),
        3 => payload.resize(payload.len() + rng.usize(1..64), rng.u8(..)),
        4 => payload.resize(size_of::<vifa_data_run>() + granule, 0),
        _ => {
            let range = range_of(payload.len(), rng);
            payload.drain(range);
        }
    }
}

/// Drops, repeats, moves, swaps or adds sections.
fn edit_order(draft: &mut Stream, other: Option<&Stream>, rng: &mut Rng) {
    let sections = &mut draft.sections;
    let count = sections.len();

    if count == 0 {
        return;
    }
    let one = rng.usize(..count);
    let another = rng.usize(..count);
    match rng.u8(..9) {
        0 => {
            sections.remove(one);
        }
        1 => sections.insert(another, sections[one].clone()),
        2 => {
            let section = sections.remove(one);
            sections.insert(another.min(count - 1), section);
        }
        3 => sections.swap(one, another),
        4 => sections.truncate(one),
        5 => append(sections, other.map_or(&[], |other| &other.sections), rng),
        6 => {
            let section = other.and_then(|other| rng.choice(&other.sections));
            sections.insert(one, section.unwrap_or(&sections[another]).clone());
        }
        7 => sections.insert(one, unknown(&sections[another].header, rng)),
        _ => draft.tail.extend((0..rng.u8(1..40)).map(|_| rng.u8(..))),
    }
}

/// Replaces the last sections by the last ones of another stream.
fn append(sections: &mut Vec<Section>, other: &[Section], rng: &mut Rng) {
    sections.truncate(rng.usize(..=sections.len()));
    let from = if rng.bool() {
        sections.len().min(other.len())
    } else {
        rng.usize(..=other.len())
    };
    sections.extend_from_slice(&other[from..]);
}

/// Returns a section of an unknown type, as a neighbour of a section with this header.
fn unknown(neighbour: &vifa_section_header, rng: &mut Rng) -> Section {
    Section {
        header: vifa_section_header {
            type_: rng.u16(8..),
            flags: if rng.u8(..4) == 0 { MANDATORY } else { 0 },
            ..*neighbour
        },
        payload: (0..rng.usize(..80)).map(|_| rng.u8(..)).collect(),
    }
}

/// Changes the ranges of an address section.
fn edit_ranges(draft: &mut Stream, rng: &mut Rng) {
    let is_address = |section: &&mut Section| section.kind() == headers::VIFA_SECTION_ADDRESS;
    let mut parts: Vec<&mut Section> = draft.sections.iter_mut().filter(is_address).collect();
    let Some(section) = pick(&mut parts, rng) else {
        return;
    };
    let Some(mut header) = value_of::<vifa_address_record>(&section.payload) else {
        return;
    };
    let mut entries: Vec<vifa_address_range> = section.payload[size_of_val(&header)..]
        .chunks_exact(size_of::<vifa_address_range>())
        .filter_map(value_of)
        .collect();
    let granule = u64::from(header.granule);

    match rng.u8(..10) {
        0 => header.round = header.round.wrapping_add(1),
        1 => header.space ^= 3,
        2 if !entries.is_empty() => {
            entries.remove(rng.usize(..entries.len()));
        }
        3 if !entries.is_empty() => {
            let entry = entries[rng.usize(..entries.len())];
            entries.insert(rng.usize(..=entries.len()), entry);
        }
        4 if !entries.is_empty() => {
            let (one, other) = (rng.usize(..entries.len()), rng.usize(..entries.len()));
            entries.swap(one, other);
        }
        5 if !entries.is_empty() => {
            let at = rng.usize(..entries.len());
            split_range(&mut entries, at, granule);
        }
        6 => {
            if let Some(entry) = pick(&mut entries, rng) {
                entry.start = entry.start.wrapping_add(granule);
            }
        }
        7 => {
            if let Some(entry) = pick(&mut entries, rng) {
                entry.length = entry.length.wrapping_add(granule);
            }
        }
        8 => {
            let first = entries
                .last()
                .map_or(0, |last| last.start.wrapping_add(2 * granule));
            entries.extend(ranges_from(first, rng.u64(1..4), granule));
        }
        // The maximum number of ranges in a part, or one more.
        _ => {
            let most = u64::from(headers::VIFA_ADDRESS_RANGES_MAX) + u64::from(rng.bool());
            entries = ranges_from(0, most, granule).collect();
        }
    }
    // Rarely a wrong count.
    if rng.u8(..16) > 0 {
        header.count = entries.len() as u32;
    }
    section.payload = bytes_of(&header).to_vec();
    for entry in &entries {
        section.payload.extend_from_slice(bytes_of(entry));
    }
}

/// Splits the range `at` into two ranges that touch.
fn split_range(entries: &mut Vec<vifa_address_range>, at: usize, granule: u64) {
    let first = &mut entries[at];
    first.length = first.length.wrapping_sub(granule);
    let second = vifa_address_range {
        start: first.start.wrapping_add(first.length),
        length: granule,
        ..*first
    };
    entries.insert(at + 1, second);
}

/// Returns `count` ranges of one granule, the first at `first`, with gaps of one granule.
fn ranges_from(first: u64, count: u64, granule: u64) -> impl Iterator<Item = vifa_address_range> {
    (0..count).map(move |number| vifa_address_range {
        start: first.wrapping_add(2 * number * granule),
        length: granule,
        sequence: 0,
    })
}

/// Splits an address section in two, each with its data sections. The meaning does not change.
fn split_part(draft: &mut Stream, rng: &mut Rng) {
    let is_address = |section: &Section| section.kind() == headers::VIFA_SECTION_ADDRESS;
    let Some(at) = draft.sections.iter().position(is_address) else {
        return;
    };
    let section = &draft.sections[at];
    let Some(mut header) = value_of::<vifa_address_record>(&section.payload) else {
        return;
    };
    let entries = &section.payload[size_of_val(&header)..];
    let count = entries.len() / size_of::<vifa_address_range>();
    let first = rng.usize(..=count);
    let (front, back) = entries.split_at(first * size_of::<vifa_address_range>());
    // Each range has one data section, unless it is long.
    let place = (at + 1 + first).min(draft.sections.len());

    header.count = (count - first) as u32;
    let second = Section {
        header: section.header,
        payload: [bytes_of(&header), back].concat(),
    };
    header.count = first as u32;
    draft.sections[at].payload = [bytes_of(&header), front].concat();
    draft.sections.insert(place, second);
}

/// Changes the records of a control section, or of a claim.
fn edit_records(draft: &mut Stream, rng: &mut Rng) {
    let has_records = |section: &&mut Section| {
        [headers::VIFA_SECTION_CONTROL, headers::VIFA_SECTION_CLAIM].contains(&section.kind())
    };
    let mut sections: Vec<_> = draft.sections.iter_mut().filter(has_records).collect();
    let Some(section) = pick(&mut sections, rng) else {
        return;
    };
    let mut header = match section.kind() {
        headers::VIFA_SECTION_CLAIM => None,
        _ => match value_of::<vifa_resources>(&section.payload) {
            Some(header) => Some(header),
            None => return,
        },
    };
    let before = header.as_ref().map_or(0, size_of_val);
    let mut rest = section.payload.get(before..).unwrap_or_default();
    let mut records = Vec::new();
    while let Some((record, next)) = split_record(rest) {
        records.push(record);
        rest = next;
    }
    if records.is_empty() {
        return;
    }

    let (one, other) = (rng.usize(..records.len()), rng.usize(..records.len()));
    match rng.u8(..8) {
        0 => {
            records.remove(one);
        }
        1 => records.insert(other, records[one].clone()),
        2 => records.swap(one, other),
        3 => records[one].header.version = rng.u16(..4),
        4 => records[one].header.index = rng.u32(..4),
        5 => records[one].header.type_ = rng.u16(..18),
        6 => {
            let record = &mut records[one];
            let length = rng.u32(..80);
            record.header.length = length;
            record
                .content
                .resize((length as usize).next_multiple_of(ALIGN), 0);
        }
        // Nonzero padding, or other content.
        _ => flip(&mut records[one].content, rng),
    }

    let mut table = Vec::new();
    for record in &records {
        table.extend_from_slice(bytes_of(&record.header));
        table.extend_from_slice(&record.content);
    }
    section.payload.clear();
    if let Some(header) = &mut header {
        if rng.u8(..16) > 0 {
            header.records = records.len() as u32;
            header.length = table.len() as u32;
        }
        section.payload.extend_from_slice(bytes_of(header));
    }
    section.payload.extend_from_slice(&table);
}

/// A record.
#[derive(Clone)]
struct TableEntry {
    header: vifa_record,
    /// The content, with the padding.
    content: Vec<u8>,
}

/// Returns the first record of a table and the bytes after it.
fn split_record(table: &[u8]) -> Option<(TableEntry, &[u8])> {
    let header = value_of::<vifa_record>(table)?;
    let length = (header.length as usize).checked_next_multiple_of(ALIGN)?;
    let (content, rest) = table
        .get(size_of::<vifa_record>()..)?
        .split_at_checked(length)?;

    let entry = TableEntry {
        header,
        content: content.to_vec(),
    };
    Some((entry, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds;

    /// Parsing and sealing does not change a stream.
    #[test]
    fn sealing_does_not_change_a_seed() {
        for seed in seeds::streams().unwrap() {
            let stream = Stream::parse_prefix(&seed.bytes).unwrap();
            assert!(stream.tail.is_empty(), "{}", seed.name);
            assert!(
                stream.seal_with(Repair::EVERYTHING) == seed.bytes,
                "{}",
                seed.name
            );
        }
    }

    /// The same random seed results in the same change.
    #[test]
    fn changes_are_repeatable() {
        let seeds = seeds::short_streams().unwrap();
        let (one, other) = (&seeds[0].bytes, &seeds[1].bytes);

        for seed in 0..500 {
            let make = || {
                let mut rng = Rng::with_seed(seed);
                (damage(one, other, &mut rng), edit(one, other, &mut rng))
            };
            assert!(make() == make());
        }
    }

    /// Any bytes can be changed.
    #[test]
    fn any_bytes_can_be_changed() {
        let seeds = seeds::short_streams().unwrap();

        for seed in 0..1_000 {
            let mut rng = Rng::with_seed(seed);
            let mut bytes = seeds[rng.usize(..seeds.len())].bytes.clone();
            for _ in 0..6 {
                bytes = damage(&bytes, &seeds[0].bytes, &mut rng);
                bytes = edit(&bytes, &seeds[0].bytes, &mut rng).unwrap_or(bytes);
                bytes = splice(&bytes, &seeds[0].bytes, &mut rng).unwrap_or(bytes);
            }
        }
    }
}
