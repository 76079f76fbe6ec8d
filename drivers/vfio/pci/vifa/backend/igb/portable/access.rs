// SPDX-License-Identifier: GPL-2.0

//! Access to the registers of a virtual function.

use super::{
    fault::Fault,
    registers::page0, //
};

/// The registers of one virtual function, 32 bits each.
pub(crate) trait Access {
    /// Returns the result of a read of the register at `offset` of BAR 0: all ones if the function
    /// no longer exists.
    ///
    /// # Errors
    ///
    /// Returns an error, without a read, if the function is being reset or was closed.
    fn load(&mut self, offset: u32) -> Result<u32, Fault>;

    /// Returns the value of the register at `offset` of BAR 0.
    ///
    /// # Errors
    ///
    /// As for [`Self::load`], or [`Fault::Gone`].
    fn read(&mut self, offset: u32) -> Result<u32, Fault> {
        let value = self.load(offset)?;

        // Some registers can contain all ones. STATUS is read-only and cannot.
        if value == u32::MAX && self.load(page0::STATUS)? == u32::MAX {
            return Err(Fault::Gone);
        }
        Ok(value)
    }

    /// Writes the register at `offset` of BAR 0.
    ///
    /// # Errors
    ///
    /// As for [`Self::load`]. Nothing is written then.
    fn write(&mut self, offset: u32, value: u32) -> Result<(), Fault>;
}
