// SPDX-License-Identifier: GPL-2.0

//! Host buffers that a device reads and writes by DMA.
//!
//! A buffer consists of single pages, or of contiguous memory. It is charged to the memory cgroup
//! of the task that allocates it. A scatter list describes the buffer to the device. If the buffer
//! has more segments than a list can have entries, several commands share the buffer.
//!
//! A device that does not answer may still write to the buffer later. Such a buffer is *forfeited*:
//! it is moved to the register file's quarantine, and freed when DMA of the physical function is
//! disabled.

use super::{
    register_file::RegisterFile,
    scatter::{
        Segment,
        Segments, //
    }, //
};
use crate::bindings::{
    self,
    vifa_hw_scatter, //
};
use core::{
    ops::Range,
    pin::Pin,
    ptr::NonNull, //
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::{
        Coherent,
        DataDirection,
        DmaAddress, //
    },
    page::PAGE_SIZE,
    prelude::*,
    scatterlist::{
        Owned,
        SGTable, //
    },
    sync::Arc,
    transmute::AsBytes, //
};

const ENTRY: usize = size_of::<vifa_hw_scatter>();

/// Maximum number of entries of a scatter list, which occupies one page.
const ENTRIES_MAX: usize = PAGE_SIZE / ENTRY;

/// The pages of a buffer, mapped for the physical function.
struct Pages {
    table: Pin<KBox<SGTable<Owned<VVec<u8>>>>>,
    /// Kernel address of the first byte.
    start: NonNull<u8>,
}

// SAFETY: `start` points into memory that `table` owns, which may be used from any task.
unsafe impl Send for Pages {}

impl Pages {
    fn new(device: &Device<Bound>, size: usize) -> Result<Self> {
        // A VMM that has used up its memory can repeat the allocation. The error is sufficient, so
        // do not warn.
        let flags = GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_NOWARN;
        let mut pages = VVec::with_capacity(size.next_multiple_of(PAGE_SIZE), flags)?;
        let start = NonNull::new(pages.as_mut_ptr()).ok_or(ENOMEM)?;
        let table = SGTable::new(
            device,
            pages,
            DataDirection::Bidirectional,
            GFP_KERNEL_ACCOUNT,
        );
        Ok(Self {
            table: KBox::pin_init(table, GFP_KERNEL_ACCOUNT)?,
            start,
        })
    }
}

/// The data of a buffer.
enum Data {
    /// Single pages.
    Pages(Pages),
    /// Contiguous memory, for a device whose scatter lists are too short for single pages.
    Contiguous(Coherent<[u8]>),
}

/// The memory of a buffer that the device accesses.
pub(super) struct Memory {
    list: Coherent<[u8]>,
    segments: Segments,
    data: Data,
    size: usize,
}

impl Memory {
    /// Allocates `size` bytes for commands for multiples of `unit` bytes.
    fn new(registers: &RegisterFile, size: usize, unit: usize) -> Result<Self> {
        let device = registers.bound_device();
        let entries = registers.scatter_max().min(ENTRIES_MAX);
        let pages = Pages::new(device, size)?;
        let mut segments = KVec::new();
        for entry in pages.table.iter() {
            let segment = Segment {
                address: entry.dma_address(),
                length: usize::try_from(entry.dma_len())?,
            };
            segments.push(segment, GFP_KERNEL_ACCOUNT)?;
        }
        let segments = Segments::new(segments, entries);
        let (data, segments) = if segments.suffice(size, unit) {
            (Data::Pages(pages), segments)
        } else {
            drop(pages);
            let data = Coherent::zeroed_slice(device, size, GFP_KERNEL_ACCOUNT)?;
            let mut segments = KVec::new();
            let segment = Segment {
                address: data.dma_address(),
                length: size,
            };
            segments.push(segment, GFP_KERNEL_ACCOUNT)?;
            (Data::Contiguous(data), Segments::new(segments, entries))
        };
        let list = Coherent::zeroed_slice(device, segments.longest() * ENTRY, GFP_KERNEL_ACCOUNT)?;
        Ok(Self {
            list,
            segments,
            data,
            size,
        })
    }

