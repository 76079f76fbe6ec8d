// SPDX-License-Identifier: GPL-2.0

//! What `include/uapi/linux/vifa.h` and `include/linux/vifa_hw.h` lay out, as bindgen reads it.

#![allow(
    dead_code,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    clippy::all
)]

include!(concat!(env!("OUT_DIR"), "/headers.rs"));

/// A structure of the headers: plain integers without padding, so that any bytes are one.
///
/// # Safety
///
/// The implementor has exactly these properties.
pub(crate) unsafe trait Structure: Copy {}

// SAFETY: The structure has integers and arrays of integers alone; bindgen's assertions hold its
// size, which is the sum of its fields' sizes.
unsafe impl Structure for vifa_region {}
// SAFETY: As above.
unsafe impl Structure for vifa_save_set_header {}

/// The structure at the start of `bytes`, as little-endian as it stands there; `None` if they are
/// too few.
pub(crate) fn read<T: Structure>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: There are enough bytes, the read needs no alignment, and any bytes are a `T`.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
