// SPDX-License-Identifier: GPL-2.0

//! Migration of a virtual machine from one QEMU and its virtual functions to another.
//!
//! A machine moves over a connection to a waiting QEMU, or through a file. The connection is used
//! in both directions: QEMU stops the source only after the destination has accepted the devices'
//! initial data (`switchover-ack`). Thus a destination driver that refuses this data refuses a
//! running machine.
//!
//! All other settings are QEMU's defaults, including the limits of downtime and bandwidth, unless a
//! [`Plan`] overrides them.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{bail, ensure, Context, Result};
use serde::Deserialize;
use serde_json::json;
use vifa_qmp::Event;

use crate::{
    comparison::Comparison,
    console::Workload,
    guest::{Guest, Phase},
    sriov,
    style::{mebibytes, seconds},
    trace::Trace,
    vmm::{Passthrough, Role, Vmm},
};

/// The states of a device with a P2P-quiesced run state, at the source and at the destination. QEMU
/// stops the source's device at any time after the migration, possibly after its last report was
/// read.
const SOURCE_STATES: [&str; 3] = ["pre-copy", "pre-copy-p2p", "stop-copy"];
const SOURCE_STATE_AFTERWARDS: &str = "stop";
const DESTINATION_STATES: [&str; 3] = ["resuming", "running-p2p", "running"];

/// The use of several connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Multifd {
    /// One connection for everything.
    #[default]
    Off,
    /// Several connections for memory; devices use the main connection.
    Memory,
    /// Several connections for memory and for the remaining device state after the stop.
    All,
}

impl fmt::Display for Multifd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "one connection",
            Self::Memory => "multifd for memory",
            Self::All => "multifd",
        })
    }
}

/// The parameters of a migration.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Minimum time for which the machine keeps running during the migration.
    pub live: Duration,
    /// Maximum bandwidth, in bytes per second.
    pub bandwidth: u64,
    /// Maximum downtime, as QEMU estimates it.
    pub downtime: Duration,
    /// Maximum number of bytes that may remain when the machine stops, independent of QEMU's
    /// estimate.
    pub left: Option<u64>,
    /// The use of several connections.
    pub multifd: Multifd,
    /// Number of operations that the workloads must complete before the migration, and again after
    /// it.
    pub operations: u64,
}

impl Default for Plan {
    /// Returns QEMU's limits.
    fn default() -> Self {
        Self {
            live: Duration::ZERO,
            bandwidth: 128 << 20,
            downtime: Duration::from_millis(300),
            left: None,
            multifd: Multifd::Off,
            operations: 100,
        }
    }
}

impl Plan {
    /// Lets `vmm` keep the machine running, or applies the limits.
    fn limit(&self, vmm: &mut Vmm, live: bool) -> Result<()> {
        // The number of bytes that may remain is the product of time and bandwidth. With bandwidth
        // 0, QEMU uses the measured bandwidth.
        let (milliseconds, bandwidth) = match (live, self.left) {
            (true, _) => (1, 1000),
            (false, Some(left)) => (1000, left),
            (false, None) => (self.downtime.as_millis() as u64, 0),
        };
        vmm.qmp()?.execute(
            "migrate-set-parameters",
            json!({
                "max-bandwidth": self.bandwidth,
                "downtime-limit": milliseconds,
                "avail-switchover-bandwidth": bandwidth,
            }),
        )?;
        Ok(())
    }
}

/// The states that devices went through, by QEMU's names of the devices, with their times.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct States {
    devices: BTreeMap<String, Vec<String>>,
    /// The time of each state change, in order.
    times: Vec<(String, Duration)>,
}

impl States {
    /// Adds the `state` that `device` entered at `time`, which is since the epoch.
    pub fn push(&mut self, device: String, state: String, time: Duration) {
        self.times.push((state.clone(), time));
        self.devices.entry(device).or_default().push(state);
    }

    /// Returns the states of each device.
    pub fn each(&self) -> impl Iterator<Item = &[String]> {
        self.devices.values().map(Vec::as_slice)
    }

    /// Returns the times at which devices entered `state`, in order.
    fn times<'a>(&'a self, state: &'a str) -> impl DoubleEndedIterator<Item = Duration> + 'a {
        let times = self.times.iter().filter(move |(other, _)| other == state);
        times.map(|(_, time)| *time)
    }

