// SPDX-License-Identifier: GPL-2.0

//! The state machine of VFIO migration v2: every ordered pair of states, and numbers that are none.
//!
//! What is expected is computed here from the words of `include/uapi/linux/vfio.h`, for a device
//! with STOP_COPY and P2P, and not taken from the kernel's table.

use std::{collections::VecDeque, io};

use anyhow::{Context, Result};

use super::{fixture::Guest, Test};
use crate::{
    bed::Bed,
    expect,
    migration::{Segments, Session, State},
};

/// An arc of the state machine: the driver implements it as one step.
struct Arc {
    from: State,
    to: State,
    begins_session: bool,
}

const fn arc(from: State, to: State) -> Arc {
    Arc {
        from,
        to,
        begins_session: false,
    }
}

const fn arc_with_session(from: State, to: State) -> Arc {
    Arc {
        from,
        to,
        begins_session: true,
    }
}

/// The arcs of a device with STOP_COPY and P2P.
const ARCS: [Arc; 8] = [
    arc(State::Running, State::RunningP2p),
    arc(State::RunningP2p, State::Running),
    arc(State::RunningP2p, State::Stop),
    arc(State::Stop, State::RunningP2p),
    arc_with_session(State::Stop, State::StopCopy),
    arc(State::StopCopy, State::Stop),
    arc_with_session(State::Stop, State::Resuming),
    arc(State::Resuming, State::Stop),
];

/// The "saving group" of states.
fn is_saving(state: State) -> bool {
    matches!(state, State::StopCopy | State::PreCopy | State::PreCopyP2p)
}

/// The shortest path from `from` to `to` on which no saving state is an interior one; `None`: there
/// is none. Empty where both are the same.
fn path(from: State, to: State) -> Option<Vec<&'static Arc>> {
    let mut paths = VecDeque::from([(from, Vec::new())]);
    let mut seen = vec![from];
    while let Some((at, arcs)) = paths.pop_front() {
        if at == to {
            return Some(arcs);
        }
        if is_saving(at) && at != from {
            continue;
        }
        for arc in ARCS.iter().filter(|arc| arc.from == at) {
            if !seen.contains(&arc.to) {
                seen.push(arc.to);
                let mut longer = arcs.clone();
                longer.push(arc);
                paths.push_back((arc.to, longer));
            }
        }
    }
    None
}

/// What the specification says of a request.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    /// The device is in the state that was asked for.
    Reached { session: bool },
    /// EINVAL, and the device is where it was.
    Refused,
}

fn expected(from: State, to: State) -> Expected {
    if from == State::Error || to == State::Error {
        // "ERROR cannot be specified as a device state"; only a reset leaves it.
        return Expected::Refused;
    }
    match path(from, to) {
        Some(arcs) => Expected::Reached {
            session: arcs.last().is_some_and(|arc| arc.begins_session),
        },
        None => Expected::Refused,
    }
}

/// Numbers that are no state.
const NO_STATES: [u32; 5] = [8, 9, 255, 0x7fff_ffff, 0xffff_ffff];

pub fn tests() -> Vec<Test> {
    let starts = [State::Error].into_iter().chain(State::SUPPORTED);
    let mut tests = Vec::new();
    for from in starts {
        for to in State::ALL {
            tests.push(Test::new(
                format!("state.{}_to_{}", from.name(), to.name()),
                move |bed| try_pair(bed, from, to),
            ));
        }
        tests.push(Test::new(
            format!("state.{}_to_numbers_that_are_no_state", from.name()),
            move |bed| try_numbers(bed, from),
        ));
    }
    for to in [
        State::Stop,
        State::Running,
        State::StopCopy,
        State::RunningP2p,
    ] {
        tests.push(Test::new(
            format!("state.RESUMING_without_a_stream_to_{}", to.name()),
            move |bed| try_incomplete(bed, to),
        ));
    }
    tests
}

