// SPDX-License-Identifier: GPL-2.0

//! One virtual machine, and its moves from one QEMU and virtual function to another.
//!
//! A machine moves over a connection, to a QEMU that waits for it, or by way of a file. The
//! connection is used in both directions, and QEMU is told to stop the source only once the
//! destination has agreed to take what it was sent of the devices (`switchover-ack`). So whatever
//! the destination's driver refuses of the devices' first words, it refuses of a running machine.

use std::fmt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context, Result};
use serde::Deserialize;
use serde_json::json;

use crate::console::{Console, Report, Workload};
use crate::qmp::Event;
use crate::sriov::Function;
use crate::style::{mebibytes, seconds};
use crate::vmm::{Machine, Vmm};

/// How long the guest may take to boot and to bind its driver.
const BOOT_TIMEOUT: Duration = Duration::from_secs(480);

/// How long a whole migration may take.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(480);

/// How long a destination may take to refuse a machine. The machine would not have moved by then: it
/// writes faster than QEMU may stop it for.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the workload may take to show that it goes on.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(120);

/// Between two looks at what changes.
const POLL: Duration = Duration::from_millis(20);

/// How much of the console an error shows.
const CONSOLE_LINES: usize = 20;

/// The states of a device that has a P2P-quiesced run state, where it leaves and where it arrives.
/// Where it has left, QEMU stops it at leisure: perhaps after nobody looks any more.
const SOURCE_STATES: [&str; 3] = ["pre-copy", "pre-copy-p2p", "stop-copy"];
const SOURCE_STATE_AFTERWARDS: &str = "stop";
const DESTINATION_STATES: [&str; 3] = ["resuming", "running-p2p", "running"];

/// How a machine is moved.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long the machine is to keep running while its memory is sent.
    pub live: Duration,
    /// Bytes a second, at the most.
    pub bandwidth: u64,
    /// Operations that the workload must complete before the move, and again after it.
    pub operations: u64,
}

/// The progress of the workload in one phase.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Phase {
    pub operations: u64,
    pub bytes: u64,
}

impl Phase {
    fn between(start: &Workload, end: &Workload) -> Self {
        Self {
            operations: end.operations.saturating_sub(start.operations),
            bytes: end.bytes.saturating_sub(start.bytes),
        }
    }
}

/// What a migration came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The states of the device that the source QEMU went through, and the destination.
    pub source_states: Vec<String>,
    pub destination_states: Vec<String>,
    /// Bytes of device state that QEMU transferred.
    pub device_bytes: u64,
    /// Bytes of memory that QEMU transferred.
    pub memory_bytes: u64,
    pub total: Duration,
    /// As QEMU reports it.
    pub downtime: Duration,
    /// From the workload's last report through the source to its first through the destination.
    pub silence: Duration,
    pub before: Phase,
    /// While the source was sending and still running.
    pub during: Phase,
    pub after: Phase,
}

impl Outcome {
    /// Checks that the device went through the states of a migration that begins while it runs.
    pub fn check_states(&self) -> Result<()> {
        let source = match self.source_states.as_slice() {
            [states @ .., last] if last == SOURCE_STATE_AFTERWARDS => states,
            states => states,
        };
        for (side, states, expected) in [
            ("source", source, SOURCE_STATES),
            (
                "destination",
                self.destination_states.as_slice(),
                DESTINATION_STATES,
            ),
        ] {
            ensure!(
                states == expected,
                "the {side}'s device went through {states:?}, not {expected:?}"
            );
        }
        Ok(())
    }

    /// Whether the device runs in the destination, which is the last thing that happens.
    fn has_arrived(&self) -> bool {
        self.destination_states
            .last()
            .is_some_and(|state| state == "running")
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  source states    {}
  dest. states     {}
  device state     {} bytes
  memory           {}
  total time       {}
  downtime         {}
  silence          {} between two reports of the workload
  before           {} operations, {} verified
  during           {} operations, {} verified
  after            {} operations, {} verified",
            self.source_states.join(" -> "),
            self.destination_states.join(" -> "),
            self.device_bytes,
            mebibytes(self.memory_bytes),
            seconds(self.total),
            seconds(self.downtime),
            seconds(self.silence),
            self.before.operations,
            mebibytes(self.before.bytes),
            self.during.operations,
            mebibytes(self.during.bytes),
            self.after.operations,
            mebibytes(self.after.bytes),
        )
    }
}

