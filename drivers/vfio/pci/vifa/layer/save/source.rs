// SPDX-License-Identifier: GPL-2.0

//! What a device has to do to be saved.

use super::super::{
    identity::Identity,
    interface::Interfaces, //
};
use core::fmt;

/// A device whose state is saved.
///
/// The control plane is asked for when it has stopped; local memory before only if it has
/// [`FEATURE_LOCAL_DIRTY`](super::super::identity::FEATURE_LOCAL_DIRTY).
pub trait Source {
    /// Why the device did not do what it was asked, and how that is told.
    type Error: Copy + fmt::Display;

    /// Returns what the device is.
    fn identity(&self) -> &Identity;

    /// Returns the device's interfaces.
    fn interfaces(&self) -> Interfaces;

    /// Fills the buffer with the records of the control plane.
    fn read_control(&mut self) -> Result<(), Self::Error>;

    /// Returns the records of what the destination has to obtain from its own host before it can
    /// take the control plane; nothing if there is no such thing.
    ///
    /// They are as those of [`Self::read_control`] and may be some of them. Asked only of a device
    /// that runs, and again only when [`Self::configurations`] has moved.
    fn claim(&mut self) -> Result<&[u8], Self::Error> {
        Ok(&[])
    }

    /// Returns how often the guest has configured the device anew, modulo 2^32. Asked only of a
    /// device that runs.
    fn configurations(&mut self) -> Result<u32, Self::Error>;

    /// Returns the bitmap of the granules that are mapped, of those in `length` bytes of local memory
    /// from `offset` on: bit 0 of byte 0 is the first. There is a bit for each granule, and padding
    /// up to a whole byte, which may be anything.
    ///
    /// Both are multiples of the granule; these are at most [`super::super::granules::WINDOW`] granules.
    fn mapped(&mut self, offset: u64, length: u64) -> Result<&[u8], Self::Error>;

    /// As [`Self::mapped`], of the granules that have changed since this was last asked.
    ///
    /// A change that the device makes of what it reads for [`Self::read_local`], and from the moment
    /// when it may begin with that, is still to come.
    fn changed(&mut self, offset: u64, length: u64) -> Result<&[u8], Self::Error>;

    /// Fills the buffer with `length` bytes of local memory from `offset` on.
    ///
    /// Both are multiples of the granule; `length` is at most [`DATA_RUN_MAX`](super::super::stream::DATA_RUN_MAX).
    fn read_local(&mut self, offset: u64, length: usize) -> Result<(), Self::Error>;

    /// Takes a hint: unless something fails, the next call of [`Self::read_local`] will have these
    /// arguments. The device may begin with it now.
    ///
    /// What [`Self::piece`] returns stays as it is.
    fn prefetch_local(&mut self, _offset: u64, _length: usize) {}

    /// Returns what the last of [`Self::read_control`] and [`Self::read_local`] put into the
    /// buffer, to its full length.
    fn piece(&self) -> &[u8];
}
