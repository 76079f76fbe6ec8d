// SPDX-License-Identifier: GPL-2.0

//! Backends: what knows one kind of hardware.
//!
//! The driver asks a backend for run states, and for the two ends of a transfer, which the VIFA
//! layer drives. Nothing else in the driver knows how a device does these.

pub(crate) mod capability;

use crate::layer::{
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

/// One virtual function of some kind of hardware.
pub(crate) trait Backend: Send + Sync + Sized + 'static {
    /// The device as the output party of a transfer.
    type Source: Source<Error = Error> + Send + Unpin;

    /// The device as the receiver of a transfer.
    type Destination: Destination<Error = Error> + Send + Unpin;

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
}