/// A guest whose VF is in `state`, with the session that this state has. In RESUMING, a complete
/// stream was written.
fn guest_in(bed: &Bed, state: State) -> Result<(Guest, Option<Session>)> {
    let mut guest = Guest::new(bed, 0)?;
    guest.furnish(1)?;
    let device = &guest.vf.device;
    let session = match state {
        State::Error => {
            guest.fail(bed, 0)?;
            None
        }
        State::Resuming => {
            let stream = device.save()?;
            let session = device.start(state)?;
            session.write_all(&stream, Segments::Whole)?;
            Some(session)
        }
        State::StopCopy => Some(device.start(state)?),
        _ => device.enter(state)?,
    };
    expect::equal("state at the start", guest.vf.device.state()?, state)?;
    Ok((guest, session))
}

fn try_pair(bed: &Bed, from: State, to: State) -> Result<()> {
    let (mut guest, session) =
        guest_in(bed, from).with_context(|| format!("way to {}", from.name()))?;
    let device = &guest.vf.device;
    let result = device.request_state(to as u32);
    match expected(from, to) {
        Expected::Reached { session: expected } => {
            let new = match result {
                Ok(new) => new,
                Err(error) => anyhow::bail!("expected success, got {error}"),
            };
            expect::equal("a data_fd", new.is_some(), expected)?;
            expect::equal("state", device.state()?, to)?;
            sessions_are_right(from, to, session, new)?;
        }
        Expected::Refused => {
            expect::refused("SET", result, refusal(from))?;
            expect::equal("state after a refusal", device.state()?, from)?;
        }
    }
    guest.recover()
}

/// The errors of a refusal: in ERROR, drivers say EIO as well.
fn refusal(from: State) -> &'static [i32] {
    match from {
        State::Error => &[libc::EINVAL, libc::EIO],
        _ => &[libc::EINVAL],
    }
}

/// The session of the state `from` lives on only where the state is the same; a new one works.
fn sessions_are_right(
    from: State,
    to: State,
    old: Option<Session>,
    new: Option<Session>,
) -> Result<()> {
    let use_it = |session: &Session, state| -> io::Result<()> {
        match state {
            State::Resuming => session.write(&[]).map(drop),
            _ => session.read(1).map(drop),
        }
    };
    if let Some(old) = old {
        match from == to {
            true => use_it(&old, from).context("session of the same state")?,
            false => expect::refused("session that ended", use_it(&old, from), &[libc::ENODEV])?,
        }
    }
    match new {
        Some(new) => use_it(&new, to).context("session that began"),
        None => Ok(()),
    }
}

fn try_numbers(bed: &Bed, from: State) -> Result<()> {
    let (mut guest, _session) = guest_in(bed, from)?;
    for number in NO_STATES {
        let result = guest.vf.device.request_state(number);
        expect::refused(&format!("SET of {number}"), result, refusal(from))?;
        expect::equal("state after a refusal", guest.vf.device.state()?, from)?;
    }
    guest.recover()
}

/// RESUMING is left with an error where no stream was written.
fn try_incomplete(bed: &Bed, to: State) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    let session = guest.vf.device.start(State::Resuming)?;
    let result = guest.vf.device.request_state(to as u32);
    expect::refused("SET", result, &[libc::EINVAL])?;
    let state = guest.vf.device.state()?;
    expect::claim(
        &format!("RESUMING or ERROR rather than {}", state.name()),
        matches!(state, State::Resuming | State::Error),
    )?;
    drop(session);
    guest.recover()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(from: State, to: State) -> Option<Vec<&'static str>> {
        Some(path(from, to)?.iter().map(|arc| arc.to.name()).collect())
    }

    #[test]
    fn the_header_s_combinations_come_out() {
        assert_eq!(
            names(State::Resuming, State::Running),
            Some(vec!["STOP", "RUNNING_P2P", "RUNNING"])
        );
        assert_eq!(
            names(State::Running, State::StopCopy),
            Some(vec!["RUNNING_P2P", "STOP", "STOP_COPY"])
        );
        assert_eq!(
            names(State::StopCopy, State::Resuming),
            Some(vec!["STOP", "RESUMING"])
        );
        assert_eq!(names(State::Running, State::PreCopy), None);
        assert_eq!(names(State::Stop, State::Stop), Some(vec![]));
    }
}
