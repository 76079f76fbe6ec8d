// SPDX-License-Identifier: GPL-2.0

//! DMA logging: which guest memory a device has written.
//!
//! `include/uapi/linux/vfio.h` has the uAPI (`VFIO_DEVICE_FEATURE_DMA_LOGGING_*`). The VFIO core
//! turns it into calls of `struct vfio_log_ops`, and checks little: a driver hears of starts, stops
//! and reports in any order, of page sizes that are none, and of ranges and reports without length.
//!
//! Reports go into a bitmap of user space, which the IOVA bitmap of iommufd pins. A kernel that
//! lacks it ([`IS_AVAILABLE`]) has no DMA logging.
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

/// The smallest page that the VFIO core takes for a bitmap, in bytes.
const PAGE_SIZE_MIN: u64 = 0x1000;

/// The IOVA ranges that user space wants logged, in ascending order: the first and the last byte of
/// each. They do not overlap. One without length ends before it begins, modulo 2^64.
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

/// The bitmap of user space that a report goes to. Bits can only be set.
pub(crate) struct DirtyBitmap<'a> {
    bitmap: NonNull<iova_bitmap>,
    /// The bytes that it is for.
    start: u64,
    end: u64,
    _bitmap: PhantomData<&'a mut iova_bitmap>,
}

impl DirtyBitmap<'_> {
    /// Sets the bits of all pages that have one of `length` bytes from `iova`. Bytes that the
    /// bitmap is not for have none.
    ///
    /// Where the bitmap's own memory cannot be reached, nothing is set, and the core reports
    /// success.
    pub(crate) fn set(&mut self, iova: u64, length: u64) {
        let end = iova.saturating_add(length).min(self.end);
        let mut next = iova.max(self.start);
        while next < end {
            let block = self.block(next, end - next);
            // SAFETY: The bitmap is valid and borrowed for as long as `self` is; the bytes are among
            // those that it is for. CAST: An IOVA of the core's is an `unsigned long`.
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

    /// Returns how many of the `left` bytes from `iova` to set at a time, for a bitmap whose page
    /// size is not known here: such that they lie in one of its pages, or end with one.
    ///
    /// `iova_bitmap_set()` computes what is left at the end of a page of the bitmap's own memory
    /// from whole pages. Where the range ends within one, it goes back by the difference, and does
    /// so for ever if the memory behind that page cannot be pinned.
    fn block(&self, iova: u64, left: u64) -> u64 {
        let offset = iova - self.start;
        let into_page = offset % PAGE_SIZE_MIN;
        if into_page != 0 || left < PAGE_SIZE_MIN {
            (PAGE_SIZE_MIN - into_page).min(left)
        } else {
            1 << offset.trailing_zeros().min(left.ilog2())
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
        // SAFETY: The VFIO core calls back with a device that was registered with this table.
        let device = unsafe { Device::<T>::from_vfio(vfio_device) };
        from_result(|| {
            // SAFETY: The VFIO core passes a tree of its own, which it does not change meanwhile.
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
