// SPDX-License-Identifier: GPL-2.0

//! The interface to a device that is restored, and to its local memory.

use super::super::{
    identity::Identity,
    interface::Interfaces, //
};
use core::fmt;

/// A stopped device that takes the state of another device.
pub trait Destination {
    /// The error of a failed operation.
    type Error: Copy + fmt::Display;

    /// The device's local memory. A device that has none uses
    /// [`NoLocalMemory`](super::super::local::NoLocalMemory).
    type Local: LocalDestination<Self::Error>;

    /// Returns the device's identity.
    fn identity(&self) -> &Identity;

    /// Returns the device's interfaces.
    fn interfaces(&self) -> Interfaces;

    /// Returns the buffer that [`LocalDestination::write_local`] writes from. Skipped bytes are put
    /// there, too.
    ///
    /// It has at least [`DATA_RUN_MAX`](super::super::stream::DATA_RUN_MAX) bytes, or the size of
    /// local memory. Without local memory it has at least one byte.
    ///
    /// Its content is valid until the next call of another method.
    fn buffer(&mut self) -> &mut [u8];

    /// Returns the device's local memory, or `None` if it has none.
    fn local(&mut self) -> Option<&mut Self::Local>;

    /// Checks whether the host grants the resources that these records require, and keeps none of
    /// them.
    ///
    /// The records are valid, and part of a control plane that will follow. The source still runs.
    /// May be called any number of times. Each call replaces the previous one.
    ///
    /// # Errors
    ///
    /// Returns the resource that is not available, and the reason.
    fn claim(&mut self, _records: &[u8]) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Obtains from the host all resources that these records require and that can be refused.
    ///
    /// The records are the whole control plane, and the whole stream is valid. The source has
    /// stopped, and continues if this fails. [`Self::write_control`] follows with the same records,
    /// unless the transfer is cancelled.
    ///
    /// # Errors
    ///
    /// Returns the resource that is not available, and the reason.
    fn prepare(&mut self, _records: &[u8]) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Replaces the control plane by these records, for which [`Self::prepare`] has succeeded.
    ///
    /// The source may no longer exist. Implementations must not request anything that can be
    /// refused, and must fail only if the device fails.
    fn write_control(&mut self, records: &[u8]) -> Result<(), Self::Error>;
}

/// The local memory of a device that is restored. `E` is the error of a failed operation.
pub trait LocalDestination<E> {
    /// Unmaps all of the local memory.
    fn clear_local(&mut self) -> Result<(), E>;

    /// Writes the first `length` bytes of [`Destination::buffer`] to local memory at `offset`.
    ///
    /// Both are multiples of the granule, and `length` is at most
    /// [`DATA_RUN_MAX`](super::super::stream::DATA_RUN_MAX). May return before the device has the
    /// bytes. A later call then returns the error, at the latest [`Destination::write_control`].
    fn write_local(&mut self, offset: u64, length: usize) -> Result<(), E>;
}
