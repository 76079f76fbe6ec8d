// SPDX-License-Identifier: GPL-2.0

//! The VFIO migration states and the arcs between them.
//!
//! A driver carries out single arcs. `vfio_mig_get_next_state()` divides every other transition
//! into single arcs. [`Step`] names the arcs of a device with `VFIO_MIGRATION_STOP_COPY` and
//! `VFIO_MIGRATION_PRE_COPY`, with and without `VFIO_MIGRATION_P2P`, so that the compiler requires
//! an implementation of each.

use core::fmt;

/// A migration state, with the value of `enum vfio_device_mig_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DeviceState {
    /// The device has failed and must be reset.
    Error = 0,
    /// The device is stopped. Neither its state nor memory changes.
    Stop = 1,
    /// The device runs normally.
    Running = 2,
    /// The device is stopped. User space can read its state.
    StopCopy = 3,
    /// The device is stopped. User space can write a new state.
    Resuming = 4,
    /// The device runs, but starts no peer-to-peer DMA.
    RunningP2p = 5,
    /// The device runs. User space can read its state.
    PreCopy = 6,
    /// As [`Self::PreCopy`], but the device starts no peer-to-peer DMA.
    PreCopyP2p = 7,
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "ERROR",
            Self::Stop => "STOP",
            Self::Running => "RUNNING",
            Self::StopCopy => "STOP_COPY",
            Self::Resuming => "RESUMING",
            Self::RunningP2p => "RUNNING_P2P",
            Self::PreCopy => "PRE_COPY",
            Self::PreCopyP2p => "PRE_COPY_P2P",
        })
    }
}

impl From<DeviceState> for u32 {
    fn from(state: DeviceState) -> u32 {
        state as u32
    }
}

/// The error of a number that is not a migration state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownState(pub u32);

impl TryFrom<u32> for DeviceState {
    type Error = UnknownState;

    fn try_from(value: u32) -> Result<Self, UnknownState> {
        Ok(match value {
            0 => Self::Error,
            1 => Self::Stop,
            2 => Self::Running,
            3 => Self::StopCopy,
            4 => Self::Resuming,
            5 => Self::RunningP2p,
            6 => Self::PreCopy,
            7 => Self::PreCopyP2p,
            _ => return Err(UnknownState(value)),
        })
    }
}

/// A single arc of the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// RUNNING_P2P or STOP -> RUNNING, PRE_COPY_P2P -> PRE_COPY: the device executes the guest's
    /// commands.
    Run,
    /// RUNNING or STOP -> RUNNING_P2P, PRE_COPY -> PRE_COPY_P2P: the device starts no DMA, but
    /// accepts accesses.
    Quiesce,
    /// RUNNING_P2P or RUNNING -> STOP: the device's state no longer changes.
    Stop,
    /// RUNNING -> PRE_COPY, RUNNING_P2P -> PRE_COPY_P2P: opens a save session. The run state of the
    /// device does not change.
    BeginPreCopy,
    /// PRE_COPY -> RUNNING, PRE_COPY_P2P -> RUNNING_P2P: ends the save session. The run state of
    /// the device does not change.
    CancelPreCopy,
    /// PRE_COPY or PRE_COPY_P2P -> STOP_COPY: the device's state no longer changes. The save
    /// session continues.
    StopSave,
    /// STOP -> STOP_COPY: opens a save session.
    BeginSave,
    /// STOP_COPY -> STOP: ends the save session.
    EndSave,
    /// STOP -> RESUMING: opens a restore session.
    BeginRestore,
    /// RESUMING -> STOP: ends the restore session. The device takes the new state.
    EndRestore,
}

impl Step {
    /// Returns the arc from `current` to `next`, if it exists.
    ///
    /// A device without RUNNING_P2P uses the arcs from RUNNING and PRE_COPY to STOP and STOP_COPY,
    /// and the arcs back.
    pub fn between(current: DeviceState, next: DeviceState) -> Option<Self> {
        use DeviceState::*;

        match (current, next) {
            (RunningP2p | Stop, Running) | (PreCopyP2p, PreCopy) => Some(Self::Run),
            (Running | Stop, RunningP2p) | (PreCopy, PreCopyP2p) => Some(Self::Quiesce),
            (RunningP2p | Running, Stop) => Some(Self::Stop),
            (Running, PreCopy) | (RunningP2p, PreCopyP2p) => Some(Self::BeginPreCopy),
            (PreCopy, Running) | (PreCopyP2p, RunningP2p) => Some(Self::CancelPreCopy),
            (PreCopy | PreCopyP2p, StopCopy) => Some(Self::StopSave),
            (Stop, StopCopy) => Some(Self::BeginSave),
            (StopCopy, Stop) => Some(Self::EndSave),
            (Stop, Resuming) => Some(Self::BeginRestore),
            (Resuming, Stop) => Some(Self::EndRestore),
            _ => None,
        }
    }
}
