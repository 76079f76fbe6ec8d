// SPDX-License-Identifier: GPL-2.0

//! Times of state transitions, compared with a VFIO ioctl that does nothing.
//!
//! A walk covers every arc that the driver implements, without those that VFIO composes of several
//! arcs. A value is the median of many walks. The walk writes the stream between the arcs STOP to
//! RESUMING and RESUMING to STOP, but its time does not count.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;
use vfio_bindings::bindings::vfio::VFIO_DEVICE_FEATURE_MIGRATION;
use vifa_selftests::{
    migration::{Segments, State},
    vfio::{Device, Operation},
};

use crate::{
    measurement::{Figure, Measurement},
    plot::{Group, Plot},
    series::{self, Summary},
    subject::Subject,
    table::Table,
    throughput::save_whole,
};

/// Every arc once, except for arcs that are repeated to reach others.
const WALK: [State; 21] = [
    State::Running,
    State::RunningP2p,
    State::Stop,
    State::StopCopy,
    State::Stop,
    State::Resuming,
    State::Stop,
    State::RunningP2p,
    State::Running,
    State::PreCopy,
    State::PreCopyP2p,
    State::PreCopy,
    State::Running,
    State::RunningP2p,
    State::PreCopyP2p,
    State::RunningP2p,
    State::PreCopyP2p,
    State::StopCopy,
    State::Stop,
    State::RunningP2p,
    State::Running,
];

/// Number of walks for one value.
const WALKS: usize = 9;

/// Number of calls of the floor for one value.
const CALLS: u32 = 500;

/// The results of one arc. Times are in microseconds.
#[derive(Debug, Serialize)]
struct Arc {
    from: String,
    to: String,
    time: Summary,
    /// The time divided by that of the floor.
    vs_ioctl: Summary,
}

/// The results.
#[derive(Debug, Serialize)]
pub struct Transitions {
    /// Number of rounds, without the first one.
    rounds: usize,
    /// Time of VFIO_DEVICE_FEATURE that probes migration support, in microseconds.
    ioctl: Summary,
    arcs: Vec<Arc>,
}

/// One round: the time of the floor and of each step of the walk.
struct Round {
    ioctl: Duration,
    steps: Vec<Duration>,
}

impl Transitions {
    /// Runs `rounds` rounds with `subject`, which runs before and after.
    pub fn measure(subject: &Subject, rounds: usize) -> Result<Self> {
        let device = &subject.vf.device;
        device.change_state(State::Stop)?;
        let stream = save_whole(device, subject.local_memory)?;
        device.change_state(State::Running)?;

        let rounds = series::rounds(rounds, || Round::measure(device, &stream))?;
        let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
        let arcs = arcs().map(|(step, [from, to])| Arc {
            from: from.name(),
            to: to.name(),
            time: Summary::over(&rounds, |round| microseconds(round.steps[step])),
            vs_ioctl: Summary::over(&rounds, |round| {
                round.steps[step].as_secs_f64() / round.ioctl.as_secs_f64()
            }),
        });
        Ok(Self {
            rounds: rounds.len(),
            ioctl: Summary::over(&rounds, |round| microseconds(round.ioctl)),
            arcs: arcs.collect(),
        })
    }
}

/// Returns the arcs of the walk, with the first step of each.
fn arcs() -> impl Iterator<Item = (usize, [State; 2])> {
    let steps = || WALK.windows(2).map(|pair| [pair[0], pair[1]]);
    steps()
        .enumerate()
        .filter(move |(step, arc)| steps().position(|other| other == *arc) == Some(*step))
}

impl Round {
    fn measure(device: &Device, stream: &[u8]) -> Result<Self> {
        let walks = (0..WALKS)
            .map(|_| walk(device, stream))
            .collect::<Result<Vec<_>>>()?;
        let steps = (0..WALK.len() - 1)
            .map(|step| {
                let mut times: Vec<Duration> = walks.iter().map(|walk| walk[step]).collect();
                times.sort();
                times[WALKS / 2]
            })
            .collect();
        Ok(Self {
            ioctl: floor(device)?,
            steps,
        })
    }
}

/// Performs each step of the walk. Returns their times.
fn walk(device: &Device, stream: &[u8]) -> Result<Vec<Duration>> {
    let mut session = None;
    WALK[1..]
        .iter()
        .map(|&state| {
            let start = Instant::now();
            let begun = device.request_state(state as u32);
            let time = start.elapsed();
            // A session continues from PRE_COPY to STOP_COPY.
            session = begun.with_context(|| state.name())?.or(session.take());
            if let (State::Resuming, Some(session)) = (state, &session) {
                session
                    .write_all(stream, Segments::Whole)
                    .context("failed to write the stream")?;
            }
            Ok(time)
        })
        .collect()
}

/// Returns the time of one ioctl that does nothing.
fn floor(device: &Device) -> Result<Duration> {
    let start = Instant::now();
    for _ in 0..CALLS {
        device
            .probe(Operation::ProbeGet, VFIO_DEVICE_FEATURE_MIGRATION)
            .context("failed to probe VFIO_DEVICE_FEATURE_MIGRATION")?;
    }
    Ok(start.elapsed() / CALLS)
}

impl Arc {
    fn name(&self) -> String {
        format!("{} to {}", self.from, self.to)
    }
}

impl fmt::Display for Transitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Transitions: each the median of {WALKS}, {} rounds\n",
            self.rounds
        )?;
        let mut times = Table::new("microseconds", 1).row("an ioctl that does nothing", self.ioctl);
        times.extend(self.arcs.iter().map(|arc| (arc.name(), arc.time)));
        write!(f, "{times}")
    }
}

impl Measurement for Transitions {
    const NAME: &'static str = "transitions";

    fn figures(&self) -> Vec<Figure> {
        Vec::new()
    }

    fn plots(&self) -> Vec<Plot> {
        let group = |name: String, value| Group::new(name, [("time", value)]);
        let floor = group("an ioctl that does nothing".into(), self.ioctl);
        let arcs = self.arcs.iter().map(|arc| group(arc.name(), arc.time));
        vec![Plot::bars(
            Self::NAME,
            "Transitions",
            "microseconds",
            [floor].into_iter().chain(arcs).collect(),
        )]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walk_ends_where_it_begins() {
        assert_eq!(WALK[0], WALK[WALK.len() - 1]);
    }

    #[test]
    fn walk_takes_every_arc() {
        use State::{PreCopy, PreCopyP2p, Resuming, Running, RunningP2p, Stop, StopCopy};
        // The arcs that the driver implements, see include/uapi/linux/vfio.h.
        let served = [
            [Running, RunningP2p],
            [RunningP2p, Running],
            [RunningP2p, Stop],
            [Stop, RunningP2p],
            [Stop, StopCopy],
            [StopCopy, Stop],
            [Stop, Resuming],
            [Resuming, Stop],
            [Running, PreCopy],
            [PreCopy, Running],
            [PreCopy, PreCopyP2p],
            [PreCopyP2p, PreCopy],
            [RunningP2p, PreCopyP2p],
            [PreCopyP2p, RunningP2p],
            [PreCopyP2p, StopCopy],
        ];
        let taken: Vec<[State; 2]> = arcs().map(|(_, arc)| arc).collect();
        for arc in served {
            assert!(taken.contains(&arc), "{arc:?} is not in the walk");
        }
        assert_eq!(taken.len(), served.len(), "{taken:?}");
    }
}
