// SPDX-License-Identifier: GPL-2.0

//! The migration of one device: its state and its current transfer.
//!
//! `include/uapi/linux/vfio.h` defines the states and the arcs between them. The VFIO core divides
//! transitions into arcs, which [`Machine::step`] carries out.
//!
//! # Resets
//!
//! Neither the VFIO core nor the PCI core serialises a reset with other calls. A reset by
//! `VFIO_DEVICE_RESET`, by the guest or by the administrator can begin at any time, and takes
//! 100 ms on most devices. It is handled in three steps:
//!
//! - [`Migration::reset_prepare`], before the device is reset, makes the backend block every access
//!   that would change the device. The reset undoes earlier changes.
//! - [`Migration::reset_done`] records that the device was reset.
//! - [`Migration::settle`] ends the transfer and the log that began before the reset, unblocks the
//!   backend, and checks that the device runs.
//!
//! As a result, no operation from before a reset reaches the device after it. The state is RUNNING
//! if the device runs, and ERROR otherwise. A call that begins during a reset waits for the
//! end of that reset. A call that is in progress when a reset begins may fail with `EBUSY`, or with
//! `ECANCELED` if the device had already started the operation.
//!
//! The PCI core calls back while the VFIO core holds `memory_lock`, which a page fault takes under
//! `mmap_lock`. `machine` is locked while memory is allocated, and while the bitmap of user space
//! is pinned, which takes `mmap_lock`. The callbacks must therefore not wait for `machine`. If it
//! is locked, its holder settles the reset ([`Migration::unlock`]).
//!
//! # Errors
//!
//! A PCI error, or a reset of the physical function, destroys the state of the device. The
//! callback takes no lock for that. The next holder of `machine` finds the error and sets the state
//! to ERROR, where it remains until the device is reset.
//!
//! Lock order: `machine`, then the session of a migration file, then the backend's mutexes or the
//! status. `reset` comes last, before the spinlocks of the backend.

pub(crate) mod debugfs;
mod logging;
mod region;
mod session;
mod status;

pub(crate) use self::status::Unsupported;
use self::{
    logging::Logging,
    session::{
        Receiving,
        Sending, //
    },
    status::Status, //
};
use crate::{
    backend::{
        Backend,
        RunState, //
    },
    layer::{
        save::{
            Begin,
            Saver, //
        },
        state::{
            DeviceState,
            Step, //
        },
    },
    vfio::{
        self,
        bar::Registers,
        file,
        logging::{
            DirtyBitmap,
            Ranges, //
        },
        sriov::Loss, //
    }, //
};
use kernel::{
    fs::File,
    new_condvar,
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
        CondVar,
        Mutex,
        SpinLock, //
    }, //
};

/// The state of a device, with the transfer of that state.
enum Phase<B: Backend> {
    Error,
    Stop,
    Running,
    RunningP2p,
    PreCopy(Arc<Sending<B>>),
    PreCopyP2p(Arc<Sending<B>>),
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
            Self::PreCopy(_) => DeviceState::PreCopy,
            Self::PreCopyP2p(_) => DeviceState::PreCopyP2p,
            Self::StopCopy(_) => DeviceState::StopCopy,
            Self::Resuming(_) => DeviceState::Resuming,
        }
    }

    /// Returns the session that saves the device, if any.
    fn sending(&self) -> Option<&Arc<Sending<B>>> {
        match self {
            Self::PreCopy(session) | Self::PreCopyP2p(session) | Self::StopCopy(session) => {
                Some(session)
            }
            Self::Error | Self::Stop | Self::Running | Self::RunningP2p | Self::Resuming(_) => None,
        }
    }
}

/// The state machine, which carries out the arcs.
struct Machine<B: Backend> {
    backend: Arc<B>,
    status: Arc<Status>,
    phase: Phase<B>,
    logging: Logging<B>,
    /// Whether the device has a user.
    is_open: bool,
}

impl<B: Backend> Machine<B> {
    /// Enters a phase. The transfer of the previous phase ends, unless it continues in this one.
    fn enter(&mut self, phase: Phase<B>) {
        let before = core::mem::replace(&mut self.phase, phase);
        if let Some(session) = before.sending() {
            let next = self.phase.sending();
            if !next.is_some_and(|next| Arc::ptr_eq(session, next)) {
                session.end();
            }
        }
        if let Phase::Resuming(session) = before {
            session.end();
        }
        self.status.entered(self.phase.state());
    }

