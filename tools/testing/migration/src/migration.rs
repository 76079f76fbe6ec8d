// SPDX-License-Identifier: GPL-2.0

//! One virtual machine, and its moves from one QEMU and virtual function to another.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context, Result};
use serde::Deserialize;
use serde_json::json;

use crate::console::{Console, Report, Workload};
use crate::qmp::Event;
use crate::sriov::Function;
use crate::vmm::{Machine, Vmm};

/// How long the guest may take to boot and to bind its driver.
const BOOT_TIMEOUT: Duration = Duration::from_secs(480);

/// How long a whole migration may take.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(480);

/// How long the workload may take to show that it goes on.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(120);

/// Between two looks at what changes.
const POLL: Duration = Duration::from_millis(20);

/// How much of the console an error shows.
const CONSOLE_LINES: usize = 20;

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
    /// Whether the device runs in the destination, which is the last thing that happens.
    fn has_arrived(&self) -> bool {
        self.destination_states
            .last()
            .is_some_and(|state| state == "running")
    }
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
        let moved = self.transfer(&mut destination, plan, &mut outcome, tell);
        let errors = destination.errors();
        moved
            .and_then(|start| self.arrive(destination, start, plan, &mut outcome, tell))
            .map_err(|error| {
                self.explain(error)
                    .context(format!("destination: {errors}"))
            })?;
        Ok(outcome)
    }

    /// Sends the machine to `destination`; what the workload had done when that began.
    fn transfer(
        &mut self,
        destination: &mut Vmm,
        plan: &Plan,
        outcome: &mut Outcome,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Workload> {
        let port = listen(destination)?;
        let booted = self.workload();
        outcome.before = self.work("before the migration", &booted, plan.operations)?;

        let source = self.vmm.qmp()?;
        source.take_events()?;
        source.execute("migrate-set-capabilities", events_on())?;
        source.execute(
            "migrate-set-parameters",
            json!({ "max-bandwidth": plan.bandwidth, "downtime-limit": 300 }),
        )?;
        self.console.read()?;
        let start = self.workload();
        tell("the migration starts");
        let begin = Instant::now();
        self.vmm
            .qmp()?
            .execute("migrate", json!({ "uri": format!("tcp:127.0.0.1:{port}") }))?;

        let mut live = true;
        self.until("the migration has not ended", MIGRATION_TIMEOUT, |guest| {
            for (_, event) in guest.vmm.qmp()?.take_events()? {
                match event {
                    Event::VfioMigration { state } => {
                        tell(&format!("source:      device is {state}"));
                        outcome.source_states.push(state);
                    }
                    event => notice(event, "source:     ", tell)?,
                }
            }
            for (_, event) in destination.qmp()?.take_events()? {
                match event {
                    Event::VfioMigration { state } => {
                        tell(&format!("destination: device is {state}"));
                        outcome.destination_states.push(state);
                    }
                    event => notice(event, "destination:", tell)?,
                }
            }
            let status = query(&mut guest.vmm)?;
            match status.status.as_str() {
                "completed" if outcome.has_arrived() => {
                    outcome.device_bytes = status.vfio.transferred;
                    outcome.memory_bytes = status.ram.transferred;
                    outcome.total = Duration::from_millis(status.total_time);
                    outcome.downtime = Duration::from_millis(status.downtime);
                    return Ok(Some(()));
                }
                "failed" | "cancelled" => bail!(
                    "the migration {}: {}",
                    status.status,
                    status
                        .error_desc
                        .as_deref()
                        .unwrap_or("QEMU does not say why")
                ),
                // When the source fails, the destination ends as well, which explains less.
                _ => destination.alive()?,
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
        })?;
        Ok(start)
    }

    /// Goes on with the machine in `destination`, and waits until its workload has.
    fn arrive(
        &mut self,
        mut destination: Vmm,
        start: Workload,
        plan: &Plan,
        outcome: &mut Outcome,
        tell: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let output = destination.take_output()?;
        std::mem::replace(&mut self.vmm, destination).quit()?;
        tell("source:      QEMU has ended");
        self.console.follow(output)?;
        let left = self.workload();
        let heard = self.console.reports().len();
        outcome.during = Phase::between(&start, &left);
        ensure!(
            outcome.during.operations > 0,
            "the workload did nothing while the migration was under way"
        );
        self.until(
            "the workload says nothing after the migration",
            PROGRESS_TIMEOUT,
            |guest| Ok(guest.console.reports().get(heard).map(|_| ())),
        )?;
        if let [.., (last, _), (first, _)] = &self.console.reports()[..=heard] {
            outcome.silence = *first - *last;
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

fn events_on() -> serde_json::Value {
    json!({ "capabilities": [{ "capability": "events", "state": true }] })
}

/// Makes `destination` wait for a machine; the TCP port where it does.
fn listen(destination: &mut Vmm) -> Result<String> {
    let qmp = destination.qmp()?;
    qmp.execute("migrate-set-capabilities", events_on())?;
    qmp.execute("migrate-incoming", json!({ "uri": "tcp:127.0.0.1:0" }))?;
    let mut status = query(destination)?;
    let address = status
        .socket_address
        .pop()
        .context("the destination's QEMU does not say where it listens")?;
    Ok(address.port)
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
