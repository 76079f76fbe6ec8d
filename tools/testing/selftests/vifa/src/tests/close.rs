// SPDX-License-Identifier: GPL-2.0

//! The end of use in every state: by reset, by close, by the process's death.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{fixture::Guest, Test};
use crate::{
    bed::Bed,
    expect,
    migration::{Session, State},
    process::Victim,
};

const SET_UP: Duration = Duration::from_secs(10);

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for state in [State::Error].into_iter().chain(State::SUPPORTED) {
        type Way = fn(&Bed, State) -> Result<()>;
        let ways: [(&str, Way); 3] = [
            ("reset", reset),
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
    tests.push(Test::new(
        "close.device_works_after_many_sessions",
        device_works_after_many_sessions,
    ));
    tests
}

/// A guest whose VF is in `state` in the middle of what one does there.
fn guest_in(bed: &Bed, state: State) -> Result<(Guest, Option<Session>)> {
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

/// A session whose device is gone answers with errors.
fn has_ended(session: Option<Session>, state: State) -> Result<()> {
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

/// The device can be opened and works.
fn is_as_new(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    expect::equal(
        "state of a device just opened",
        guest.vf.device.state()?,
        State::Running,
    )?;
    guest.work(0xabc)
}

fn reset(bed: &Bed, state: State) -> Result<()> {
    let (mut guest, session) = guest_in(bed, state)?;
    guest.recover()?;
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

fn device_works_after_many_sessions(bed: &Bed) -> Result<()> {
    const SESSIONS: usize = 200;
    let (mut guest, stream) = Guest::saved(bed, 0)?;
    for _ in 0..SESSIONS {
        guest.vf.device.start(State::StopCopy)?.read(100)?;
        guest.vf.device.change_state(State::Stop)?;
    }
    expect::same_bytes(
        "stream after many sessions",
        &guest.vf.device.save()?,
        &stream,
    )?;
    guest.recover()
}