    /// Moves the device to a run state, and enters `phase` when the device has reached it.
    ///
    /// A device that refuses and reports an unchanged run state stays in its phase. A device that
    /// does not answer enters ERROR.
    fn run(&mut self, state: RunState, phase: Phase<B>) -> Result {
        // If the run state cannot be read, the device is gone or fails. It gets no command.
        let (before, fault) = match self.backend.run_state() {
            Ok(before) => match self.backend.set_run_state(state) {
                Ok(()) => {
                    self.enter(phase);
                    return Ok(());
                }
                Err(fault) => (Some(before), fault),
            },
            Err(fault) => (None, fault),
        };
        let error = fault.into();
        // After a reset, `settle` decides on the state.
        let is_reset = error == EBUSY;
        let is_unchanged = before.is_some() && before == self.backend.run_state().ok();
        if !is_reset && (error == ETIMEDOUT || !is_unchanged) {
            self.enter(Phase::Error);
        }
        let next = phase.state();
        Err(self
            .status
            .refusal(error, format_args!("failed to enter {next}: {fault}")))
    }

    /// Ends the transfer and the log of a device that was reset.
    fn abandon(&mut self) {
        self.enter(Phase::Running);
        self.logging.forget();
    }

    /// Enters ERROR because the device lost its state.
    fn lose(&mut self, loss: Loss) {
        if self.is_open && !matches!(self.phase, Phase::Error) {
            self.enter(Phase::Error);
            self.status
                .refusal(EIO, format_args!("lost the state of the device: {loss}"));
        }
    }

    /// Checks that a device runs after a reset, and starts it if it does not.
    fn check_reset(&mut self) {
        if !self.is_open {
            return;
        }
        let runs = match self.backend.run_state() {
            Ok(RunState::Running) => Ok(()),
            Ok(_) => self.backend.set_run_state(RunState::Running),
            Err(fault) => Err(fault),
        };
        if let Err(fault) = runs {
            self.enter(Phase::Error);
            self.status.refusal(
                fault.into(),
                format_args!("failed to enter RUNNING after a reset: {fault}"),
            );
        }
    }

    /// Opens a session that saves the device.
    fn begin<T: vfio::Driver>(
        &self,
        begin: Begin,
        device: &vfio::Device<T>,
    ) -> Result<(Arc<Sending<B>>, ARef<File>)> {
        let session = Sending::new(
            begin,
            B::source(&self.backend).map_err(Into::into)?,
            device.reference(),
            self.status.clone(),
        )?;
        let file = file::open(session.clone())?;
        Ok((session, file))
    }

