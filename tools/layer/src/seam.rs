// SPDX-License-Identifier: GPL-2.0

//! What the layer needs of the program around it. The layer's documentation states the contract.

#[cfg(any(test, CONFIG_KUNIT = "y"))]
use std::cell::Cell;
use std::{
    collections::TryReserveError,
    fmt,
    ops::{Deref, DerefMut},
};

/// What new bytes are copied from: an interpreter copies many bytes as fast as it sets one.
static ZEROES: [u8; 1 << 16] = [0; 1 << 16];

/// A buffer of bytes that grows fallibly.
#[derive(Debug)]
pub struct Bytes(Vec<u8>);

impl Bytes {
    /// Makes an empty buffer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Result<Self, OutOfMemory> {
        let mut bytes = Self(Vec::new());

        bytes.reserve(capacity)?;
        Ok(bytes)
    }

    /// Sets the length to `length`; bytes that are new are zero.
    pub fn resize_zeroed(&mut self, length: usize) -> Result<(), OutOfMemory> {
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
            #[cfg(any(test, CONFIG_KUNIT = "y"))]
            ALLOWANCE.set(ALLOWANCE.get().checked_sub(length).ok_or(OutOfMemory)?);
            self.0.try_reserve_exact(length - self.0.len())?;
        }
        Ok(())
    }
}

#[cfg(any(test, CONFIG_KUNIT = "y"))]
thread_local! {
    /// Bytes that this thread may still allocate.
    static ALLOWANCE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Runs `f` and lets it allocate `bytes` altogether.
#[cfg(any(test, CONFIG_KUNIT = "y"))]
pub fn with_allowance<T>(bytes: usize, f: impl FnOnce() -> T) -> T {
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
pub struct OutOfMemory;

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
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    // The library inverts both.
    !crc32c::crc32c_append(!seed, bytes)
}
