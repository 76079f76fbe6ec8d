// SPDX-License-Identifier: GPL-2.0

//! The memory of a buffer, which a device reads and writes by DMA.
//!
//! The memory consists of single pages, or of contiguous memory if a scatter list cannot describe
//! single pages. It is charged to the memory cgroup of the task that allocates it.

use super::scatter::{
    Segment,
    Segments, //
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
    transmute::AsBytes, //
};

const ENTRY: usize = size_of::<vifa_hw_scatter>();

/// Maximum number of entries of a scatter list, which occupies one page.
const ENTRIES_MAX: usize = PAGE_SIZE / ENTRY;

/// Single pages, mapped for a device.
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

    /// Returns the segments of the pages.
    fn segments(&self) -> Result<KVec<Segment>> {
        let mut segments = KVec::new();
        for entry in self.table.iter() {
            let segment = Segment {
                address: entry.dma_address(),
                length: usize::try_from(entry.dma_len())?,
            };
            segments.push(segment, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(segments)
    }
}

/// The data of a buffer.
enum Data {
    /// Single pages.
    Pages(Pages),
    /// Contiguous memory, for a device whose scatter lists are too short for single pages.
    Contiguous(Coherent<[u8]>),
}

impl Data {
    /// Allocates contiguous memory, and returns it with its only segment.
    fn contiguous(device: &Device<Bound>, size: usize) -> Result<(Self, KVec<Segment>)> {
        let data = Coherent::zeroed_slice(device, size, GFP_KERNEL_ACCOUNT)?;
        let mut segments = KVec::new();
        let segment = Segment {
            address: data.dma_address(),
            length: size,
        };
        segments.push(segment, GFP_KERNEL_ACCOUNT)?;
        Ok((Self::Contiguous(data), segments))
    }
}

/// The memory of a buffer that the device accesses, and its scatter list.
///
/// # Invariants
///
/// The first `size` bytes from [`Self::start`] are initialised and owned by `data`. They do not
/// move.
pub(super) struct Memory {
    list: Coherent<[u8]>,
    segments: Segments,
    data: Data,
    size: usize,
    /// Commands that do not access a whole range access multiples of this number of bytes.
    unit: usize,
}

impl Memory {
    /// Allocates `size` bytes for DMA of `device`, which supports `entries` entries of a scatter
    /// list, and for commands for multiples of `unit` bytes.
    pub(super) fn new(
        device: &Device<Bound>,
        entries: usize,
        size: usize,
        unit: usize,
    ) -> Result<Self> {
        let entries = entries.min(ENTRIES_MAX);
        let pages = Pages::new(device, size)?;
        let segments = Segments::new(pages.segments()?, entries);
        let (data, segments) = if segments.suffice(size, unit) {
            (Data::Pages(pages), segments)
        } else {
            drop(pages);
            let (data, segments) = Data::contiguous(device, size)?;
            (data, Segments::new(segments, entries))
        };
        let list = Coherent::zeroed_slice(device, segments.longest() * ENTRY, GFP_KERNEL_ACCOUNT)?;
        // INVARIANT: Both kinds of memory are zeroed when they are allocated, and have at least
        // `size` bytes.
        Ok(Self {
            list,
            segments,
            data,
            size,
            unit,
        })
    }

    /// Returns the size of the memory in bytes.
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

    /// Returns all bytes.
    ///
    /// # Safety
    ///
    /// The device does not access the memory during the lifetime of the slice.
    pub(super) unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: By the type invariant, the bytes are initialised. The CPU writes only through
        // `&mut self`, and by the caller's guarantee, the device does not access them.
        unsafe { core::slice::from_raw_parts(self.start().as_ptr(), self.size) }
    }

    /// Returns all bytes for writing.
    ///
    /// # Safety
    ///
    /// The same as for [`Self::bytes`].
    pub(super) unsafe fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: As in `bytes`. `&mut self` makes the reference exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.start().as_ptr(), self.size) }
    }

    /// Returns the first part of `range` that fits in one command, which is empty if no part fits.
    pub(super) fn part(&self, range: Range<usize>) -> Range<usize> {
        self.segments.part(range, self.unit)
    }

    /// Describes `range` in the scatter list. Returns the list's address and its number of entries.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `range` does not fit in one command.
    ///
    /// # Safety
    ///
    /// The device does not access the scatter list during the call.
    pub(super) unsafe fn describe(&mut self, range: Range<usize>) -> Result<(DmaAddress, u32)> {
        if range.end > self.size || self.part(range.clone()) != range {
            return Err(EINVAL);
        }
        // SAFETY: By the caller's guarantee, the device does not access the list. `&mut self` makes
        // the reference exclusive.
        let list = unsafe { self.list.as_mut() };
        let mut count = 0;
        for (to, segment) in list
            .chunks_exact_mut(ENTRY)
            .zip(self.segments.within(range))
        {
            let entry = vifa_hw_scatter {
                address: segment.address.to_le(),
                length: u32::try_from(segment.length)?.to_le(),
                reserved: 0,
            };
            to.copy_from_slice(entry.as_bytes());
            count += 1;
        }
        Ok((self.list.dma_address(), count))
    }

    /// Synchronises the memory for access by the device.
    ///
    /// # Safety
    ///
    /// The memory was allocated for `device`.
    pub(super) unsafe fn sync_for_device(&self, device: &Device<Bound>) {
        if let Data::Pages(pages) = &self.data {
            // SAFETY: `SGTable::new()` has mapped the table in both directions, by the caller's
            // guarantee for this device.
            unsafe { bindings::dma::sync_for_device(device, &pages.table) };
        }
    }

    /// Synchronises the memory for access by the CPU.
    ///
    /// # Safety
    ///
    /// The same as for [`Self::sync_for_device`].
    pub(super) unsafe fn sync_for_cpu(&self, device: &Device<Bound>) {
        if let Data::Pages(pages) = &self.data {
            // SAFETY: As in `sync_for_device`.
            unsafe { bindings::dma::sync_for_cpu(device, &pages.table) };
        }
    }
}
