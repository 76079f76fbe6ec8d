// SPDX-License-Identifier: GPL-2.0

//! Migrations that do not get to their end: they are cancelled, or the destination's QEMU dies.
//!
//! At whatever moment that happens, the machine goes on with its devices, and nobody in it notices
//! anything. Mostly it goes on where it was. An order to cancel may come too late; then the machine
//! has moved. A destination may die when the source has given everything away; then the source is
//! told to go on nevertheless, as whoever manages such machines would do.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use serde_json::json;

use crate::comparison::Comparison;
use crate::guest::{Guest, PATIENCE};
use crate::migration::{
    listen, query, set_capabilities, watch, Move, Outcome, Plan, Route, States,
};
use crate::progress::Progress;
use crate::vmm::Vmm;

/// Between two looks.
const POLL: Duration = Duration::from_millis(5);

/// What happens to a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// The source is told to cancel it.
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
    /// The order was given.
    Setup,
    /// The devices are in PRE_COPY, their first round is read.
    FirstRound,
    /// What has changed since is sent, again and again.
    LaterRounds,
    /// The devices are in PRE_COPY_P2P.
    Quiesced,
    /// The devices are in STOP_COPY, QEMU waits for the order to read what is left.
    Stopped,
    /// The devices are in STOP_COPY, what is left is read and sent.
    LastRound,
    /// The devices are in RUNNING_P2P where they arrive.
    Arrived,
}

impl Phase {
    /// All, in their order.
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
            Self::Arrived => "where the devices arrive",
        })
    }
}

/// When it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// As soon as this phase is there.
    In(Phase),
    /// So long after the order to migrate.
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

/// Where the machine is afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Where it was: the migration was cancelled, or failed.
    Stayed,
    /// Where it was, though everything had been given away.
    Returned,
    /// Where it was to go.
    Moved,
}

/// What became of an interrupted migration.
#[derive(Clone, Debug)]
pub struct Interrupted {
    /// Where the machine is.
    pub ending: Ending,
    /// From the order to migrate to the interruption.
    pub after: Duration,
    /// The states of the devices that the source went through until the migration had ended.
    pub states: States,
    /// How long it took until the machine ran.
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
                Ending::Stayed => "goes on where it was",
                Ending::Returned => "goes on where it was, which had given it away",
                Ending::Moved => "had moved",
            },
            self.took.as_millis()
        )
    }
}

impl Guest {
    /// Begins to move the machine to `destination`, and lets `interruption` happen at `moment`.
    ///
    /// # Errors
    ///
    /// As for [`Self::migrate`]; and when the machine does not go on, here or there.
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
                // It is known that nobody else has the machine.
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
        self.hear_source(&mut outcome)?;
        let now = self.workloads();
        self.work("after the interruption", &now, plan.operations)?;
        Ok(Interrupted {
            ending,
            after,
            states: outcome.source_states,
            took,
        })
    }

    /// Waits until the migration that has begun comes to `moment`, or has ended before.
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
            self.hear_source(outcome)?;
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
                progress.goes_on(self.vmm.progress()),
                "the migration is not {phase}, and made no progress for {} s: {}",
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

    /// Waits until the migration has ended; whether it was completed.
    fn end(&mut self, outcome: &mut Outcome) -> Result<bool> {
        self.until("the migration did not end", |guest| {
            guest.hear_source(outcome)?;
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

    fn hear_source(&mut self, outcome: &mut Outcome) -> Result<()> {
        let states = &mut outcome.source_states;
        watch(&mut self.vmm, "source:", states, &mut None, &mut |_| ())
    }

    /// Sends the machine to `destination`, which lets it stand, compares both, and takes it back:
    /// the destination's QEMU is killed, and the machine goes on where it was. What the comparison
    /// came to.
    ///
    /// # Errors
    ///
    /// As for [`Self::migrate`], but not when the machine is not the same.
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
        let mut nobody = |_: &str| ();
        let mut sent = self.send_to(
            &mut destination,
            plan,
            &mut |_| Ok(false),
            &mut outcome,
            &mut nobody,
        )?;
        let compared = self.compare(&mut destination, &mut sent, &mut outcome, &mut nobody)?;
        destination.kill()?;
        self.vmm.qmp()?.execute("cont", json!({}))?;
        let now = self.workloads();
        self.work("after it was taken back", &now, plan.operations)?;
        Ok(compared)
    }
}
