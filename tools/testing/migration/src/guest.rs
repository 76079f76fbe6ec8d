// SPDX-License-Identifier: GPL-2.0

//! One virtual machine with its workloads, at any location.
//!
//! All waits of this module also check for errors: a complaint of the guest, an error of a
//! workload, or the end of QEMU ends every wait with an error.

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, ensure, Result};
use vifa_vfio::pci::Function;

use crate::{
    console::{Console, Report, Traffic, Workload},
    progress::Progress,
    vmm::{Machine, Passthrough, Role, Vmm},
};

/// Maximum time without console output while the guest boots.
const BOOT_PATIENCE: Duration = Duration::from_secs(600);

/// Maximum time of a wait without any progress.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Interval between checks for changes.
const POLL: Duration = Duration::from_millis(20);

/// Number of console lines in an error.
const CONSOLE_LINES: usize = 60;

/// Time for which the guest may write more after an error.
const CONSOLE_REST: Duration = Duration::from_secs(1);

/// The progress of the workloads in one phase.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Phase {
    /// Number of verified operations.
    pub operations: u64,
    /// Number of verified bytes.
    pub bytes: u64,
}

impl Phase {
    pub(crate) fn between(start: &[Workload], end: &[Workload]) -> Self {
        let start: Workload = start.iter().cloned().sum();
        let end: Workload = end.iter().cloned().sum();
        Self {
            operations: end.operations.saturating_sub(start.operations),
            bytes: end.bytes.saturating_sub(start.bytes),
        }
    }
}

/// The virtual machine.
pub struct Guest {
    pub(crate) machine: Machine,
    pub(crate) directory: PathBuf,
    pub(crate) vmm: Vmm,
    pub(crate) console: Console,
    /// Prefix of its file names, to distinguish machines.
    name: String,
    /// Number of QEMUs that it has had.
    generation: usize,
}

impl Guest {
    /// Starts a machine with these devices. Its files in `directory` begin with `name`.
    pub fn start(
        machine: &Machine,
        passthrough: &Passthrough,
        directory: &Path,
        name: &str,
    ) -> Result<Self> {
        let vmm_name = format!("{name}-0");
        let mut vmm = Vmm::start(machine, passthrough, directory, &vmm_name, Role::Boot)?;
        let mut console = Console::default();
        console.follow(vmm.take_output()?)?;
        Ok(Self {
            machine: machine.clone(),
            directory: directory.to_owned(),
            vmm,
            console,
            name: name.to_owned(),
            generation: 0,
        })
    }

    /// Waits until the machine is up and its workloads run.
    pub fn boot(&mut self) -> Result<()> {
        self.wait(
            "the guest did not start its workload",
            BOOT_PATIENCE,
            |guest| Ok(guest.console.workloads().map(|_| ())),
        )
        .map_err(|error| self.explain(error))
    }

    /// Returns the devices of this machine that are passed through.
    pub fn passthrough(&self) -> &Passthrough {
        &self.vmm.passthrough
    }

    /// Returns its virtual functions.
    pub fn functions(&self) -> &[Function] {
        &self.vmm.passthrough.functions
    }

    /// Returns the last report of the workloads.
    pub fn workloads(&self) -> Vec<Workload> {
        self.console.workloads().unwrap_or_default().to_vec()
    }

    /// Returns the last report of the traffic, if the device is a network adapter.
    pub fn traffic(&self) -> Option<&Traffic> {
        self.console.traffic()
    }

    /// Starts a destination QEMU with the same number of functions. It may not be ready yet.
    pub fn destination(&mut self, passthrough: &Passthrough, role: Role) -> Result<Vmm> {
        self.generation += 1;
        let name = format!("{}-{}", self.name, self.generation);
        Vmm::start(&self.machine, passthrough, &self.directory, &name, role)
    }

