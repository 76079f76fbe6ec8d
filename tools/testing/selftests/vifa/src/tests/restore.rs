// SPDX-License-Identifier: GPL-2.0

//! Restoring a device's state: accepted and rejected streams.

use anyhow::{Context, Result};
use vifa_device::{opcode::LOAD, RegisterFile};
use vifa_vfio::Mapping;

use super::{
    claims,
    fixture::{Guest, CHUNK},
    Test,
};
use crate::{
    bed::Bed,
    expect, hw,
    migration::{Segments, State},
    process::all_at_once,
    stream::{Section, Stream},
};

pub fn tests() -> Vec<Test> {
    let mut tests = claims!("restore":
        session_cannot_be_read,
        session_has_no_position,
        session_polls_writable,
        write_ends_with_the_session,
        write_of_nothing_changes_nothing,
        write_from_a_bad_address_changes_nothing,
        empty_stream_is_refused,
        stream_truncated_at_each_section_border_is_refused,
        stream_truncated_at_odd_places_is_refused,
        stream_extended_by_a_byte_is_refused,
        foreign_streams_are_refused,
        other_major_version_is_refused,
        later_minor_version_is_accepted,
        unknown_mandatory_section_is_refused,
        unknown_optional_sections_are_skipped,
        unknown_optional_section_within_a_part_is_refused,
        missing_repeated_and_misplaced_sections_are_refused,
        section_of_another_interface_is_refused,
        section_of_the_other_plane_is_refused,
        wrong_totals_are_refused,
        exchanged_section_is_refused,
        refused_stream_never_loads_the_control_plane,
        local_memory_that_is_not_in_the_stream_is_unmapped,
    );
    tests.extend(Segments::TRIED.map(|segments| {
        let name = match segments {
            Segments::Of(length) => format!("restore.in_pieces_of_{length}"),
            Segments::Whole => "restore.in_one_piece".to_owned(),
        };
        Test::new(name, move |bed| same_in_pieces(bed, segments))
    }));
    tests.push(Test::new(
        "restore.any_flipped_bit_is_refused",
        any_flipped_bit_is_refused,
    ));
    tests
}

fn same_in_pieces(bed: &Bed, segments: Segments) -> Result<()> {
    let (mut guest, stream) = Guest::saved(bed, 0)?;
    guest.recover()?;
    let device = &guest.vf.device;
    let session = device.start(State::Resuming)?;
    session.write_all(&stream, segments).context("write")?;
    device.change_state(State::Stop)?;
    expect::same_bytes("stream of the loaded state", &device.save()?, &stream)
}

fn session_cannot_be_read(bed: &Bed) -> Result<()> {
    let guest = Guest::new(bed, 0)?;
    let session = guest.vf.device.start(State::Resuming)?;
    expect::refused("read", session.read(1), &[libc::EBADF])
}

fn session_has_no_position(bed: &Bed) -> Result<()> {
    let guest = Guest::new(bed, 0)?;
    let session = guest.vf.device.start(State::Resuming)?;
    super::transfer::has_no_position(&session)
}

fn session_polls_writable(bed: &Bed) -> Result<()> {
    let (guest, stream) = Guest::saved(bed, 0)?;
    let session = guest.vf.device.start(State::Resuming)?;
    expect::equal("poll", session.poll()?, libc::POLLOUT)?;
    session.write_all(&stream, Segments::Whole)?;
    guest.vf.device.change_state(State::Stop)?;
    expect::claim(
        "poll after the session to show an error",
        session.poll()? & libc::POLLERR != 0,
    )
}

fn write_ends_with_the_session(bed: &Bed) -> Result<()> {
    let (guest, stream) = Guest::saved(bed, 0)?;
    let session = guest.vf.device.start(State::Resuming)?;
    session.write_all(&stream, Segments::Whole)?;
    guest.vf.device.change_state(State::Stop)?;
    expect::refused(
        "write after the session",
        session.write(&[0]),
        &[libc::ENODEV],
    )
}

fn write_of_nothing_changes_nothing(bed: &Bed) -> Result<()> {
    let (guest, stream) = Guest::saved(bed, 0)?;
    let session = guest.vf.device.start(State::Resuming)?;
    expect::equal("bytes of a write of none", session.write(&[])?, 0)?;
    session.write_all(&stream, Segments::Whole)?;
    expect::equal("bytes of a write of none", session.write(&[])?, 0)?;
    guest.vf.device.change_state(State::Stop)?;
    expect::same_bytes(
        "stream of the loaded state",
        &guest.vf.device.save()?,
        &stream,
    )
}

