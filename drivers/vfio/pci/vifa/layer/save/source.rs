// SPDX-License-Identifier: GPL-2.0

//! The interface to a device that is saved, and to its local memory.

use super::super::{
    identity::Identity,
    interface::Interfaces, //
};
use core::fmt;

/// A device whose state is saved.
///
/// The saver reads the control plane only from a stopped device. It reads local memory of a running
/// device only with [`FEATURE_LOCAL_DIRTY`](super::super::identity::FEATURE_LOCAL_DIRTY).
pub trait Source {
    /// The error of a failed operation.
    type Error: Copy + fmt::Display;

    /// The device's local memory. A device that has none uses
    /// [`NoLocalMemory`](super::super::local::NoLocalMemory).
    type Local: LocalSource<Self::Error>;

    /// Returns the device's identity.
    fn identity(&self) -> &Identity;

    /// Returns the device's interfaces.
    fn interfaces(&self) -> Interfaces;

    /// Reads the records of the control plane from the device.
    fn read_control(&mut self) -> Result<(), Self::Error>;

    /// Returns the records after the last call of [`Self::read_control`], in full length.
    fn control(&self) -> &[u8];

    /// Returns the records of the resources that the destination has to obtain from its host before
    /// it can take the control plane. Returns an empty slice if there are none.
    ///
    /// The records have the form of those of [`Self::read_control`] and may be some of them. Called
    /// only while the device runs, and again only after [`Self::configurations`] has changed.
    fn claim(&mut self) -> Result<&[u8], Self::Error> {
        Ok(&[])
    }

    /// Returns the number of times that the guest has reconfigured the device, modulo 2^32. Called
    /// only while the device runs.
    fn configurations(&mut self) -> Result<u32, Self::Error>;

    /// Returns the device's local memory, or `None` if it has none.
    fn local(&mut self) -> Option<&mut Self::Local>;
}

/// The local memory of a device that is saved. `E` is the error of a failed operation.
pub trait LocalSource<E> {
    /// Returns the bitmap of mapped granules in `length` bytes of local memory at `offset`.
    ///
    /// Bit 0 of byte 0 is the first granule. The bitmap has one bit per granule, and arbitrary
    /// padding bits up to a whole byte.
    ///
    /// Both arguments are multiples of the granule. `length` is at most
    /// [`WINDOW`](super::super::granules::WINDOW) granules.
    fn mapped(&mut self, offset: u64, length: u64) -> Result<&[u8], E>;

    /// As [`Self::mapped`], for the granules that have changed since the last call.
    ///
    /// If the device changes a granule once it may have begun to read it for [`Self::read_local`],
    /// a later call must report the change.
    fn changed(&mut self, offset: u64, length: u64) -> Result<&[u8], E>;

    /// Fills the buffer with `length` bytes of local memory at `offset`.
    ///
    /// Both are multiples of the granule, and `length` is at most
    /// [`DATA_RUN_MAX`](super::super::stream::DATA_RUN_MAX).
    fn read_local(&mut self, offset: u64, length: usize) -> Result<(), E>;

    /// Announces that the next call of [`Self::read_local`] will have these arguments, unless an
    /// operation fails. The device may begin to read now.
    ///
    /// The content of [`Self::run`] does not change.
    fn prefetch_local(&mut self, _offset: u64, _length: usize) {}

    /// Returns the content of the buffer after the last call of [`Self::read_local`], in full
    /// length.
    fn run(&self) -> &[u8];
}
