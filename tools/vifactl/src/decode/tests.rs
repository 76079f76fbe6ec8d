// SPDX-License-Identifier: GPL-2.0

//! Decoding of golden streams, intact and damaged.
//!
//! [`decoder`] is a second decoder, written from `Documentation/vifa/stream.rst` only. Both must
//! produce the same result.

use std::fs;

use proptest::prelude::*;
use serde_json::Value;
use vifa_decoder::{self as decoder, Own};

use super::*;
use crate::{
    identity::Identity,
    layer::{
        self,
        stream::{IdentityPayload, Section},
    },
};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../layer/golden");

/// A control interface of no device.
const ANYONE: u64 = 0x1_0004_0001;

/// The golden streams with their names.
fn golden() -> Vec<(String, Vec<u8>)> {
    let mut streams: Vec<_> = fs::read_dir(GOLDEN)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();

            (
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                fs::read(path).unwrap(),
            )
        })
        .collect();

    streams.sort();
    assert!(!streams.is_empty());
    streams
}

fn sparse() -> Vec<u8> {
    fs::read(format!("{GOLDEN}/1.0-sparse.stream")).unwrap()
}

/// Returns the JSON output for `stream`, and its damage.
fn decoded(stream: &[u8]) -> (Value, Option<Damage>) {
    let mut out = Vec::new();
    let damage = to_json(stream, "stream", true, &mut out).unwrap();
    let shown: Value = serde_json::from_slice(&out).unwrap();

    assert_eq!(shown["damage"], serde_json::to_value(&damage).unwrap());
    (shown, damage)
}

fn shown_as_text(stream: &[u8], all: bool) -> String {
    let mut out = Vec::new();

    decode(stream, &mut Table::new(&mut out, true, all)).unwrap();
    String::from_utf8(out).unwrap()
}

/// Returns the sections of the type `name`.
fn sections<'a>(shown: &'a Value, name: &str) -> Vec<&'a Value> {
    let sections = shown["sections"].as_array().unwrap();

    sections
        .iter()
        .filter(|section| section["name"] == name)
        .collect()
}

