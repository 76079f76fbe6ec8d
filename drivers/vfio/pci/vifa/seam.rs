// SPDX-License-Identifier: GPL-2.0

//! What the VIFA layer needs of the kernel: buffers that grow fallibly, CRC-32C, and a way into the
//! log.
//!
//! The layer's own documentation states the contract; the host tests have a twin of this module.

pub(crate) use crate::bindings::checksum::crc32c;

use core::ops::{
    Deref,
    DerefMut, //
};
use kernel::{
    fmt,
    prelude::*, //
};

/// There was no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfMemory;

/// A buffer of bytes that grows fallibly.
pub(crate) struct Bytes(KVVec<u8>);

impl Bytes {
    /// Makes an empty buffer with room for `capacity` bytes.
    pub(crate) fn with_capacity(capacity: usize) -> Result<Self, OutOfMemory> {
        KVVec::with_capacity(capacity, GFP_KERNEL_ACCOUNT)
            .map(Self)
            .map_err(|_| OutOfMemory)
    }

    /// Sets the length to `length`; bytes that are new are zero.
    pub(crate) fn resize_zeroed(&mut self, length: usize) -> Result<(), OutOfMemory> {
        self.0
            .resize(length, 0, GFP_KERNEL_ACCOUNT)
            .map_err(|_| OutOfMemory)
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Something that the layer says, for the kernel's log.
pub(crate) struct Shown<T>(pub(crate) T);

impl<T: core::fmt::Display> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
