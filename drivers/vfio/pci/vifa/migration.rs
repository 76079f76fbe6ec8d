// SPDX-License-Identifier: GPL-2.0

//! The migration of one device: its state, and the transfer that belongs to it.
//!
//! `include/uapi/linux/vfio.h` words what user space may expect of each state and arc; the VFIO
//! core divides transitions into arcs, which [`Machine::step`] carries out.
//!
//! # Resets
//!
//! The PCI core reports a reset while the VFIO core holds `memory_lock`, which is taken under
//! `mmap_lock` elsewhere. The state is locked while memory is allocated, and must therefore not be
//! waited for there: where it is locked, the reset is left for whoever has locked it
//! ([`Migration::unlock`]). The VFIO core itself keeps `VFIO_DEVICE_RESET` from running beside
//! another call of the same user in a way that would matter.
//!
//! Lock order: `machine`, then the session of a migration file, then what the backend locks, or the
//! last error. `deferred_reset` is innermost.

mod region;
mod report;
mod session;

use self::{
    report::Report,
    session::{
        Receiving,
        Sending, //
    }, //
};
use crate::{
    backend::{
        Backend,
        RunState, //
    },
    layer::{
        save::Saver,
        state::{
            DeviceState,
            Step, //
        },
    },
    vfio::{
        self,
        file, //
    }, //
};
use kernel::{
    fs::File,
    new_mutex,
    new_spinlock,
    pci,
    prelude::*,
    sync::{
        aref::ARef,
        lock::{
            mutex::MutexBackend,
            Guard, //
        },
        Arc,
        Mutex,
        SpinLock, //
    }, //
};

/// The state of a device, with the transfer that belongs to it.
enum Phase<B: Backend> {
    Error,
    Stop,
    Running,
    RunningP2p,
    StopCopy(Arc<Sending<B>>),
    Resuming(Arc<Receiving<B>>),
}

impl<B: Backend> Phase<B> {
    fn state(&self) -> DeviceState {
        match self {
            Self::Error => DeviceState::Error,
            Self::Stop => DeviceState::Stop,
            Self::Running => DeviceState::Running,
            Self::RunningP2p => DeviceState::RunningP2p,
            Self::StopCopy(_) => DeviceState::StopCopy,
            Self::Resuming(_) => DeviceState::Resuming,
        }
    }
}

/// What carries out the arcs.
struct Machine<B: Backend> {
    backend: Arc<B>,
    report: Arc<Report>,
    phase: Phase<B>,
}

impl<B: Backend> Machine<B> {
    /// Enters a phase; the transfer of the one before ends.
    fn enter(&mut self, phase: Phase<B>) {
        match core::mem::replace(&mut self.phase, phase) {
            Phase::StopCopy(session) => session.end(),
            Phase::Resuming(session) => session.end(),
            Phase::Error | Phase::Stop | Phase::Running | Phase::RunningP2p => {}
        }
    }

    /// Has the device reach a run state, and enters `phase` when it is there.
    ///
    /// A device that refuses, and says that it is where it was, is believed. One that does not
    /// answer is not.
    fn run(&mut self, state: RunState, phase: Phase<B>) -> Result {
        let before = self.backend.run_state();
        let Err(error) = self.backend.set_run_state(state) else {
            self.enter(phase);
            return Ok(());
        };
        if error != ETIMEDOUT && before.is_ok() && before == self.backend.run_state() {
            return Err(self
                .report
                .error(error, format_args!("refuses to be {state}")));
        }
        self.enter(Phase::Error);
        Err(self.report.error(
            error,
            format_args!("does not get to be {state}, and needs a reset"),
        ))
    }

    /// Carries out one arc; returns the file of a transfer that begins with it.
    fn step(&mut self, step: Step) -> Result<Option<ARef<File>>> {
        match step {
            Step::Run => self.run(RunState::Running, Phase::Running)?,
            Step::Quiesce => self.run(RunState::P2pQuiesced, Phase::RunningP2p)?,
            Step::Stop => self.run(RunState::Stopped, Phase::Stop)?,
            Step::BeginSave => {
                let session = Sending::new(B::source(&self.backend)?, self.report.clone())?;
                let file = file::open(session.clone())?;
                self.enter(Phase::StopCopy(session));
                return Ok(Some(file));
            }
            Step::BeginRestore => {
                let session = Receiving::new(B::destination(&self.backend)?, self.report.clone())?;
                let file = file::open(session.clone())?;
                self.enter(Phase::Resuming(session));
                return Ok(Some(file));
            }
            Step::EndSave => self.enter(Phase::Stop),
            Step::EndRestore => {
                let Phase::Resuming(session) = &self.phase else {
                    return Err(EINVAL);
                };
                // The device may have a part of its new state only.
                if let Err(error) = session.clone().finish() {
                    self.enter(Phase::Error);
                    return Err(error);
                }
                self.enter(Phase::Stop);
            }
        }
        Ok(None)
    }
}