fn bytes(hexadecimal: &Value) -> Vec<u8> {
    let digits = hexadecimal.as_str().unwrap().as_bytes();

    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Returns the expected result of the second decoder for a stream with this JSON output.
fn state_of(shown: &Value, stream: &[u8]) -> decoder::State {
    let number = |value: &Value| value.as_u64().unwrap();
    let relations = sections(shown, "relations")[0]["relations"].as_array();
    let mut state = decoder::State {
        sections: sections(shown, "end").len() as u64
            + number(&sections(shown, "end")[0]["end"]["sections"]),
        outputs: relations
            .unwrap()
            .iter()
            .map(|relation| number(&relation["output"]))
            .collect(),
        ..decoder::State::default()
    };

    for address in sections(shown, "address") {
        let sum = match number(&address["address"]["space"]) {
            1 => &mut state.local,
            _ => &mut state.guest,
        };

        for range in address["ranges"].as_array().unwrap() {
            sum.0 += 1;
            sum.1 += number(&range["length"]);
        }
    }
    for data in sections(shown, "data") {
        let start = number(&data["offset"]) as usize + 32 + 8;
        let length = number(&data["bytes"]) as usize;

        state.runs.push((
            number(&data["data"]["offset"]),
            stream[start..start + length].to_vec(),
        ));
    }
    let control = sections(shown, "control")[0];
    for record in control["records"].as_array().unwrap() {
        state.count[number(&record["type"]) as usize] += 1;
    }
    state.control = table_of(control);
    state.claims = sections(shown, "claim").into_iter().map(table_of).collect();
    state
}

/// Returns the records of a section with this JSON output, as bytes of the stream.
fn table_of(section: &Value) -> Vec<u8> {
    let mut table = Vec::new();

    for record in section["records"].as_array().unwrap() {
        for (field, length) in [
            ("type", 2),
            ("version", 2),
            ("index", 4),
            ("length", 4),
            ("reserved", 4),
        ] {
            let value = record[field].as_u64().unwrap();
            table.extend(&value.to_le_bytes()[..length]);
        }
        table.extend(bytes(&record["content"]));
        table.resize(table.len().next_multiple_of(8), 0);
    }
    table
}

/// Returns a destination with the source's identity, for a stream with this JSON output.
fn own(shown: &Value) -> Own {
    let (identity, control_interface) = destination(shown);

    Own::new(
        &IdentityPayload::from(&identity).encode(),
        control_interface,
    )
}

/// Returns the same destination as identity and control interface of the layer.
fn destination(shown: &Value) -> (layer::identity::Identity, u64) {
    let identity: Identity =
        serde_json::from_value(sections(shown, "identity")[0]["identity"].clone()).unwrap();
    let receiver = &sections(shown, "relations")[0]["relations"][0]["receiver"];

    (
        layer::identity::Identity::try_from(&identity).unwrap(),
        match receiver.as_u64().unwrap() {
            0 => ANYONE,
            receiver => receiver,
        },
    )
}

#[test]
fn the_second_decoder_agrees_on_every_golden_stream() {
    for (name, stream) in golden() {
        let (shown, damage) = decoded(&stream);

        assert_eq!(damage, None, "{name}");
        assert_eq!(
            decoder::decode(&stream, &own(&shown)),
            Ok(state_of(&shown, &stream)),
            "{name}"
        );
    }
}

#[test]
fn the_totals_are_those_of_the_sections() {
    for (name, stream) in golden() {
        let (shown, _) = decoded(&stream);
        let state = state_of(&shown, &stream);
        let totals = &shown["totals"];

        assert_eq!(totals["stream_bytes"], stream.len() as u64, "{name}");
        assert_eq!(totals["sections"], state.sections, "{name}");
        assert_eq!(totals["local_ranges"], state.local.0, "{name}");
        assert_eq!(totals["local_bytes"], state.local.1, "{name}");
        assert_eq!(totals["guest_ranges"], state.guest.0, "{name}");
        assert_eq!(totals["guest_bytes"], state.guest.1, "{name}");
        assert_eq!(totals["record_bytes"], state.control.len() as u64, "{name}");
        let records: Value = state.count.to_vec().into();
        assert_eq!(totals["records"], records, "{name}");
    }
}

/// Sets valid CRCs in these sections and in the end section.
fn sealed(mut stream: Vec<u8>, sections: &[usize]) -> Vec<u8> {
    let mut headers = layer::stream::Checksum::EMPTY.and(&stream[..12]);
    let crc = layer::stream::Checksum::of(&stream[..12]);

    stream[12..16].copy_from_slice(&crc.to_le_bytes());
    for (number, &offset) in sections.iter().enumerate() {
        let header = Section::decode(&stream[offset..]).unwrap();
        let payload = offset + 32..(offset + 32 + header.length as usize).min(stream.len());

        if number + 1 == sections.len() {
            let at = payload.start + 24;
            stream[at..at + 4].copy_from_slice(&headers.value().to_le_bytes());
        }
        let crc = layer::stream::Checksum::of(&stream[payload]);
        stream[offset + 24..offset + 28].copy_from_slice(&crc.to_le_bytes());
        headers = headers.and(&stream[offset..offset + 28]);
        let crc = layer::stream::Checksum::of(&stream[offset..offset + 28]);
        stream[offset + 28..offset + 32].copy_from_slice(&crc.to_le_bytes());
    }
    stream
}

/// Returns the offsets of the sections of a valid stream.
fn places(stream: &[u8]) -> Vec<usize> {
    let (shown, _) = decoded(stream);

    shown["sections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|section| section["offset"].as_u64().unwrap() as usize)
        .collect()
}

/// Length of a section header, after which the payload begins.
const PAYLOAD: usize = 32;

/// Changes that make a stream invalid: the section, or none for the stream header, the offsets in
/// it of the changed byte and of its field, and the field.
const DAMAGES: [(Option<u64>, usize, usize, &str); 31] = [
    (None, 3, 0, "magic"),
    (None, 8, 8, "major"),
    (Some(0), 2, 2, "flags"),
    (Some(0), 4, 4, "length"),
    (Some(0), 11, 8, "interface"),
    (Some(0), 16, 16, "sequence"),
    (Some(0), PAYLOAD + 9, PAYLOAD + 9, "reserved0"),
    (Some(0), PAYLOAD + 14, PAYLOAD + 12, "features"),
    (Some(0), PAYLOAD + 32, PAYLOAD + 32, "bar_size[2]"),
    (Some(1), 0, 0, "type"),
    (Some(1), PAYLOAD, PAYLOAD, "relation[0].plane"),
    (
        Some(1),
        PAYLOAD + 24 + 9,
        PAYLOAD + 24 + 8,
        "relation[1].output",
    ),
    (Some(1), PAYLOAD + 5, PAYLOAD + 1, "relation[0].reserved"),
    (Some(2), PAYLOAD, PAYLOAD, "space"),
    (Some(2), PAYLOAD + 8, PAYLOAD + 8, "granule"),
    // The length is checked against the count of ranges.
    (Some(2), PAYLOAD + 12, 4, "length"),
    (Some(2), PAYLOAD + 16 + 24, PAYLOAD + 16 + 24, "start"),
    (Some(2), PAYLOAD + 16 + 8, PAYLOAD + 16 + 8, "length"),
    (Some(2), PAYLOAD + 16 + 16, PAYLOAD + 16 + 16, "sequence"),
    (Some(3), 8, 8, "interface"),
    (Some(3), PAYLOAD + 1, PAYLOAD, "offset"),
    (Some(5), PAYLOAD, PAYLOAD, "version"),
    (Some(5), PAYLOAD + 2, PAYLOAD + 2, "run_state"),
    (Some(5), PAYLOAD + 4, PAYLOAD + 4, "records"),
    (Some(5), PAYLOAD + 8, PAYLOAD + 8, "length"),
    (
        Some(5),
        PAYLOAD + 16 + 24 + 2,
        PAYLOAD + 16 + 24 + 2,
        "version",
    ),
    (
        Some(5),
        PAYLOAD + 16 + 24 + 12,
        PAYLOAD + 16 + 24 + 12,
        "reserved",
    ),
    (Some(6), PAYLOAD, PAYLOAD, "sections"),
    (Some(6), PAYLOAD + 8, PAYLOAD + 8, "data_bytes"),
    (Some(6), PAYLOAD + 16, PAYLOAD + 16, "control_bytes"),
    (Some(6), PAYLOAD + 28, PAYLOAD + 28, "reserved"),
];

#[test]
fn an_invalid_field_is_named_with_its_place() {
    let stream = sparse();
    let sections = places(&stream);
    for (section, at, place, field) in DAMAGES {
        let start = section.map_or(0, |section| sections[section as usize]);
        let (at, place) = (start + at, start + place);
        let mut damaged = stream.clone();
        damaged[at] ^= 0x15;
        let (shown, damage) = decoded(&sealed(damaged, &sections));
        let damage = damage.unwrap_or_else(|| panic!("{field} at {at:#x}"));

        assert_eq!(
            (damage.offset, damage.field.as_deref(), damage.section),
            (place as u64, Some(field), section),
            "{damage:?}"
        );
        assert!(damage.expected.is_some() && damage.found.is_some());
        // Everything before the damage is still shown.
        let before = section.map_or(0, |section| section as usize);
        assert!(shown["sections"].as_array().unwrap().len() >= before);
    }
}

/// Returns a valid stream that is addressed to these interfaces.
fn addressed(control: u64, data: u64) -> Vec<u8> {
    let mut stream = sparse();
    let sections = places(&stream);
    let relations = sections[1] + 32;

    for (at, receiver) in [(relations + 16, control), (relations + 24 + 16, data)] {
        stream[at..at + 8].copy_from_slice(&receiver.to_le_bytes());
    }
    sealed(stream, &sections)
}

#[test]
fn a_stream_may_be_addressed_on_one_plane_only() {
    for (control, data) in [
        (0x4_1801, 0),
        (0, 0x4_1802),
        (0x4_1801, 0x4_1802),
        (0x1_0004_1801, 0x1_0004_1802),
    ] {
        assert_eq!(decoded(&addressed(control, data)).1, None);
    }
}

#[test]
fn a_stream_is_addressed_to_one_function() {
    for (control, data, field) in [
        (0x4_1801, 0x4_1902, "relation[1].receiver"),
        (0x4_1802, 0, "relation[0].receiver"),
        (0, 0x4_1801, "relation[1].receiver"),
        (0x0104_1801, 0, "relation[0].receiver"),
        (0x2_1101, 0, "relation[0].receiver"),
    ] {
        let damage = decoded(&addressed(control, data)).1.unwrap();

        assert_eq!(damage.field.as_deref(), Some(field), "{damage}");
    }
}

#[test]
fn padding_that_is_not_zero_is_found() {
    let mut stream = sparse();
    let sections = places(&stream);
    // After the four bytes of the first record.
    let padding = sections[5] + 32 + 16 + 16 + 4;

    for at in padding..padding + 4 {
        stream[at] = 7;
        let damage = decoded(&sealed(stream.clone(), &sections)).1.unwrap();
        stream[at] = 0;

        assert_eq!(damage.field.as_deref(), Some("padding"));
        assert_eq!(damage.offset, at as u64);
    }
}

#[test]
fn a_cut_record_is_found_where_it_begins() {
    let mut stream = sparse();
    let sections = places(&stream);
    let records = sections[5] + 32 + 16;

    // The second record would begin twelve bytes before the end of the first.
    stream[records + 8..records + 12].copy_from_slice(&20_u32.to_le_bytes());
    let damage = decoded(&sealed(stream, &sections)).1.unwrap();
    assert_eq!(damage.offset, (records + 16 + 24) as u64, "{damage}");
}

#[test]
fn a_wrong_crc_is_named_with_its_place() {
    let stream = sparse();
    let data = places(&stream)[3];

    for (at, field, place) in [
        (12, "crc", 12),
        (data + 29, "header_crc", data + 28),
        (data + 32 + 100, "payload_crc", data + 24),
        (data + 32, "payload_crc", data + 24),
    ] {
        let mut damaged = stream.clone();
        damaged[at] ^= 1;
        let (_, damage) = decoded(&damaged);
        let damage = damage.unwrap();

        assert_eq!(
            (damage.field.as_deref(), damage.offset),
            (Some(field), place as u64)
        );
    }
}

#[test]
fn of_a_cut_stream_everything_before_the_cut_is_shown() {
    let stream = sparse();
    let (whole, _) = decoded(&stream);
    let whole = whole["sections"].as_array().unwrap();
    let places = places(&stream);

    for length in 0..stream.len() {
        // All offsets within local memory are equivalent.
        if length % 97 != 0 && length > places[3] + 64 && length < places[5] {
            continue;
        }
        let (shown, damage) = decoded(&stream[..length]);
        let complete = places
            .iter()
            .skip(1)
            .filter(|&&place| place <= length)
            .count();

        assert_eq!(damage.unwrap().offset, length as u64);
        if length >= 16 {
            let shown = shown["sections"].as_array().unwrap();

            assert!(shown.len() >= complete, "{length}");
            assert_eq!(shown[..complete], whole[..complete], "{length}");
        }
    }
}

#[test]
fn nothing_may_follow_a_stream() {
    let mut stream = sparse();
    let length = stream.len() as u64;

    stream.push(0);
    let (shown, damage) = decoded(&stream);
    assert_eq!(damage.unwrap().offset, length);
    assert_eq!(shown["totals"]["stream_bytes"], length);
}

#[test]
fn text_shows_every_section_and_the_damage() {
    let text = shown_as_text(&sparse(), true);

    for words in [
        "0 identity: 120 bytes from 0000:02:02.1/control",
        "1 relations",
        "0000:02:02.1/data -> any receiver",
        "0x3000 to 0x5000, 8192 bytes, from section 3 on",
        "4 data: 4104 bytes from 0000:02:02.1/data",
        "private 3, version 2: 8 bytes",
        "  0102030405060708",
        "6 end",
        "12872 bytes, 7 sections",
    ] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    let mut damaged = sparse();
    damaged[0x40] ^= 1;
    assert!(shown_as_text(&damaged, true).contains("DAMAGED at byte 0x28: section 0"));
}

#[test]
fn text_shortens_long_lists() {
    let text = shown_as_text(&sparse(), false);

    assert!(
        text.contains("3-4 data: 12288 bytes of local memory"),
        "{text}"
    );
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
        prop_assert!(decoded(&bytes).1.is_some());
        shown_as_text(&bytes, true);
    }

    #[test]
    fn every_changed_bit_is_noticed(place: prop::sample::Index, bit in 0..8_u8) {
        let mut stream = sparse();
        let place = place.index(stream.len());

        stream[place] ^= 1 << bit;
        let (_, damage) = decoded(&stream);
        prop_assert!(damage.is_some());
        // The damaged part does not end before the changed bit.
        shown_as_text(&stream, false);
    }

    /// Both decoders agree on changed streams with valid CRCs.
    #[test]
    fn both_decoders_agree(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
    ) {
        let stream = sparse();
        let sections = places(&stream);
        let shown = decoded(&stream).0;
        let (identity, control_interface) = destination(&shown);
        let mut changed = stream.clone();
        // Local memory may have any value, so only other bytes are changed.
        let matter: Vec<usize> = (0..stream.len())
            .filter(|&at| at < sections[3] + 64 || at >= sections[5])
            .collect();

        for (place, byte) in changes {
            let at = matter[place.index(matter.len())];
            // Lengths are needed to find the sections that get valid CRCs.
            if !sections.iter().any(|section| (section + 4..section + 8).contains(&at)) {
                changed[at] = byte;
            }
        }
        let changed = sealed(changed, &sections);
        let judge = Judge::Function(
            identity,
            crate::verdict::interfaces_of(
                crate::interface::Interface(control_interface).parts().unwrap().0,
            ),
        );
        let outcome = walk(&mut &changed[..], 0, judge, &mut walk::NoVisitor).unwrap();
        prop_assert_eq!(
            outcome.damage.is_none(),
            decoder::decode(&changed, &own(&shown)).is_ok(),
            "{:?}",
            outcome.damage
        );
    }
}

/// Returns the golden stream with claims between data sections.
fn claims() -> Vec<u8> {
    let (_, stream) = golden()
        .into_iter()
        .find(|(name, _)| name == "1.1-claims.stream")
        .unwrap();

    stream
}

#[test]
fn claims_are_shown_with_their_records() {
    let stream = claims();
    let shown = decoded(&stream).0;
    let claims = sections(&shown, "claim");
    let second = &claims[1]["records"];

    assert_eq!(claims.len(), 3);
    assert_eq!(claims[1]["header"]["flags"], 0);
    assert_eq!(second[0]["content"], "c0ffee11");
    assert_eq!(second[1]["index"], 9);
    // The reported offset is that of a record.
    let offset = second[1]["offset"].as_u64().unwrap() as usize;
    assert_eq!(stream[offset..][..8], [4, 0, 2, 0, 9, 0, 0, 0]);
    // Claims are not part of the control plane.
    assert_eq!(shown["totals"]["record_bytes"], 48);
    assert_eq!(shown["totals"]["unknown_sections"], 0);

    let text = shown_as_text(&stream, false);
    for words in [
        "2 claim: 24 bytes from 0000:02:02.1/control, optional",
        "  configuration 0, version 1: 3 bytes",
        "                c0ffee\n",
        "5 claim: 40 bytes from 0000:02:02.1/control, optional",
        "  private 9, version 2: 0 bytes",
        "15 sections",
    ] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
}

#[test]
fn damage_in_a_claim_is_found() {
    let stream = claims();
    let sections = places(&stream);
    let records = sections[5] + 32;

    for (at, bits, field) in [
        (sections[5] + 2, 1, "flags"),
        (sections[5] + 8, 3, "interface"),
        (records + 2, 2, "version"),
        (records + 4, 1, "index"),
        (records + 16 + 5, 1, "padding"),
        (records + 24 + 8, 1, "length"),
    ] {
        let mut damaged = stream.clone();
        damaged[at] ^= bits;
        let damage = decoded(&sealed(damaged, &sections)).1.unwrap();

        assert_eq!(
            (damage.offset, damage.field.as_deref(), damage.section),
            (at as u64, Some(field), Some(5)),
            "{damage}"
        );
    }
}
