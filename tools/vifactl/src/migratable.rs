// SPDX-License-Identifier: GPL-2.0

//! A device whose state is taken away and given back, whatever it is reached by.
//!
//! Whoever saves or restores finds a device in a state and leaves it there ([`Found`]), also when
//! something fails on the way.

use std::{
    fs::File,
    io::{Read, Write},
};

use anyhow::{Context, Result};

use crate::{device::Device, exit::Exit, layer::state::DeviceState, state::State};

/// A device that speaks VFIO's migration protocol.
pub(crate) trait Migratable {
    /// What moves a stream.
    type Session: Read + Write;

    /// The device's name in messages.
    fn name(&self) -> String;

    /// Its migration state.
    fn state(&self) -> Result<DeviceState>;

    /// Brings it to `state`, by the arcs that lead there; returns the session that this begins.
    fn set_state(&self, state: DeviceState) -> Result<Option<Self::Session>>;

    /// Most bytes that its stream has, as it estimates.
    fn data_size(&self) -> Result<u64>;

    /// Resets it: it runs then, and has lost its state.
    fn reset(&self) -> Result<()>;

    /// What it says that went wrong last.
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

/// A device that is brought back to the state that it was found in, at the latest when this is
/// dropped.
pub(crate) struct Found<'a, D: Migratable> {
    device: &'a D,
    state: DeviceState,
    away: bool,
}

impl<'a, D: Migratable> Found<'a, D> {
    /// Takes note of the state of `device`.
    ///
    /// # Errors
    ///
    /// It is being migrated, or is in an error state: neither can be left and come back to.
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
                    "{} is in the state ERROR, which only a reset leaves",
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

    /// The state that the device was found in.
    pub(crate) fn state(&self) -> DeviceState {
        self.state
    }

    /// Brings the device to `state`, which begins a session.
    ///
    /// # Errors
    ///
    /// It does not get there.
    pub(crate) fn begin(&mut self, state: DeviceState) -> Result<D::Session> {
        self.away = true;
        self.device.set_state(state)?.with_context(|| {
            format!(
                "{}: {} came without a data_fd",
                self.device.name(),
                State(state)
            )
        })
    }

    /// Brings the device back.
    ///
    /// # Errors
    ///
    /// It does not get there.
    pub(crate) fn give_back(mut self) -> Result<()> {
        self.away = false;
        self.device.set_state(self.state).map(drop)
    }

    /// Brings the device back by a reset, after which it has no part of any state that it had.
    ///
    /// # Errors
    ///
    /// It does not get there.
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