    /// Returns the size of the buffer in bytes.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Returns the address of the first byte.
    fn start(&self) -> NonNull<u8> {
        match &self.data {
            Data::Pages(pages) => pages.start,
            // CAST: The address of a slice is that of its first byte. It has at least one byte.
            Data::Contiguous(data) => {
                NonNull::new(data.as_mut_ptr().cast()).unwrap_or(NonNull::dangling())
            }
        }
    }
}

/// A DMA buffer for the commands of one mailbox.
///
/// # Invariants
///
/// - No command that uses this buffer is in progress, except during
///   [`super::mailbox::Mailbox::execute`], which borrows the buffer mutably, and during the
///   lifetime of a [`super::mailbox::Pending`], which owns it.
/// - The first `memory.size` bytes from `memory.start()` are initialised and owned by `memory`.
pub(super) struct Buffer {
    registers: Arc<RegisterFile>,
    unit: usize,
    /// `None` if the buffer was forfeited.
    memory: Option<Memory>,
}

impl Buffer {
    /// Allocates a buffer of `size` bytes for DMA of the physical function, and for commands for
    /// multiples of `unit` bytes. If `unit` equals `size`, one command can use the whole buffer.
    pub(super) fn new(registers: &Arc<RegisterFile>, size: usize, unit: usize) -> Result<Self> {
        // INVARIANT: No command uses the buffer yet. Its memory is zeroed when it is allocated, has
        // at least `size` bytes, and neither moves nor is freed before `memory` is dropped.
        Ok(Self {
            registers: registers.clone(),
            unit,
            memory: Some(Memory::new(registers, size, unit)?),
        })
    }

    /// Returns the first `length` bytes, or an empty slice if the buffer is smaller.
    pub(super) fn bytes(&self, length: usize) -> &[u8] {
        let Some(memory) = &self.memory else {
            return &[];
        };
        // SAFETY: By the type invariant, the bytes are initialised. Also, no command that uses this
        // buffer is in progress, so that the device does not access it. The CPU writes only through
        // `&mut self`.
        let all = unsafe { core::slice::from_raw_parts(memory.start().as_ptr(), memory.size) };
        all.get(..length).unwrap_or_default()
    }

    /// Returns all bytes for writing, or an empty slice if the buffer was forfeited.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        let Some(memory) = &mut self.memory else {
            return &mut [];
        };
        // SAFETY: As in `bytes`. `&mut self` makes the reference exclusive.
        unsafe { core::slice::from_raw_parts_mut(memory.start().as_ptr(), memory.size) }
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
        let memory = self.memory.as_ref().ok_or(EIO)?;
        let part = memory.segments.part(range, self.unit);
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
        let device = self.registers.bound_device();
        let memory = self.memory.as_mut().ok_or(EIO)?;
        if range.end > memory.size || memory.segments.part(range.clone(), self.unit) != range {
            return Err(EINVAL);
        }
        // SAFETY: By the type invariant, no command that uses this list is in progress. `&mut self`
        // makes the reference exclusive.
        let list = unsafe { memory.list.as_mut() };
        let mut count = 0;
        for (to, segment) in list
            .chunks_exact_mut(ENTRY)
            .zip(memory.segments.within(range))
        {
            let entry = vifa_hw_scatter {
                address: segment.address.to_le(),
                length: u32::try_from(segment.length)?.to_le(),
                reserved: 0,
            };
            to.copy_from_slice(entry.as_bytes());
            count += 1;
        }
        if let Data::Pages(pages) = &memory.data {
            // SAFETY: `SGTable::new()` has mapped the table for this device in both directions.
            unsafe { bindings::dma::sync_for_device(device, &pages.table) };
        }
        Ok((memory.list.dma_address(), count))
    }

    /// Takes the buffer back after a command has ended. If the command `lingers`, the device may
    /// still write to the memory, which is therefore moved to the quarantine.
    pub(super) fn take_back(&mut self, lingers: bool) {
        if lingers {
            if let Some(memory) = self.memory.take() {
                self.registers.quarantine(memory);
            }
        } else if let Some(Memory {
            data: Data::Pages(pages),
            ..
        }) = &self.memory
        {
            // SAFETY: As in `describe`.
            unsafe { bindings::dma::sync_for_cpu(self.registers.bound_device(), &pages.table) };
        }
    }
}
