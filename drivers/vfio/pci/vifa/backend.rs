// SPDX-License-Identifier: GPL-2.0

//! Backends: one for each kind of hardware.
//!
//! A backend controls the run state of a device, implements the two ends of a transfer, which the
//! VIFA layer drives, and logs writes to guest memory. The rest of the driver is independent of the
//! hardware.

pub(crate) mod capability;
pub(crate) mod igb;

use crate::{
    layer::{
        address::Range,
        identity::Identity,
        interface::Interfaces,
        restore::Destination,
        save::Source, //
    },
    vfio::{
        bar::{
            Registers,
            Window, //
        },
        sriov::Loss, //
    },
};
use core::fmt;
use kernel::{
    device::Core,
    pci,
    prelude::*,
    sync::Arc, //
};

/// The run state of a virtual function.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunState {
    /// The device executes the guest's commands.
    Running,
    /// The device starts no DMA and no interrupt, but accepts accesses by other devices.
    P2pQuiesced,
    /// The state of the device does not change.
    Stopped,
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::P2pQuiesced => "P2P-quiesced",
            Self::Stopped => "stopped",
        })
    }
}

/// The reason why a log cannot report the dirty pages.
pub(crate) enum Unreported<F> {
    /// The calling task is being killed.
    Killed,
    /// The log is lost: any page may have been written.
    Unknown(F),
}

/// A log of the device's writes to guest memory, from its start to its stop.
///
/// If the log is dropped without [`Self::stop`], the host's resources are freed, but the device may
/// still log.
pub(crate) trait Log: Send + Unpin {
    /// The error of an operation on the log.
    type Fault: fmt::Display + Copy + Into<Error>;

    /// Returns the logged ranges, in ascending order. No two of them touch.
    fn ranges(&self) -> &[Range];

    /// Returns the page size of the log in bytes, a power of two.
    fn page_size(&self) -> u32;

    /// Calls `dirty` for the ranges of `part` that were written since their last report, and clears
    /// them in the log. Memory of `part` outside of the logged ranges is reported as dirty, because
    /// its state is unknown.
    ///
    /// This call reports each write that completed before it and was not reported earlier. A write
    /// that completes during the call is reported by this call or by the next.
    ///
    /// A page that is only partly inside `part` is reported, but not cleared.
    ///
    /// # Errors
    ///
    /// Some writes were cleared without being reported.
    fn report(
        &mut self,
        part: Range,
        dirty: impl FnMut(Range),
    ) -> Result<(), Unreported<Self::Fault>>;

    /// Stops the log.
    ///
    /// # Errors
    ///
    /// The device may still log, until it is reset or another log is started.
    fn stop(self) -> Result<(), Self::Fault>;
}

/// The log type of a device that does not log writes. It has no values.
pub(crate) enum NoLog {}

impl Log for NoLog {
    type Fault = NotLogged;

    fn ranges(&self) -> &[Range] {
        match *self {}
    }

    fn page_size(&self) -> u32 {
        match *self {}
    }

    fn report(
        &mut self,
        _part: Range,
        _dirty: impl FnMut(Range),
    ) -> Result<(), Unreported<NotLogged>> {
        match *self {}
    }

    fn stop(self) -> Result<(), NotLogged> {
        match self {}
    }
}

/// The error of a device that does not log its writes.
#[derive(Clone, Copy)]
pub(crate) struct NotLogged;

impl fmt::Display for NotLogged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the device does not log its writes")
    }
}

impl From<NotLogged> for Error {
    fn from(NotLogged: NotLogged) -> Self {
        EOPNOTSUPP
    }
}

