// SPDX-License-Identifier: GPL-2.0

//! The kernel's CRC-32C.
//!
//! C header: [`include/linux/crc32.h`](srctree/include/linux/crc32.h)

/// Feeds `bytes` into a CRC-32C whose register holds `seed`, and returns the register.
pub(crate) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    // SAFETY: `bytes` is valid for reads of its length.
    unsafe { super::crc32c(seed, bytes.as_ptr().cast(), bytes.len()) }
}

/// Returns whether [`crc32c`] uses CRC instructions of this processor.
pub(crate) fn is_optimized() -> bool {
    // SAFETY: The function may be called at any time.
    unsafe { super::rust_helper_crc32c_is_optimized() }
}
