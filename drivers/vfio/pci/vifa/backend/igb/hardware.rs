// SPDX-License-Identifier: GPL-2.0

//! The registers of a function, as long as it is not reset.

use super::{
    clock::Clock,
    fault::Fault,
    registers::Access, //
};
use crate::vfio::bar::{
    Decoding,
    Registers, //
};
use kernel::{
    prelude::*,
    sync::atomic::{
        Acquire,
        AtomicFlag, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// The BAR that has the registers.
pub(super) const BAR: u8 = 0;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            EBUSY => Self::Reset,
            ENODEV => Self::Gone,
            error => Self::Host(error.to_errno().saturating_neg()),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Error::from_errno(fault.errno().saturating_neg())
    }
}

/// A clock that begins when it is made.
pub(super) struct Watch(Instant<Monotonic>);

impl Watch {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    /// Returns the microseconds since it was made.
    pub(super) fn now(&self) -> u64 {
        // CAST: This clock does not go back.
        self.0.elapsed().as_micros_ceil() as u64
    }

    /// Sleeps for so many microseconds, or longer.
    pub(super) fn sleep(microseconds: u32) {
        fsleep(Delta::from_micros(microseconds.into()));
    }
}

/// A function, for one thing that is done with it. Once it was reset, all that is left of that
/// fails.
pub(super) struct Hardware<'a> {
    registers: &'a Registers,
    was_reset: &'a AtomicFlag,
    watch: &'a Watch,
    _decoding: Option<Decoding<'a>>,
}

impl<'a> Hardware<'a> {
    /// A function as its guest has it.
    pub(super) fn for_guest(
        registers: &'a Registers,
        was_reset: &'a AtomicFlag,
        watch: &'a Watch,
    ) -> Self {
        Self {
            registers,
            was_reset,
            watch,
            _decoding: None,
        }
    }

    /// A function whose registers are reached whatever its guest has said.
    ///
    /// # Errors
    ///
    /// It is being reset.
    pub(super) fn for_us(
        registers: &'a Registers,
        was_reset: &'a AtomicFlag,
        watch: &'a Watch,
    ) -> Result<Self, Fault> {
        Ok(Self {
            _decoding: Some(registers.decode()?),
            ..Self::for_guest(registers, was_reset, watch)
        })
    }

    /// Checks that the function was not reset.
    fn check(&self) -> Result<(), Fault> {
        if self.was_reset.load(Acquire) {
            Err(Fault::Reset)
        } else {
            Ok(())
        }
    }
}

impl Access for Hardware<'_> {
    fn load(&mut self, offset: u32) -> Result<u32, Fault> {
        let value = self.registers.read32(BAR, offset.into())?;

        // What was read after a reset says nothing of what was before.
        self.check()?;
        Ok(value)
    }

    fn write(&mut self, offset: u32, value: u32) -> Result<(), Fault> {
        self.check()?;
        Ok(self.registers.write32(BAR, offset.into(), value)?)
    }
}

impl Clock for Hardware<'_> {
    fn now(&self) -> u64 {
        self.watch.now()
    }

    fn sleep(&mut self, microseconds: u32) {
        Watch::sleep(microseconds);
    }
}
