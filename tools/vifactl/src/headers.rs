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
