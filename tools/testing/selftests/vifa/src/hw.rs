// SPDX-License-Identifier: GPL-2.0

//! The layouts of `include/linux/vifa_hw.h`, `vifa_reference.h`, `vifa_fault.h` and
//! `include/uapi/linux/vifa.h`, as bindgen reads them.

#![allow(
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    clippy::all
)]

include!(concat!(env!("OUT_DIR"), "/hw.rs"));
