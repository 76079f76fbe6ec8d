// SPDX-License-Identifier: GPL-2.0

//! `vifactl save`: saves the state of a device that a process has open to a file.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use serde_json::json;
use vifa_device::{
    opcode::{LOCAL_READ, SAVE},
    Fault, RegisterFile,
};
use vifa_vfio::wait_for;

use super::{claims, saved_set, succeed, Directory, Guest, Test};
use crate::{
    bed::Bed,
    engine::{Command, COMPLETION_TIMEOUT},
    expect,
    hw::{self, value_of},
    migration::{Segments, State},
    region,
    stream::Stream,
    vifactl::{run, Exit, Running},
};

pub fn tests() -> Vec<Test> {
    claims!("vifactl":
        save_of_a_device_in_use_does_not_change_it,
        save_returns_the_device_to_each_state,
        save_of_a_device_that_is_migrated_is_refused,
        save_of_a_device_in_error_is_refused,
        save_of_an_unused_device_warns_of_the_reset,
        save_creates_a_valid_set,
        save_to_a_stream_copies_the_kernel_s_stream,
        save_does_not_replace_a_file_unless_forced,
        interrupted_save_leaves_no_file_and_a_running_device,
        killed_save_leaves_no_file_of_that_name,
        save_by_a_device_that_fails_leaves_no_file,
    )
}

fn save_of_a_device_in_use_does_not_change_it(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let mut guest = Guest::new(bed, 0)?;
    guest.furnish(0x11)?;
    let event = guest.vf.interrupt()?;
    guest.vf.set_speed(1);
    let slow = Command::Fill {
        destination: guest.at(0),
        length: 4096,
        pattern: 7,
    };
    guest.engine.submit(&guest.vf, slow)?;
    succeed(&["save", &bed.vf(0)?.to_string(), &directory.name("set")])?;
    expect::equal("state", guest.vf.device.state()?, State::Running)?;
    guest.vf.set_speed(0);
    guest.engine.wait_for_interrupt(&guest.vf, &event)?;
    guest.engine.verify_idle(&guest.vf)?;
    guest.work(0x12)
}

fn save_returns_the_device_to_each_state(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let guest = Guest::new(bed, 0)?;
    for state in [State::Running, State::RunningP2p, State::Stop] {
        guest.vf.device.change_state(state)?;
        let set = directory.name(&state.name());
        let answer = succeed(&["save", "--json", &bed.vf(0)?.to_string(), &set])?.json()?;
        expect::equal("reported state", &answer["state"], &json!(state.name()))?;
        expect::equal("state after a save", guest.vf.device.state()?, state)?;
    }
    Ok(())
}

/// Checks that a save fails with `exit`, and leaves no file and the device in `state`.
fn is_refused(bed: &Bed, guest: &Guest, state: State, exit: Exit) -> Result<()> {
    let directory = Directory::new()?;
    run(&["save", &bed.vf(0)?.to_string(), &directory.name("set")])?
        .ends(exit)?
        .reports(&[&state.name()])?;
    expect::equal("state", guest.vf.device.state()?, state)?;
    expect::equal("files", directory.names()?, vec![])
}

fn save_of_a_device_that_is_migrated_is_refused(bed: &Bed) -> Result<()> {
    let guest = Guest::new(bed, 0)?;
    for state in [State::PreCopy, State::PreCopyP2p] {
        let session = guest.vf.device.enter(state)?;
        is_refused(bed, &guest, state, Exit::Busy)?;
        drop(session);
    }
    guest.vf.device.change_state(State::Running)?;
    for state in [State::StopCopy, State::Resuming] {
        let _session = guest.vf.device.start(state)?;
        is_refused(bed, &guest, state, Exit::Busy)?;
    }
    Ok(())
}

fn save_of_a_device_in_error_is_refused(bed: &Bed) -> Result<()> {
    let guest = Guest::new(bed, 0)?;
    guest.fail(bed, 0)?;
    is_refused(bed, &guest, State::Error, Exit::Failed)
}

fn save_of_an_unused_device_warns_of_the_reset(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let set = directory.name("set");
    succeed(&["save", &bed.vf(0)?.to_string(), &set])?.reports(&["reset"])?;
    succeed(&["decode", &set])?;
    Guest::new(bed, 0)?.work(1)
}

