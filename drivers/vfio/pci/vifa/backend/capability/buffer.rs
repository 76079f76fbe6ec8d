// SPDX-License-Identifier: GPL-2.0

//! Host buffers for commands.
//!
//! A scatter list describes a buffer to the device. If the buffer has more segments than a list can
//! have entries, several commands share the buffer.
//!
//! A device that does not answer may still write to the buffer later. Such a buffer is *forfeited*:
//! its memory is moved to the register file's quarantine, and freed when DMA of the physical
//! function is disabled.

use super::{
    memory::Memory,
    register_file::RegisterFile, //
};
use core::ops::Range;
use kernel::{
    dma::DmaAddress,
    prelude::*,
    sync::Arc, //
};

/// A DMA buffer for the commands of one mailbox.
///
/// # Invariants
///
/// - No command that uses this buffer is in progress, except during
///   [`super::mailbox::Mailbox::execute`], which borrows the buffer mutably, and during the
///   lifetime of a [`super::mailbox::Pending`], which owns it.
/// - `memory` was allocated for the physical function of `registers`.
pub(super) struct Buffer {
    registers: Arc<RegisterFile>,
    /// `None` if the buffer was forfeited.
    memory: Option<Memory>,
}

impl Buffer {
    /// Allocates a buffer of `size` bytes for DMA of the physical function, and for commands for
    /// multiples of `unit` bytes. If `unit` equals `size`, one command can use the whole buffer.
    pub(super) fn new(registers: &Arc<RegisterFile>, size: usize, unit: usize) -> Result<Self> {
        let (device, entries) = (registers.bound_device(), registers.scatter_max());
        // INVARIANT: No command uses the buffer yet.
        Ok(Self {
            registers: registers.clone(),
            memory: Some(Memory::new(device, entries, size, unit)?),
        })
    }

    /// Returns the first `length` bytes, or an empty slice if the buffer is smaller.
    pub(super) fn bytes(&self, length: usize) -> &[u8] {
        let Some(memory) = &self.memory else {
            return &[];
        };
        // SAFETY: By the type invariant, no command that uses this buffer is in progress, so that
        // the device does not access it.
        let all = unsafe { memory.bytes() };
        all.get(..length).unwrap_or_default()
    }

    /// Returns all bytes for writing, or an empty slice if the buffer was forfeited.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        let Some(memory) = &mut self.memory else {
            return &mut [];
        };
        // SAFETY: As in `bytes`.
        unsafe { memory.bytes_mut() }
    }

    /// Returns whether the buffer was forfeited.
    pub(super) fn is_forfeited(&self) -> bool {
        self.memory.is_none()
    }

    /// Returns the first part of `range` that fits in one command.
    ///
    /// # Errors
    ///
    /// `EIO` if the buffer was forfeited, `EINVAL` if it has fewer bytes.
    pub(super) fn part(&self, range: Range<usize>) -> Result<Range<usize>> {
        let part = self.memory.as_ref().ok_or(EIO)?.part(range);
        if part.is_empty() {
            return Err(EINVAL);
        }
        Ok(part)
    }

    /// Describes `range` in the scatter list, and synchronises the buffer for the device. Returns
    /// the list's address and its number of entries.
    ///
    /// # Errors
    ///
    /// The same as for [`Self::part`], and `EINVAL` if `range` does not fit in one command.
    pub(super) fn describe(&mut self, range: Range<usize>) -> Result<(DmaAddress, u32)> {
        let memory = self.memory.as_mut().ok_or(EIO)?;
        // SAFETY: By the type invariant, no command that uses this list is in progress.
        let list = unsafe { memory.describe(range)? };
        // SAFETY: By the type invariant, the memory was allocated for this device.
        unsafe { memory.sync_for_device(self.registers.bound_device()) };
        Ok(list)
    }

    /// Takes the buffer back after a command has ended. If the command `lingers`, the device may
    /// still write to the memory, which is therefore moved to the quarantine.
    pub(super) fn take_back(&mut self, lingers: bool) {
        if lingers {
            if let Some(memory) = self.memory.take() {
                self.registers.quarantine(memory);
            }
        } else if let Some(memory) = &self.memory {
            // SAFETY: By the type invariant, the memory was allocated for this device.
            unsafe { memory.sync_for_cpu(self.registers.bound_device()) };
        }
    }
}