    /// Returns whether `state` is the last state of all of `devices`.
    pub fn all_are(&self, devices: usize, state: &str) -> bool {
        let last = |states: &Vec<String>| states.last().is_some_and(|last| last == state);
        let devices_there = self.devices.values().filter(|states| last(states));
        devices_there.count() == devices
    }
}

impl fmt::Display for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all: Vec<_> = self.each().map(|states| states.join(" -> ")).collect();
        all.dedup();
        f.write_str(&all.join("; "))
    }
}

/// The result of a migration.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Number of devices that moved.
    pub devices: usize,
    /// The states of the source's devices.
    pub source_states: States,
    /// The states of the destination's devices.
    pub destination_states: States,
    /// The source QEMU's actions on the devices.
    pub trace: Trace,
    /// The comparison while the machine was paused.
    pub comparison: Option<Comparison>,
    /// Number of bytes of device state that QEMU transferred.
    pub device_bytes: u64,
    /// Number of bytes of memory that QEMU transferred.
    pub memory_bytes: u64,
    /// From the order to migrate to the end.
    pub total: Duration,
    /// The downtime that QEMU reports.
    pub downtime: Duration,
    /// From the stop of the machine's processors to their start.
    pub stopped: Duration,
    /// The time at which the source's QEMU had ended, since the epoch.
    pub left: Duration,
    /// From the last report of the workload at the source to its first report at the destination.
    pub silence: Duration,
    /// Progress of the workloads before the order to migrate.
    pub before: Phase,
    /// Progress while the source was sending and still running.
    pub during: Phase,
    /// Progress at the destination.
    pub after: Phase,
}

impl Outcome {
    /// Checks that each device went through the states of a migration that begins while it runs.
    pub fn check_states(&self) -> Result<()> {
        for (side, states, expected) in [
            ("source", &self.source_states, SOURCE_STATES),
            ("destination", &self.destination_states, DESTINATION_STATES),
        ] {
            let reported = states.each().count();
            ensure!(
                reported == self.devices,
                "{reported} of {} devices of the {side} reported their states",
                self.devices
            );
            for states in states.each() {
                let states = match states {
                    [states @ .., last] if last == SOURCE_STATE_AFTERWARDS => states,
                    states => states,
                };
                ensure!(
                    states == expected,
                    "invalid states of a device of the {side}: got {states:?}, expected {expected:?}"
                );
            }
        }
        Ok(())
    }

    /// Checks that QEMU queried the devices' dirty logs, and that device state moved while the
    /// machine ran.
    pub fn check_devices(&self) -> Result<()> {
        self.check_states()?;
        if sriov::kernel_can_log() {
            self.trace.check_log()?;
        }
        self.trace.check_live(self.device_bytes)
    }

    /// Returns the time during which no device worked: from the quiesce of the first to the start
    /// of the last.
    pub fn absence(&self) -> Result<Duration> {
        let (first, last) = self.away()?;
        Ok(last.saturating_sub(first))
    }

    /// Returns the time during which a network adapter may lose frames: from the quiesce of the
    /// first device until the source has no device, because the source's card has the machine's
    /// address until then.
    pub fn astray(&self) -> Result<Duration> {
        let (first, last) = self.away()?;
        Ok(last.max(self.left).saturating_sub(first))
    }

    /// Returns the times, since the epoch, when the first device was quiesced and when the last ran
    /// again.
    fn away(&self) -> Result<(Duration, Duration)> {
        let [_, quiesced, _] = SOURCE_STATES;
        let [.., running] = DESTINATION_STATES;
        let first = self.source_states.times(quiesced).next();
        let last = self.destination_states.times(running).next_back();
        match (first, last) {
            (Some(first), Some(last)) => Ok((first, last)),
            _ => bail!(
                "the devices did not go through {quiesced} to {running}: {}; {}",
                self.source_states,
                self.destination_states
            ),
        }
    }

    /// Returns whether all devices run at the destination, which is the last step.
    fn has_arrived(&self) -> bool {
        self.destination_states.all_are(self.devices, "running")
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  source states    {}
  dest. states     {}
  device state     {} bytes
  device log       {}
  memory           {}
  total time       {}
  downtime         {}
  silence          {} between two reports of the workload
  before           {} operations, {} verified
  during           {} operations, {} verified
  after            {} operations, {} verified",
            self.source_states,
            self.destination_states,
            self.device_bytes,
            self.trace,
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
        )?;
        match &self.comparison {
            Some(comparison) => write!(f, "\n  compared         {comparison}"),
            None => Ok(()),
        }
    }
}

