// SPDX-License-Identifier: GPL-2.0

//! Transfer from one VF to another: the whole state arrives, and unfinished work completes there,
//! once.

use std::{io::Seek, os::unix::fs::FileExt, thread, time::Duration};

use anyhow::{Context, Result};
use vifa_device::RegisterFile;

use super::{
    claims,
    fixture::{filled, Guest, CHUNK},
    Test,
};
use crate::{
    bed::Bed,
    engine::{succeeded, Command, Vf, COMPLETION_TIMEOUT},
    expect, hw,
    migration::{Session, State},
    stream::Stream,
};

pub fn tests() -> Vec<Test> {
    claims!("transfer":
        state_saved_again_on_the_other_vf_is_the_same,
        local_memory_and_scratch_registers_arrive,
        unfinished_command_completes_once_on_the_other_vf,
        commands_not_begun_complete_once_on_the_other_vf,
        guest_goes_back_and_forth,
        source_can_run_on_after_a_save,
        saved_and_reset_source_is_in_its_initial_state,
        stopped_vf_does_nothing,
        stopped_vf_takes_no_doorbell,
        p2p_vf_keeps_a_doorbell,
        device_follows_the_driver_s_state,
    )
}

/// A session has no file offset.
pub fn has_no_position(session: &Session) -> Result<()> {
    let mut file = session.file();
    expect::refused("lseek", file.rewind(), &[libc::ESPIPE])?;
    expect::refused("pread", file.read_at(&mut [0], 0), &[libc::ESPIPE])?;
    expect::refused("pwrite", file.write_at(&[0], 0), &[libc::ESPIPE])
}

/// Moves `guest` to the VF `index`: saves it, closes its VF, loads it there and sets it running.
fn migrate(bed: &Bed, guest: &mut Guest, index: u32) -> Result<()> {
    let stream = guest.vf.device.save().context("save")?;
    let destination = Vf::open(&bed.vf(index)?, &guest.space)?;
    destination.device.load(&stream).context("load")?;
    // Rings and memory stay the same, as it is the same guest.
    guest.vf = destination;
    guest.vf.device.change_state(State::Running)
}

/// Returns the payloads of a stream's sections, except those that depend on its source or its
/// headers.
fn planes(stream: &[u8]) -> Result<Vec<(u32, Vec<u8>)>> {
    let sections = Stream::parse(stream)?.sections;
    Ok(sections
        .into_iter()
        .filter(|section| {
            !matches!(
                section.kind(),
                hw::VIFA_SECTION_RELATIONS | hw::VIFA_SECTION_END
            )
        })
        .map(|section| (section.kind(), section.payload))
        .collect())
}

fn state_saved_again_on_the_other_vf_is_the_same(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    guest.furnish(3)?;
    leave_unfinished(&mut guest)?;
    let first = guest.vf.device.save()?;
    let other = Vf::open(&bed.vf(1)?, &guest.space)?;
    other.device.load(&first)?;
    let second = other.device.save()?;
    let (first, second) = (planes(&first)?, planes(&second)?);
    expect::equal("sections", second.len(), first.len())?;
    for ((kind, second), (_, first)) in second.iter().zip(&first) {
        expect::same_bytes(&format!("section of type {kind}"), second, first)?;
    }
    Ok(())
}

fn local_memory_and_scratch_registers_arrive(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    guest.furnish(0x1111)?;
    let scratch = |vf: &Vf| -> Vec<u32> {
        (0..hw::VIFA_REFERENCE_SCRATCHES)
            .map(|n| vf.register(hw::VIFA_REFERENCE_SCRATCH + 4 * n))
            .collect()
    };
    let before = scratch(&guest.vf);
    migrate(bed, &mut guest, 1)?;
    expect::equal("scratch registers", scratch(&guest.vf), before)?;
    let middle = guest.vf.local_memory() / 2;
    for (local, expected) in [
        (0, filled(0x1111, CHUNK)),
        (middle, filled(!0x1111, CHUNK)),
        (middle / 2, vec![0; CHUNK as usize]),
    ] {
        let what = format!("local memory at {local:#x}");
        expect::same_bytes(&what, &guest.read_local(local, 0)?, &expected)?;
    }
    guest.work(2)
}

/// The target of the slow command of [`leave_unfinished`].
const SLOW: u64 = 8 * CHUNK;
const SLOW_PATTERN: u64 = 0xdead_0000_0000;
const SLOW_COMMAND: fn(&Guest) -> Command = |guest| Command::Fill {
    destination: guest.at(SLOW),
    length: CHUNK,
    pattern: SLOW_PATTERN,
};

/// Leaves the engine in the middle of a command that takes seconds.
fn leave_unfinished(guest: &mut Guest) -> Result<()> {
    guest.vf.set_speed(1);
    let command = SLOW_COMMAND(guest);
    guest.engine.submit(&guest.vf, command)?;
    for _ in 0..500 {
        if guest.vf.register(hw::VIFA_REFERENCE_SUBMISSION_HEAD)
            == guest.vf.register(hw::VIFA_REFERENCE_SUBMISSION_TAIL)
        {
            return expect::claim(
                "a slow command not to be complete already",
                guest.engine.take_completion(&guest.vf)?.is_none(),
            );
        }
        thread::sleep(Duration::from_millis(2));
    }
    anyhow::bail!("the engine accepts no command");
}

