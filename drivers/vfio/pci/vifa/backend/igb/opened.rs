// SPDX-License-Identifier: GPL-2.0

//! Exclusive access to an open function, which can be reset at any time.

use super::{
    hardware::Hardware,
    portable::{
        fault::Fault,
        state::State, //
    },
    Function, //
};
use crate::{
    backend::RunState,
    seam::Shown,
    vfio::bar::Registers, //
};
use core::fmt;
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Full, //
        },
        lock::{
            mutex::MutexBackend,
            Guard, //
        }, //
    }, //
};

/// An open function.
pub(super) struct Opened {
    pub(super) registers: Registers,
    pub(super) state: State,
    pub(super) run_state: RunState,
}

impl Function {
    /// Logs a warning at a limited rate, because its cause can recur.
    pub(super) fn warn(&self, text: fmt::Arguments<'_>) {
        if self.warnings.allows(c"vifa-vfio-pci") {
            dev_warn!(self.device, "{}\n", Shown(text));
        }
    }

    /// Locks the function. If it was reset since the last call, records this first.
    pub(super) fn lock(&self) -> Guard<'_, Option<Opened>, MutexBackend> {
        let mut opened = self.opened.lock();

        if self.was_reset.xchg(false, Full) {
            if let Some(opened) = &mut *opened {
                opened.state.reset();
                opened.run_state = RunState::Running;
            }
        }
        opened
    }

    /// Returns the accessor for the driver's accesses. `opened` must be locked.
    ///
    /// # Errors
    ///
    /// Returns an error if the function is being reset.
    pub(super) fn hardware<'a>(&'a self, registers: &'a Registers) -> Result<Hardware<'a>, Fault> {
        if self.is_resetting.load(Acquire) {
            return Err(Fault::Reset);
        }
        Hardware::for_driver(registers, &self.was_reset, &self.watch)
    }

    /// Calls `act` with the state of the open function.
    pub(super) fn inspect<R>(&self, act: impl FnOnce(&State) -> R) -> Result<R, Fault> {
        let opened = self.lock();

        Ok(act(&Option::as_ref(&*opened).ok_or(EIO)?.state))
    }

    /// Calls `act` with the state and registers of the open function, for the driver's accesses.
    pub(super) fn with<R>(
        &self,
        act: impl FnOnce(&mut State, &mut Hardware<'_>) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let mut opened = self.lock();
        let opened = Option::as_mut(&mut *opened).ok_or(EIO)?;
        let mut hardware = self.hardware(&opened.registers)?;

        act(&mut opened.state, &mut hardware)
    }

    /// Calls `act` with the state and registers of the open function, for the guest's accesses.
    pub(super) fn mediate<R>(
        &self,
        act: impl FnOnce(&mut State, &mut Hardware<'_>) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let mut opened = self.lock();
        let opened = Option::as_mut(&mut *opened).ok_or(EIO)?;
        let mut hardware = Hardware::for_guest(&opened.registers, &self.was_reset, &self.watch);

        act(&mut opened.state, &mut hardware)
    }
}