    /// Ends the workloads' runs.
    ///
    /// # Errors
    ///
    /// Fails unless each submitted command completed once and was verified.
    pub fn finish(&mut self) -> Result<Workload> {
        let workloads = self.stop().map_err(|error| self.explain(error))?;
        workloads.iter().try_for_each(Workload::check_finished)?;
        Ok(workloads.into_iter().sum())
    }

    fn stop(&mut self) -> Result<Vec<Workload>> {
        let start = self.console.reports().len();
        self.vmm.type_line("stop")?;
        self.until("the workloads did not end", |guest| {
            let mut reports = guest.console.reports()[start..].iter();
            Ok(reports.find_map(|(_, report)| match report {
                Report::Finished { workloads, .. } => Some(workloads.clone()),
                _ => None,
            }))
        })
    }

    /// Runs the workloads again, with `settings` of the guest's driver.
    pub fn run(&mut self, settings: &str) -> Result<()> {
        self.vmm.type_line(&format!("run {settings}"))?;
        self.until("the workloads did not start again", |guest| {
            let runs = |workload: &Workload| workload.running && workload.operations > 0;
            Ok(guest.workloads().iter().all(runs).then_some(()))
        })
        .map_err(|error| self.explain(error))
    }

    /// Runs the workloads again and changes one bit that they must find, to test the test itself.
    ///
    /// # Errors
    ///
    /// Fails if the workloads do not find the bit.
    pub fn tamper(&mut self) -> Result<()> {
        self.run("")?;
        self.vmm.type_line("tamper")?;
        self.vmm.type_line("stop")?;
        self.notice("a wrong bit")
    }

    /// Waits until the guest reports an error.
    ///
    /// # Errors
    ///
    /// Fails if the guest reports no error.
    pub fn notice(&mut self, what: &str) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            self.vmm.alive()?;
            if self.console.read().is_err() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        Err(self.explain(anyhow!(
            "the guest did not report {what} within {} s",
            PATIENCE.as_secs()
        )))
    }

    /// Ends the machine.
    pub fn quit(self) -> Result<()> {
        self.vmm.quit()
    }

    /// Waits until the workloads have completed `operations` more than at `start`, in equal parts.
    pub(crate) fn work(
        &mut self,
        when: &str,
        start: &[Workload],
        operations: u64,
    ) -> Result<Phase> {
        let part = operations.div_ceil(start.len().max(1) as u64);
        self.until(&format!("a workload made no progress {when}"), |guest| {
            let now = guest.workloads();
            let done = start
                .iter()
                .zip(&now)
                .all(|(start, now)| now.operations >= start.operations + part);
            Ok(done.then(|| Phase::between(start, &now)))
        })
    }

    /// Waits until `look` returns a value, while there is no error and the machine makes progress.
    pub(crate) fn until<T>(
        &mut self,
        otherwise: &str,
        look: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        self.wait(otherwise, PATIENCE, look)
    }

    fn wait<T>(
        &mut self,
        otherwise: &str,
        patience: Duration,
        mut look: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let mut progress = Progress::new(patience);
        loop {
            self.console.read()?;
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            self.vmm.alive()?;
            ensure!(
                progress.continues(self.console.progress() + self.vmm.progress()),
                "{otherwise}; no progress for {} s",
                patience.as_secs()
            );
            thread::sleep(POLL);
        }
    }

    /// Adds the last output of the guest and of its QEMU to `error`.
    pub(crate) fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        self.console.linger(CONSOLE_REST);
        let console = self.console.tail(CONSOLE_LINES).join("\n    ");
        anyhow!(
            "{error:#}\nQEMU: {}\nThe end of the guest's console:\n    {console}",
            self.vmm.errors()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_count_what_was_added() {
        let workload = |operations, bytes| Workload {
            operations,
            bytes,
            ..Workload::default()
        };
        let start = [workload(10, 100), workload(1, 1)];
        let end = [workload(15, 260), workload(2, 1)];
        let phase = Phase::between(&start, &end);
        assert_eq!((phase.operations, phase.bytes), (6, 160));
    }
}
