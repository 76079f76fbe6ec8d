// SPDX-License-Identifier: GPL-2.0

//! Backends: what knows one kind of hardware.
//!
//! The driver asks a backend for run states, for the two ends of a transfer, which the VIFA layer
//! drives, and for a log of writes to guest memory. Nothing else in the driver knows how a device
//! does these.

pub(crate) mod capability;

use crate::layer::{
    address::Range,
    identity::Identity,
    interface::Interfaces,
    restore::Destination,
    save::Source, //
};
use core::fmt;
use kernel::{
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

/// One virtual function of some kind of hardware.
pub(crate) trait Backend: Send + Sync + Sized + 'static {
    /// The device as the output party of a transfer.
    type Source: Source<Error = Error> + Send + Unpin;

    /// The device as the receiver of a transfer.
    type Destination: Destination<Error = Error> + Send + Unpin;

    /// The device's log of writes to guest memory.
    type Log: Log;

    /// What the device is; validated.
    fn identity(&self) -> &Identity;

    /// The device's two virtual interfaces.
    fn interfaces(&self) -> Interfaces;

    /// Returns the run state that the device is in.
    fn run_state(&self) -> Result<RunState>;

    /// Brings the device into a run state, and returns when it is there.
    ///
    /// # Errors
    ///
    /// The device did not say that it got there. [`Self::run_state`] tells where it is.
    fn set_run_state(&self, state: RunState) -> Result;

    /// Returns how many bytes of local memory are mapped.
    fn mapped(&self) -> Result<u64>;

    /// Begins to save a stopped device.
    fn source(device: &Arc<Self>) -> Result<Self::Source>;

    /// Begins to restore a stopped device.
    fn destination(device: &Arc<Self>) -> Result<Self::Destination>;

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