fn save_creates_a_valid_set(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let (guest, _) = saved_set(bed, &directory)?;
    let bytes = directory.read("set")?;
    let header: hw::vifa_save_set_header = value_of(&bytes).context("a header")?;
    expect::equal("magic", &header.magic[..], &hw::VIFA_SAVE_SET_MAGIC[..8])?;
    let manifest = size_of::<hw::vifa_save_set_header>();
    let stream = manifest + header.manifest_length as usize;
    expect::equal(
        "length of the set",
        bytes.len(),
        stream + header.stream_length as usize,
    )?;
    expect::same_bytes("stream", &bytes[stream..], &guest.vf.device.save()?)?;
    let manifest: serde_json::Value = serde_json::from_slice(&bytes[manifest..stream])?;
    expect::equal(
        "virtual function",
        &manifest["virtual_function"],
        &json!({"address": bed.vf(0)?.to_string(), "index": 0}),
    )?;
    expect::equal(
        "local memory",
        &manifest["configuration"]["local_memory"],
        &json!(guest.vf.local_memory()),
    )
}

fn save_to_a_stream_copies_the_kernel_s_stream(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let mut guest = Guest::new(bed, 0)?;
    guest.furnish(0x57)?;
    let vf = bed.vf(0)?.to_string();
    succeed(&["save", "--to-stream", &vf, &directory.name("stream")])?;
    let printed = succeed(&["save", "--to-stream", &vf, "-"])?.output;
    let expected = guest.vf.device.save()?;
    expect::same_bytes("file", &directory.read("stream")?, &expected)?;
    expect::same_bytes("standard output", &printed, &expected)?;
    Stream::parse(&expected).map(drop)
}

fn save_does_not_replace_a_file_unless_forced(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let _guest = Guest::new(bed, 0)?;
    let vf = bed.vf(0)?.to_string();
    let set = directory.write("set", "precious")?;
    run(&["save", &vf, &set])?
        .ends(Exit::Failed)?
        .reports(&[&set])?;
    expect::equal("file", directory.read("set")?, b"precious".to_vec())?;
    succeed(&["save", "--force", &vf, &set])?;
    expect::equal("files", directory.names()?, vec!["set".to_owned()])?;
    succeed(&["decode", &set]).map(drop)
}

/// Sends `signal` to a save of the VF 0 into `directory` during the transfer.
fn interrupt(bed: &Bed, directory: &Directory, signal: i32) -> Result<crate::vifactl::Answer> {
    let registers = RegisterFile::map(&bed.pf)?;
    let late = Fault::Delay(registers.timeout * 3 / 4);
    let _slow = registers.arm(0, LOCAL_READ, late, 10)?;
    let vf = bed.vf(0)?;
    let saving = Running::start(&["save", &vf.to_string(), &directory.name("set")])?;
    wait_for(Duration::from_secs(10), || {
        let state = region::of_function(&vf)?.state;
        anyhow::Ok((state == State::StopCopy as u32).then_some(()))
    })?
    .context("the save does not begin")?;
    expect::equal("files of that name", directory.path("set").exists(), false)?;
    saving.signal(signal)?;
    saving.wait()
}

fn interrupted_save_leaves_no_file_and_a_running_device(bed: &Bed) -> Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let directory = Directory::new()?;
        let mut guest = Guest::new(bed, 0)?;
        guest.furnish(1)?;
        interrupt(bed, &directory, signal)?.ends(Exit::Failed)?;
        expect::equal("files", directory.names()?, vec![])?;
        expect::equal("state", guest.vf.device.state()?, State::Running)?;
        guest.work(2)?;
    }
    Ok(())
}

fn killed_save_leaves_no_file_of_that_name(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let mut guest = Guest::new(bed, 0)?;
    guest.furnish(1)?;
    interrupt(bed, &directory, libc::SIGKILL)?;
    expect::claim("no file", !directory.path("set").exists())?;
    // Only its holder can return the device to its state.
    guest.vf.device.change_state(State::Running)?;
    guest.work(2)?;
    for name in directory.names()? {
        fs::remove_file(directory.path(&name))?;
    }
    succeed(&["save", &bed.vf(0)?.to_string(), &directory.name("set")]).map(drop)
}

fn save_by_a_device_that_fails_leaves_no_file(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let mut guest = Guest::new(bed, 0)?;
    guest.furnish(1)?;
    let registers = RegisterFile::map(&bed.pf)?;
    let status = Fault::Status(hw::VIFA_STATUS_DEVICE_FAILURE);
    let _armed = registers.arm(0, SAVE, status, 1)?;
    run(&["save", &bed.vf(0)?.to_string(), &directory.name("set")])?
        .ends(Exit::Failed)?
        .reports(&["the device failed"])?;
    expect::equal("files", directory.names()?, vec![])?;
    expect::equal("state", guest.vf.device.state()?, State::Running)?;
    guest.engine.submit(&guest.vf, Command::Nop)?;
    guest.engine.wait(&guest.vf, COMPLETION_TIMEOUT)?;
    guest
        .vf
        .device
        .start(State::StopCopy)?
        .read_all(Segments::Whole)?;
    Ok(())
}
