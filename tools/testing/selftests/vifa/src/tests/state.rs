// SPDX-License-Identifier: GPL-2.0

//! The state machine of VFIO migration v2: every ordered pair of states, and invalid numbers.
//!
//! The expected results are computed from the text of `include/uapi/linux/vfio.h`, for a device
//! with STOP_COPY and PRE_COPY, with and without P2P, and not from the kernel's table.

use std::{collections::VecDeque, io};

use anyhow::{Context, Result};

use super::{fixture::Guest, Test};
use crate::{
    bed::Bed,
    expect,
    migration::{Segments, Session, State},
};

/// An arc of the state machine, which the driver implements as one step.
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

/// The optional features of a device besides STOP_COPY and PRE_COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    WithP2p,
    WithoutP2p,
}

/// The arcs of every device.
const ARCS: [Arc; 6] = [
    arc_with_session(State::Stop, State::StopCopy),
    arc(State::StopCopy, State::Stop),
    arc_with_session(State::Stop, State::Resuming),
    arc(State::Resuming, State::Stop),
    arc_with_session(State::Running, State::PreCopy),
    arc(State::PreCopy, State::Running),
];

/// The additional arcs of a device with P2P.
const ARCS_WITH_P2P: [Arc; 9] = [
    arc(State::Running, State::RunningP2p),
    arc(State::RunningP2p, State::Running),
    arc(State::RunningP2p, State::Stop),
    arc(State::Stop, State::RunningP2p),
    arc_with_session(State::RunningP2p, State::PreCopyP2p),
    arc(State::PreCopyP2p, State::RunningP2p),
    arc(State::PreCopy, State::PreCopyP2p),
    arc(State::PreCopyP2p, State::PreCopy),
    arc(State::PreCopyP2p, State::StopCopy),
];

/// The additional arcs of a device without P2P.
const ARCS_WITHOUT_P2P: [Arc; 3] = [
    arc(State::Running, State::Stop),
    arc(State::Stop, State::Running),
    arc(State::PreCopy, State::StopCopy),
];

impl Protocol {
    fn arcs(self) -> impl Iterator<Item = &'static Arc> {
        let further: &[Arc] = match self {
            Self::WithP2p => &ARCS_WITH_P2P,
            Self::WithoutP2p => &ARCS_WITHOUT_P2P,
        };
        ARCS.iter().chain(further)
    }

    /// Returns whether `state` can be requested.
    fn has(self, state: State) -> bool {
        State::SUPPORTED.contains(&state) && self.arcs().any(|arc| arc.to == state)
    }

    /// Returns the states in which a test can begin.
    fn starts(self) -> impl Iterator<Item = State> {
        let states = State::SUPPORTED.into_iter();
        [State::Error]
            .into_iter()
            .chain(states.filter(move |state| self.has(*state)))
    }

    /// Returns the shortest path from `from` to `to`, empty if both are the same; `None` if there
    /// is none.
    ///
    /// A state of the saving group is an interior state only if the whole path is in the group,
    /// whose states share a session.
    fn path(self, from: State, to: State) -> Option<Vec<&'static Arc>> {
        if from == State::StopCopy && matches!(to, State::PreCopy | State::PreCopyP2p) {
            // "These arcs are not permitted and return error if requested."
            return None;
        }
        let within_group = from.is_saving() && to.is_saving();
        let mut paths = VecDeque::from([(from, Vec::new())]);
        let mut seen = vec![from];
        while let Some((at, arcs)) = paths.pop_front() {
            if at == to {
                return Some(arcs);
            }
            if at.is_saving() && at != from && !within_group {
                continue;
            }
            for arc in self.arcs().filter(|arc| arc.from == at) {
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

    fn expected(self, from: State, to: State) -> Expected {
        if from == State::Error || !self.has(to) {
            // "ERROR cannot be specified as a device state"; only a reset leaves it. "The optional
            // states cannot be used with SET_STATE if the device does not support them."
            return Expected::Refused;
        }
        match self.path(from, to) {
            Some(arcs) => Expected::Reached {
                session: arcs.last().is_some_and(|arc| arc.begins_session),
            },
            None => Expected::Refused,
        }
    }
}

/// The specified result of a request.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    /// The device is in the requested state.
    Reached { session: bool },
    /// EINVAL, and the device is in its previous state.
    Refused,
}