fn write_from_a_bad_address_changes_nothing(bed: &Bed) -> Result<()> {
    const PAGE: usize = 4096;
    let (guest, stream) = Guest::saved(bed, 0)?;
    let session = guest.vf.device.start(State::Resuming)?;
    let memory = Mapping::anonymous(2 * PAGE)?;
    let bad = Mapping::anonymous(PAGE)?;
    bad.forbid_from(0)?;
    memory.copy_in(0, &stream[..PAGE]);
    memory.forbid_from(PAGE)?;
    expect::refused(
        "write from a bad address",
        bad.drain_to(&session),
        &[libc::EFAULT],
    )?;
    let taken = memory
        .drain_to(&session)
        .context("write from a page and a bad one")?;
    expect::claim(
        &format!("1 to {PAGE} accepted bytes, not {taken}"),
        (1..=PAGE).contains(&taken),
    )?;
    expect::refused(
        "write from a bad address",
        bad.drain_to(&session),
        &[libc::EFAULT],
    )?;
    session.write_all(&stream[taken..], Segments::Whole)?;
    guest.vf.device.change_state(State::Stop)?;
    expect::same_bytes(
        "stream of the loaded state",
        &guest.vf.device.save()?,
        &stream,
    )
}

fn empty_stream_is_refused(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    guest.refuses("empty stream", &[])?;
    guest.recover()
}

fn stream_truncated_at_each_section_border_is_refused(bed: &Bed) -> Result<()> {
    let (mut guest, stream) = Guest::saved(bed, 0)?;
    let mut borders = Stream::parse(&stream)?.borders();
    expect::equal("last border", borders.pop(), Some(stream.len()))?;
    let cuts = borders
        .into_iter()
        .map(|at| (format!("stream cut at {at}"), &stream[..at]));
    guest.refuses_each(cuts)
}

fn stream_truncated_at_odd_places_is_refused(bed: &Bed) -> Result<()> {
    let (mut guest, stream) = Guest::saved(bed, 0)?;
    let length = stream.len();
    let places = [
        1,
        7,
        8,
        15,
        17,
        length / 3,
        length / 2,
        length - 9,
        length - 1,
    ];
    let cuts = places.map(|at| (format!("stream cut at {at}"), &stream[..at]));
    guest.refuses_each(cuts)
}

fn stream_extended_by_a_byte_is_refused(bed: &Bed) -> Result<()> {
    let (mut guest, mut stream) = Guest::saved(bed, 0)?;
    stream.push(0);
    guest.refuses("stream and a byte", &stream)?;
    stream.pop();
    let device = &guest.vf.device;
    let session = device.start(State::Resuming)?;
    session.write_all(&stream, Segments::Whole)?;
    expect::refused("write after the end", session.write(&[0]), &[libc::EINVAL])?;
    guest.recover()
}

fn foreign_streams_are_refused(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let noise: Vec<u8> = (0..8192)
        .map(|_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as u8
        })
        .collect();
    let streams = [
        ("zeroes".to_owned(), vec![0; 8192]),
        ("ones".to_owned(), vec![0xff; 8192]),
        ("random bytes".to_owned(), noise),
        ("text".to_owned(), b"#!/bin/sh\necho hello\n".repeat(200)),
    ];
    guest.refuses_each(streams)
}

fn other_major_version_is_refused(bed: &Bed) -> Result<()> {
    let (mut guest, bytes) = Guest::saved(bed, 0)?;
    let streams = [1, 2, 0xffff].map(|by: u16| {
        let mut stream = Stream::parse(&bytes).expect("the stream is valid");
        stream.header.major = stream.header.major.wrapping_add(by);
        (
            format!("major version {}", stream.header.major),
            stream.seal(),
        )
    });
    guest.refuses_each(streams)
}

fn later_minor_version_is_accepted(bed: &Bed) -> Result<()> {
    let (guest, bytes) = Guest::saved(bed, 0)?;
    let mut stream = Stream::parse(&bytes)?;
    stream.header.minor += 7;
    let device = &guest.vf.device;
    device.load(&stream.seal())?;
    expect::same_bytes("stream of the loaded state", &device.save()?, &bytes)
}

