// SPDX-License-Identifier: GPL-2.0

//! Tests that the documented layout of the stream is the implemented one.
//!
//! The tables of `Documentation/vifa/stream.rst` are compared with the C header as translated by
//! bindgen. The numbers in the text are compared with the header's text.

use std::{
    collections::BTreeMap,
    mem::{offset_of, size_of},
};

use vifa_headers as c;

const STREAM: &str = include_str!("../../../../Documentation/vifa/stream.rst");
const HEADER: &str = include_str!("../../../../include/uapi/linux/vifa.h");

/// Offset, length and name of each field of a structure, and the structure's length.
type Layout = (Vec<(usize, usize, String)>, usize);

/// Returns the layout of a C structure.
macro_rules! layout {
    ($structure:ident { $($field:ident),* $(,)? }) => {{
        fn length_of<T>(_: impl Fn(&c::$structure) -> &T) -> usize {
            size_of::<T>()
        }

        let fields = vec![$((
            offset_of!(c::$structure, $field),
            length_of(|structure| &structure.$field),
            stringify!($field).trim_end_matches('_').to_string(),
        )),*];
        (stringify!($structure), (fields, size_of::<c::$structure>()))
    }};
}

/// Returns the layouts of a stream's structures in the C header.
fn structures() -> BTreeMap<&'static str, Layout> {
    headers().into_iter().chain(payloads()).collect()
}

/// Returns the layouts of the headers, and of the end.
fn headers() -> [(&'static str, Layout); 3] {
    [
        layout!(vifa_stream_header {
            magic,
            major,
            minor,
            crc,
        }),
        layout!(vifa_section_header {
            type_,
            flags,
            length,
            interface,
            sequence,
            payload_crc,
            header_crc,
        }),
        layout!(vifa_stream_end {
            sections,
            data_bytes,
            control_bytes,
            headers_crc,
            reserved,
        }),
    ]
}

/// Returns the layouts in the payloads before the end.
fn payloads() -> [(&'static str, Layout); 7] {
    [
        layout!(vifa_identity {
            vendor,
            device,
            subsystem_vendor,
            subsystem,
            revision_id,
            reserved0,
            vifa_revision,
            features,
            bar_size,
            interrupt_vectors,
            queues,
            granule,
            local_memory,
            control_plane_max,
            reserved1,
            record_version,
        }),
        layout!(vifa_relation {
            plane,
            reserved,
            output,
            receiver,
        }),
        layout!(vifa_address_record {
            space,
            round,
            granule,
            count,
        }),
        layout!(vifa_address_range {
            start,
            length,
            sequence,
        }),
        layout!(vifa_data_run { offset }),
        layout!(vifa_resources {
            version,
            run_state,
            records,
            length,
            reserved,
        }),
        layout!(vifa_record {
            type_,
            version,
            index,
            length,
            reserved,
        }),
    ]
}

/// Returns the layouts of the header's structures that are not in a stream.
fn other_structures() -> BTreeMap<&'static str, Layout> {
    BTreeMap::from([
        layout!(vifa_save_set_header {
            magic,
            major,
            minor,
            manifest_length,
            stream_length,
            manifest_crc,
            header_crc,
        }),
        layout!(vifa_region_relation {
            output,
            receiver,
            plane,
            role,
            reserved,
        }),
        layout!(vifa_region {
            magic,
            major,
            minor,
            size,
            generation,
            control_interface,
            data_interface,
            state,
            error,
            error_text,
            identity,
            relations,
            stream_bytes,
            sections,
            record_bytes,
            records,
            local_ranges,
            local_bytes,
            data_bytes,
            guest_ranges,
            guest_bytes,
            saved,
            restored,
            failed,
            log_page_size,
            log_ranges,
            log_bytes,
            log_reports,
            log_dirty_bytes,
            log_lost,
        }),
    ])
}

/// Returns the value of a product in a table, such as `16 * 2`.
fn product(text: &str) -> Option<usize> {
    text.split('*')
        .map(|factor| factor.trim().parse::<usize>().ok())
        .product()
}

/// Returns the cells of a row of a simple table. The line `ruler` marks the columns.
fn cells<'a>(ruler: &str, row: &'a str) -> Vec<&'a str> {
    let mut starts: Vec<_> = ruler
        .match_indices('=')
        .map(|(at, _)| at)
        .filter(|&at| at == 0 || ruler.as_bytes()[at - 1] == b' ')
        .collect();
    starts.push(row.len());
    starts
        .windows(2)
        .map(|column| {
            row.get(column[0]..column[1].min(row.len()))
                .unwrap_or("")
                .trim()
        })
        .collect()
}