/// Part of the reply to `query-migrate`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct Status {
    pub(crate) status: String,
    pub(crate) error_desc: Option<String>,
    total_time: u64,
    downtime: u64,
    pub(crate) ram: Transferred,
    vfio: Transferred,
    socket_address: Vec<Address>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct Transferred {
    transferred: u64,
    pub(crate) dirty_sync_count: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Address {
    port: String,
}

/// The state of a migration in progress.
pub(crate) struct Move {
    /// The time of the order.
    pub(crate) begin: Instant,
    /// The workloads at that time.
    pub(crate) start: Vec<Workload>,
    /// The time when the processors stopped, as the source reports it.
    stopped: Option<Duration>,
    /// The time when the processors started, as the destination reports it.
    resumed: Option<Duration>,
}

impl Move {
    /// Processes the events of the source `vmm`.
    fn watch_source(
        &mut self,
        vmm: &mut Vmm,
        outcome: &mut Outcome,
        announce: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let states = &mut outcome.source_states;
        watch(vmm, "source:     ", states, &mut self.stopped, announce)
    }

    /// Processes the events of the destination `vmm`.
    fn watch_destination(
        &mut self,
        vmm: &mut Vmm,
        outcome: &mut Outcome,
        announce: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let states = &mut outcome.destination_states;
        watch(vmm, "destination:", states, &mut self.resumed, announce)
    }
}

impl Guest {
    /// Moves the machine to `destination`, with its workloads running. Reports the steps to
    /// `announce`. If the destination keeps the machine paused, all of its memory and its devices
    /// are compared before it runs.
    ///
    /// # Errors
    ///
    /// Fails if QEMU fails, if a workload finds an error, loses an interrupt or stops before or
    /// after the migration, if a step times out, and if the machine differs.
    pub fn migrate(
        &mut self,
        destination: Vmm,
        plan: &Plan,
        announce: &mut dyn FnMut(&str),
    ) -> Result<Outcome> {
        self.migrate_holding(destination, plan, &mut |_| Ok(false), announce)
    }

    /// Like [`Self::migrate`], but keeps the machine running while `hold` returns true. `hold` is
    /// called during the transfer.
    pub fn migrate_holding(
        &mut self,
        mut destination: Vmm,
        plan: &Plan,
        hold: &mut dyn FnMut(Duration) -> Result<bool>,
        announce: &mut dyn FnMut(&str),
    ) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let sent = self.send_to(&mut destination, plan, hold, &mut outcome, announce);
        let errors = destination.errors();
        sent.and_then(|mut sent| {
            if destination.role == Role::ReceivePaused {
                let comparison =
                    self.compare(&mut destination, &mut sent, &mut outcome, announce)??;
                announce(&format!("both are paused: {comparison}"));
                outcome.comparison = Some(comparison);
                self.let_run(&mut destination, &mut sent, &mut outcome, announce)?;
            }
            let left = self.switch_to(destination, &sent, &mut outcome, announce)?;
            self.continue_at_destination(left, plan, &mut outcome, announce)
        })
        .map_err(|error| {
            self.explain(error)
                .context(format!("destination: {errors}"))
        })?;
        Ok(outcome)
    }

    /// Moves the machine to `destination` through the file at `path`: the machine does not run
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
        announce: &mut dyn FnMut(&str),
    ) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        self.pass_through(destination, path, plan, &mut outcome, announce)
            .map_err(|error| self.explain(error))?;
        Ok(outcome)
    }

    fn pass_through(
        &mut self,
        destination: Vmm,
        path: &Path,
        plan: &Plan,
        outcome: &mut Outcome,
        announce: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let uri = format!("file:{}", path.display());
        set_capabilities(&mut self.vmm, Route::File)?;
        let mut sent = self.begin(&uri, plan, outcome, announce)?;
        self.send(
            plan,
            &mut sent,
            &mut |_| Ok(false),
            outcome,
            announce,
            |_, _, _| Ok(true),
        )?;
        let left = self.switch_to(destination, &sent, outcome, announce)?;

        announce("destination: reads the file");
        set_capabilities(&mut self.vmm, Route::File)?;
        let incoming = json!({ "uri": uri });
        self.vmm.qmp()?.execute("migrate-incoming", incoming)?;
        self.until("the file was not loaded", |guest| {
            sent.watch_destination(&mut guest.vmm, outcome, announce)?;
            Ok(outcome.has_arrived().then_some(()))
        })?;
        self.continue_at_destination(left, plan, outcome, announce)
    }

    /// Begins to send the machine to `uri`.
    fn begin(
        &mut self,
        uri: &str,
        plan: &Plan,
        outcome: &mut Outcome,
        announce: &mut dyn FnMut(&str),
    ) -> Result<Move> {
        let booted = self.workloads();
        outcome.before = self.work("before the migration", &booted, plan.operations)?;
        self.order(uri, plan, announce)
    }

    /// Gives the order to send the machine to `uri`.
    pub(crate) fn order(
        &mut self,
        uri: &str,
        plan: &Plan,
        announce: &mut dyn FnMut(&str),
    ) -> Result<Move> {
        self.vmm.qmp()?.take_events()?;
        plan.limit(&mut self.vmm, plan.live > Duration::ZERO)?;
        self.vmm.begin_trace();
        self.console.read()?;
        let start = self.workloads();
        announce("the migration starts");
        self.vmm.qmp()?.execute("migrate", json!({ "uri": uri }))?;
        Ok(Move {
            begin: Instant::now(),
            start,
            stopped: None,
            resumed: None,
        })
    }

    /// Waits until everything is sent and `arrived` returns true.
    fn send(
        &mut self,
        plan: &Plan,
        sent: &mut Move,
        hold: &mut dyn FnMut(Duration) -> Result<bool>,
        outcome: &mut Outcome,
        announce: &mut dyn FnMut(&str),
        mut arrived: impl FnMut(&mut Move, &mut Outcome, &mut dyn FnMut(&str)) -> Result<bool>,
    ) -> Result<()> {
        outcome.devices = self.functions().len();
        let mut live = plan.live > Duration::ZERO;
        self.until("the migration did not end", |guest| {
            sent.watch_source(&mut guest.vmm, outcome, announce)?;
            let status = query(&mut guest.vmm)?;
            if matches!(status.status.as_str(), "failed" | "cancelled") {
                bail!(
                    "the migration {}: {}",
                    status.status,
                    status
                        .error_desc
                        .as_deref()
                        .unwrap_or("QEMU reports no reason")
                );
            }
            if arrived(sent, outcome, announce)? && status.status == "completed" {
                // Process the events between the last check and the reply.
                sent.watch_source(&mut guest.vmm, outcome, announce)?;
                outcome.device_bytes = status.vfio.transferred;
                outcome.memory_bytes = status.ram.transferred;
                outcome.total = Duration::from_millis(status.total_time);
                outcome.downtime = Duration::from_millis(status.downtime);
                return Ok(Some(()));
            }
            if live && sent.begin.elapsed() >= plan.live && !hold(sent.begin.elapsed())? {
                live = false;
                plan.limit(&mut guest.vmm, live)?;
            }
            Ok(None)
        })
    }

    /// Sends the machine to `destination`.
    pub(crate) fn send_to(
        &mut self,
        destination: &mut Vmm,
        plan: &Plan,
        hold: &mut dyn FnMut(Duration) -> Result<bool>,
        outcome: &mut Outcome,
        announce: &mut dyn FnMut(&str),
    ) -> Result<Move> {
        let uri = listen(destination, plan.multifd)?;
        set_capabilities(&mut self.vmm, Route::Connection(plan.multifd))?;
        let mut sent = self.begin(&uri, plan, outcome, announce)?;
        self.send(
            plan,
            &mut sent,
            hold,
            outcome,
            announce,
            |sent, outcome, announce| {
                sent.watch_destination(destination, outcome, announce)?;
                destination.alive()?;
                let status = query(destination)?;
                if let Some(error) = status.error_desc {
                    bail!("the destination refused the machine: {error}");
                }
                Ok(match destination.role {
                    Role::ReceivePaused => status.status == "completed",
                    Role::Boot | Role::Receive => outcome.has_arrived(),
                })
            },
        )?;
        Ok(sent)
    }

    /// Compares the paused machine at `destination` with the paused machine here. Returns the
    /// result.
    pub(crate) fn compare(
        &mut self,
        destination: &mut Vmm,
        sent: &mut Move,
        outcome: &mut Outcome,
        announce: &mut dyn FnMut(&str),
    ) -> Result<Result<Comparison>> {
        self.until("the devices did not stop", |guest| {
            sent.watch_source(&mut guest.vmm, outcome, announce)?;
            Ok(outcome
                .source_states
                .all_are(outcome.devices, SOURCE_STATE_AFTERWARDS)
                .then_some(()))
        })?;
        let memory = u64::from(self.machine.memory) << 20;
        Ok(Comparison::of(
            &mut self.vmm,
            destination,
            memory,
            &self.directory,
        ))
    }

    /// Starts the paused machine at `destination`.
    fn let_run(
        &mut self,
        destination: &mut Vmm,
        sent: &mut Move,
        outcome: &mut Outcome,
        announce: &mut dyn FnMut(&str),
    ) -> Result<()> {
        destination.qmp()?.execute("cont", json!({}))?;
        self.until("the machine did not start to run", |_| {
            sent.watch_destination(destination, outcome, announce)?;
            Ok(outcome.has_arrived().then_some(()))
        })
    }

    /// Ends the source QEMU and continues with `destination`. Returns the number of workload
    /// reports that the source delivered.
    pub(crate) fn switch_to(
        &mut self,
        mut destination: Vmm,
        sent: &Move,
        outcome: &mut Outcome,
        announce: &mut dyn FnMut(&str),
    ) -> Result<usize> {
        outcome.trace = self.vmm.trace()?;
        if let (Some(stopped), Some(resumed)) = (sent.stopped, sent.resumed) {
            outcome.stopped = resumed.saturating_sub(stopped);
        }
        let output = destination.take_output()?;
        std::mem::replace(&mut self.vmm, destination).quit()?;
        outcome.left = SystemTime::now().duration_since(UNIX_EPOCH)?;
        announce("source:      QEMU has ended");
        self.console.follow(output)?;
        outcome.during = Phase::between(&sent.start, &self.workloads());
        Ok(self.console.reports().len())
    }

    /// Waits until the workload continues at the destination, where its first report has the number
    /// `first`.
    fn continue_at_destination(
        &mut self,
        first: usize,
        plan: &Plan,
        outcome: &mut Outcome,
        announce: &mut dyn FnMut(&str),
    ) -> Result<()> {
        self.until(
            "the workload reported nothing after the migration",
            |guest| Ok(guest.console.reports().get(first).map(|_| ())),
        )?;
        if let [.., (last, _), (next, _)] = &self.console.reports()[..=first] {
            outcome.silence = *next - *last;
        }
        let arrived = self.workloads();
        announce("destination: the workload goes on");
        outcome.after = self.work("after the migration", &arrived, plan.operations)?;
        Ok(())
    }
}