fn any_flipped_bit_is_refused(bed: &Bed) -> Result<()> {
    /// Number of flipped bits in bulk data, spread evenly.
    const SAMPLES: usize = 24;
    let (mut guest, stream) = Guest::saved(bed, 0)?;
    let parsed = Stream::parse(&stream)?;
    let borders = parsed.borders();
    let mut places: Vec<usize> = (0..SAMPLES).map(|n| n * stream.len() / SAMPLES).collect();
    // Every byte of the stream's header and of the first and the last section's header.
    places.extend(0..size_of::<hw::vifa_stream_header>());
    for border in [borders[1], borders[borders.len() - 3]] {
        places.extend(border..border + size_of::<hw::vifa_section_header>());
    }
    // One byte of every field group in between.
    for pair in borders.windows(2).skip(2) {
        places.extend([pair[0], (pair[0] + pair[1]) / 2, pair[1] - 1]);
    }
    places.sort_unstable();
    places.dedup();
    let (first, second) = places.split_at(places.len() / 2);
    let flip_each = |guest: &mut Guest, places: &[usize]| -> Result<()> {
        for at in places {
            let mut flipped = stream.clone();
            flipped[*at] ^= 1 << (at % 8);
            let what = format!("bit {} of byte {at} flipped", at % 8);
            guest.refuses(&what, &flipped)?;
        }
        guest.recover()
    };
    // Resets are slow, so the other VF is used, too; the stream is equally invalid for it.
    let mut other = Guest::new(bed, 1)?;
    other.vf.device.load(&stream).context("unchanged stream")?;
    all_at_once(vec![
        Box::new(|| flip_each(&mut guest, first)),
        Box::new(|| flip_each(&mut other, second)),
    ])
}

/// Returns a section of an unknown type with `payload`, from the interface of `like`.
fn unknown_section(like: &Section, flags: u32, payload: &[u8]) -> Section {
    let mut section = like.clone();
    section.header.type_ = 0x7f;
    section.header.flags = flags as u16;
    section.payload = payload.to_vec();
    section
}

fn unknown_mandatory_section_is_refused(bed: &Bed) -> Result<()> {
    let (mut guest, bytes) = Guest::saved(bed, 0)?;
    let stream = Stream::parse(&bytes)?;
    let mut streams = Vec::new();
    for index in 0..stream.sections.len() {
        let mut stream = stream.clone();
        let section = unknown_section(&stream.sections[0], hw::VIFA_SECTION_MANDATORY, b"unknown");
        stream.insert(index, section)?;
        streams.push((format!("unknown mandatory section {index}"), stream.seal()));
    }
    guest.refuses_each(streams)
}

fn unknown_optional_sections_are_skipped(bed: &Bed) -> Result<()> {
    let (guest, bytes) = Guest::saved(bed, 0)?;
    let mut stream = Stream::parse(&bytes)?;
    let like = stream.sections[0].clone();
    for (predecessor, payload) in [
        (hw::VIFA_SECTION_RELATIONS, &[0x5a; 5000][..]),
        (hw::VIFA_SECTION_RELATIONS, &[]),
        (hw::VIFA_SECTION_CONTROL, b"x"),
    ] {
        let index = stream.position(predecessor)? + 1;
        stream.insert(index, unknown_section(&like, 0, payload))?;
    }
    let before_control = stream.position(hw::VIFA_SECTION_CONTROL)?;
    stream.insert(
        before_control,
        unknown_section(&like, 0, b"between the planes"),
    )?;
    let device = &guest.vf.device;
    device.load(&stream.seal())?;
    expect::same_bytes("stream of the loaded state", &device.save()?, &bytes)
}

fn unknown_optional_section_within_a_part_is_refused(bed: &Bed) -> Result<()> {
    let (mut guest, bytes) = Guest::saved(bed, 0)?;
    let stream = Stream::parse(&bytes)?;
    let address = stream.position(hw::VIFA_SECTION_ADDRESS)?;
    let mut streams = Vec::new();
    for (what, index) in [("before", address + 1), ("between", address + 2)] {
        let mut stream = stream.clone();
        let section = unknown_section(&stream.sections[0], 0, b"optional");
        stream.insert(index, section)?;
        streams.push((
            format!("optional section {what} the data of a part"),
            stream.seal(),
        ));
    }
    guest.refuses_each(streams)
}

fn missing_repeated_and_misplaced_sections_are_refused(bed: &Bed) -> Result<()> {
    let (mut guest, bytes) = Guest::saved(bed, 0)?;
    let stream = Stream::parse(&bytes)?;
    let mut streams = Vec::new();
    for index in 0..stream.sections.len() {
        let mut missing = stream.clone();
        missing.remove(index)?;
        streams.push((format!("stream without section {index}"), missing.seal()));
        let mut repeated = stream.clone();
        let again = repeated.sections[index].clone();
        repeated.insert(index, again)?;
        streams.push((
            format!("stream with section {index} twice"),
            repeated.seal(),
        ));
    }
    for index in 1..stream.sections.len() {
        let mut swapped = stream.clone();
        swapped.swap(index - 1, index)?;
        streams.push((
            format!("stream with sections {} and {index} swapped", index - 1),
            swapped.seal(),
        ));
    }
    guest.refuses_each(streams)
}