    /// Carries out one arc. Returns the file of a transfer that begins with it.
    fn step<T: vfio::Driver>(
        &mut self,
        step: Step,
        device: &vfio::Device<T>,
    ) -> Result<Option<ARef<File>>> {
        let sending = self.phase.sending().cloned();
        match step {
            Step::Run => {
                let phase = sending.map_or(Phase::Running, Phase::PreCopy);
                self.run(RunState::Running, phase)?;
            }
            Step::Quiesce => {
                let phase = sending.map_or(Phase::RunningP2p, Phase::PreCopyP2p);
                self.run(RunState::P2pQuiesced, phase)?;
            }
            Step::Stop => self.run(RunState::Stopped, Phase::Stop)?,
            Step::BeginPreCopy => {
                let (session, file) = self.begin(Begin::PreCopy, device)?;
                let phase = match self.phase {
                    Phase::RunningP2p => Phase::PreCopyP2p(session),
                    _ => Phase::PreCopy(session),
                };
                self.enter(phase);
                return Ok(Some(file));
            }
            Step::CancelPreCopy => {
                let phase = match self.phase {
                    Phase::PreCopyP2p(_) => Phase::RunningP2p,
                    _ => Phase::Running,
                };
                self.enter(phase);
            }
            Step::StopSave => {
                let session = sending.ok_or(EINVAL)?;
                let tracked = self.logging.tracked()?;
                self.run(RunState::Stopped, Phase::StopCopy(session.clone()))?;
                session.stopped(tracked);
            }
            Step::BeginSave => {
                let (session, file) = self.begin(Begin::Stopped, device)?;
                session.stopped(self.logging.tracked()?);
                self.enter(Phase::StopCopy(session));
                return Ok(Some(file));
            }
            Step::BeginRestore => {
                let destination = B::destination(&self.backend).map_err(Into::into)?;
                let session = Receiving::new(destination, self.status.clone())?;
                let file = file::open(session.clone())?;
                self.enter(Phase::Resuming(session));
                return Ok(Some(file));
            }
            Step::EndSave => self.enter(Phase::Stop),
            Step::EndRestore => {
                let Phase::Resuming(session) = &self.phase else {
                    return Err(EINVAL);
                };
                // The device may have received only part of its new state.
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

/// The progress of a reset.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reset {
    /// No reset is in progress or unsettled.
    Settled,
    /// The PCI core is resetting the device.
    InProgress,
    /// The device was reset. The holder of `machine` has to settle the reset.
    Unsettled,
}

/// The resets of a device.
struct Resets {
    last: Reset,
    /// Number of resets that have ended, modulo 2^32.
    ended: u32,
    /// Loss that the PCI core has reported since the last reset.
    loss: Option<Loss>,
}

/// The migration of one device.
#[pin_data]
pub(crate) struct Migration<B: Backend> {
    backend: Arc<B>,
    status: Arc<Status>,
    #[pin]
    machine: Mutex<Machine<B>>,
    #[pin]
    reset: SpinLock<Resets>,
    /// Notified when a reset has ended.
    #[pin]
    reset_ended: CondVar,
}

impl<B: Backend> Migration<B> {
    /// Creates a migration in the state RUNNING.
    pub(crate) fn new(backend: Arc<B>, device: ARef<pci::Device>) -> Result<Arc<Self>> {
        let status = Status::new(
            device,
            *backend.identity(),
            backend.interfaces(),
            backend.unsupported().map(Unsupported),
        );
        let status = Arc::pin_init(status, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                machine <- new_mutex!(
                    Machine {
                        backend: backend.clone(),
                        status: status.clone(),
                        phase: Phase::Running,
                        logging: Logging::new(status.clone()),
                        is_open: false,
                    },
                    "vifa_migration"
                ),
                reset <- new_spinlock!(
                    Resets {
                        last: Reset::Settled,
                        ended: 0,
                        loss: None,
                    },
                    "vifa_reset"
                ),
                reset_ended <- new_condvar!("vifa_reset"),
                backend,
                status,
            }),
            GFP_KERNEL,
        )
    }

    /// Returns the backend.
    pub(crate) fn backend(&self) -> &B {
        &self.backend
    }

    /// Returns the migration region, for the device's user.
    pub(crate) fn region(&self) -> Arc<impl vfio::region::Region> {
        self.status.clone()
    }

    /// Creates the debugfs files, which show the same content under the name of `device`.
    pub(crate) fn debugfs_files(&self, device: &pci::Device) -> Result<debugfs::Files> {
        debugfs::Files::new(device, &self.status)
    }

    fn with<R>(&self, act: impl FnOnce(&mut Machine<B>) -> R) -> R {
        let mut machine = self.machine.lock();
        self.settle(&mut machine);
        let reported = self.reset.lock().loss;
        if let Some(loss) = reported.or(self.backend.loss()) {
            machine.lose(loss);
        }
        let result = act(&mut machine);
        self.unlock(machine);
        result
    }

    /// Runs `act` for the user, after waiting for a reset that is in progress.
    fn call<R>(&self, act: impl FnOnce(&mut Machine<B>) -> Result<R>) -> Result<R> {
        self.wait_for_reset()?;
        self.with(act)
    }

    /// Waits for the end of a reset that is in progress. Does not wait for later resets.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS` if a signal arrives.
    fn wait_for_reset(&self) -> Result {
        let mut reset = self.reset.lock();
        let ended = reset.ended;
        while reset.last == Reset::InProgress && reset.ended == ended {
            if self.reset_ended.wait_interruptible(&mut reset) {
                return Err(ERESTARTSYS);
            }
        }
        Ok(())
    }

    /// Settles a reset: the device runs, any transfer has ended, and writes are not logged.
    fn settle(&self, machine: &mut Machine<B>) {
        while self.reset.lock().last == Reset::Unsettled {
            machine.abandon();
            let mut reset = self.reset.lock();
            if reset.last == Reset::Unsettled {
                reset.last = Reset::Settled;
                reset.loss = None;
                // Under the lock: another reset that begins blocks the backend again.
                self.backend.reset_settled();
                drop(reset);
                machine.check_reset();
            }
        }
    }

    /// Settles any reset that ended in the meantime, then unlocks the state.
    fn unlock(&self, mut machine: Guard<'_, Machine<B>, MutexBackend>) {
        loop {
            self.settle(&mut machine);
            let reset = self.reset.lock();
            if reset.last != Reset::Unsettled {
                // Before `reset` is unlocked: if a reset finds the state locked, the holder must
                // still settle that reset.
                drop(machine);
                return;
            }
        }
    }

    /// Prepares for a reset: no access changes the device until the reset is settled.
    pub(crate) fn reset_prepare(&self) {
        let mut reset = self.reset.lock();
        reset.last = Reset::InProgress;
        self.backend.reset_prepare();
    }

    /// Records that the device has been reset, and settles the reset if the state is not locked.
    pub(crate) fn reset_done(&self) {
        let mut reset = self.reset.lock();
        self.backend.reset();
        reset.last = Reset::Unsettled;
        reset.ended = reset.ended.wrapping_add(1);
        drop(reset);
        if let Some(machine) = self.machine.try_lock() {
            self.unlock(machine);
        }
        self.reset_ended.notify_all();
    }

    /// Records an uncorrectable error of the device that the PCI core has reported.
    pub(crate) fn error_detected(&self, loss: Loss) {
        self.reset.lock().loss = Some(loss);
    }

    /// Opens the device for a user, who can also access its registers.
    ///
    /// # Errors
    ///
    /// The device does not enter the run state RUNNING.
    pub(crate) fn open(&self, registers: Registers) -> Result {
        self.wait_for_reset()?;
        self.status.opened();
        self.backend.open(registers)?;
        let running = self.with(|machine| {
            if machine.backend.run_state()? != RunState::Running {
                machine.backend.set_run_state(RunState::Running)?;
            }
            machine.enter(Phase::Running);
            machine.is_open = true;
            Ok(())
        });
        running.map_err(|fault: B::Fault| {
            self.backend.close();
            self.status.error(
                fault.into(),
                format_args!("failed to enter RUNNING at open: {fault}"),
            )
        })
    }

    /// Ends the transfer and the log of the user, and closes the device.
    pub(crate) fn close(&self) {
        self.with(|machine| {
            machine.enter(Phase::Running);
            // `stop` has reported its error.
            let _ = machine.logging.stop();
            machine.is_open = false;
        });
        self.backend.close();
    }

    /// Returns the present state.
    pub(crate) fn state(&self) -> DeviceState {
        self.with(|machine| machine.phase.state())
    }

    /// Moves the device to the state with the number `new`, arc by arc.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if no path leads to such a state.
    /// - `EIO` in ERROR, which only a reset leaves.
    /// - `EBUSY` or `ECANCELED` if a reset interrupted the call.
    /// - The error of an arc that failed. The device is then in the last state that it reached, or
    ///   in ERROR.
    pub(crate) fn set_state<T: vfio::Driver>(
        &self,
        device: &vfio::Device<T>,
        new: vfio::migration::StateNumber,
    ) -> Result<Option<ARef<File>>> {
        self.call(|machine| {
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
                let step = Step::between(current, next).ok_or(EINVAL)?;
                // A transfer that continues keeps its file.
                file = machine.step(step, device)?.or(file);
            }
        })
    }

