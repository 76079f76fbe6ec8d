// SPDX-License-Identifier: GPL-2.0

//! The migration of one device: its state and its current transfer.
//!
//! `include/uapi/linux/vfio.h` defines the states and the arcs between them. The VFIO core divides
//! transitions into arcs, which [`Machine::step`] carries out.

pub(crate) mod debugfs;
mod logging;
mod region;
mod session;
mod status;

pub(crate) use self::status::{
    Status,
    Unsupported, //
};
use self::{
    logging::Logging,
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
        file,
        migration::StateNumber,
        sriov::Loss, //
    }, //
};
use kernel::{
    fs::File,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
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
pub(crate) struct Machine<B: Backend> {
    backend: Arc<B>,
    status: Arc<Status>,
    phase: Phase<B>,
    pub(crate) logging: Logging<B>,
    /// Whether the device has a user.
    is_open: bool,
}

impl<B: Backend> Machine<B> {
    /// Creates the state machine of a device that is not open, in the state RUNNING.
    pub(crate) fn new(backend: &Arc<B>, status: &Arc<Status>) -> Self {
        Self {
            backend: backend.clone(),
            status: status.clone(),
            phase: Phase::Running,
            logging: Logging::new(backend.clone(), status.clone()),
            is_open: false,
        }
    }

    /// Enters RUNNING for a user of the device.
    ///
    /// # Errors
    ///
    /// The device does not enter the run state RUNNING.
    pub(crate) fn open(&mut self) -> Result<(), B::Fault> {
        if self.backend.run_state()? != RunState::Running {
            self.backend.set_run_state(RunState::Running)?;
        }
        self.enter(Phase::Running);
        self.is_open = true;
        Ok(())
    }

    /// Ends the transfer and the log of the user.
    pub(crate) fn close(&mut self) {
        self.enter(Phase::Running);
        // `stop` has reported its error.
        let _ = self.logging.stop();
        self.is_open = false;
    }

    /// Returns the present state.
    pub(crate) fn state(&self) -> DeviceState {
        self.phase.state()
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
        &mut self,
        device: &vfio::Device<T>,
        new: StateNumber,
    ) -> Result<Option<ARef<File>>> {
        let mut file = None;
        loop {
            let current = self.state();
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
            file = self.step(step, device)?.or(file);
        }
    }

    /// Returns an upper bound of the bytes that stop-copy would transfer, or has yet to transfer.
    pub(crate) fn data_size(&self) -> Result<u64> {
        let remaining = self.phase.sending().map(|session| session.remaining());
        if let Some(Ok(Some(remaining))) = remaining {
            return Ok(remaining);
        }
        let mapped = self.backend.mapped().map_err(|fault| {
            self.status.error(
                fault.into(),
                format_args!("failed to get MIG_DATA_SIZE: {fault}"),
            )
        })?;
        Ok(Saver::<B::Fault>::estimate(self.backend.identity(), mapped))
    }

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
    pub(crate) fn abandon(&mut self) {
        self.enter(Phase::Running);
        self.logging.forget();
    }

    /// Enters ERROR because the device lost its state.
    pub(crate) fn lose(&mut self, loss: Loss) {
        if self.is_open && !matches!(self.phase, Phase::Error) {
            self.enter(Phase::Error);
            self.status
                .refusal(EIO, format_args!("lost the state of the device: {loss}"));
        }
    }

    /// Checks that a device runs after a reset, and starts it if it does not.
    pub(crate) fn check_reset(&mut self) {
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

    /// Enters PRE_COPY or PRE_COPY_P2P, and returns the file of the transfer.
    fn begin_pre_copy<T: vfio::Driver>(&mut self, device: &vfio::Device<T>) -> Result<ARef<File>> {
        let (session, file) = self.begin(Begin::PreCopy, device)?;
        let phase = match self.phase {
            Phase::RunningP2p => Phase::PreCopyP2p(session),
            _ => Phase::PreCopy(session),
        };
        self.enter(phase);
        Ok(file)
    }

    /// Enters RESUMING, and returns the file of the transfer.
    fn begin_restore(&mut self) -> Result<ARef<File>> {
        let destination = B::destination(&self.backend).map_err(Into::into)?;
        let session = Receiving::new(destination, self.status.clone())?;
        let file = file::open(session.clone())?;
        self.enter(Phase::Resuming(session));
        Ok(file)
    }

    /// Ends a restore: the device takes its new state, and enters STOP.
    fn end_restore(&mut self) -> Result {
        let Phase::Resuming(session) = &self.phase else {
            return Err(EINVAL);
        };
        // The device may have received only part of its new state.
        if let Err(error) = session.clone().finish() {
            self.enter(Phase::Error);
            return Err(error);
        }
        self.enter(Phase::Stop);
        Ok(())
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
            Step::BeginPreCopy => return self.begin_pre_copy(device).map(Some),
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
            Step::BeginRestore => return self.begin_restore().map(Some),
            Step::EndSave => self.enter(Phase::Stop),
            Step::EndRestore => self.end_restore()?,
        }
        Ok(None)
    }
}