/// Checks that the VF rejects the saved stream with the bits `flipped` of a section's interface,
/// for every section.
fn refuses_interface(bed: &Bed, flipped: u64) -> Result<()> {
    let (mut guest, bytes) = Guest::saved(bed, 0)?;
    let stream = Stream::parse(&bytes)?;
    let mut streams = Vec::new();
    for index in 0..stream.sections.len() {
        let mut stream = stream.clone();
        let interface = &mut stream.sections[index].header.interface;
        *interface ^= flipped;
        streams.push((
            format!("section {index} of the interface {interface:#x}"),
            stream.seal(),
        ));
    }
    guest.refuses_each(streams)
}

fn section_of_another_interface_is_refused(bed: &Bed) -> Result<()> {
    refuses_interface(bed, 0x100)
}

fn section_of_the_other_plane_is_refused(bed: &Bed) -> Result<()> {
    refuses_interface(bed, u64::from(hw::VIFA_PLANE_CONTROL ^ hw::VIFA_PLANE_DATA))
}

fn wrong_totals_are_refused(bed: &Bed) -> Result<()> {
    type Change = fn(&mut hw::vifa_stream_end);
    const CHANGES: [(&str, Change); 4] = [
        ("sections", |end| end.sections += 1),
        ("data_bytes", |end| end.data_bytes += 4096),
        ("control_bytes", |end| end.control_bytes -= 8),
        ("reserved", |end| end.reserved = 1),
    ];
    let (mut guest, bytes) = Guest::saved(bed, 0)?;
    let mut streams = Vec::new();
    for (what, change) in CHANGES {
        let mut stream = Stream::parse(&bytes)?;
        stream.edit(hw::VIFA_SECTION_END, change)?;
        streams.push((format!("totals with wrong {what}"), stream.seal()));
    }
    guest.refuses_each(streams)
}

/// A valid section of another stream; the end section's CRC detects it.
fn exchanged_section_is_refused(bed: &Bed) -> Result<()> {
    let (mut guest, bytes) = Guest::saved(bed, 0)?;
    let mut streams = Vec::new();
    for kind in [hw::VIFA_SECTION_DATA, hw::VIFA_SECTION_CONTROL] {
        let mut stream = Stream::parse(&bytes)?;
        let payload = stream.payload(kind)?;
        // In the data: the last byte. In the control plane: the last scratch register.
        let at = match kind {
            hw::VIFA_SECTION_DATA => payload.len() - 1,
            _ => {
                size_of::<hw::vifa_hw_record>() + size_of::<hw::vifa_reference_configuration>() - 1
            }
        };
        payload[at] ^= 1;
        guest.vf.device.load(&stream.seal())?;
        guest.vf.reset()?;
        streams.push((
            format!("section of type {kind} of another stream"),
            stream.seal_parts(),
        ));
    }
    guest.refuses_each(streams)
}

fn refused_stream_never_loads_the_control_plane(bed: &Bed) -> Result<()> {
    let (guest, stream) = Guest::saved(bed, 0)?;
    let registers = RegisterFile::map(&bed.pf)?;
    let loads = registers.count(0, LOAD)?;
    let mut flipped = stream.clone();
    *flipped.last_mut().context("a stream")? ^= 1;
    guest.refuses("stream with a flipped bit", &flipped)?;
    guest.refuses("stream that was cut", &stream[..stream.len() - 1])?;
    expect::equal("LOAD commands after refusals", loads.fired(), 0)?;
    guest.vf.device.load(&stream)?;
    expect::equal("LOAD commands after a load", loads.fired(), 1)
}

fn local_memory_that_is_not_in_the_stream_is_unmapped(bed: &Bed) -> Result<()> {
    let (mut guest, stream) = Guest::saved(bed, 0)?;
    guest.recover()?;
    let stray = guest.vf.local_memory() / 4;
    guest.write_local(stray, 77)?;
    guest.vf.device.load(&stream)?;
    guest.vf.device.change_state(State::Running)?;
    guest.engine.enable(&guest.vf)?;
    expect::same_bytes(
        "local memory",
        &guest.read_local(stray, 0)?,
        &vec![0; CHUNK as usize],
    )
}
