// SPDX-License-Identifier: GPL-2.0

//! Conversion between structures and bytes.

use std::{ptr, slice};

use crate as headers;

/// A type for which every bit pattern is a valid value, and that has no padding.
///
/// # Safety
///
/// The type must have both properties.
pub unsafe trait Plain: Copy + Default {}

macro_rules! plain {
    ($($name:ty),* $(,)?) => {
        $(
            // SAFETY: The type is an integer, or a `repr(C)` structure of integers whose reserved
            // fields leave no padding. The assertions of the generated bindings check the sizes.
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
    // SAFETY: `T: Plain` has no padding, so all its bytes are initialised.
    unsafe { slice::from_raw_parts(ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// Returns the `T` at the start of `bytes`, or `None` if they are too few.
pub fn value_of<T: Plain>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: There are enough bytes, the read requires no alignment, and every bit pattern is a
    // valid `T: Plain`.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