/// Numbers that are not states.
const NO_STATES: [u32; 5] = [8, 9, 255, 0x7fff_ffff, 0xffff_ffff];

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for from in Protocol::WithP2p.starts() {
        for to in State::ALL {
            tests.push(Test::new(
                format!("state.{}_to_{}", from.name(), to.name()),
                move |bed| {
                    let mut guest = Guest::new(bed, 0)?;
                    try_pair(bed, &mut guest, Protocol::WithP2p, from, to)
                },
            ));
        }
        tests.push(Test::new(
            format!("state.{}_to_numbers_that_are_no_state", from.name()),
            move |bed| try_numbers(bed, from),
        ));
    }
    for from in Protocol::WithoutP2p.starts() {
        tests.push(Test::new(
            format!("state.{}_to_each_without_P2P", from.name()),
            move |bed| {
                let bed = bed.without_p2p()?;
                let mut guest = Guest::new(&bed, 0)?;
                State::ALL.into_iter().try_for_each(|to| {
                    try_pair(&bed, &mut guest, Protocol::WithoutP2p, from, to)
                        .with_context(|| format!("to {}", to.name()))
                })
            },
        ));
    }
    for to in [
        State::Stop,
        State::Running,
        State::StopCopy,
        State::RunningP2p,
        State::PreCopy,
        State::PreCopyP2p,
    ] {
        tests.push(Test::new(
            format!("state.RESUMING_without_a_stream_to_{}", to.name()),
            move |bed| try_incomplete(bed, to),
        ));
    }
    tests
}

/// Brings the VF of `guest` to `state`; returns the state's session. For RESUMING, a complete
/// stream was written.
fn bring(bed: &Bed, guest: &mut Guest, state: State) -> Result<Option<Session>> {
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
        state if state.is_saving() => Some(device.start(state)?),
        _ => device.enter(state)?,
    };
    expect::equal("state at the start", guest.vf.device.state()?, state)?;
    Ok(session)
}

fn try_pair(
    bed: &Bed,
    guest: &mut Guest,
    protocol: Protocol,
    from: State,
    to: State,
) -> Result<()> {
    let session = bring(bed, guest, from).with_context(|| format!("way to {}", from.name()))?;
    let device = &guest.vf.device;
    let result = device.request_state(to as u32);
    match protocol.expected(from, to) {
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

/// The errors of a rejected request: in ERROR, drivers may also return EIO.
fn refusal(from: State) -> &'static [i32] {
    match from {
        State::Error => &[libc::EINVAL, libc::EIO],
        _ => &[libc::EINVAL],
    }
}

/// Checks that the session of the state `from` survives only if the state is the same, or another
/// of the saving group, and that a new session works.
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
        match from == to || (from.is_saving() && to.is_saving()) {
            true => use_it(&old, from).context("session that continues")?,
            false => expect::refused("session that ended", use_it(&old, from), &[libc::ENODEV])?,
        }
    }
    match new {
        Some(new) => use_it(&new, to).context("session that began"),
        None => Ok(()),
    }
}

fn try_numbers(bed: &Bed, from: State) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    let _session = bring(bed, &mut guest, from)?;
    for number in NO_STATES {
        let result = guest.vf.device.request_state(number);
        expect::refused(&format!("SET of {number}"), result, refusal(from))?;
        expect::equal("state after a refusal", guest.vf.device.state()?, from)?;
    }
    guest.recover()
}

/// Leaving RESUMING without a written stream fails.
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

    fn names(protocol: Protocol, from: State, to: State) -> Option<Vec<String>> {
        let path = protocol.path(from, to)?;
        Some(path.iter().map(|arc| arc.to.name()).collect())
    }

    #[test]
    fn the_combinations_of_a_device_with_p2p_match_the_specification() {
        let names = |from, to| names(Protocol::WithP2p, from, to);
        for (from, to, expected) in [
            (
                State::Resuming,
                State::Running,
                &["STOP", "RUNNING_P2P", "RUNNING"][..],
            ),
            (
                State::Running,
                State::StopCopy,
                &["RUNNING_P2P", "STOP", "STOP_COPY"],
            ),
            (State::StopCopy, State::Resuming, &["STOP", "RESUMING"]),
            (
                State::PreCopy,
                State::StopCopy,
                &["PRE_COPY_P2P", "STOP_COPY"],
            ),
            (
                State::PreCopy,
                State::RunningP2p,
                &["RUNNING", "RUNNING_P2P"],
            ),
            (
                State::PreCopyP2p,
                State::Resuming,
                &["RUNNING_P2P", "STOP", "RESUMING"],
            ),
            (
                State::Running,
                State::PreCopyP2p,
                &["RUNNING_P2P", "PRE_COPY_P2P"],
            ),
            (
                State::Stop,
                State::PreCopy,
                &["RUNNING_P2P", "RUNNING", "PRE_COPY"],
            ),
            (State::Stop, State::Stop, &[]),
        ] {
            assert_eq!(names(from, to).unwrap(), expected);
        }
        assert_eq!(names(State::StopCopy, State::PreCopy), None);
    }

    #[test]
    fn the_combinations_of_a_device_without_p2p_match_the_specification() {
        let names = |from, to| names(Protocol::WithoutP2p, from, to);
        for (from, to, expected) in [
            (State::Running, State::StopCopy, &["STOP", "STOP_COPY"][..]),
            (State::PreCopy, State::StopCopy, &["STOP_COPY"]),
            (State::PreCopy, State::Stop, &["RUNNING", "STOP"]),
            (
                State::Resuming,
                State::PreCopy,
                &["STOP", "RUNNING", "PRE_COPY"],
            ),
        ] {
            assert_eq!(names(from, to).unwrap(), expected);
        }
        assert!(!Protocol::WithoutP2p.has(State::PreCopyP2p));
    }
}