    /// Returns an upper bound of the bytes that stop-copy would transfer, or has yet to transfer.
    pub(crate) fn data_size(&self) -> Result<u64> {
        self.call(|machine| {
            let remaining = machine.phase.sending().map(|session| session.remaining());
            if let Some(Ok(Some(remaining))) = remaining {
                return Ok(remaining);
            }
            let mapped = machine.backend.mapped().map_err(|fault| {
                machine.status.error(
                    fault.into(),
                    format_args!("failed to get MIG_DATA_SIZE: {fault}"),
                )
            })?;
            Ok(Saver::<B::Fault>::estimate(
                machine.backend.identity(),
                mapped,
            ))
        })
    }

    /// Starts to log writes to guest memory. Returns the page size.
    ///
    /// # Errors
    ///
    /// `EINVAL` if writes are already logged, or if a range or the page size is invalid. Otherwise
    /// the error of the device.
    pub(crate) fn log_start(&self, ranges: Ranges<'_>, page_size: u64) -> Result<u64> {
        self.call(|machine| machine.logging.start(&machine.backend, ranges, page_size))
    }

    /// Stops logging writes, if they were logged.
    pub(crate) fn log_stop(&self) -> Result {
        self.call(|machine| machine.logging.stop())
    }

    /// Reports the pages that the device wrote.
    ///
    /// # Errors
    ///
    /// `EINVAL` if writes are not logged, `EINTR` if the task is being killed.
    pub(crate) fn log_report(&self, iova: u64, length: u64, dirty: &mut DirtyBitmap<'_>) -> Result {
        self.call(|machine| machine.logging.report(iova, length, dirty))
    }
}
