// SPDX-License-Identifier: GPL-2.0

//! Saving a device's state.

use anyhow::{Context, Result};
use vifa_vfio::Mapping;

use super::{
    claims,
    fixture::{interfaces, Guest},
    Test,
};
use crate::{
    bed::Bed,
    engine::Command,
    expect, hw,
    migration::{Segments, State},
    stream::{Section, Stream},
};

pub fn tests() -> Vec<Test> {
    let mut tests = claims!("save":
        stream_is_valid,
        equal_states_give_equal_streams,
        scratch_registers_change_the_control_section_only,
        discarded_local_memory_is_not_in_the_stream,
        end_of_stream_stays,
        read_of_nothing_takes_nothing,
        read_to_a_bad_address_takes_nothing,
        read_into_the_device_s_own_registers_does_no_harm,
        read_ends_with_the_session,
        read_ends_with_the_session_in_the_middle_of_a_stream,
        session_cannot_be_written,
        session_has_no_position,
        session_polls_readable,
        closed_session_does_not_bind_the_device,
    );
    tests.extend(Segments::TRIED.map(|segments| {
        let name = match segments {
            Segments::Of(length) => format!("save.in_pieces_of_{length}"),
            Segments::Whole => "save.in_one_piece".to_owned(),
        };
        Test::new(name, move |bed| same_in_pieces(bed, segments))
    }));
    tests
}

/// Returns a VF with a furnished state.
fn furnished(bed: &Bed) -> Result<Guest> {
    let mut guest = Guest::new(bed, 0)?;
    guest.furnish(0xabad_1dea)?;
    Ok(guest)
}

fn same_in_pieces(bed: &Bed, segments: Segments) -> Result<()> {
    let guest = furnished(bed)?;
    let device = &guest.vf.device;
    let expected = device.save()?;
    let session = device.start(State::StopCopy)?;
    let stream = session.read_all(segments).context("read")?;
    expect::same_bytes("stream", &stream, &expected)
}

fn stream_is_valid(bed: &Bed) -> Result<()> {
    let guest = furnished(bed)?;
    let bytes = guest.vf.device.save()?;
    let stream = Stream::parse(&bytes)?;
    expect::equal(
        "magic",
        &stream.header.magic[..],
        &hw::VIFA_STREAM_MAGIC[..8],
    )?;
    expect::equal(
        "major version",
        u32::from(stream.header.major),
        hw::VIFA_STREAM_MAJOR,
    )?;
    expect::same_bytes("stream with recomputed CRCs", &bytes, &stream.seal())?;

    let [control, data] = interfaces(&bed.vf(0)?);
    for section in &stream.sections {
        let interface = match section.kind() {
            hw::VIFA_SECTION_ADDRESS | hw::VIFA_SECTION_DATA => data,
            _ => control,
        };
        expect::equal(
            &format!("interface of section {}", section.header.sequence),
            section.header.interface,
            interface,
        )?;
    }

    let kinds: Vec<u32> = stream.sections.iter().map(Section::kind).collect();
    expect::equal(
        "types of the sections",
        &kinds,
        &vec![
            hw::VIFA_SECTION_IDENTITY,
            hw::VIFA_SECTION_RELATIONS,
            hw::VIFA_SECTION_ADDRESS,
            hw::VIFA_SECTION_DATA,
            hw::VIFA_SECTION_DATA,
            hw::VIFA_SECTION_CONTROL,
            hw::VIFA_SECTION_END,
        ],
    )?;

    let data: u64 = stream.runs()?.iter().map(|(_, length)| length).sum();
    let resources: hw::vifa_resources = stream.value(hw::VIFA_SECTION_CONTROL)?;
    let end: hw::vifa_stream_end = stream.value(hw::VIFA_SECTION_END)?;
    expect::equal(
        "sections in the totals",
        end.sections,
        kinds.len() as u64 - 1,
    )?;
    expect::equal("data bytes in the totals", end.data_bytes, data)?;
    expect::equal(
        "control bytes in the totals",
        end.control_bytes,
        resources.length.into(),
    )
}

fn equal_states_give_equal_streams(bed: &Bed) -> Result<()> {
    let guest = furnished(bed)?;
    let first = guest.vf.device.save()?;
    guest.vf.device.change_state(State::Running)?;
    let second = guest.vf.device.save()?;
    expect::same_bytes("second stream", &second, &first)
}

fn scratch_registers_change_the_control_section_only(bed: &Bed) -> Result<()> {
    let guest = furnished(bed)?;
    let before = Stream::parse(&guest.vf.device.save()?)?;
    guest.vf.device.change_state(State::Running)?;
    guest
        .vf
        .set_register(hw::VIFA_REFERENCE_SCRATCH, 0x600d_cafe);
    let after = Stream::parse(&guest.vf.device.save()?)?;
    expect::equal("sections", after.sections.len(), before.sections.len())?;
    for (after, before) in after.sections.iter().zip(&before.sections) {
        let changes = matches!(
            before.kind(),
            hw::VIFA_SECTION_CONTROL | hw::VIFA_SECTION_END
        );
        expect::equal(
            &format!("change of section {}", before.header.sequence),
            after.payload != before.payload,
            changes,
        )?;
    }
    Ok(())
}

