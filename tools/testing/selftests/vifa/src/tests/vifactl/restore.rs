// SPDX-License-Identifier: GPL-2.0

//! `vifactl restore`: restores a file to a device that a process has open.

use anyhow::{Context, Result};
use serde_json::{json, Value};
use vifa_device::{opcode::LOAD, Fault, RegisterFile};
use vifa_vfio::pci::Function;

use super::{claims, saved_set, succeed, Directory, Guest, Test};
use crate::{
    bed::Bed,
    engine::Vf,
    expect,
    hw::{self, value_of},
    migration::State,
    region,
    stream::Stream,
    tests::fixture::{filled, CHUNK},
    vifactl::{run, Exit},
};

pub fn tests() -> Vec<Test> {
    claims!("vifactl":
        restore_to_another_vf_brings_the_whole_state,
        restore_to_the_same_vf_needs_no_guide,
        restore_from_empty_standard_input_is_refused,
        restore_to_another_vf_needs_a_guide,
        restore_to_an_unused_device_is_refused,
        trial_restore_needs_no_holder,
        guide_addresses_the_stream,
        guide_to_another_place_is_refused,
        damaged_guides_are_refused,
        set_of_an_incompatible_device_is_refused_before_the_device_is_accessed,
        restore_to_a_device_that_is_migrated_is_refused,
        restore_to_a_device_that_fails_resets_it,
        damaged_sets_are_refused_before_the_device_is_accessed,
    )
}

/// Writes a guide from the VF 0 to the VF 1.
fn guide(bed: &Bed, directory: &Directory) -> Result<String> {
    guide_of(directory, &bed.vf(0)?, &bed.vf(1)?)
}

fn guide_of(directory: &Directory, from: &Function, to: &Function) -> Result<String> {
    let guide = json!({
        "guide": {"major": 1, "minor": 0},
        "virtual_functions": {from.to_string(): to.to_string()},
    });
    directory.write("guide.json", guide.to_string())
}

/// Moves `guest` to the VF 1 with the save set `set`, while this process has both devices open.
fn move_by_set(bed: &Bed, guest: &mut Guest, set: &str, guide: &str) -> Result<Value> {
    let vf = bed.vf(1)?;
    let destination = Vf::open(&vf, &guest.space)?;
    let name = vf.to_string();
    let restored = succeed(&["restore", "--json", set, &name, "--guide", guide])?.json()?;
    expect::equal("state", destination.device.state()?, State::Running)?;
    // Rings and memory stay the same, as it is the same guest.
    guest.vf = destination;
    Ok(restored)
}

fn restore_to_another_vf_brings_the_whole_state(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let (mut guest, set) = saved_set(bed, &directory)?;
    let scratch = |guest: &Guest| -> Vec<u32> {
        (0..hw::VIFA_REFERENCE_SCRATCHES)
            .map(|n| guest.vf.register(hw::VIFA_REFERENCE_SCRATCH + 4 * n))
            .collect()
    };
    let before = scratch(&guest);
    let guide = guide(bed, &directory)?;
    move_by_set(bed, &mut guest, &set, &guide)?;
    expect::equal("scratch registers", scratch(&guest), before)?;
    let middle = guest.vf.local_memory() / 2;
    for (local, seed) in [(0, 0x5e7), (middle, !0x5e7)] {
        expect::same_bytes(
            &format!("local memory at {local:#x}"),
            &guest.read_local(local, 0)?,
            &filled(seed, CHUNK),
        )?;
    }
    guest.work(1).context("with the rings as they were")
}

fn restore_to_the_same_vf_needs_no_guide(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let (mut guest, set) = saved_set(bed, &directory)?;
    guest.write_local(0, 0xbad)?;
    guest.recover()?;
    let name = bed.vf(0)?.to_string();
    for state in [State::Stop, State::RunningP2p, State::Running] {
        guest.vf.device.change_state(state)?;
        succeed(&["restore", &set, &name])?;
        expect::equal("state", guest.vf.device.state()?, state)?;
    }
    guest.engine.enable(&guest.vf)?;
    expect::same_bytes(
        "local memory",
        &guest.read_local(0, 0)?,
        &filled(0x5e7, CHUNK),
    )
}

/// Standard input is empty here.
fn restore_from_empty_standard_input_is_refused(bed: &Bed) -> Result<()> {
    let guest = Guest::new(bed, 0)?;
    let before = region::read(&guest.vf.device)?.generation;
    let answer = run(&["restore", "-", &bed.vf(0)?.to_string()])?;
    answer.ends(Exit::Damaged)?;
    let after = region::read(&guest.vf.device)?.generation;
    expect::equal("generation", after, before)
}

/// Checks that a restore to the VF `index`, which `guest` has open, ends with `exit`, reports
/// `words`, and does not access the device.
fn does_not_touch<S: AsRef<str>>(
    guest: &Guest,
    arguments: &[&str],
    exit: Exit,
    words: &[S],
) -> Result<()> {
    let device = &guest.vf.device;
    let before = region::read(device)?.generation;
    let mut all = vec!["restore"];
    all.extend(arguments);
    run(&all)?.ends(exit)?.reports(words)?;
    expect::equal("generation", region::read(device)?.generation, before)
}

fn restore_to_another_vf_needs_a_guide(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let (source, set) = saved_set(bed, &directory)?;
    drop(source);
    let guest = Guest::new(bed, 1)?;
    let vf = bed.vf(1)?.to_string();
    does_not_touch(
        &guest,
        &[&set, &vf],
        Exit::Incompatible,
        &["virtual function", "guide"],
    )?;
    succeed(&["restore", &set, &vf, "--guide", &guide(bed, &directory)?]).map(drop)
}

