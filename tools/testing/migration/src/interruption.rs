// SPDX-License-Identifier: GPL-2.0

//! Interrupted migrations: they are cancelled, or the destination's QEMU dies.
//!
//! At any moment of the interruption, the machine continues with its devices without a visible
//! effect. In most cases it continues at the source. If the order to cancel comes too late, the
//! machine has moved. If the destination dies after the source has handed over everything, the
//! source gets an order to continue, as a management tool would give it.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use anyhow::{ensure, Result};
use serde_json::json;

use crate::{
    comparison::Comparison,
    guest::{Guest, PATIENCE},
    migration::{listen, query, set_capabilities, watch, Move, Outcome, Plan, Route, States},
    progress::Progress,
    vmm::Vmm,
};

/// Interval between checks.
const POLL: Duration = Duration::from_millis(5);

/// The kind of an interruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// The source cancels the migration.
    Cancel,
    /// The destination's QEMU is killed.
    Death,
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancel => "cancelled",
            Self::Death => "destination killed",
        })
    }
}

/// A phase of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The order to migrate was given.
    Setup,
    /// The devices are in PRE_COPY, and their first round is read.
    FirstRound,
    /// Later changes are sent repeatedly.
    LaterRounds,
    /// The devices are in PRE_COPY_P2P.
    Quiesced,
    /// The devices are in STOP_COPY. QEMU waits for the order to read the remaining state.
    Stopped,
    /// The devices are in STOP_COPY. The remaining state is read and sent.
    LastRound,
    /// The devices are in RUNNING_P2P at the destination.
    Arrived,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 7] = [
        Self::Setup,
        Self::FirstRound,
        Self::LaterRounds,
        Self::Quiesced,
        Self::Stopped,
        Self::LastRound,
        Self::Arrived,
    ];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Setup => "set up",
            Self::FirstRound => "in the first round",
            Self::LaterRounds => "in later rounds",
            Self::Quiesced => "while the devices are quiesced",
            Self::Stopped => "while the devices are stopped",
            Self::LastRound => "in the last round",
            Self::Arrived => "while the devices arrive",
        })
    }
}

/// The moment of an interruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The beginning of this phase.
    In(Phase),
    /// This time after the order to migrate.
    After(Duration),
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(phase) => phase.fmt(f),
            Self::After(time) => write!(f, "after {} ms", time.as_millis()),
        }
    }
}

/// The location of the machine after the interruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// At the source: the migration was cancelled, or failed.
    Stayed,
    /// At the source, after everything had been handed over.
    Returned,
    /// At the destination.
    Moved,
}

/// The result of an interrupted migration.
#[derive(Clone, Debug)]
pub struct Interrupted {
    /// The location of the machine.
    pub ending: Ending,
    /// From the order to migrate to the interruption.
    pub after: Duration,
    /// The states of the source's devices until the migration had ended.
    pub states: States,
    /// From the interruption until the machine ran.
    pub took: Duration,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "after {} ms, devices {}; {} in {} ms",
            self.after.as_millis(),
            self.states,
            match self.ending {
                Ending::Stayed => "continues at the source",
                Ending::Returned => "continues at the source, which had handed it over",
                Ending::Moved => "had moved",
            },
            self.took.as_millis()
        )
    }
}

impl Guest {
    /// Begins to move the machine to `destination`, and interrupts the migration at `moment`.
    ///
    /// # Errors
    ///
    /// As for [`Self::migrate`]. Also fails if the machine continues neither at the source nor at
    /// the destination.
    pub fn interrupt(
        &mut self,
        destination: Vmm,
        plan: &Plan,
        interruption: Interruption,
        moment: Moment,
    ) -> Result<Interrupted> {
        self.break_off(destination, plan, interruption, moment)
            .map_err(|error| self.explain(error))
    }

    fn break_off(
        &mut self,
        mut destination: Vmm,
        plan: &Plan,
        interruption: Interruption,
        moment: Moment,
    ) -> Result<Interrupted> {
        let uri = listen(&mut destination, plan.multifd)?;
        set_capabilities(&mut self.vmm, Route::Connection(plan.multifd))?;
        self.vmm.qmp()?.execute(
            "migrate-set-capabilities",
            json!({ "capabilities": [{
                "capability": "pause-before-switchover",
                "state": moment == Moment::In(Phase::Stopped),
            }] }),
        )?;
        let mut sent = self.order(&uri, plan, &mut |_| ())?;
        let mut outcome = Outcome {
            devices: self.functions().len(),
            ..Outcome::default()
        };
        self.wait_for(moment, &mut destination, &mut sent, &mut outcome)?;
        let after = sent.begin.elapsed();
        let struck = Instant::now();
        let mut left = Some(destination);
        match interruption {
            Interruption::Cancel => {
                self.vmm.qmp()?.execute("migrate_cancel", json!({}))?;
            }
            Interruption::Death => {
                if let Some(destination) = left.take() {
                    destination.kill()?;
                }
            }
        }
        let completed = self.end(&mut outcome)?;
        let ending = match (completed, left) {
            (false, _) => Ending::Stayed,
            (true, None) => {
                // At this point, no other QEMU runs the machine.
                self.vmm.qmp()?.execute("cont", json!({}))?;
                Ending::Returned
            }
            (true, Some(destination)) => {
                self.switch_to(destination, &sent, &mut outcome, &mut |_| ())?;
                Ending::Moved
            }
        };
        self.until("the machine did not start to run", |guest| {
            let running = guest.vmm.qmp()?.execute("query-status", json!({}))?;
            Ok((running["status"] == "running").then_some(()))
        })?;
        let took = struck.elapsed();
        self.process_source_events(&mut outcome)?;
        let now = self.workloads();
        self.work("after the interruption", &now, plan.operations)?;
        Ok(Interrupted {
            ending,
            after,
            states: outcome.source_states,
            took,
        })
    }

