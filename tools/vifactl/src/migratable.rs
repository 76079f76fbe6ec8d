// SPDX-License-Identifier: GPL-2.0

//! A device whose state can be saved and restored.
//!
//! A save or restore leaves the device in the state in which it found it ([`Found`]), also on
//! failure.

use std::{
    fs::File,
    io::{Read, Write},
};

use anyhow::{Context, Result};

use crate::{device::Device, exit::Exit, layer::state::DeviceState, state::State};

/// A device with VFIO's migration protocol.
pub(crate) trait Migratable {
    /// The session through which a stream is read or written.
    type Session: Read + Write;

    /// Returns the device's name for messages.
    fn name(&self) -> String;

    /// Returns the migration state.
    fn state(&self) -> Result<DeviceState>;

    /// Changes the state to `state` along VFIO's arcs; returns the session, if the new state begins
    /// one.
    fn set_state(&self, state: DeviceState) -> Result<Option<Self::Session>>;

    /// Returns the estimated maximum size of the stream, in bytes.
    fn data_size(&self) -> Result<u64>;

    /// Resets the device, which then runs without its previous state.
    fn reset(&self) -> Result<()>;

    /// Returns the device's last error.
    fn last_error(&self) -> Option<String>;
}

impl Migratable for Device {
    type Session = File;

    fn name(&self) -> String {
        self.address().to_string()
    }

    fn state(&self) -> Result<DeviceState> {
        Device::state(self)
    }

    fn set_state(&self, state: DeviceState) -> Result<Option<File>> {
        Ok(Device::set_state(self, state)?.map(|session| session.0))
    }

    fn data_size(&self) -> Result<u64> {
        Device::data_size(self)
    }

    fn reset(&self) -> Result<()> {
        Device::reset(self)
    }

    fn last_error(&self) -> Option<String> {
        let region = crate::region::Region::decode(&self.region().ok()?).ok()?;

        Some(region.last_error?.text)
    }
}

/// A device that returns to its previous state, at the latest when this is dropped.
pub(crate) struct Found<'a, D: Migratable> {
    device: &'a D,
    state: DeviceState,
    away: bool,
}

impl<'a, D: Migratable> Found<'a, D> {
    /// Records the state of `device`.
    ///
    /// # Errors
    ///
    /// The device is being migrated or in the error state, and cannot return to that state.
    pub(crate) fn of(device: &'a D) -> Result<Self> {
        let state = device.state()?;

        match state {
            DeviceState::Running | DeviceState::RunningP2p | DeviceState::Stop => Ok(Self {
                device,
                state,
                away: false,
            }),
            DeviceState::Error => Err(Exit::Failed
                .because(format!(
                    "{} is in state ERROR, which only a reset leaves",
                    device.name()
                ))
                .into()),
            DeviceState::StopCopy
            | DeviceState::Resuming
            | DeviceState::PreCopy
            | DeviceState::PreCopyP2p => Err(Exit::Busy
                .because(format!(
                    "{} is being migrated (state {})",
                    device.name(),
                    State(state)
                ))
                .into()),
        }
    }

    /// Returns the recorded state.
    pub(crate) fn state(&self) -> DeviceState {
        self.state
    }

    /// Changes the state to `state`, which begins a session.
    ///
    /// # Errors
    ///
    /// The device failed to enter the state.
    pub(crate) fn begin(&mut self, state: DeviceState) -> Result<D::Session> {
        self.away = true;
        self.device.set_state(state)?.with_context(|| {
            format!(
                "{}: {} returned no data_fd",
                self.device.name(),
                State(state)
            )
        })
    }

    /// Returns the device to the recorded state.
    ///
    /// # Errors
    ///
    /// The device failed to enter the state.
    pub(crate) fn give_back(mut self) -> Result<()> {
        self.away = false;
        self.device.set_state(self.state).map(drop)
    }

    /// Resets the device, which discards its state, and returns it to the recorded state.
    ///
    /// # Errors
    ///
    /// The device failed to reset or to enter the state.
    pub(crate) fn reset(mut self) -> Result<()> {
        self.away = false;
        self.device.reset()?;
        self.device.set_state(self.state).map(drop)
    }
}

impl<D: Migratable> Drop for Found<'_, D> {
    fn drop(&mut self) {
        if self.away {
            if let Err(error) = self.device.set_state(self.state) {
                eprintln!("vifactl: {error:#}");
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod fake;
