// SPDX-License-Identifier: GPL-2.0

//! The kernel's side of the VIFA layer: fallible buffers, CRC-32C, and text for the log.
//!
//! The documentation of [`crate::layer`] states the contract. The host tests have their own
//! implementation of this module.

// Public, because the public items of the layer use these.
#![allow(unreachable_pub)]

use crate::{
    bindings::checksum as library,
    checksum, //
};
use core::ops::{
    Deref,
    DerefMut, //
};
use kernel::{
    fmt,
    prelude::*, //
};

/// Feeds `bytes` into a CRC-32C whose register holds `seed`, and returns the register.
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    if bytes.len() < checksum::FOLD_MIN || library::is_optimized() {
        library::crc32c(seed, bytes)
    } else {
        checksum::crc32c(seed, bytes, library::crc32c)
    }
}

/// The error of a failed allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl core::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("no memory")
    }
}

/// A buffer of bytes that grows fallibly.
pub struct Bytes(KVVec<u8>);

impl Bytes {
    /// Creates an empty buffer with capacity for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Result<Self, OutOfMemory> {
        KVVec::with_capacity(capacity, GFP_KERNEL_ACCOUNT)
            .map(Self)
            .map_err(|_| OutOfMemory)
    }

    /// Sets the length to `length`. New bytes are zero.
    pub fn resize_zeroed(&mut self, length: usize) -> Result<(), OutOfMemory> {
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

/// Adapter for values that implement the `Display` of `core`, for the kernel's log.
pub(crate) struct Shown<T>(pub(crate) T);

impl<T: core::fmt::Display> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[kunit_tests(vifa_checksum)]
mod tests {
    use super::*;

    #[test]
    fn folded_crc_equals_the_crc_of_the_library() -> Result {
        const SIZE: usize = 2 * checksum::FOLD_MIN;

        let mut random = 1_u32;
        let mut bytes = KVec::with_capacity(SIZE, GFP_KERNEL)?;
        for _ in 0..SIZE {
            // Numerical Recipes' generator.
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bytes.push((random >> 24) as u8, GFP_KERNEL)?;
        }
        for length in (checksum::FOLD_MIN..SIZE).step_by(61) {
            let part = &bytes[length % 8..length];
            let seed = length as u32;
            assert_eq!(
                checksum::crc32c(seed, part, library::crc32c),
                library::crc32c(seed, part)
            );
        }
        Ok(())
    }
}
