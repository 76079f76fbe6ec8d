// SPDX-License-Identifier: GPL-2.0

//! Transfer relationships: those that the source offers, those that the destination accepts, and
//! their representation on both sides.

use anyhow::{Context, Result};

use super::{
    claims,
    fixture::{interfaces, Guest},
    Test,
};
use crate::{
    bed::Bed,
    expect,
    hw::{self, bytes_of, vifa_region_relation, vifa_relation},
    migration::{Segments, State},
    region,
    stream::{Stream, IDENTITY_END, RELATIONS_END},
    tracefs::Tracing,
    vfio::Device,
};

pub fn tests() -> Vec<Test> {
    let mut tests = claims!("relation":
        source_offers_one_for_each_plane_to_any_receiver,
        source_shows_them_as_output_party,
        source_keeps_them_until_the_next_transfer,
        destination_shows_them_as_receiver_once_both_are_verified,
        destination_keeps_them_until_the_next_transfer,
        they_are_cleared_when_the_device_is_closed,
        refused_ones_are_not_shown,
        addressed_stream_is_accepted_by_its_receiver,
        addressed_stream_is_refused_by_another,
        tracepoint_reports_both_once_they_are_accepted,
        tracepoint_reports_both_that_a_source_offers,
        tracepoint_reports_nothing_of_a_refused_stream,
        file_in_debugfs_shows_both,
    );
    tests.extend(WRONG.iter().map(|(what, field, change)| {
        Test::new(format!("relation.{what}_is_refused"), move |bed| {
            is_refused(bed, what, field, *change)
        })
    }));
    tests
}

/// Corrupts relations, for a destination with these interfaces.
type Change = fn(&mut [vifa_relation; 2], [u64; 2]);

/// The defect, the field that the error names, and the corruption.
type Wrong = (&'static str, &'static str, Change);

const OTHER_FUNCTION: u64 = 0x100;
const OTHER_PLANE: u64 = (hw::VIFA_PLANE_CONTROL ^ hw::VIFA_PLANE_DATA) as u64;

const WRONG: [Wrong; 13] = [
    ("pair_in_the_other_order", "plane", |pair, _| {
        pair.swap(0, 1)
    }),
    ("repeated_control_plane", "plane", |pair, _| {
        pair[1] = pair[0]
    }),
    ("repeated_data_plane", "plane", |pair, _| pair[0] = pair[1]),
    ("plane_that_is_none", "plane", |pair, _| pair[1].plane = 3),
    ("output_of_the_other_plane", "output", |pair, _| {
        pair[1].output ^= OTHER_PLANE;
    }),
    ("crossing_of_the_planes", "output", |pair, _| {
        let [control, data] = pair;
        std::mem::swap(&mut control.output, &mut data.output);
    }),
    ("control_output_of_another_function", "output", |pair, _| {
        pair[0].output ^= OTHER_FUNCTION;
    }),
    ("data_output_of_another_function", "output", |pair, _| {
        pair[1].output ^= OTHER_FUNCTION;
    }),
    ("output_with_reserved_bits", "output", |pair, _| {
        pair[1].output |= u64::from(hw::VIFA_INTERFACE_RESERVED);
    }),
    ("relation_that_names_itself", "receiver", |pair, _| {
        pair[0].receiver = pair[0].output;
    }),
    ("receiver_of_the_other_plane", "receiver", |pair, own| {
        pair[0].receiver = own[1];
    }),
    (
        "receiver_that_is_another_function",
        "receiver",
        |pair, own| {
            pair[1].receiver = own[1] ^ 0x1_0000;
        },
    ),
    ("reserved_byte", "reserved", |pair, _| {
        pair[0].reserved[6] = 1
    }),
];

/// A stream of the VF 0, and the VF 1 as its destination.
fn pair(bed: &Bed) -> Result<(Stream, Guest)> {
    let (source, bytes) = Guest::saved(bed, 0)?;
    drop(source);
    Ok((Stream::parse(&bytes)?, Guest::new(bed, 1)?))
}

