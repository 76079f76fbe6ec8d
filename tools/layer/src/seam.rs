// SPDX-License-Identifier: GPL-2.0

//! The functions that the layer requires from its crate. The layer's documentation states the
//! contract.

#[cfg(any(test, CONFIG_KUNIT = "y"))]
use std::cell::Cell;
use std::{
    collections::TryReserveError,
    fmt,
    ops::{Deref, DerefMut},
};

/// The source of new bytes. Miri copies many bytes as fast as it sets one.
static ZEROES: [u8; 1 << 16] = [0; 1 << 16];

/// A byte buffer with fallible growth.
#[derive(Debug)]
pub struct Bytes(Vec<u8>);

impl Bytes {
    /// Creates an empty buffer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Result<Self, OutOfMemory> {
        let mut bytes = Self(Vec::new());

        bytes.reserve(capacity)?;
        Ok(bytes)
    }

    /// Sets the length to `length`. New bytes are zero.
    pub fn resize_zeroed(&mut self, length: usize) -> Result<(), OutOfMemory> {
        self.reserve(length)?;
        self.0.truncate(length);
        while self.0.len() < length {
            let missing = ZEROES.len().min(length - self.0.len());

            self.0.extend_from_slice(&ZEROES[..missing]);
        }
        Ok(())
    }

    /// Increases the capacity to at least `length` bytes.
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
    /// Number of bytes that this thread may still allocate.
    static ALLOWANCE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Calls `f` and permits it to allocate at most `bytes` in total.
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

/// The error of a failed allocation.
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
