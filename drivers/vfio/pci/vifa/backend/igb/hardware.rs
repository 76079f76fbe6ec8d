// SPDX-License-Identifier: GPL-2.0

//! Register access of a function that is not reset.

use super::portable::{
    access::Access,
    clock::Clock,
    fault::Fault, //
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

/// The BAR with the registers.
pub(super) const BAR: u8 = 0;

/// Minimum size of that BAR in bytes.
pub(super) const BAR_LENGTH: u64 = 0x4000;

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

/// A clock that starts at 0.
pub(super) struct Watch(Instant<Monotonic>);

impl Watch {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    /// Returns the number of microseconds since its creation.
    pub(super) fn now(&self) -> u64 {
        // CAST: The clock is monotonic, so the time is not negative.
        self.0.elapsed().as_micros_ceil() as u64
    }

    /// Sleeps for at least `microseconds`.
    pub(super) fn sleep(microseconds: u32) {
        fsleep(Delta::from_micros(microseconds.into()));
    }
}

/// A function during one operation. After a reset of the function, all further accesses fail.
pub(super) struct Hardware<'a> {
    registers: &'a Registers,
    was_reset: &'a AtomicFlag,
    watch: &'a Watch,
    _decoding: Option<Decoding<'a>>,
}

impl<'a> Hardware<'a> {
    /// Creates the accessor for the guest's accesses. They depend on the guest's decode settings.
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

    /// Creates the accessor for the driver's accesses. They do not depend on the guest's decode
    /// settings.
    ///
    /// # Errors
    ///
    /// Returns an error if the function is being reset.
    pub(super) fn for_driver(
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

        // A value that was read after a reset is not the value from before the reset.
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