fn change(stream: &mut Stream, change: impl FnOnce(&mut [vifa_relation; 2])) -> Result<()> {
    let mut relations = stream.relations()?;
    change(&mut relations);
    *stream.payload(hw::VIFA_SECTION_RELATIONS)? =
        relations.iter().flat_map(bytes_of).copied().collect();
    Ok(())
}

/// Checks that the write that completes the relations section fails, and all later writes; a reset
/// recovers the VF.
fn is_refused(bed: &Bed, what: &str, field: &str, make_wrong: Change) -> Result<()> {
    let (good, mut guest) = pair(bed)?;
    let mut stream = good.clone();
    let own = interfaces(&bed.vf(1)?);
    change(&mut stream, |relations| make_wrong(relations, own))?;
    let bytes = stream.seal();
    let device = &guest.vf.device;
    let session = device.start(State::Resuming)?;
    session
        .write_all(&bytes[..RELATIONS_END - 1], Segments::Whole)
        .context("the preceding bytes")?;
    for from in [RELATIONS_END - 1, RELATIONS_END] {
        let result = session.write(&bytes[from..=from]);
        expect::refused(what, result, &[libc::EINVAL])?;
    }
    let region = region::read(device)?;
    let text = region::error_text(&region)?;
    expect::claim(
        &format!("an error that names {field}, not {text:?}"),
        text.contains(field),
    )?;
    shows(device, NONE)?;
    guest.recover()?;
    guest.vf.device.load(&good.seal()).context("a valid stream")
}

/// Returns the relationships in a region.
type RegionRelations = [vifa_region_relation; hw::VIFA_RELATIONS as usize];

const ABSENT: vifa_region_relation = vifa_region_relation {
    output: 0,
    receiver: 0,
    plane: 0,
    role: hw::VIFA_ROLE_NONE as u8,
    reserved: [0; 6],
};
const NONE: RegionRelations = [ABSENT; 2];

/// Returns both relationships of a party with `role`, from `output` to `receiver`, which are
/// control and data interfaces.
fn both(role: u32, output: [u64; 2], receiver: [u64; 2]) -> RegionRelations {
    let planes = [hw::VIFA_PLANE_CONTROL, hw::VIFA_PLANE_DATA];
    std::array::from_fn(|index| vifa_region_relation {
        output: output[index],
        receiver: receiver[index],
        plane: planes[index] as u8,
        role: role as u8,
        ..ABSENT
    })
}

fn shows(device: &Device, expected: RegionRelations) -> Result<()> {
    let bytes = |relations: RegionRelations| -> Vec<Vec<u8>> {
        // 8 bytes each of `output` and `receiver`, then the plane, the role, and 6 reserved bytes.
        let encode = |relation: &vifa_region_relation| {
            [
                &relation.output.to_le_bytes()[..],
                &relation.receiver.to_le_bytes(),
                &[relation.plane, relation.role],
                &relation.reserved,
            ]
            .concat()
        };
        relations.iter().map(encode).collect()
    };
    let state = device.state()?.name();
    expect::equal(
        &format!("relationships in {state}"),
        bytes(region::read(device)?.relations),
        bytes(expected),
    )
}

fn as_output(bed: &Bed, index: u32) -> Result<RegionRelations> {
    let output = interfaces(&bed.vf(index)?);
    Ok(both(hw::VIFA_ROLE_OUTPUT, output, [0; 2]))
}

fn as_receiver(bed: &Bed, source: u32, destination: u32) -> Result<RegionRelations> {
    let [output, receiver] =
        [source, destination].map(|index| bed.vf(index).map(|vf| interfaces(&vf)));
    Ok(both(hw::VIFA_ROLE_RECEIVER, output?, receiver?))
}

