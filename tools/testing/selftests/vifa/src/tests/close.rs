// SPDX-License-Identifier: GPL-2.0

//! The end of use in every state: by reset, by close, by the death of the process.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{claims, fixture::Guest, Test};
use crate::{
    bed::Bed,
    expect,
    migration::{Segments, Session, State},
    process::Victim,
};

const SET_UP: Duration = Duration::from_secs(10);

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for state in [State::Error].into_iter().chain(State::SUPPORTED) {
        type Way = fn(&Bed, State) -> Result<()>;
        let ways: [(&str, Way); 5] = [
            ("reset", |bed, state| {
                reset(bed, state, |guest| guest.vf.reset())
            }),
            ("reset_by_the_guest", |bed, state| {
                reset(bed, state, |guest| guest.vf.function_level_reset())
            }),
            ("reset_by_the_administrator", |bed, state| {
                reset(bed, state, |_| Ok(bed.vf(0)?.reset()?))
            }),
            ("close_of_the_device", close),
            ("death_of_the_process", kill),
        ];
        for (name, way) in ways {
            tests.push(Test::new(
                format!("close.{name}_in_{}", state.name()),
                move |bed| way(bed, state),
            ));
        }
    }
    tests.extend(claims!("close":
        many_sessions_leak_no_memory,
        many_sessions_of_a_running_device_leak_no_memory,
        many_refused_streams_leak_no_memory,
        ended_sessions_hold_no_buffers,
    ));
    tests
}

/// Returns a guest whose VF is in `state`, during the typical activity of that state.
pub(super) fn guest_in(bed: &Bed, state: State) -> Result<(Guest, Option<Session>)> {
    let (guest, stream) = Guest::saved(bed, 0)?;
    if state == State::Error {
        guest.fail(bed, 0)?;
        return Ok((guest, None));
    }
    let session = guest.vf.device.enter(state)?;
    if let Some(session) = &session {
        match state {
            State::Resuming => {
                session.write(&stream[..stream.len() / 2])?;
            }
            _ => {
                session.read(stream.len() / 2)?;
            }
        }
    }
    Ok((guest, session))
}

/// Checks that a session fails after its device is gone.
pub(super) fn has_ended(session: Option<Session>, state: State) -> Result<()> {
    let Some(session) = session else {
        return Ok(());
    };
    let result = match state {
        State::Resuming => session.write(&[0]).map(drop),
        _ => session.read(1).map(drop),
    };
    expect::refused("use of the session", result, &[libc::ENODEV])?;
    expect::claim(
        "poll of the session to show an error",
        session.poll()? & libc::POLLERR != 0,
    )
}

/// Checks that the device can be opened and works.
fn is_as_new(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    expect::equal(
        "state of a device just opened",
        guest.vf.device.state()?,
        State::Running,
    )?;
    guest.work(0xabc)
}

fn reset(bed: &Bed, state: State, way: impl FnOnce(&Guest) -> Result<()>) -> Result<()> {
    let (mut guest, session) = guest_in(bed, state)?;
    way(&guest).context("reset")?;
    guest.works_after_a_reset()?;
    has_ended(session, state)
}

fn close(bed: &Bed, state: State) -> Result<()> {
    let (guest, session) = guest_in(bed, state)?;
    drop(guest);
    has_ended(session, state)?;
    is_as_new(bed)
}

fn kill(bed: &Bed, state: State) -> Result<()> {
    let victim = Victim::holding(SET_UP, || guest_in(bed, state))?;
    victim.kill()?;
    is_as_new(bed).context("after the process's death")
}

/// Runs `act` many times, and checks that it uses less memory than one buffer per run.
///
/// A session has buffers of more than a mebibyte. Other activity of the machine needs less than
/// this many of them.
pub(super) fn costs_no_memory(times: u64, mut act: impl FnMut() -> Result<()>) -> Result<()> {
    const MEBIBYTE: u64 = 1 << 20;
    // One-time allocations remain.
    act()?;
    let before = available_memory()?;
    (0..times).try_for_each(|_| act())?;
    let gone = before.saturating_sub(available_memory()?);
    expect::claim(
        &format!(
            "less than {times} MiB of used memory, not {} MiB",
            gone / MEBIBYTE
        ),
        gone < times * MEBIBYTE,
    )
}

/// Returns the number of available bytes of memory.
pub(super) fn available_memory() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let kibibytes: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
        .context("MemAvailable of /proc/meminfo")?;
    Ok(kibibytes << 10)
}

fn many_sessions_leak_no_memory(bed: &Bed) -> Result<()> {
    let (mut guest, stream) = Guest::saved(bed, 0)?;
    let device = &guest.vf.device;
    costs_no_memory(100, || {
        device.start(State::StopCopy)?.read(100)?;
        device.change_state(State::Stop)
    })?;
    expect::same_bytes("stream after many sessions", &device.save()?, &stream)?;
    guest.recover()
}

fn many_sessions_of_a_running_device_leak_no_memory(bed: &Bed) -> Result<()> {
    let (mut guest, _) = Guest::saved(bed, 0)?;
    let device = &guest.vf.device;
    costs_no_memory(100, || {
        device.start(State::PreCopy)?.read(100)?;
        device.change_state(State::Running)
    })?;
    guest.recover()
}

fn many_refused_streams_leak_no_memory(bed: &Bed) -> Result<()> {
    let (mut guest, stream) = Guest::saved(bed, 0)?;
    let device = &guest.vf.device;
    let half = &stream[..stream.len() / 2];
    costs_no_memory(24, || {
        expect::refused(
            "half a stream",
            device.try_load(half, Segments::Whole)?,
            &[libc::EINVAL],
        )?;
        guest.vf.reset()
    })?;
    guest.recover()
}

fn ended_sessions_hold_no_buffers(bed: &Bed) -> Result<()> {
    let (mut guest, _) = Guest::saved(bed, 0)?;
    let mut ended = Vec::new();
    costs_no_memory(100, || {
        ended.push(guest.vf.device.start(State::StopCopy)?);
        guest.vf.device.change_state(State::Stop)
    })?;
    drop(ended);
    guest.recover()
}