/// The route of a machine from one QEMU to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Connection(Multifd),
    /// In one direction, without a deadline.
    File,
}

/// Prepares `vmm`, which may have used another route before.
pub(crate) fn set_capabilities(vmm: &mut Vmm, route: Route) -> Result<()> {
    let (answers, multifd) = match route {
        Route::Connection(multifd) => (true, multifd),
        Route::File => (false, Multifd::Off),
    };
    let capabilities = [
        ("events", true),
        ("return-path", answers),
        ("switchover-ack", answers),
        ("multifd", multifd != Multifd::Off),
        ("pause-before-switchover", false),
    ]
    .map(|(capability, state)| json!({ "capability": capability, "state": state }));
    let devices = vmm.passthrough.functions.len();
    let qmp = vmm.qmp()?;
    qmp.execute(
        "migrate-set-capabilities",
        json!({ "capabilities": capabilities }),
    )?;
    // By default ("auto"), devices use multifd if memory does. Only tests separate the two.
    let transfer = match multifd {
        Multifd::Memory => "off",
        Multifd::Off | Multifd::All => "auto",
    };
    for device in 0..devices {
        qmp.execute(
            "qom-set",
            json!({
                "path": format!("/machine/peripheral/{}", Passthrough::id(device)),
                "property": "x-migration-multifd-transfer",
                "value": transfer,
            }),
        )?;
    }
    Ok(())
}