/// The migration of one device.
#[pin_data]
pub(crate) struct Migration<B: Backend> {
    backend: Arc<B>,
    report: Arc<Report>,
    #[pin]
    machine: Mutex<Machine<B>>,
    /// A reset that whoever holds `machine` has to carry out.
    #[pin]
    deferred_reset: SpinLock<bool>,
}

impl<B: Backend> Migration<B> {
    /// Makes a migration in the state RUNNING.
    pub(crate) fn new(backend: Arc<B>, device: ARef<pci::Device>) -> Result<Arc<Self>> {
        let report = Arc::pin_init(Report::new(device), GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                machine <- new_mutex!(
                    Machine {
                        backend: backend.clone(),
                        report: report.clone(),
                        phase: Phase::Running,
                    },
                    "vifa_migration"
                ),
                deferred_reset <- new_spinlock!(false),
                backend,
                report,
            }),
            GFP_KERNEL,
        )
    }

    /// The backend.
    pub(crate) fn backend(&self) -> &B {
        &self.backend
    }

    fn with<R>(&self, act: impl FnOnce(&mut Machine<B>) -> R) -> R {
        let mut machine = self.machine.lock();
        let result = act(&mut machine);
        self.unlock(machine);
        result
    }

    /// Unlocks the state, after a reset that came meanwhile.
    fn unlock(&self, mut machine: Guard<'_, Machine<B>, MutexBackend>) {
        loop {
            let mut deferred = self.deferred_reset.lock();
            if !*deferred {
                // Before `deferred_reset` is: a reset that finds the state locked must find
                // somebody who looks at the flag.
                drop(machine);
                return;
            }
            *deferred = false;
            drop(deferred);
            machine.enter(Phase::Running);
        }
    }

    /// The device has been reset: it runs, and any transfer has ended.
    pub(crate) fn reset_done(&self) {
        let mut deferred = self.deferred_reset.lock();
        *deferred = true;
        let Some(machine) = self.machine.try_lock() else {
            return;
        };
        drop(deferred);
        self.unlock(machine);
    }

    /// Begins to serve a user.
    ///
    /// # Errors
    ///
    /// The device cannot be made to run.
    pub(crate) fn open(&self) -> Result {
        self.report.clear();
        self.with(|machine| {
            if machine.backend.run_state()? != RunState::Running {
                machine.backend.set_run_state(RunState::Running)?;
            }
            machine.enter(Phase::Running);
            Ok(())
        })
    }

    /// Ends what the user began.
    pub(crate) fn close(&self) {
        self.with(|machine| machine.enter(Phase::Running));
    }

    /// The present state.
    pub(crate) fn state(&self) -> DeviceState {
        self.with(|machine| machine.phase.state())
    }

    /// Takes the device to the state with the number `new`, arc by arc.
    ///
    /// # Errors
    ///
    /// `EINVAL` where there is no way to such a state, `EIO` in ERROR, which only a reset leaves; or
    /// an arc failed: the device is then in the last state that it reached, or in ERROR.
    pub(crate) fn set_state<T: vfio::Driver>(
        &self,
        device: &vfio::Device<T>,
        new: vfio::migration::StateNumber,
    ) -> Result<Option<ARef<File>>> {
        self.with(|machine| {
            let mut file = None;
            loop {
                let current = machine.phase.state();
                if current == DeviceState::Error {
                    return Err(EIO);
                }
                if u32::from(current) == new {
                    return Ok(file);
                }
                let next = device.next_state(current.into(), new)?;
                let next = DeviceState::try_from(next).map_err(|_| EINVAL)?;
                file = machine.step(Step::between(current, next).ok_or(EINVAL)?)?;
            }
        })
    }

    /// Returns how many bytes stop-copy would transfer, at the most.
    pub(crate) fn data_size(&self) -> Result<u64> {
        self.with(|machine| {
            let mapped = machine.backend.mapped()?;
            Ok(Saver::<Error>::estimate(machine.backend.identity(), mapped))
        })
    }
}