fn discarded_local_memory_is_not_in_the_stream(bed: &Bed) -> Result<()> {
    let mut guest = furnished(bed)?;
    let middle = guest.vf.local_memory() / 2;
    guest.run(Command::LocalDiscard {
        local: 0,
        length: middle,
    })?;
    let stream = Stream::parse(&guest.vf.device.save()?)?;
    let granule = u64::from(stream.identity()?.granule);
    expect::equal("data runs", stream.runs()?, vec![(middle, granule)])
}

fn end_of_stream_stays(bed: &Bed) -> Result<()> {
    let guest = furnished(bed)?;
    let session = guest.vf.device.start(State::StopCopy)?;
    session.read_all(Segments::Whole)?;
    for _ in 0..3 {
        expect::equal("bytes after the end", session.read(4096)?.len(), 0)?;
    }
    Ok(())
}

fn read_of_nothing_takes_nothing(bed: &Bed) -> Result<()> {
    let guest = furnished(bed)?;
    let expected = guest.vf.device.save()?;
    let session = guest.vf.device.start(State::StopCopy)?;
    expect::equal("bytes of a read of none", session.read(0)?.len(), 0)?;
    expect::same_bytes("stream", &session.read_all(Segments::Whole)?, &expected)
}

fn read_to_a_bad_address_takes_nothing(bed: &Bed) -> Result<()> {
    const PAGE: usize = 4096;
    let guest = furnished(bed)?;
    let expected = guest.vf.device.save()?;
    let session = guest.vf.device.start(State::StopCopy)?;
    let bad = Mapping::anonymous(PAGE)?;
    bad.forbid_from(0)?;
    expect::refused(
        "read to a bad address",
        bad.fill_from(&session),
        &[libc::EFAULT],
    )?;
    let half = Mapping::anonymous(2 * PAGE)?;
    half.forbid_from(PAGE)?;
    let mut stream = Vec::new();
    while stream.len() + PAGE <= expected.len() {
        let got = half.fill_from(&session)?;
        expect::claim(
            &format!("1 to {PAGE} bytes of a read to a page and a bad one, not {got}"),
            (1..=PAGE).contains(&got),
        )?;
        stream.extend(half.copy_out(0, got));
    }
    stream.extend(session.read_all(Segments::Whole)?);
    expect::same_bytes("stream", &stream, &expected)
}

/// A page fault on a BAR's mapping takes locks of the VFIO core, which a reset holds when it ends a
/// session. lockdep reports a fault at the wrong time.
fn read_into_the_device_s_own_registers_does_no_harm(bed: &Bed) -> Result<()> {
    let mut guest = furnished(bed)?;
    let registers = guest.vf.device.map(hw::VIFA_REFERENCE_BAR)?;
    let session = guest.vf.device.start(State::StopCopy)?;
    let taken = registers.fill_from(&session)?;
    expect::claim("bytes to be read into the registers", taken > 0)?;
    // The reset revokes the mapping of the registers.
    guest.vf.reset()?;
    expect::refused(
        "read after a reset",
        registers.fill_from(&session),
        &[libc::ENODEV],
    )?;
    guest.works_after_a_reset()
}

fn read_ends_with_the_session(bed: &Bed) -> Result<()> {
    let guest = furnished(bed)?;
    let session = guest.vf.device.start(State::StopCopy)?;
    session.read_all(Segments::Whole)?;
    guest.vf.device.change_state(State::Stop)?;
    expect::refused("read after the session", session.read(1), &[libc::ENODEV])
}

fn read_ends_with_the_session_in_the_middle_of_a_stream(bed: &Bed) -> Result<()> {
    let mut guest = furnished(bed)?;
    let session = guest.vf.device.start(State::StopCopy)?;
    expect::equal("bytes of a read of 100", session.read(100)?.len(), 100)?;
    guest.vf.device.change_state(State::Running)?;
    expect::refused("read after the session", session.read(1), &[libc::ENODEV])?;
    guest.work(1)
}

fn session_cannot_be_written(bed: &Bed) -> Result<()> {
    let guest = furnished(bed)?;
    let session = guest.vf.device.start(State::StopCopy)?;
    expect::refused("write", session.write(&[0]), &[libc::EBADF])
}

fn session_has_no_position(bed: &Bed) -> Result<()> {
    let guest = furnished(bed)?;
    let session = guest.vf.device.start(State::StopCopy)?;
    super::transfer::has_no_position(&session)
}

fn session_polls_readable(bed: &Bed) -> Result<()> {
    let guest = furnished(bed)?;
    let session = guest.vf.device.start(State::StopCopy)?;
    expect::equal("poll at the start", session.poll()?, libc::POLLIN)?;
    session.read_all(Segments::Whole)?;
    expect::equal("poll at the end", session.poll()?, libc::POLLIN)?;
    guest.vf.device.change_state(State::Stop)?;
    expect::claim(
        "poll after the session to show an error",
        session.poll()? & libc::POLLERR != 0,
    )
}

fn closed_session_does_not_bind_the_device(bed: &Bed) -> Result<()> {
    let mut guest = furnished(bed)?;
    drop(guest.vf.device.start(State::StopCopy)?);
    expect::equal("state", guest.vf.device.state()?, State::StopCopy)?;
    guest.vf.device.change_state(State::Running)?;
    guest.work(1)
}
