// SPDX-License-Identifier: GPL-2.0

//! Constants and ring entries of the reference device.
//!
//! bindgen generates them from `include/linux/vifa_reference.h` when the module is built.

#![allow(
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub
)]

use kernel::{
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes as TransmuteFromBytes, //
    }, //
};
use pin_init::MaybeZeroable;

include!(env!("VIFA_REFERENCE_BINDINGS"));

// SAFETY: The structure consists of integers without padding, as deriving `IntoBytes` proves.
unsafe impl AsBytes for vifa_reference_submission {}
// SAFETY: The structure consists of integers, so that any bytes are valid, as deriving
// `FromBytes` proves.
unsafe impl TransmuteFromBytes for vifa_reference_submission {}
// SAFETY: As for `vifa_reference_submission`.
unsafe impl AsBytes for vifa_reference_completion {}
// SAFETY: As for `vifa_reference_submission`.
unsafe impl TransmuteFromBytes for vifa_reference_completion {}
