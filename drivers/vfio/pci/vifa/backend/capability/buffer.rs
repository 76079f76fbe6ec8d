// SPDX-License-Identifier: GPL-2.0

//! Host buffers that a device reads and writes by DMA.
//!
//! A buffer is of single pages, or of what the page allocator gives at once, and is charged to the
//! memory cgroup of the task that asked for it. A command names its buffer by a scatter list. Where
//! a list cannot have as many entries as the buffer has pieces, several commands share the buffer.
//!
//! A device that does not answer may still write to the buffer later. Such a buffer is *forfeited*:
//! it goes to the register file's quarantine, and is freed when the physical function can do no more
//! DMA.

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

/// Most entries of a scatter list: it takes one page.
const ENTRIES_MAX: usize = PAGE_SIZE / ENTRY;

/// The pages of a buffer, mapped for the physical function.
struct Pages {
    table: Pin<KBox<SGTable<Owned<VVec<u8>>>>>,
    /// The first byte, in the kernel's address space.
    start: NonNull<u8>,
}

// SAFETY: `start` points into memory that `table` owns, which any task may use.
unsafe impl Send for Pages {}

impl Pages {
    fn new(device: &Device<Bound>, size: usize) -> Result<Self> {
        // A VMM that has used up its memory can repeat it: the error that it gets is enough.
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

/// Where the bytes of a buffer are.
enum Data {
    /// In pages anywhere.
    Pages(Pages),
    /// At consecutive addresses: the device takes too short a scatter list for pages.
    Contiguous(Coherent<[u8]>),
}

/// What the device reaches of a buffer.
pub(super) struct Memory {
    list: Coherent<[u8]>,
    segments: Segments,
    data: Data,
    size: usize,
}

impl Memory {
    /// Allocates `size` bytes for commands of multiples of `unit` bytes.
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

    /// Bytes of the buffer.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Returns the first byte.
    fn start(&self) -> NonNull<u8> {
        match &self.data {
            Data::Pages(pages) => pages.start,
            // CAST: a slice begins with its first byte; it has at least one.
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
/// - Outside of [`super::mailbox::Mailbox::execute`], which borrows the buffer mutably, and of
///   [`super::mailbox::Pending`], which owns it, no command is in progress that was given this
///   buffer.
/// - The first `memory.size` bytes from `memory.start()` are initialised and owned by `memory`.
pub(super) struct Buffer {
    registers: Arc<RegisterFile>,
    unit: usize,
    /// `None`: forfeited.
    memory: Option<Memory>,
}

impl Buffer {
    /// Allocates a buffer of `size` bytes, which the physical function can reach, for commands of
    /// multiples of `unit` bytes. A buffer whose `unit` is its size is for one command.
    pub(super) fn new(registers: &Arc<RegisterFile>, size: usize, unit: usize) -> Result<Self> {
        // INVARIANT: No command has the buffer yet. Its memory is zeroed when it is allocated, has
        // at least `size` bytes, and neither moves nor is freed before `memory` is dropped.
        Ok(Self {
            registers: registers.clone(),
            unit,
            memory: Some(Memory::new(registers, size, unit)?),
        })
    }

    /// Returns the first `length` bytes; nothing if there are not as many.
    pub(super) fn bytes(&self, length: usize) -> &[u8] {
        let Some(memory) = &self.memory else {
            return &[];
        };
        // SAFETY: By the type invariant there are so many initialised bytes, and the device has
        // answered every command that was given this buffer, after which it does not touch it; the
        // CPU writes only through `&mut self`.
        let all = unsafe { core::slice::from_raw_parts(memory.start().as_ptr(), memory.size) };
        all.get(..length).unwrap_or_default()
    }

    /// Returns all bytes for writing; nothing if the buffer was forfeited.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        let Some(memory) = &mut self.memory else {
            return &mut [];
        };
        // SAFETY: As in `bytes`; `&mut self` makes the reference the only one.
        unsafe { core::slice::from_raw_parts_mut(memory.start().as_ptr(), memory.size) }
    }

    /// Returns whether the memory was given up.
    pub(super) fn is_forfeited(&self) -> bool {
        self.memory.is_none()
    }

    /// Returns the first part of `range` that one command can have.
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

    /// Gives `range` to the device, and describes it in the scatter list. Returns the list's address
    /// and how many entries it has.
    ///
    /// # Errors
    ///
    /// As for [`Self::part`]; `EINVAL` if one command cannot have as much, too.
    pub(super) fn describe(&mut self, range: Range<usize>) -> Result<(DmaAddress, u32)> {
        let device = self.registers.bound_device();
        let memory = self.memory.as_mut().ok_or(EIO)?;
        if range.end > memory.size || memory.segments.part(range.clone(), self.unit) != range {
            return Err(EINVAL);
        }
        // SAFETY: By the type invariant no command is in progress that was given this list, and
        // `&mut self` makes the reference the only one.
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

    /// The command that was given the buffer has ended. Where it `lingers`, the device may write to
    /// the memory at any time: it is given up to the quarantine.
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