    /// Waits until the current migration reaches `moment`, or has ended before.
    fn wait_for(
        &mut self,
        moment: Moment,
        destination: &mut Vmm,
        sent: &mut Move,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let phase = match moment {
            Moment::After(time) => {
                thread::sleep(time.saturating_sub(sent.begin.elapsed()));
                return Ok(());
            }
            Moment::In(phase) => phase,
        };
        let mut progress = Progress::new(PATIENCE);
        let devices = outcome.devices;
        loop {
            self.process_source_events(outcome)?;
            let states = &mut outcome.destination_states;
            watch(destination, "destination:", states, &mut None, &mut |_| ())?;
            let source = &outcome.source_states;
            let come = match phase {
                Phase::Setup => true,
                Phase::FirstRound => source.all_are(devices, "pre-copy"),
                Phase::LaterRounds => query(&mut self.vmm)?.ram.dirty_sync_count > 2,
                Phase::Quiesced => source.all_are(devices, "pre-copy-p2p"),
                Phase::Stopped => query(&mut self.vmm)?.status == "pre-switchover",
                Phase::LastRound => source.all_are(devices, "stop-copy"),
                Phase::Arrived => outcome.destination_states.all_are(devices, "running-p2p"),
            };
            if come {
                return Ok(());
            }
            ensure!(
                progress.continues(self.vmm.progress()),
                "timed out waiting for the migration to be {phase}: no progress for {} s: {}",
                PATIENCE.as_secs(),
                outcome.source_states
            );
            match phase {
                Phase::LaterRounds | Phase::Stopped => thread::sleep(POLL),
                Phase::Arrived => destination.qmp()?.wait_event(Instant::now() + POLL)?,
                _ => self.vmm.qmp()?.wait_event(Instant::now() + POLL)?,
            }
        }
    }

    /// Waits until the migration has ended. Returns whether it was completed.
    fn end(&mut self, outcome: &mut Outcome) -> Result<bool> {
        self.until("the migration did not end", |guest| {
            guest.process_source_events(outcome)?;
            Ok(match query(&mut guest.vmm)?.status.as_str() {
                "cancelled" | "failed" => Some(false),
                "completed" => Some(true),
                "pre-switchover" => {
                    let state = json!({ "state": "pre-switchover" });
                    guest.vmm.qmp()?.execute("migrate-continue", state)?;
                    None
                }
                _ => None,
            })
        })
    }

    fn process_source_events(&mut self, outcome: &mut Outcome) -> Result<()> {
        let states = &mut outcome.source_states;
        watch(&mut self.vmm, "source:", states, &mut None, &mut |_| ())
    }

    /// Sends the machine to `destination`, which keeps it paused, compares both, and takes the
    /// machine back: kills the destination's QEMU and lets the machine continue at the source.
    /// Returns the result of the comparison.
    ///
    /// # Errors
    ///
    /// As for [`Self::migrate`], except that a difference is returned as a result.
    pub fn send_and_return(&mut self, destination: Vmm, plan: &Plan) -> Result<Result<Comparison>> {
        self.send_and_take_back(destination, plan)
            .map_err(|error| self.explain(error))
    }

    fn send_and_take_back(
        &mut self,
        mut destination: Vmm,
        plan: &Plan,
    ) -> Result<Result<Comparison>> {
        let mut outcome = Outcome::default();
        let mut ignore = |_: &str| ();
        let mut sent = self.send_to(
            &mut destination,
            plan,
            &mut |_| Ok(false),
            &mut outcome,
            &mut ignore,
        )?;
        let compared = self.compare(&mut destination, &mut sent, &mut outcome, &mut ignore)?;
        destination.kill()?;
        self.vmm.qmp()?.execute("cont", json!({}))?;
        let now = self.workloads();
        self.work("after it was taken back", &now, plan.operations)?;
        Ok(compared)
    }
}
