// SPDX-License-Identifier: GPL-2.0

//! DMA synchronisation of scatterlists, which [`kernel::scatterlist`] lacks.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use kernel::{
    device::{
        Bound,
        Device, //
    },
    scatterlist::SGTable, //
};

/// Synchronises the memory of `table` for access by `device`.
///
/// # Safety
///
/// The table was mapped for this device, with `DMA_BIDIRECTIONAL`.
pub(crate) unsafe fn sync_for_device(device: &Device<Bound>, table: &SGTable) {
    // SAFETY: Both are transparent wrappers of the arguments' types. The caller guarantees that the
    // table was mapped for this device, with `DMA_BIDIRECTIONAL`.
    unsafe {
        super::rust_helper_dma_sync_for_device(
            core::ptr::from_ref(device).cast_mut().cast(),
            core::ptr::from_ref(table).cast_mut().cast(),
        );
    }
}

/// Synchronises the memory of `table` for access by the CPU.
///
/// # Safety
///
/// The same as for [`sync_for_device`].
pub(crate) unsafe fn sync_for_cpu(device: &Device<Bound>, table: &SGTable) {
    // SAFETY: As in `sync_for_device`.
    unsafe {
        super::rust_helper_dma_sync_for_cpu(
            core::ptr::from_ref(device).cast_mut().cast(),
            core::ptr::from_ref(table).cast_mut().cast(),
        );
    }
}