/// Lets `destination` wait for a machine, and keep running after a refusal, so that it can report
/// the reason. Returns the URI of the waiting QEMU.
pub(crate) fn listen(destination: &mut Vmm, multifd: Multifd) -> Result<String> {
    set_capabilities(destination, Route::Connection(multifd))?;
    destination.qmp()?.execute(
        "migrate-incoming",
        json!({ "uri": "tcp:127.0.0.1:0", "exit-on-error": false }),
    )?;
    let mut status = query(destination)?;
    let address = status
        .socket_address
        .pop()
        .context("the destination's QEMU reports no address")?;
    Ok(format!("tcp:127.0.0.1:{}", address.port))
}

/// Processes the events of `vmm`: adds the states of its devices to `states`, records the time when
/// its processors stopped or started, and announces the steps.
pub(crate) fn watch(
    vmm: &mut Vmm,
    side: &str,
    states: &mut States,
    turned: &mut Option<Duration>,
    announce: &mut dyn FnMut(&str),
) -> Result<()> {
    for (time, event) in vmm.qmp()?.take_events()? {
        match event {
            Event::VfioMigration { device, state } => {
                announce(&format!("{side} {device} is {state}"));
                states.push(device, state, time);
            }
            Event::Stop | Event::Resume => {
                *turned = Some(time);
                notice(event, side, announce)?;
            }
            event => notice(event, side, announce)?,
        }
    }
    Ok(())
}

