// SPDX-License-Identifier: GPL-2.0

//! C declarations that the kernel crate's bindings lack.
//!
//! bindgen generates these at build time from `bindings/bindings_helper.h`. Types that the kernel
//! crate defines are imported from there. Only [`crate::vfio`] and the device access of a backend
//! may use this module.

#![allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]

use kernel::{
    bindings::*,
    ffi, //
};
use pin_init::MaybeZeroable;

mod bytes;
pub(crate) mod checksum;
pub(crate) mod dma;
pub(crate) mod rate_limit;
pub(crate) mod task;
pub(crate) mod trace;

include!(env!("VIFA_BINDINGS"));
