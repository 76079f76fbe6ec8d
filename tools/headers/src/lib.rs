// SPDX-License-Identifier: GPL-2.0

//! The project's C headers, as bindgen translates them: `include/uapi/linux/vifa.h`,
//! `include/linux/vifa_hw.h`, `vifa_reference.h` and `vifa_fault.h`.
//!
//! Every program takes constants, sizes and offsets from here, so that they are the driver's and the
//! device model's. Integers of structures are little-endian, as on every machine that runs them.

#![allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    clippy::all
)]

mod plain;

pub use plain::{bytes_of, value_of, Plain};

include!(concat!(env!("OUT_DIR"), "/headers.rs"));
