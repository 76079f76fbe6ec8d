// SPDX-License-Identifier: GPL-2.0

//! Host buffers that a device reads and writes by DMA.
//!
//! A command names its buffer by a scatter list. A device that does not answer may still write to
//! the buffer later. Such a buffer is *forfeited*: it goes to the register file's quarantine, and is
//! freed when the physical function can do no more DMA.

use super::register_file::RegisterFile;
use crate::bindings::vifa_hw_scatter;
use kernel::{
    dma::{
        Coherent,
        DmaAddress, //
    },
    prelude::*,
    sync::Arc,
    transmute::AsBytes, //
};

/// What the device reaches of a buffer.
pub(super) struct Memory {
    list: Coherent<[u8]>,
    data: Coherent<[u8]>,
}

impl Memory {
    /// Bytes of the buffer.
    pub(super) fn size(&self) -> usize {
        self.data.size()
    }
}

/// A DMA buffer for the commands of one mailbox.
///
/// # Invariants
///
/// Outside of [`super::mailbox::Mailbox::execute`], which borrows the buffer mutably, and of
/// [`super::mailbox::Pending`], which owns it, no command is in progress that was given this buffer.
pub(super) struct Buffer {
    registers: Arc<RegisterFile>,
    /// `None`: forfeited.
    memory: Option<Memory>,
}

impl Buffer {
    /// Allocates a buffer of `capacity` bytes, which the physical function can reach.
    pub(super) fn new(registers: &Arc<RegisterFile>, capacity: usize) -> Result<Self> {
        let allocate = |size| Coherent::zeroed_slice(registers.bound_device(), size, GFP_KERNEL);
        Ok(Self {
            registers: registers.clone(),
            memory: Some(Memory {
                list: allocate(size_of::<vifa_hw_scatter>())?,
                data: allocate(capacity)?,
            }),
        })
    }

    /// Returns the first `length` bytes; nothing if there are not as many.
    pub(super) fn bytes(&self, length: usize) -> &[u8] {
        let Some(memory) = &self.memory else {
            return &[];
        };
        // SAFETY: By the type invariant the device has answered every command that was given this
        // buffer, after which it does not touch it; the CPU writes only through `&mut self`.
        let all = unsafe { memory.data.as_ref() };
        all.get(..length).unwrap_or_default()
    }

    /// Returns all bytes for writing; nothing if the buffer was forfeited.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        let Some(memory) = &mut self.memory else {
            return &mut [];
        };
        // SAFETY: As in `bytes`; `&mut self` makes the reference the only one.
        unsafe { memory.data.as_mut() }
    }

    /// Returns whether the memory was given up.
    pub(super) fn is_forfeited(&self) -> bool {
        self.memory.is_none()
    }

    /// Describes the first `length` bytes in the scatter list, and returns its address.
    ///
    /// # Errors
    ///
    /// `EIO` if the buffer was forfeited, `EINVAL` if it has fewer bytes.
    pub(super) fn describe(&mut self, length: usize) -> Result<DmaAddress> {
        let memory = self.memory.as_mut().ok_or(EIO)?;
        if length > memory.size() {
            return Err(EINVAL);
        }
        let entry = vifa_hw_scatter {
            address: memory.data.dma_address().to_le(),
            length: u32::try_from(length)?.to_le(),
            reserved: 0,
        };
        // SAFETY: As in `bytes_mut`.
        let list = unsafe { memory.list.as_mut() };
        list.copy_from_slice(entry.as_bytes());
        Ok(memory.list.dma_address())
    }

    /// Gives the memory up to the quarantine: the device may write to it at any time.
    pub(super) fn forfeit(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.registers.quarantine(memory);
        }
    }
}