pub(crate) fn query(vmm: &mut Vmm) -> Result<Status> {
    let answer = vmm.qmp()?.execute("query-migrate", json!({}))?;
    let status = Status::deserialize(&answer)
        .with_context(|| format!("invalid reply to query-migrate: {answer}"))?;
    vmm.transferred =
        status.ram.transferred + status.ram.dirty_sync_count + status.vfio.transferred;
    Ok(status)
}

/// Announces an event that does not concern the devices.
pub(crate) fn notice(event: Event, side: &str, announce: &mut dyn FnMut(&str)) -> Result<()> {
    match event {
        Event::Stop => announce(&format!("{side} the machine stops")),
        Event::Resume => announce(&format!("{side} the machine runs")),
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
    fn reads_the_address_of_a_destination() {
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

    fn states(states: &[&str]) -> States {
        let mut all = States::default();
        for (second, state) in (1..).zip(states) {
            let time = Duration::from_secs(second);
            all.push("vf0".to_owned(), (*state).to_owned(), time);
        }
        all
    }

    #[test]
    fn absence_is_from_the_first_quiesced_to_the_last_running_device() {
        let mut outcome = Outcome {
            source_states: states(&["pre-copy", "pre-copy-p2p", "stop-copy"]),
            destination_states: states(&["resuming", "running-p2p"]),
            ..Outcome::default()
        };
        assert!(outcome.absence().is_err());
        let mut arrive = |device: &str, second| {
            let time = Duration::from_secs(second);
            let states = &mut outcome.destination_states;
            states.push(device.to_owned(), "running".to_owned(), time);
        };
        arrive("vf0", 5);
        arrive("vf1", 7);
        assert_eq!(outcome.absence().unwrap(), Duration::from_secs(5));
        assert_eq!(outcome.astray().unwrap(), Duration::from_secs(5));
        outcome.left = Duration::from_secs(8);
        assert_eq!(outcome.absence().unwrap(), Duration::from_secs(5));
        assert_eq!(outcome.astray().unwrap(), Duration::from_secs(6));
    }

    #[test]
    fn a_migration_goes_through_the_states_of_pre_copy() {
        let outcome = Outcome {
            devices: 1,
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
            ..outcome.clone()
        };
        assert!(without_p2p.check_states().is_err());
        let one_is_missing = Outcome {
            devices: 2,
            ..outcome
        };
        assert!(one_is_missing.check_states().is_err());
    }

    #[test]
    fn all_devices_have_to_come_to_a_state() {
        let mut both = states(&["resuming", "running"]);
        assert!(both.all_are(1, "running") && !both.all_are(2, "running"));
        both.push("vf1".to_owned(), "resuming".to_owned(), Duration::ZERO);
        assert!(!both.all_are(2, "running"));
        both.push("vf1".to_owned(), "running".to_owned(), Duration::ZERO);
        assert!(both.all_are(2, "running"));
        assert_eq!(both.to_string(), "resuming -> running");
    }
}