fn unfinished_command_completes_once_on_the_other_vf(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    leave_unfinished(&mut guest)?;
    migrate(bed, &mut guest, 1)?;
    let event = guest.vf.interrupt()?;
    guest.vf.set_speed(0);
    let completion = guest.engine.wait_for_interrupt(&guest.vf, &event)?;
    succeeded(SLOW_COMMAND(&guest), &completion)?;
    expect::same_bytes(
        "memory that the command wrote",
        &guest.bytes(SLOW, CHUNK),
        &filled(SLOW_PATTERN, CHUNK),
    )?;
    guest.engine.verify_idle(&guest.vf)?;
    guest.work(4)
}

fn commands_not_begun_complete_once_on_the_other_vf(bed: &Bed) -> Result<()> {
    /// Commands queued after the slow one.
    const WAITING: u64 = 5;
    let mut guest = Guest::new(bed, 0)?;
    leave_unfinished(&mut guest)?;
    let commands: Vec<Command> = (0..WAITING)
        .map(|n| Command::Fill {
            destination: guest.at(SLOW + (1 + n) * CHUNK / 2),
            length: CHUNK / 2,
            pattern: n << 32,
        })
        .collect();
    for command in &commands {
        guest.engine.submit(&guest.vf, *command)?;
    }
    migrate(bed, &mut guest, 1)?;
    guest.vf.set_speed(0);
    for command in [SLOW_COMMAND(&guest)].iter().chain(&commands) {
        let completion = guest.engine.wait(&guest.vf, COMPLETION_TIMEOUT)?;
        succeeded(*command, &completion)?;
    }
    for n in 0..WAITING {
        expect::same_bytes(
            &format!("memory that command {n} wrote"),
            &guest.bytes(SLOW + (1 + n) * CHUNK / 2, CHUNK / 2),
            &filled(n << 32, CHUNK / 2),
        )?;
    }
    guest.engine.verify_idle(&guest.vf)
}

fn guest_goes_back_and_forth(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    guest.furnish(9)?;
    let middle = guest.vf.local_memory() / 2;
    for round in 0..6 {
        leave_unfinished(&mut guest)?;
        migrate(bed, &mut guest, (round + 1) % 2).with_context(|| format!("round {round}"))?;
        guest.vf.set_speed(0);
        let completion = guest.engine.wait(&guest.vf, COMPLETION_TIMEOUT)?;
        succeeded(SLOW_COMMAND(&guest), &completion)?;
        guest
            .work(round.into())
            .with_context(|| format!("round {round}"))?;
        expect::same_bytes(
            "local memory",
            &guest.read_local(middle, 0)?,
            &filled(!9, CHUNK),
        )?;
    }
    guest.engine.verify_idle(&guest.vf)
}

fn source_can_run_on_after_a_save(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    leave_unfinished(&mut guest)?;
    guest.vf.device.save()?;
    guest.vf.device.change_state(State::Running)?;
    guest.vf.set_speed(0);
    let completion = guest.engine.wait(&guest.vf, COMPLETION_TIMEOUT)?;
    succeeded(SLOW_COMMAND(&guest), &completion)?;
    guest.work(5)
}

fn saved_and_reset_source_is_in_its_initial_state(bed: &Bed) -> Result<()> {
    let (mut guest, _) = Guest::saved(bed, 0)?;
    guest.recover()
}

fn stopped_vf_does_nothing(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    let event = guest.vf.interrupt()?;
    leave_unfinished(&mut guest)?;
    for state in [State::RunningP2p, State::Stop] {
        guest.vf.device.change_state(state)?;
        let before = guest.bytes(SLOW, CHUNK);
        thread::sleep(Duration::from_millis(200));
        expect::same_bytes(
            &format!("memory in {}", state.name()),
            &guest.bytes(SLOW, CHUNK),
            &before,
        )?;
        let events = crate::sys::poll(&event, libc::POLLIN, Duration::ZERO)?;
        expect::equal(&format!("interrupt in {}", state.name()), events, 0)?;
    }
    guest.vf.device.change_state(State::Running)?;
    guest.vf.set_speed(0);
    guest.engine.wait_for_interrupt(&guest.vf, &event)?;
    Ok(())
}

fn stopped_vf_takes_no_doorbell(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    guest.work(1)?;
    guest.vf.device.change_state(State::Stop)?;
    // The user must not access a stopped device. If it does, nothing bad may happen.
    guest
        .vf
        .set_register(hw::VIFA_REFERENCE_SUBMISSION_TAIL, 0x55aa);
    thread::sleep(Duration::from_millis(50));
    expect::equal("state", guest.vf.device.state()?, State::Stop)?;
    guest.recover()
}

fn p2p_vf_keeps_a_doorbell(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    guest.vf.device.change_state(State::RunningP2p)?;
    guest.doorbell_is_kept_until(State::Running)
}

fn device_follows_the_driver_s_state(bed: &Bed) -> Result<()> {
    let guest = Guest::new(bed, 0)?;
    let registers = RegisterFile::map(&bed.pf)?;
    guest.follows(
        &registers,
        &[
            (State::RunningP2p, hw::VIFA_RUN_STATE_P2P),
            (State::Stop, hw::VIFA_RUN_STATE_STOPPED),
            (State::StopCopy, hw::VIFA_RUN_STATE_STOPPED),
            (State::Stop, hw::VIFA_RUN_STATE_STOPPED),
            (State::Resuming, hw::VIFA_RUN_STATE_STOPPED),
        ],
    )?;
    guest.vf.reset()?;
    expect::equal(
        "run state after a reset",
        registers.run_state(0),
        hw::VIFA_RUN_STATE_RUNNING,
    )
}