fn source_offers_one_for_each_plane_to_any_receiver(bed: &Bed) -> Result<()> {
    let (_, bytes) = Guest::saved(bed, 0)?;
    let outputs = interfaces(&bed.vf(0)?);
    let planes = [hw::VIFA_PLANE_CONTROL, hw::VIFA_PLANE_DATA];
    let relations = Stream::parse(&bytes)?.relations()?;
    for ((relation, plane), output) in relations.iter().zip(planes).zip(outputs) {
        let expected = vifa_relation {
            plane: plane as u8,
            output,
            ..Default::default()
        };
        expect::same_bytes(
            &format!("relation of plane {plane}"),
            bytes_of(relation),
            bytes_of(&expected),
        )?;
    }
    Ok(())
}

fn source_shows_them_as_output_party(bed: &Bed) -> Result<()> {
    let guest = Guest::new(bed, 0)?;
    let device = &guest.vf.device;
    let expected = as_output(bed, 0)?;
    shows(device, NONE)?;
    let session = device.start(State::PreCopy)?;
    session.read_to_pause(Segments::Whole)?;
    shows(device, expected)?;
    for state in [State::PreCopyP2p, State::PreCopy, State::StopCopy] {
        device.change_state(state)?;
        shows(device, expected)?;
    }
    session.read_all(Segments::Whole)?;
    shows(device, expected)
}

fn source_keeps_them_until_the_next_transfer(bed: &Bed) -> Result<()> {
    let (guest, _) = Guest::saved(bed, 0)?;
    let device = &guest.vf.device;
    let expected = as_output(bed, 0)?;
    shows(device, expected)?;
    device.change_state(State::Running)?;
    shows(device, expected)?;
    guest.vf.reset()?;
    shows(device, expected)?;
    let _session = device.start(State::Resuming)?;
    shows(device, NONE)
}

fn destination_shows_them_as_receiver_once_both_are_verified(bed: &Bed) -> Result<()> {
    let (stream, guest) = pair(bed)?;
    let bytes = stream.seal();
    let device = &guest.vf.device;
    let expected = as_receiver(bed, 0, 1)?;
    let session = device.start(State::Resuming)?;
    shows(device, NONE)?;
    session.write_all(&bytes[..RELATIONS_END - 1], Segments::Whole)?;
    shows(device, NONE)?;
    session.write_all(&bytes[RELATIONS_END - 1..RELATIONS_END], Segments::Whole)?;
    shows(device, expected)?;
    session.write_all(&bytes[RELATIONS_END..], Segments::Whole)?;
    shows(device, expected)
}

fn destination_keeps_them_until_the_next_transfer(bed: &Bed) -> Result<()> {
    let (stream, guest) = pair(bed)?;
    let device = &guest.vf.device;
    let expected = as_receiver(bed, 0, 1)?;
    device.load(&stream.seal())?;
    for state in [State::RunningP2p, State::Running] {
        shows(device, expected)?;
        device.change_state(state)?;
    }
    guest.vf.reset()?;
    shows(device, expected)?;
    let session = device.start(State::PreCopy)?;
    shows(device, NONE)?;
    session.read_to_pause(Segments::Whole)?;
    shows(device, as_output(bed, 1)?)
}

fn they_are_cleared_when_the_device_is_closed(bed: &Bed) -> Result<()> {
    let (guest, _) = Guest::saved(bed, 0)?;
    shows(&guest.vf.device, as_output(bed, 0)?)?;
    drop(guest);
    shows(&Guest::new(bed, 0)?.vf.device, NONE)
}

fn refused_ones_are_not_shown(bed: &Bed) -> Result<()> {
    let (mut stream, guest) = pair(bed)?;
    stream.edit(
        hw::VIFA_SECTION_IDENTITY,
        |identity: &mut hw::vifa_identity| {
            identity.device ^= 1;
        },
    )?;
    let device = &guest.vf.device;
    let session = device.start(State::Resuming)?;
    let result = session.write_all(&stream.seal()[..IDENTITY_END], Segments::Whole);
    expect::refused("identity of another device", result, &[libc::EINVAL])?;
    shows(device, NONE)
}