fn restore_to_an_unused_device_is_refused(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let (source, set) = saved_set(bed, &directory)?;
    drop(source);
    let vf = bed.vf(0)?;
    let before = region::of_function(&vf)?.generation;
    run(&["restore", &set, &vf.to_string()])?
        .ends(Exit::Busy)?
        .reports(&[vf.to_string()])?;
    let after = region::of_function(&vf)?.generation;
    expect::equal("generation", after, before)
}

fn trial_restore_needs_no_holder(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let (source, set) = saved_set(bed, &directory)?;
    drop(source);
    let vf = bed.vf(0)?;
    let before = region::of_function(&vf)?.restored;
    succeed(&["restore", "--trial", &set, &vf.to_string()])?;
    let after = region::of_function(&vf)?.restored;
    expect::equal("transfers restored", after, before + 1)?;
    Guest::new(bed, 0)?.work(1)
}

fn guide_addresses_the_stream(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let (mut guest, set) = saved_set(bed, &directory)?;
    let guide = guide(bed, &directory)?;
    let restored = move_by_set(bed, &mut guest, &set, &guide)?;
    expect::equal("addressed", &restored["addressed"], &json!(true))
}

fn guide_to_another_place_is_refused(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let (guest, set) = saved_set(bed, &directory)?;
    let name = bed.vf(0)?.to_string();
    // The guide maps to the VF 1, but the command names the VF 0.
    let to_other = guide(bed, &directory)?;
    does_not_touch(
        &guest,
        &[&set, &name, "--guide", &to_other],
        Exit::Incompatible,
        &[bed.vf(1)?.to_string()],
    )?;
    let of_stranger = guide_of(&directory, &bed.vf(1)?, &bed.vf(0)?)?;
    does_not_touch(
        &guest,
        &[&set, &name, "--guide", &of_stranger],
        Exit::Damaged,
        &[bed.vf(1)?.to_string()],
    )
}

fn damaged_guides_are_refused(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let (guest, set) = saved_set(bed, &directory)?;
    let name = bed.vf(0)?.to_string();
    for text in [
        "",
        "{}",
        "[]",
        r#"{"guide": {"major": 2, "minor": 0}}"#,
        r#"{"guide": {"major": 1, "minor": 0}, "unknown": 1}"#,
        r#"{"guide": {"major": 1, "minor": 0}, "virtual_functions": {"a": "b"}}"#,
    ] {
        let guide = directory.write("guide.json", text)?;
        let arguments = [&set, &name, "--guide", &guide];
        does_not_touch(&guest, &arguments, Exit::Damaged, &[&guide]).context(text)?;
    }
    Ok(())
}

fn damaged_sets_are_refused_before_the_device_is_accessed(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let (guest, _) = saved_set(bed, &directory)?;
    let name = bed.vf(0)?.to_string();
    let set = directory.read("set")?;
    let header: hw::vifa_save_set_header = value_of(&set).context("a header")?;
    let manifest = size_of::<hw::vifa_save_set_header>();
    let stream = manifest + header.manifest_length as usize;
    let mut places: Vec<usize> = vec![9, 20, manifest + 40];
    // The last byte of the stream's header and of each section.
    let borders = Stream::parse(&set[stream..])?.borders();
    places.extend(
        borders[1..]
            .iter()
            .step_by(2)
            .map(|border| stream + border - 1),
    );
    let refuses = |what: &str, bytes: &[u8]| -> Result<()> {
        let file = directory.write("damaged", bytes)?;
        does_not_touch(&guest, &[&file, &name], Exit::Damaged, &[&file])
            .with_context(|| what.to_owned())
    };
    for place in places {
        let mut flipped = set.clone();
        flipped[place] ^= 1 << (place % 8);
        refuses(&format!("bit of byte {place} flipped"), &flipped)?;
    }
    for length in [stream, set.len() - 1] {
        refuses(&format!("cut at {length}"), &set[..length])?;
    }
    refuses("a byte after the end", &[&set[..], &[0]].concat())?;
    let good = directory.write("good", &set)?;
    succeed(&["restore", &good, &name]).map(drop)
}

fn set_of_an_incompatible_device_is_refused_before_the_device_is_accessed(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let (source, set) = saved_set(bed, &directory)?;
    drop(source);
    let without = bed.without_p2p()?;
    let guest = Guest::new(&without, 0)?;
    let vf = without.vf(0)?;
    let guide = guide_of(&directory, &bed.vf(0)?, &vf)?;
    does_not_touch(
        &guest,
        &[&set, &vf.to_string(), "--guide", &guide],
        Exit::Incompatible,
        &["features", "0xf", "0xc"],
    )
}

fn restore_to_a_device_that_is_migrated_is_refused(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let (guest, set) = saved_set(bed, &directory)?;
    let name = bed.vf(0)?.to_string();
    for state in [State::PreCopy, State::StopCopy, State::Resuming] {
        let _session = guest.vf.device.enter(state)?;
        does_not_touch(&guest, &[&set, &name], Exit::Busy, &[&state.name()])?;
        expect::equal("state", guest.vf.device.state()?, state)?;
    }
    Ok(())
}

fn restore_to_a_device_that_fails_resets_it(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let (mut guest, set) = saved_set(bed, &directory)?;
    let registers = RegisterFile::map(&bed.pf)?;
    let status = Fault::Status(hw::VIFA_STATUS_DEVICE_FAILURE);
    let armed = registers.arm(0, LOAD, status, 1)?;
    run(&["restore", &set, &bed.vf(0)?.to_string()])?
        .ends(Exit::Failed)?
        .reports(&["the device failed", "reset"])?;
    expect::equal("times that the fault happened", armed.fired(), 1)?;
    drop(armed);
    guest.works_after_a_reset()
}
