// SPDX-License-Identifier: GPL-2.0

//! The VFIO migration states and the arcs between them.
//!
//! A driver carries out single arcs; `vfio_mig_get_next_state()` divides every other transition
//! into these. [`Step`] names the arcs of a device with `VFIO_MIGRATION_STOP_COPY` and
//! `VFIO_MIGRATION_PRE_COPY`, with and without `VFIO_MIGRATION_P2P`, so that whoever carries them
//! out has to name them all.

use core::fmt;

/// A migration state; the values are those of `enum vfio_device_mig_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DeviceState {
    /// The device has failed and must be reset.
    Error = 0,
    /// The device changes neither its own state nor anything else.
    Stop = 1,
    /// The device runs normally.
    Running = 2,
    /// Stopped, and its state can be read out.
    StopCopy = 3,
    /// Stopped, and takes a new state.
    Resuming = 4,
    /// Running, except that it starts no peer-to-peer DMA.
    RunningP2p = 5,
    /// Running, and its state can be read out.
    PreCopy = 6,
    /// As [`Self::PreCopy`], except that it starts no peer-to-peer DMA.
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

/// A number that is no migration state.
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
    /// RUNNING_P2P or STOP -> RUNNING, PRE_COPY_P2P -> PRE_COPY: the device does what the guest
    /// tells it.
    Run,
    /// RUNNING or STOP -> RUNNING_P2P, PRE_COPY -> PRE_COPY_P2P: the device starts no DMA, and takes
    /// accesses.
    Quiesce,
    /// RUNNING_P2P or RUNNING -> STOP: the device's state stands still.
    Stop,
    /// RUNNING -> PRE_COPY, RUNNING_P2P -> PRE_COPY_P2P: opens a session that saves, while the
    /// device goes on as it does.
    BeginPreCopy,
    /// PRE_COPY -> RUNNING, PRE_COPY_P2P -> RUNNING_P2P: ends the session that saves; the device
    /// goes on as it does.
    CancelPreCopy,
    /// PRE_COPY or PRE_COPY_P2P -> STOP_COPY: the device's state stands still; the session goes on.
    StopSave,
    /// STOP -> STOP_COPY: opens a session that saves.
    BeginSave,
    /// STOP_COPY -> STOP: ends the session that saves.
    EndSave,
    /// STOP -> RESUMING: opens a session that restores.
    BeginRestore,
    /// RESUMING -> STOP: ends the session that restores; the device takes the new state.
    EndRestore,
}

impl Step {
    /// Returns the arc from `current` to `next`, if there is one.
    ///
    /// The arcs from RUNNING and PRE_COPY to STOP and STOP_COPY, and those back, are those of a
    /// device without RUNNING_P2P.
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
