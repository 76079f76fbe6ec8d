// SPDX-License-Identifier: GPL-2.0

//! What the layer needs from the world around it, on the host.

use std::{
    cell::Cell,
    collections::TryReserveError,
    fmt,
    ops::{Deref, DerefMut},
};

/// What new bytes are copied from: an interpreter copies many bytes as fast as it sets one.
static ZEROES: [u8; 1 << 16] = [0; 1 << 16];

/// A buffer of bytes that grows fallibly.
#[derive(Debug)]
pub(crate) struct Bytes(Vec<u8>);

impl Bytes {
    /// Makes an empty buffer with room for `capacity` bytes.
    pub(crate) fn with_capacity(capacity: usize) -> Result<Self, OutOfMemory> {
        let mut bytes = Self(Vec::new());

        bytes.reserve(capacity)?;
        Ok(bytes)
    }

    /// Sets the length to `length`; bytes that are new are zero.
    pub(crate) fn resize_zeroed(&mut self, length: usize) -> Result<(), OutOfMemory> {
        self.reserve(length)?;
        self.0.truncate(length);
        while self.0.len() < length {
            let missing = ZEROES.len().min(length - self.0.len());

            self.0.extend_from_slice(&ZEROES[..missing]);
        }
        Ok(())
    }

    /// Makes room for `length` bytes in all.
    fn reserve(&mut self, length: usize) -> Result<(), OutOfMemory> {
        if length > self.0.capacity() {
            ALLOWANCE.set(ALLOWANCE.get().checked_sub(length).ok_or(OutOfMemory)?);
            self.0.try_reserve_exact(length - self.0.len())?;
        }
        Ok(())
    }
}

thread_local! {
    /// Bytes that this thread may still allocate.
    static ALLOWANCE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Runs `f` and lets it allocate `bytes` altogether.
pub(crate) fn with_allowance<T>(bytes: usize, f: impl FnOnce() -> T) -> T {
    ALLOWANCE.set(bytes);
    let result = f();
    ALLOWANCE.set(usize::MAX);
    result
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
    bytes.iter().fold(seed, |register, &byte| {
        let index = (register ^ u32::from(byte)) & 0xff;

        (register >> 8) ^ TABLE[index as usize]
    })
}

/// What each byte does to the register: polynomial 0x1edc6f41, reflected.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;

    while index < table.len() {
        let mut register = index as u32;
        let mut bit = 0;

        while bit < 8 {
            register = (register >> 1) ^ (0x82f6_3b78 * (register & 1));
            bit += 1;
        }
        table[index] = register;
        index += 1;
    }
    table
};
