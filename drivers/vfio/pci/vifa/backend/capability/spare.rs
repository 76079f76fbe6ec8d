// SPDX-License-Identifier: GPL-2.0

//! Unused buffers.
//!
//! The device uses one buffer while the processor uses another one. If a command fails, its buffer
//! is freed or forfeited, and the next command needs a new one.

use super::buffer::Buffer;

/// At most `N` unused buffers of the same size.
pub(super) struct Spare<const N: usize>([Option<Buffer>; N]);

impl<const N: usize> Spare<N> {
    /// Creates a store of these buffers.
    pub(super) fn new(buffers: [Buffer; N]) -> Self {
        Self(buffers.map(Some))
    }

    /// Takes an unused buffer, or allocates one with `allocate` if there is none.
    ///
    /// # Errors
    ///
    /// The error of `allocate`.
    pub(super) fn take_or<E>(
        &mut self,
        allocate: impl FnOnce() -> Result<Buffer, E>,
    ) -> Result<Buffer, E> {
        match self.0.iter_mut().find_map(Option::take) {
            Some(buffer) => Ok(buffer),
            None => allocate(),
        }
    }

    /// Stores an unused buffer, or frees it if there is no place for it.
    pub(super) fn put_back(&mut self, buffer: Buffer) {
        if let Some(place) = self.0.iter_mut().find(|place| place.is_none()) {
            *place = Some(buffer);
        }
    }
}