/// Returns the layouts in the tables of the documentation.
fn documented() -> BTreeMap<&'static str, Layout> {
    let mut found = BTreeMap::new();
    let mut structure = None;
    let mut lines = STREAM.lines();

    while let Some(line) = lines.next() {
        let announced = line
            .split_once("``struct ")
            .and_then(|(_, rest)| rest.split_once("``, "))
            .and_then(|(name, rest)| {
                let (length, _) = rest.split_once(" bytes")?;
                Some((name, length.parse().ok()?))
            });
        if announced.is_some() {
            structure = announced;
        }
        if !line.starts_with("Offset  Length  Field ") {
            continue;
        }

        let (name, length) = structure.take().expect("a table follows its structure");
        let ruler = lines.next().unwrap();
        let mut fields = Vec::new();
        for row in lines.by_ref().take_while(|row| *row != ruler) {
            let cells = cells(ruler, row);
            if cells[0].is_empty() || cells[2] == "(bytes)" {
                continue;
            }
            fields.push((
                product(cells[0]).unwrap(),
                product(cells[1]).unwrap(),
                cells[2].to_string(),
            ));
        }
        assert!(found.insert(name, (fields, length)).is_none(), "{name}");
    }
    found
}

#[test]
fn the_tables_are_the_headers_structures() {
    assert_eq!(documented(), structures());
}

/// The fields of each structure leave no gap, so that none is missing in these lists.
#[test]
fn structures_have_no_holes() {
    for (name, (fields, length)) in structures().into_iter().chain(other_structures()) {
        let mut end = 0;

        for (offset, length, field) in fields {
            assert_eq!(offset, end, "{name}.{field}");
            end = offset + length;
        }
        assert_eq!(end, length, "{name}");
    }
}

/// Every structure of the header is in these lists.
#[test]
fn no_structure_is_left_out() {
    let known: Vec<_> = structures()
        .into_keys()
        .chain(other_structures().into_keys())
        .collect();
    let defined = HEADER
        .lines()
        .filter_map(|line| line.strip_prefix("struct ")?.strip_suffix(" {"));
    let mut count = 0;

    for structure in defined {
        assert!(known.contains(&structure), "{structure}");
        count += 1;
    }
    assert_eq!(count, known.len());
}

/// Layouts outside the stream are those of version 1.0. A minor version only appends fields.
#[test]
fn the_region_and_the_save_set_header_stay() {
    for (structure, length, fields) in [
        (
            "vifa_save_set_header",
            32,
            &[
                ("manifest_length", 12),
                ("stream_length", 16),
                ("header_crc", 28),
            ][..],
        ),
        (
            "vifa_region",
            576,
            &[
                ("generation", 16),
                ("control_interface", 24),
                ("state", 40),
                ("error_text", 48),
                ("identity", 208),
                ("relations", 328),
                ("stream_bytes", 376),
                ("record_bytes", 392),
                ("records", 400),
                ("local_ranges", 464),
                ("guest_bytes", 496),
                ("failed", 520),
                ("log_page_size", 528),
                ("log_lost", 568),
            ],
        ),
    ] {
        let (layout, found) = &other_structures()[structure];

        assert_eq!(*found, length, "{structure}");
        for &(field, offset) in fields {
            let found = layout.iter().find(|(_, _, name)| name == field).unwrap();
            assert_eq!(found.0, offset, "{structure}.{field}");
        }
    }
}

/// Parses an integer in the notation of C and the documentation.
fn integer(text: &str) -> Option<u64> {
    let text = text.trim_end_matches("ULL");

    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Returns the integer constants of the header.
fn defined() -> BTreeMap<&'static str, u64> {
    HEADER
        .lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("#define ")?.split_whitespace();
            Some((words.next()?, integer(words.next()?)?))
        })
        .collect()
}

/// Returns the name if the text is the name of a constant.
fn constant(word: &str) -> Option<&str> {
    let name = word.strip_prefix("``")?.strip_suffix("``")?;

    (name.starts_with("VIFA_") && !name.starts_with("VIFA_INTERFACE_")).then_some(name)
}

/// A constant's value in the documentation is that of the header.
#[test]
fn values_are_the_headers() {
    let words: Vec<_> = STREAM.split_whitespace().collect();
    // In the text: "``NAME`` (VALUE)".
    let in_text = words.windows(2).filter_map(|pair| {
        let value = pair[1].strip_prefix('(')?.split_once(')')?.0;
        Some((constant(pair[0])?, integer(value)?))
    });
    // In a table: "``NAME``  VALUE" or "VALUE  ``NAME``" at the start of a row.
    let in_tables = STREAM.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (one, other) = (words.next()?, words.next()?);
        let pair = |name, value| Some((constant(name)?, integer(value)?));
        pair(one, other).or_else(|| pair(other, one))
    });
    let defined = defined();
    let mut count = 0;

    for (name, value) in in_text.chain(in_tables) {
        assert_eq!(defined.get(name), Some(&value), "{name}");
        count += 1;
    }
    assert_eq!(count, 25);
}

/// Every constant of the stream in the documentation is in the header.
#[test]
fn names_are_the_headers() {
    let defined = defined();

    for name in STREAM.split("``").filter(|text| text.starts_with("VIFA_")) {
        let is_defined = match name.strip_suffix('*') {
            Some(prefix) => defined.keys().any(|name| name.starts_with(prefix)),
            None => defined.contains_key(name),
        };
        assert!(is_defined, "{name}");
    }
}
