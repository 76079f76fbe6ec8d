// SPDX-License-Identifier: GPL-2.0

//! What the driver's layer needs from the world around it, in user space. The layer's own
//! documentation states the contract.

use std::{
    collections::TryReserveError,
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

impl From<TryReserveError> for OutOfMemory {
    fn from(_: TryReserveError) -> Self {
        Self
    }
}

/// Bytes that one step of [`crc32c`] takes.
const STEP: usize = 8;

/// Feeds `bytes` into a CRC-32C whose register holds `seed`, and returns the register, with no
/// inversion before or after.
pub(crate) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    let steps = bytes.chunks_exact(STEP);
    let rest = steps.remainder();
    let register = steps.fold(seed, |register, step| {
        let masks = register.to_le_bytes().into_iter().chain([0; STEP - 4]);
        let tables = TABLES.iter().rev();

        step.iter()
            .zip(masks)
            .zip(tables)
            .fold(0, |register, ((byte, mask), table)| {
                register ^ table[usize::from(byte ^ mask)]
            })
    });

    rest.iter().fold(register, |register, &byte| {
        (register >> 8) ^ TABLES[0][usize::from(register.to_le_bytes()[0] ^ byte)]
    })
}

/// What a byte does to the register, when so many zero bytes follow it as the table's index says:
/// polynomial 0x1edc6f41, reflected.
const TABLES: [[u32; 256]; STEP] = {
    let mut tables = [[0; 256]; STEP];
    let mut byte = 0;

    while byte < 256 {
        let mut register = byte as u32;
        let mut table = 0;

        while table < STEP {
            let mut bit = 0;

            while bit < 8 {
                register = (register >> 1) ^ (0x82f6_3b78 * (register & 1));
                bit += 1;
            }
            tables[table][byte] = register;
            table += 1;
        }
        byte += 1;
    }
    tables
};

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
        fn steps_and_bits_agree(seed: u32, bytes: Vec<u8>) {
            prop_assert_eq!(crc32c(seed, &bytes), by_definition(seed, &bytes));
        }
    }
}
