// SPDX-License-Identifier: GPL-2.0

//! What the driver's layer needs from the world around it, in user space. The layer's own
//! documentation states the contract.

use std::{
    collections::TryReserveError,
    fmt,
    ops::{Deref, DerefMut},
};

/// A buffer of bytes that grows fallibly.
#[derive(Debug)]
pub(crate) struct Bytes(Vec<u8>);

impl Bytes {
    /// Makes an empty buffer with room for `capacity` bytes.
    pub(crate) fn with_capacity(capacity: usize) -> Result<Self, OutOfMemory> {
        let mut bytes = Vec::new();

        bytes.try_reserve_exact(capacity)?;
        Ok(Self(bytes))
    }

    /// Sets the length to `length`; bytes that are new are zero.
    pub(crate) fn resize_zeroed(&mut self, length: usize) -> Result<(), OutOfMemory> {
        self.0
            .try_reserve_exact(length.saturating_sub(self.0.len()))?;
        self.0.resize(length, 0);
        Ok(())
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

/// There was no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory")
    }
}

impl From<TryReserveError> for OutOfMemory {
    fn from(_: TryReserveError) -> Self {
        Self
    }
}

/// Feeds `bytes` into a CRC-32C whose register holds `seed`, and returns the register, with no
/// inversion before or after.
pub(crate) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    // The library inverts both.
    !crc32c::crc32c_append(!seed, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same, bit by bit.
    fn by_definition(seed: u32, bytes: &[u8]) -> u32 {
        bytes.iter().fold(seed, |register, &byte| {
            (0..8).fold(register ^ u32::from(byte), |register, _| {
                (register >> 1) ^ (0x82f6_3b78 * (register & 1))
            })
        })
    }

    #[test]
    fn the_check_value_of_rfc_3720_comes_out() {
        assert_eq!(!crc32c(!0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn library_and_bits_agree(seed: u32, bytes: Vec<u8>) {
            prop_assert_eq!(crc32c(seed, &bytes), by_definition(seed, &bytes));
        }
    }
}
