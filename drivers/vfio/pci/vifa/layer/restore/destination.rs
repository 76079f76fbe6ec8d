// SPDX-License-Identifier: GPL-2.0

//! What a device has to do to be restored.

use super::super::{
    identity::Identity,
    interface::Interfaces, //
};
use core::fmt;

/// A stopped device that takes another's state.
pub trait Destination {
    /// Why the device did not do what it was asked.
    type Error: Copy + fmt::Display;

    /// Returns what the device is.
    fn identity(&self) -> &Identity;

    /// Returns the device's interfaces.
    fn interfaces(&self) -> Interfaces;

    /// Returns the buffer that [`Self::write_local`] writes from: at least
    /// [`DATA_RUN_MAX`](super::super::stream::DATA_RUN_MAX) bytes, or as many as local memory has; one if
    /// there is no local memory. What is skipped goes there, too.
    ///
    /// It holds what was put into it until the next call of another method.
    fn buffer(&mut self) -> &mut [u8];

    /// Unmaps all of the local memory.
    fn clear_local(&mut self) -> Result<(), Self::Error>;

    /// Writes the first `length` bytes of the buffer to local memory from `offset` on.
    ///
    /// Both are multiples of the granule; `length` is at most
    /// [`DATA_RUN_MAX`](super::super::stream::DATA_RUN_MAX). May return before the device has the bytes; an
    /// error is then returned by a later call, at the latest by [`Self::write_control`].
    fn write_local(&mut self, offset: u64, length: usize) -> Result<(), Self::Error>;

    /// Tries whether what these records ask for can be obtained from the host, and keeps nothing of
    /// it.
    ///
    /// They are valid, and part of a control plane that is to come; the source still runs. May be
    /// called any number of times, each of which replaces the one before.
    ///
    /// # Errors
    ///
    /// What is not to be had, and why.
    fn claim(&mut self, _records: &[u8]) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Obtains from the host all that these records, the whole control plane, ask for and that can
    /// be refused.
    ///
    /// The whole stream was found to be valid; the source has stopped, and would go on if this
    /// failed. [`Self::write_control`] follows with the same records, unless the transfer is given
    /// up.
    ///
    /// # Errors
    ///
    /// What is not to be had, and why.
    fn prepare(&mut self, _records: &[u8]) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Replaces the control plane by these records, for which [`Self::prepare`] has succeeded.
    ///
    /// The source may be gone: this asks nobody for anything that can be refused. It fails only if
    /// the device does.
    fn write_control(&mut self, records: &[u8]) -> Result<(), Self::Error>;
}