/// Returns the stream of the VF 0, addressed to the VF `receiver`.
fn addressed(bed: &Bed, stream: &mut Stream, receiver: u32) -> Result<()> {
    let interfaces = interfaces(&bed.vf(receiver)?);
    change(stream, |relations| {
        for (relation, interface) in relations.iter_mut().zip(interfaces) {
            relation.receiver = interface;
        }
    })
}

fn addressed_stream_is_accepted_by_its_receiver(bed: &Bed) -> Result<()> {
    let (mut stream, guest) = pair(bed)?;
    addressed(bed, &mut stream, 1)?;
    guest.vf.device.load(&stream.seal())?;
    shows(&guest.vf.device, as_receiver(bed, 0, 1)?)
}

fn addressed_stream_is_refused_by_another(bed: &Bed) -> Result<()> {
    let (guest, bytes) = Guest::saved(bed, 1)?;
    let mut stream = Stream::parse(&bytes)?;
    addressed(bed, &mut stream, 0)?;
    guest.refuses_naming("receiver", "a stream for another VF", &stream)
}

/// Checks that the events of the tracepoint are those of the VF `index` in `role`, one per plane.
fn reports(
    bed: &Bed,
    tracing: &Tracing,
    index: u32,
    role: &str,
    [output, receiver]: [[u64; 2]; 2],
) -> Result<()> {
    let vf = bed.vf(index)?;
    let expected = [0, 1].map(|plane| {
        format!(
            "{vf}: {role} of the {} plane: {:#x} -> {:#x}",
            ["control", "data"][plane],
            output[plane],
            receiver[plane]
        )
    });
    expect::equal("events", tracing.events()?, expected.to_vec())
}

fn tracepoint_reports_both_once_they_are_accepted(bed: &Bed) -> Result<()> {
    let (stream, guest) = pair(bed)?;
    let bytes = stream.seal();
    let tracing = Tracing::of("vifa", "vifa_relation")?;
    let session = guest.vf.device.start(State::Resuming)?;
    session.write_all(&bytes[..RELATIONS_END - 1], Segments::Whole)?;
    expect::equal("events before", tracing.events()?.len(), 0)?;
    session.write_all(&bytes[RELATIONS_END - 1..], Segments::Whole)?;
    guest.vf.device.change_state(State::Stop)?;
    let ids = [interfaces(&bed.vf(0)?), interfaces(&bed.vf(1)?)];
    reports(bed, &tracing, 1, "receiver", ids)
}

fn tracepoint_reports_both_that_a_source_offers(bed: &Bed) -> Result<()> {
    let guest = Guest::new(bed, 0)?;
    let tracing = Tracing::of("vifa", "vifa_relation")?;
    guest.vf.device.save()?;
    let ids = [interfaces(&bed.vf(0)?), [0; 2]];
    reports(bed, &tracing, 0, "output party", ids)
}

fn tracepoint_reports_nothing_of_a_refused_stream(bed: &Bed) -> Result<()> {
    let (mut stream, guest) = pair(bed)?;
    addressed(bed, &mut stream, 0)?;
    let tracing = Tracing::of("vifa", "vifa_relation")?;
    guest.refuses("a stream for another VF", &stream.seal())?;
    expect::equal("events", tracing.events()?.len(), 0)
}

fn file_in_debugfs_shows_both(bed: &Bed) -> Result<()> {
    let (stream, guest) = pair(bed)?;
    let file = region::debugfs_file(&bed.vf(1)?).with_file_name("relations");
    let lines = || -> Result<Vec<String>> {
        let text = std::fs::read_to_string(&file).context("relations")?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    expect::equal("lines at first", lines()?, vec![])?;
    guest.vf.device.load(&stream.seal())?;
    let [outputs, receivers] = [0, 1].map(|index| bed.vf(index).map(|vf| interfaces(&vf)));
    let (outputs, receivers) = (outputs?, receivers?);
    let line = |plane: usize| {
        format!(
            "{} plane, receiver: {:#x} -> {:#x}",
            ["control", "data"][plane],
            outputs[plane],
            receivers[plane]
        )
    };
    expect::equal("lines", lines()?, vec![line(0), line(1)])
}
