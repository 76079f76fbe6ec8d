// SPDX-License-Identifier: GPL-2.0

//! Structures as bytes, and bytes as structures.

use crate as headers;
use std::{ptr, slice};

/// A type that is plain memory: every bit pattern is a value, and there is no padding.
///
/// # Safety
///
/// The implementor has exactly these properties.
pub unsafe trait Plain: Copy + Default {}

macro_rules! plain {
    ($($name:ty),* $(,)?) => {
        $(
            // SAFETY: An integer, or a `repr(C)` structure of integers whose reserved fields leave
            // no padding; the assertions of the generated bindings hold the sizes.
            unsafe impl Plain for $name {}
        )*
    };
}

plain!(
    u8,
    u16,
    u32,
    u64,
    headers::vifa_hw_record,
    headers::vifa_reference_submission,
    headers::vifa_reference_completion,
    headers::vifa_reference_configuration,
    headers::vifa_reference_queue,
    headers::vifa_reference_interrupt,
    headers::vifa_reference_unfinished,
    headers::vifa_stream_header,
    headers::vifa_section_header,
    headers::vifa_stream_end,
    headers::vifa_identity,
    headers::vifa_relation,
    headers::vifa_address_record,
    headers::vifa_address_range,
    headers::vifa_data_run,
    headers::vifa_resources,
    headers::vifa_record,
    headers::vifa_region,
    headers::vifa_save_set_header,
);

/// Returns the bytes of `value`.
pub fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: `T: Plain` has no padding, so that all its bytes are initialised.
    unsafe { slice::from_raw_parts(ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// Returns the `T` at the start of `bytes`; `None` if they are too few.
pub fn value_of<T: Plain>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: There are enough bytes, the read needs no alignment, and any bytes are a `T: Plain`.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
