// SPDX-License-Identifier: GPL-2.0

//! Backends: what knows one kind of hardware.
//!
//! The driver asks a backend for run states, for the two ends of a transfer, which the VIFA layer
//! drives, and for a log of writes to guest memory. Nothing else in the driver knows how a device
//! does these.

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

/// How far a virtual function runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunState {
    /// It does what the guest tells it.
    Running,
    /// It starts no DMA and no interrupt, and takes what others send it.
    P2pQuiesced,
    /// Its state changes no more.
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

/// Why a log cannot tell which pages were written.
pub(crate) enum Unreported<F> {
    /// The task that asked is being killed.
    Killed,
    /// The log does not know: any page may have been written.
    Unknown(F),
}

/// A log of the device's writes to guest memory, from its start to its stop.
///
/// Dropped without a stop, it frees what the host holds of it, but the device may still log.
pub(crate) trait Log: Send + Unpin {
    /// What went wrong.
    type Fault: fmt::Display + Copy + Into<Error>;

    /// The ranges whose writes are logged: ascending, and none touches another.
    fn ranges(&self) -> &[Range];

    /// Bytes of a page of the log: a power of two.
    fn page_size(&self) -> u32;

    /// Tells `dirty` what was written in `part` since that was last told, and forgets it. What
    /// `part` has beyond the ranges is told as written, because nobody knows.
    ///
    /// A write that completed before the call is told by it, if it was not before; one that
    /// completes meanwhile by this call or by the next.
    ///
    /// A page that `part` has in part only is told of, but not forgotten.
    ///
    /// # Errors
    ///
    /// Some of what was written was forgotten and not told.
    fn report(
        &mut self,
        part: Range,
        dirty: impl FnMut(Range),
    ) -> Result<(), Unreported<Self::Fault>>;

    /// Has the device log no more.
    ///
    /// # Errors
    ///
    /// It may still log. A reset helps, or another start.
    fn stop(self) -> Result<(), Self::Fault>;
}

/// The log of a device that has none.
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

/// The device does not log its writes.
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

/// One virtual function of some kind of hardware.
pub(crate) trait Backend: Send + Sync + Sized + 'static {
    /// What can go wrong with the device; its text is for whoever migrates a virtual machine.
    type Fault: fmt::Display + Copy + Into<Error> + From<Error> + Send + Unpin;

    /// The device as the output party of a transfer.
    type Source: Source<Error = Self::Fault> + Send + Unpin;

    /// The device as the receiver of a transfer.
    type Destination: Destination<Error = Self::Fault> + Send + Unpin;

    /// The device's log of writes to guest memory.
    type Log: Log;

    /// The parts of the device's BARs that a guest reaches through [`Self::read`] and
    /// [`Self::write`] only: by ascending BAR and offset, and none overlaps another.
    const WINDOWS: &'static [Window] = &[];

    /// Begins to drive a device.
    ///
    /// # Errors
    ///
    /// The device is not what it has to be, or does not answer. The reason is in the log.
    fn probe(device: &pci::Device<Core<'_>>) -> Result<Arc<Self>>;

    /// Returns why the device cannot be migrated; `None` where it can. It does not change.
    ///
    /// Such a device works for its user, who is offered no migration.
    fn unsupported(&self) -> Option<Self::Fault> {
        None
    }

    /// The device is about to be given to a user, and has just been reset. `registers` are the
    /// backend's until [`Self::close`] has returned.
    fn open(&self, registers: Registers) -> Result {
        drop(registers);
        Ok(())
    }

    /// The user is gone; the device will be reset.
    fn close(&self) {}

    /// The device is about to be reset. Until [`Self::reset_settled`], no transfer, no log and no
    /// change of the run state may reach it: they fail with `EBUSY`. Must not sleep.
    fn reset_prepare(&self) {}

    /// The device has been reset, and its guest reaches it again. Must not sleep.
    fn reset(&self) {}

    /// No transfer and no log of before the reset is left. Must not sleep.
    fn reset_settled(&self) {}

    /// Returns why the device lost its state since its last reset, other than by a reset of its own;
    /// `None` where it did not. Must not sleep.
    fn loss(&self) -> Option<Loss> {
        None
    }

    /// Reads a register for the guest: the one at `offset`, a multiple of 4, of a window, which is
    /// given by its place in [`Self::WINDOWS`].
    ///
    /// # Errors
    ///
    /// `EBUSY` while the device is being reset: it is asked again after that.
    fn read(&self, window: usize, offset: u64) -> Result<u32> {
        let _ = (window, offset);
        Err(EINVAL)
    }

    /// Writes a register for the guest.
    ///
    /// # Errors
    ///
    /// As for [`Self::read`].
    fn write(&self, window: usize, offset: u64, value: u32) -> Result {
        let _ = (window, offset, value);
        Err(EINVAL)
    }

    /// What the device is; validated.
    fn identity(&self) -> &Identity;

    /// The device's two virtual interfaces.
    fn interfaces(&self) -> Interfaces;

    /// Returns the run state that the device is in.
    fn run_state(&self) -> Result<RunState, Self::Fault>;

    /// Brings the device into a run state, and returns when it is there.
    ///
    /// # Errors
    ///
    /// The device did not say that it got there. [`Self::run_state`] tells where it is.
    fn set_run_state(&self, state: RunState) -> Result<(), Self::Fault>;

    /// Returns how many bytes of local memory are mapped.
    fn mapped(&self) -> Result<u64, Self::Fault> {
        Ok(0)
    }

    /// Begins to save a device.
    fn source(device: &Arc<Self>) -> Result<Self::Source, Self::Fault>;

    /// Begins to restore a stopped device.
    fn destination(device: &Arc<Self>) -> Result<Self::Destination, Self::Fault>;

    /// Has the device log its writes to guest memory: to `ranges`, which ascend, do not touch one
    /// another and are multiples of `page_size`, in pages of `page_size` bytes or, where the device
    /// does not support those, of the next size below that it does.
    ///
    /// For a device with [`FEATURE_DIRTY_LOG`](crate::layer::identity::FEATURE_DIRTY_LOG) that does
    /// not log.
    fn start_log(
        device: &Arc<Self>,
        ranges: KVec<Range>,
        page_size: u64,
    ) -> Result<Self::Log, <Self::Log as Log>::Fault>;
}