/// A virtual function of one kind of hardware.
pub(crate) trait Backend: Send + Sync + Sized + 'static {
    /// The error of an operation on the device. Its text is for the user who migrates a virtual
    /// machine.
    type Fault: fmt::Display + Copy + Into<Error> + From<Error> + Send + Unpin;

    /// The device as the output party of a transfer.
    type Source: Source<Error = Self::Fault> + Send + Unpin;

    /// The device as the receiver of a transfer.
    type Destination: Destination<Error = Self::Fault> + Send + Unpin;

    /// The device's log of writes to guest memory.
    type Log: Log;

    /// The parts of the device's BARs that a guest accesses only through [`Self::read`] and
    /// [`Self::write`], in ascending order of BAR and offset. No two of them overlap.
    const WINDOWS: &'static [Window] = &[];

    /// Probes a device.
    ///
    /// # Errors
    ///
    /// The device is invalid or does not answer. The function logs the reason.
    fn probe(device: &pci::Device<Core<'_>>) -> Result<Arc<Self>>;

    /// Returns the reason why the device cannot be migrated, or `None` if it can. The result does
    /// not change.
    ///
    /// Such a device works, but migration is not offered to its user.
    fn unsupported(&self) -> Option<Self::Fault> {
        None
    }

    /// Opens the device, which has just been reset, for a user. The backend may use `registers`
    /// until [`Self::close`] has returned.
    fn open(&self, registers: Registers) -> Result {
        drop(registers);
        Ok(())
    }

    /// Closes the device. It will be reset.
    fn close(&self) {}

    /// Prepares for a reset of the device. Until [`Self::reset_settled`], no transfer, no log and
    /// no change of the run state may reach the device: they fail with `EBUSY`. Must not sleep.
    fn reset_prepare(&self) {}

    /// Handles a completed reset. The guest can access the device again. Must not sleep.
    fn reset(&self) {}

    /// Allows access to the device again. No transfer and no log from before the reset remains.
    /// Must not sleep.
    fn reset_settled(&self) {}

    /// Returns the reason why the device lost its state since its last reset, unless by a reset of
    /// the device itself. Returns `None` if the device kept its state. Must not sleep.
    fn loss(&self) -> Option<Loss> {
        None
    }

    /// Reads a register for the guest. `window` is an index into [`Self::WINDOWS`], and `offset`, a
    /// multiple of 4, is the offset of the register in that window.
    ///
    /// # Errors
    ///
    /// `EBUSY` while the device is being reset. The caller repeats the call after the reset.
    fn read(&self, window: usize, offset: u64) -> Result<u32> {
        let _ = (window, offset);
        Err(EINVAL)
    }

    /// Writes a register for the guest.
    ///
    /// # Errors
    ///
    /// The same as for [`Self::read`].
    fn write(&self, window: usize, offset: u64, value: u32) -> Result {
        let _ = (window, offset, value);
        Err(EINVAL)
    }

    /// Returns the identity of the device, which has been validated.
    fn identity(&self) -> &Identity;

    /// Returns the device's two virtual interfaces.
    fn interfaces(&self) -> Interfaces;

    /// Returns the run state of the device.
    fn run_state(&self) -> Result<RunState, Self::Fault>;

    /// Moves the device to a run state, and waits until it is reached.
    ///
    /// # Errors
    ///
    /// The device did not report that it reached the state. [`Self::run_state`] returns the actual
    /// state.
    fn set_run_state(&self, state: RunState) -> Result<(), Self::Fault>;

    /// Returns the size in bytes of the mapped local memory.
    fn mapped(&self) -> Result<u64, Self::Fault> {
        Ok(0)
    }

    /// Begins to save a device.
    fn source(device: &Arc<Self>) -> Result<Self::Source, Self::Fault>;

    /// Begins to restore a stopped device.
    fn destination(device: &Arc<Self>) -> Result<Self::Destination, Self::Fault>;

    /// Starts to log the device's writes to the guest memory in `ranges`. The ranges ascend, do not
    /// touch one another, and are multiples of `page_size`. The page size of the log is `page_size`
    /// or, if the device does not support that, the next lower size that it supports.
    ///
    /// The device has [`FEATURE_DIRTY_LOG`](crate::layer::identity::FEATURE_DIRTY_LOG), and no log
    /// is active.
    fn start_log(
        device: &Arc<Self>,
        ranges: KVec<Range>,
        page_size: u64,
    ) -> Result<Self::Log, <Self::Log as Log>::Fault>;
}