/// What became of a machine that a destination refused to take.
#[derive(Clone, Debug, Default)]
pub struct Refusal {
    /// The states of the device that the source QEMU went through.
    pub source_states: Vec<String>,
    /// From the order to migrate to its failure.
    pub took: Duration,
    /// What the destination's QEMU says.
    pub reason: String,
    /// What the workload did from the order to migrate until its failure was known.
    pub during: Phase,
    pub after: Phase,
}

/// Part of the answer to `query-migrate`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Status {
    status: String,
    error_desc: Option<String>,
    total_time: u64,
    downtime: u64,
    ram: Transferred,
    vfio: Transferred,
    socket_address: Vec<Address>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Transferred {
    transferred: u64,
    dirty_sync_count: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Address {
    port: String,
}

/// The virtual machine, wherever it is.
pub struct Guest {
    machine: Machine,
    directory: PathBuf,
    vmm: Vmm,
    console: Console,
    /// How many QEMUs it has had.
    generation: usize,
}

impl Guest {
    /// Starts a machine with `function`.
    pub fn start(machine: &Machine, function: &Function, directory: &Path) -> Result<Self> {
        let mut vmm = Vmm::start(machine, function, directory, "vm0", false)?;
        let mut console = Console::default();
        console.follow(vmm.take_output()?)?;
        Ok(Self {
            machine: machine.clone(),
            directory: directory.to_owned(),
            vmm,
            console,
            generation: 0,
        })
    }

    /// Waits until the machine is up and its workload runs.
    pub fn boot(&mut self) -> Result<()> {
        self.until(
            "the guest has not started its workload",
            BOOT_TIMEOUT,
            |guest| Ok(guest.console.workload().map(|_| ())),
        )
        .map_err(|error| self.explain(error))
    }

    /// The virtual function that the machine has.
    pub fn function(&self) -> &Function {
        &self.vmm.function
    }

    /// The workload as last reported.
    pub fn workload(&self) -> Workload {
        self.console.workload().cloned().unwrap_or_default()
    }

    /// Starts a QEMU with `function` for the machine to move to. It need not be ready yet.
    pub fn destination(&mut self, function: &Function) -> Result<Vmm> {
        self.generation += 1;
        let name = format!("vm{}", self.generation);
        Vmm::start(&self.machine, function, &self.directory, &name, true)
    }

    /// Moves the machine to `destination`, its workload running. `tell` hears what happens.
    ///
    /// # Errors
    ///
    /// When QEMU fails, when the workload finds an error or loses an interrupt, when it stops before
    /// or after the move, and when anything takes too long.
    pub fn migrate(
        &mut self,
        mut destination: Vmm,
        plan: &Plan,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let sent = self.send_to(&mut destination, plan, &mut outcome, tell);
        let errors = destination.errors();
        sent.and_then(|start| {
            let left = self.switch_to(destination, &start, &mut outcome, tell)?;
            self.go_on(left, plan, &mut outcome, tell)
        })
        .map_err(|error| {
            self.explain(error)
                .context(format!("destination: {errors}"))
        })?;
        Ok(outcome)
    }

    /// Moves the machine to `destination` by way of the file at `path`: nothing of the machine runs
    /// between the two.
    ///
    /// # Errors
    ///
    /// As for [`Self::migrate`].
    pub fn migrate_by_file(
        &mut self,
        destination: Vmm,
        path: &Path,
        plan: &Plan,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        self.pass_through(destination, path, plan, &mut outcome, tell)
            .map_err(|error| self.explain(error))?;
        Ok(outcome)
    }

    fn pass_through(
        &mut self,
        destination: Vmm,
        path: &Path,
        plan: &Plan,
        outcome: &mut Outcome,
        tell: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let uri = format!("file:{}", path.display());
        let start = self.begin(&uri, Route::File, plan, outcome, tell)?;
        self.send(plan, outcome, tell, |_, _| Ok(true))?;
        let left = self.switch_to(destination, &start, outcome, tell)?;

        tell("destination: reads the file");
        set_capabilities(&mut self.vmm, Route::File)?;
        let incoming = json!({ "uri": uri });
        self.vmm.qmp()?.execute("migrate-incoming", incoming)?;
        self.until("the file is not taken", MIGRATION_TIMEOUT, |guest| {
            watch(
                &mut guest.vmm,
                "destination:",
                &mut outcome.destination_states,
                tell,
            )?;
            Ok(outcome.has_arrived().then_some(()))
        })?;
        self.go_on(left, plan, outcome, tell)
    }

    /// Has `destination` refuse the machine, which goes on where it is.
    ///
    /// # Errors
    ///
    /// As for [`Self::migrate`]; and when `destination` takes the machine, or the machine stops for
    /// any time.
    pub fn be_refused(&mut self, destination: &mut Vmm, plan: &Plan) -> Result<Refusal> {
        self.offer_to(destination, plan).map_err(|error| {
            let errors = destination.errors();
            self.explain(error)
                .context(format!("destination: {errors}"))
        })
    }

    fn offer_to(&mut self, destination: &mut Vmm, plan: &Plan) -> Result<Refusal> {
        let mut refusal = Refusal::default();
        let uri = listen(destination)?;
        let begin = Instant::now();
        let start = self.begin(
            &uri,
            Route::Connection,
            plan,
            &mut Outcome::default(),
            &mut |_| (),
        )?;
        self.until("nobody refuses the machine", REFUSAL_TIMEOUT, |guest| {
            for (_, event) in guest.vmm.qmp()?.take_events()? {
                match event {
                    Event::VfioMigration { state } => refusal.source_states.push(state),
                    Event::Stop => bail!("the machine was stopped before it was refused"),
                    event => notice(event, "source:     ", &mut |_| ())?,
                }
            }
            match query(&mut guest.vmm)?.status.as_str() {
                "failed" => Ok(Some(())),
                "completed" => bail!("the destination took the machine"),
                _ => Ok(None),
            }
        })?;
        refusal.took = begin.elapsed();

        let running = self.vmm.qmp()?.execute("query-status", json!({}))?;
        ensure!(
            running["status"] == "running",
            "the refused machine is not running, but {}",
            running["status"]
        );
        refusal.reason = query(destination)?
            .error_desc
            .context("the destination's QEMU does not say why it failed")?;
        self.console.read()?;
        let left = self.workload();
        refusal.during = Phase::between(&start, &left);
        refusal.after = self.work("after the refusal", &left, plan.operations)?;
        for (_, event) in self.vmm.qmp()?.take_events()? {
            match event {
                Event::VfioMigration { state } => refusal.source_states.push(state),
                Event::Stop => bail!("the machine was stopped after it was refused"),
                event => notice(event, "source:     ", &mut |_| ())?,
            }
        }
        Ok(refusal)
    }

    /// Begins to send the machine to `uri`; what the workload had done when that began.
    fn begin(
        &mut self,
        uri: &str,
        route: Route,
        plan: &Plan,
        outcome: &mut Outcome,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Workload> {
        let booted = self.workload();
        outcome.before = self.work("before the migration", &booted, plan.operations)?;

        self.vmm.qmp()?.take_events()?;
        set_capabilities(&mut self.vmm, route)?;
        let source = self.vmm.qmp()?;
        source.execute(
            "migrate-set-parameters",
            json!({ "max-bandwidth": plan.bandwidth, "downtime-limit": 300 }),
        )?;
        self.console.read()?;
        let start = self.workload();
        tell("the migration starts");
        self.vmm.qmp()?.execute("migrate", json!({ "uri": uri }))?;
        Ok(start)
    }

    /// Waits until everything is sent and `arrived` as well.
    fn send(
        &mut self,
        plan: &Plan,
        outcome: &mut Outcome,
        tell: &mut dyn FnMut(&str),
        mut arrived: impl FnMut(&mut Outcome, &mut dyn FnMut(&str)) -> Result<bool>,
    ) -> Result<()> {
        let begin = Instant::now();
        let mut live = true;
        self.until("the migration has not ended", MIGRATION_TIMEOUT, |guest| {
            watch(
                &mut guest.vmm,
                "source:     ",
                &mut outcome.source_states,
                tell,
            )?;
            let status = query(&mut guest.vmm)?;
            if matches!(status.status.as_str(), "failed" | "cancelled") {
                bail!(
                    "the migration {}: {}",
                    status.status,
                    status
                        .error_desc
                        .as_deref()
                        .unwrap_or("QEMU does not say why")
                );
            }
            if arrived(outcome, tell)? && status.status == "completed" {
                // What QEMU told between the last look and its answer.
                watch(
                    &mut guest.vmm,
                    "source:     ",
                    &mut outcome.source_states,
                    tell,
                )?;
                outcome.device_bytes = status.vfio.transferred;
                outcome.memory_bytes = status.ram.transferred;
                outcome.total = Duration::from_millis(status.total_time);
                outcome.downtime = Duration::from_millis(status.downtime);
                return Ok(Some(()));
            }
            // Without a log of what the device writes, all memory counts as written all the
            // time: once everything was sent, the rest has to follow while the machine stands.
            if live && status.ram.dirty_sync_count > 1 && begin.elapsed() >= plan.live {
                live = false;
                guest.vmm.qmp()?.execute(
                    "migrate-set-parameters",
                    json!({ "downtime-limit": 600_000 }),
                )?;
            }
            Ok(None)
        })
    }

    /// Sends the machine to `destination`; what the workload had done when that began.
    fn send_to(
        &mut self,
        destination: &mut Vmm,
        plan: &Plan,
        outcome: &mut Outcome,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Workload> {
        let uri = listen(destination)?;
        let start = self.begin(&uri, Route::Connection, plan, outcome, tell)?;
        self.send(plan, outcome, tell, |outcome, tell| {
            let states = &mut outcome.destination_states;
            watch(destination, "destination:", states, tell)?;
            if let Some(error) = query(destination)?.error_desc {
                bail!("the destination refuses the machine: {error}");
            }
            Ok(outcome.has_arrived())
        })?;
        Ok(start)
    }

    /// Ends the QEMU that the machine has left, and follows it to `destination`; how many reports
    /// of the workload came from where it was.
    fn switch_to(
        &mut self,
        mut destination: Vmm,
        start: &Workload,
        outcome: &mut Outcome,
        tell: &mut dyn FnMut(&str),
    ) -> Result<usize> {
        let output = destination.take_output()?;
        std::mem::replace(&mut self.vmm, destination).quit()?;
        tell("source:      QEMU has ended");
        self.console.follow(output)?;
        outcome.during = Phase::between(start, &self.workload());
        ensure!(
            outcome.during.operations > 0,
            "the workload did nothing while the migration was under way"
        );
        Ok(self.console.reports().len())
    }

    /// Waits until the workload goes on in the QEMU that the machine has come to, of whose reports
    /// that with the number `first` is the first.
    fn go_on(
        &mut self,
        first: usize,
        plan: &Plan,
        outcome: &mut Outcome,
        tell: &mut dyn FnMut(&str),
    ) -> Result<()> {
        self.until(
            "the workload says nothing after the migration",
            PROGRESS_TIMEOUT,
            |guest| Ok(guest.console.reports().get(first).map(|_| ())),
        )?;
        if let [.., (last, _), (next, _)] = &self.console.reports()[..=first] {
            outcome.silence = *next - *last;
        }
        let arrived = self.workload();
        tell("destination: the workload goes on");
        outcome.after = self.work("after the migration", &arrived, plan.operations)?;
        Ok(())
    }

    /// Ends the workload.
    ///
    /// # Errors
    ///
    /// Unless each command that the workload ever submitted completed once and was found right.
    pub fn finish(&mut self) -> Result<Workload> {
        let told = self.console.reports().len();
        self.vmm.type_line("stop")?;
        let workload = self
            .until("the workload does not end", PROGRESS_TIMEOUT, |guest| {
                let mut reports = guest.console.reports()[told..].iter();
                Ok(reports.find_map(|(_, report)| match report {
                    Report::Finished { workload, .. } => Some(workload.clone()),
                    _ => None,
                }))
            })
            .map_err(|error| self.explain(error))?;
        workload.check_finished()?;
        Ok(workload)
    }

    /// Runs the workload anew and changes one bit behind its back, for a test of this test.
    ///
    /// # Errors
    ///
    /// When nobody notices.
    pub fn tamper(&mut self) -> Result<()> {
        self.vmm.type_line("run")?;
        self.until(
            "the workload does not run again",
            PROGRESS_TIMEOUT,
            |guest| {
                let workload = guest.workload();
                Ok((workload.running && workload.operations > 0).then_some(()))
            },
        )
        .map_err(|error| self.explain(error))?;
        self.vmm.type_line("tamper")?;
        self.vmm.type_line("stop")?;
        let begin = Instant::now();
        while begin.elapsed() < PROGRESS_TIMEOUT {
            self.vmm.alive()?;
            if self.console.read().is_err() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        Err(self.explain(anyhow!(
            "nobody noticed a wrong bit in {} s",
            PROGRESS_TIMEOUT.as_secs()
        )))
    }

    /// Ends the machine.
    pub fn quit(self) -> Result<()> {
        self.vmm.quit()
    }

    /// Waits until the workload has done `operations` more than at `start`.
    fn work(&mut self, when: &str, start: &Workload, operations: u64) -> Result<Phase> {
        self.until(
            &format!("the workload makes no progress {when}"),
            PROGRESS_TIMEOUT,
            |guest| {
                let phase = Phase::between(start, &guest.workload());
                Ok((phase.operations >= operations).then_some(phase))
            },
        )
    }

    /// Waits until `look` finds something, while all is well.
    fn until<T>(
        &mut self,
        otherwise: &str,
        timeout: Duration,
        mut look: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + timeout;
        loop {
            self.console.read()?;
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            self.vmm.alive()?;
            ensure!(
                Instant::now() < deadline,
                "{otherwise} after {} s",
                timeout.as_secs()
            );
            thread::sleep(POLL);
        }
    }

    /// Adds to `error` what the guest and its QEMU said last.
    fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        let console = self.console.tail(CONSOLE_LINES).join("\n    ");
        anyhow!(
            "{error:#}\nQEMU: {}\nThe end of the guest's console:\n    {console}",
            self.vmm.errors()
        )
    }
}

/// How a machine goes from one QEMU to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Connection,
    /// One way, and at leisure.
    File,
}

/// Readies `vmm`, which may have had part in a migration by another route.
fn set_capabilities(vmm: &mut Vmm, route: Route) -> Result<()> {
    let answers = route == Route::Connection;
    let capabilities = [
        ("events", true),
        ("return-path", answers),
        ("switchover-ack", answers),
    ]
    .map(|(capability, state)| json!({ "capability": capability, "state": state }));
    vmm.qmp()?.execute(
        "migrate-set-capabilities",
        json!({ "capabilities": capabilities }),
    )?;
    Ok(())
}

/// Makes `destination` wait for a machine, and stay to be asked where it refuses it; the URI where
/// it waits.
fn listen(destination: &mut Vmm) -> Result<String> {
    set_capabilities(destination, Route::Connection)?;
    destination.qmp()?.execute(
        "migrate-incoming",
        json!({ "uri": "tcp:127.0.0.1:0", "exit-on-error": false }),
    )?;
    let mut status = query(destination)?;
    let address = status
        .socket_address
        .pop()
        .context("the destination's QEMU does not say where it listens")?;
    Ok(format!("tcp:127.0.0.1:{}", address.port))
}

/// Takes in what `vmm` has reported: the states of its device, which are added to `states`, and what
/// is worth telling.
fn watch(
    vmm: &mut Vmm,
    side: &str,
    states: &mut Vec<String>,
    tell: &mut dyn FnMut(&str),
) -> Result<()> {
    for (_, event) in vmm.qmp()?.take_events()? {
        match event {
            Event::VfioMigration { state } => {
                tell(&format!("{side} device is {state}"));
                states.push(state);
            }
            event => notice(event, side, tell)?,
        }
    }
    Ok(())
}

fn query(vmm: &mut Vmm) -> Result<Status> {
    let answer = vmm.qmp()?.execute("query-migrate", json!({}))?;
    Status::deserialize(&answer).with_context(|| format!("QEMU answers query-migrate: {answer}"))
}

/// Passes on what is worth telling of an event that does not concern the device.
fn notice(event: Event, side: &str, tell: &mut dyn FnMut(&str)) -> Result<()> {
    match event {
        Event::Stop => tell(&format!("{side} the machine stops")),
        Event::Resume => tell(&format!("{side} the machine runs")),
        Event::GuestFailed { event } => bail!("{side} QEMU reports {event} of the guest"),
        Event::Migration { .. } | Event::Other { .. } => (),
        Event::VfioMigration { .. } => (),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_status_of_a_migration() {
        let answer = json!({
            "status": "completed", "total-time": 4321, "downtime": 123, "setup-time": 7,
            "ram": { "transferred": 1000, "dirty-sync-count": 3, "mbps": 1.5 },
            "vfio": { "transferred": 77 }
        });
        let status = Status::deserialize(&answer).unwrap();
        assert_eq!(status.status, "completed");
        assert_eq!((status.total_time, status.downtime), (4321, 123));
        assert_eq!(status.vfio.transferred, 77);
        assert_eq!(status.ram.dirty_sync_count, 3);
    }

    #[test]
    fn reads_where_a_destination_listens() {
        let answer = json!({
            "status": "setup",
            "socket-address": [{ "type": "inet", "host": "127.0.0.1", "port": "49152" }]
        });
        let status = Status::deserialize(&answer).unwrap();
        assert_eq!(status.socket_address[0].port, "49152");
    }

    #[test]
    fn before_a_migration_there_is_no_status() {
        let status = Status::deserialize(&json!({})).unwrap();
        assert_eq!(status.status, "");
    }

    #[test]
    fn a_migration_goes_through_the_states_of_pre_copy() {
        let states = |states: &[&str]| states.iter().map(|state| (*state).to_owned()).collect();
        let outcome = Outcome {
            source_states: states(&["pre-copy", "pre-copy-p2p", "stop-copy", "stop"]),
            destination_states: states(&["resuming", "running-p2p", "running"]),
            ..Outcome::default()
        };
        assert!(outcome.check_states().is_ok());
        let not_stopped_yet = Outcome {
            source_states: states(&["pre-copy", "pre-copy-p2p", "stop-copy"]),
            ..outcome.clone()
        };
        assert!(not_stopped_yet.check_states().is_ok());
        let without_pre_copy = Outcome {
            source_states: states(&["running-p2p", "stop", "stop-copy", "stop"]),
            ..outcome.clone()
        };
        assert!(without_pre_copy.check_states().is_err());
        let without_p2p = Outcome {
            destination_states: states(&["resuming", "running"]),
            ..outcome
        };
        assert!(without_p2p.check_states().is_err());
    }

    #[test]
    fn phases_count_what_was_added() {
        let start = Workload {
            operations: 10,
            bytes: 100,
            ..Workload::default()
        };
        let end = Workload {
            operations: 15,
            bytes: 260,
            ..Workload::default()
        };
        let phase = Phase::between(&start, &end);
        assert_eq!((phase.operations, phase.bytes), (5, 160));
    }
}
