// SPDX-License-Identifier: GPL-2.0

//! Device-specific regions of a VFIO PCI device.
//!
//! User space finds such a region by its type and subtype (`VFIO_REGION_INFO_CAP_TYPE`) and reads
//! it like any other region. The regions here are read-only, and their content is generated for
//! each read.

use super::{
    device::Opening,
    driver::Driver, //
};
use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    error::to_result,
    ffi,
    prelude::*,
    sync::Arc,
    types::ForeignOwnable,
    uaccess::UserSlice, //
};

/// A read-only region.
pub(crate) trait Region: Send + Sync + 'static {
    /// PCI vendor that defines the region.
    const VENDOR: u16;

    /// Subtype of the region, as defined by the vendor.
    const SUBTYPE: u32;

    /// Size of the region in bytes.
    const SIZE: usize;

    /// The content of the region, which has [`Self::SIZE`] bytes.
    type Content: AsRef<[u8]>;

    /// Returns the present content. A read calls this once.
    fn content(&self) -> Self::Content;
}

impl<T: Driver> Opening<'_, T> {
    /// Adds a region to the device, until it is closed.
    pub(crate) fn add_region<R: Region>(&self, region: Arc<R>) -> Result {
        let data = region.into_foreign();
        // SAFETY: The device is enabled but not yet open, so that its regions are not in use. The
        // operations are static, and `data` has the type that they expect.
        let result = to_result(unsafe {
            bindings::vfio_pci_core_register_dev_region(
                self.core(),
                bindings::VFIO_REGION_TYPE_PCI_VENDOR_TYPE | u32::from(R::VENDOR),
                R::SUBTYPE,
                Operations::<R>::table(),
                R::SIZE,
                bindings::VFIO_REGION_INFO_FLAG_READ,
                data,
            )
        });
        if result.is_err() {
            // SAFETY: The device did not take the reference that `into_foreign` returned.
            drop(unsafe { Arc::<R>::from_foreign(data) });
        }
        result
    }
}

struct Operations<R: Region>(PhantomData<R>);

impl<R: Region> Operations<R> {
    const TABLE: bindings::vfio_pci_regops = bindings::vfio_pci_regops {
        rw: Some(Self::access),
        release: Some(Self::release),
        mmap: None,
        add_capability: None,
    };

    fn table() -> &'static bindings::vfio_pci_regops {
        &Self::TABLE
    }

    extern "C" fn access(
        core: *mut bindings::vfio_pci_core_device,
        user: *mut ffi::c_char,
        count: usize,
        position: *mut kernel::bindings::loff_t,
        is_write: bool,
    ) -> isize {
        // SAFETY: The VFIO core passes a valid pointer.
        let offset = unsafe { *position } as u64;
        let index = (offset >> bindings::VFIO_PCI_OFFSET_SHIFT) as usize
            - bindings::VFIO_PCI_NUM_REGIONS as usize;
        let start = offset & ((1 << bindings::VFIO_PCI_OFFSET_SHIFT) - 1);
        // SAFETY: The VFIO core passes a registered region, whose data `add_region` has stored,
        // while the device is open.
        let region = unsafe { Arc::<R>::borrow((*(*core).region.add(index)).data) };

        if is_write || start >= R::SIZE as u64 {
            return EINVAL.to_errno() as isize;
        }
        let content = region.content();
        let bytes = content.as_ref().get(start as usize..).unwrap_or_default();
        let bytes = &bytes[..bytes.len().min(count)];
        let mut user = UserSlice::new(UserPtr::from_ptr(user.cast()), bytes.len()).writer();
        match user.write_slice(bytes) {
            Ok(()) => {
                // SAFETY: As above. CAST: A region is smaller than its part of the offsets.
                unsafe { *position += bytes.len() as kernel::bindings::loff_t };
                bytes.len() as isize
            }
            Err(error) => error.to_errno() as isize,
        }
    }

    extern "C" fn release(
        _core: *mut bindings::vfio_pci_core_device,
        region: *mut bindings::vfio_pci_region,
    ) {
        // SAFETY: `add_region` has stored an `Arc<R>`. This is the last callback of the region.
        drop(unsafe { Arc::<R>::from_foreign((*region).data) });
    }
}
