// SPDX-License-Identifier: GPL-2.0

//! DMA logging: tracks the guest memory that a device writes.
//!
//! `include/uapi/linux/vfio.h` defines the uAPI (`VFIO_DEVICE_FEATURE_DMA_LOGGING_*`). The VFIO
//! core implements it through `struct vfio_log_ops`, with few checks: starts, stops and reports can
//! occur in any order, page sizes can be invalid, and ranges and reports can be empty.
//!
//! Reports are written to a bitmap of user space, which the IOVA bitmap of iommufd pins. A kernel
//! without the IOVA bitmap ([`IS_AVAILABLE`]) does not support DMA logging.
//!
//! C headers: [`include/linux/vfio.h`](srctree/include/linux/vfio.h),
//! [`include/linux/iova_bitmap.h`](srctree/include/linux/iova_bitmap.h),
//! [`include/linux/interval_tree.h`](srctree/include/linux/interval_tree.h)

use super::{
    Device,
    Driver, //
};
use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    bindings::{
        iova_bitmap,
        rb_root_cached, //
    },
    error::from_result,
    ffi,
    prelude::*, //
};

/// Whether this kernel has the IOVA bitmap.
pub(crate) const IS_AVAILABLE: bool = cfg!(CONFIG_IOMMUFD_DRIVER);

/// The smallest page size, in bytes, that the VFIO core accepts for a bitmap.
const PAGE_SIZE_MIN: u64 = 0x1000;

/// Iterator over the IOVA ranges that user space asks to log, in ascending order. The items are the
/// first and the last byte of each range. The ranges do not overlap. The last byte of an empty
/// range is the byte before the first, modulo 2^64.
pub(crate) struct Ranges<'a> {
    next: *mut bindings::interval_tree_node,
    _tree: PhantomData<&'a rb_root_cached>,
}

impl Ranges<'_> {
    /// # Safety
    ///
    /// The tree is valid and does not change while the value is used.
    unsafe fn new(tree: *mut rb_root_cached) -> Self {
        Self {
            // SAFETY: By the safety requirements.
            next: unsafe { bindings::interval_tree_iter_first(tree, 0, usize::MAX) },
            _tree: PhantomData,
        }
    }
}

impl Iterator for Ranges<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let node = NonNull::new(self.next)?.as_ptr();
        // SAFETY: The tree, and with it the node, is valid and does not change.
        let (first, last) = unsafe { ((*node).start, (*node).last) };
        // SAFETY: As above.
        self.next = unsafe { bindings::interval_tree_iter_next(node, 0, usize::MAX) };
        Some((first as u64, last as u64))
    }
}

/// The bitmap of user space for a report. Bits can only be set.
pub(crate) struct DirtyBitmap<'a> {
    bitmap: NonNull<iova_bitmap>,
    /// First byte of the range that the bitmap covers.
    start: u64,
    /// End of that range, exclusive.
    end: u64,
    _bitmap: PhantomData<&'a mut iova_bitmap>,
}

impl DirtyBitmap<'_> {
    /// Sets the bits of all pages that contain any of the `length` bytes from `iova`. Ignores bytes
    /// outside of the bitmap's range.
    ///
    /// If the memory of the bitmap is not accessible, no bit is set, and the core reports success.
    pub(crate) fn set(&mut self, iova: u64, length: u64) {
        let end = iova.saturating_add(length).min(self.end);
        let mut next = iova.max(self.start);
        while next < end {
            let block = self.block(next, end - next);
            // SAFETY: The bitmap is valid and borrowed for as long as `self` is. The bytes are in
            // the bitmap's range. CAST: The core's IOVAs are `unsigned long`.
            unsafe {
                bindings::rust_helper_iova_bitmap_set(
                    self.bitmap.as_ptr(),
                    next as usize,
                    block as usize,
                );
            }
            next += block;
        }
    }

    /// Returns how many of the `remaining` bytes from `iova` to set at a time. The page size of the
    /// bitmap is unknown here. The result either stays inside one page, or ends at the end of a
    /// page.
    ///
    /// At the end of a page of the bitmap's own memory, `iova_bitmap_set()` computes the remaining
    /// range from whole pages. If the range ends within a page, the function steps back by the
    /// difference, and loops forever if the next page of the bitmap's memory cannot be pinned.
    fn block(&self, iova: u64, remaining: u64) -> u64 {
        let offset = iova - self.start;
        let into_page = offset % PAGE_SIZE_MIN;
        if into_page != 0 || remaining < PAGE_SIZE_MIN {
            (PAGE_SIZE_MIN - into_page).min(remaining)
        } else {
            1 << offset.trailing_zeros().min(remaining.ilog2())
        }
    }
}

/// The logging callbacks of `T`.
pub(super) struct Operations<T: Driver>(PhantomData<T>);

impl<T: Driver> Operations<T> {
    const TABLE: bindings::vfio_log_ops = bindings::vfio_log_ops {
        log_start: Some(Self::start),
        log_stop: Some(Self::stop),
        log_read_and_clear: Some(Self::report),
    };

    pub(super) fn table() -> &'static bindings::vfio_log_ops {
        &Self::TABLE
    }

    extern "C" fn start(
        vfio_device: *mut bindings::vfio_device,
        ranges: *mut rb_root_cached,
        _count: u32,
        page_size: *mut u64,
    ) -> ffi::c_int {
        // SAFETY: The VFIO core passes a device that was registered with this table.
        let device = unsafe { Device::<T>::from_vfio(vfio_device) };
        from_result(|| {
            // SAFETY: The VFIO core passes a valid tree, and does not change it during the call.
            let ranges = unsafe { Ranges::new(ranges) };
            // SAFETY: The VFIO core passes a valid pointer for the hint and the answer.
            unsafe { *page_size = T::log_start(device, ranges, *page_size)? };
            Ok(0)
        })
    }

    extern "C" fn stop(vfio_device: *mut bindings::vfio_device) -> ffi::c_int {
        // SAFETY: As in `start`.
        let device = unsafe { Device::<T>::from_vfio(vfio_device) };
        from_result(|| T::log_stop(device).map(|()| 0))
    }

    extern "C" fn report(
        vfio_device: *mut bindings::vfio_device,
        iova: ffi::c_ulong,
        length: ffi::c_ulong,
        bitmap: *mut iova_bitmap,
    ) -> ffi::c_int {
        // SAFETY: As in `start`.
        let device = unsafe { Device::<T>::from_vfio(vfio_device) };
        from_result(|| {
            let (iova, length) = (iova as u64, length as u64);
            let mut bitmap = DirtyBitmap {
                bitmap: NonNull::new(bitmap).ok_or(EINVAL)?,
                start: iova,
                end: iova.checked_add(length).ok_or(EOVERFLOW)?,
                _bitmap: PhantomData,
            };
            T::log_report(device, iova, length, &mut bitmap)?;
            Ok(0)
        })
    }
}
