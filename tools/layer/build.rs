// SPDX-License-Identifier: GPL-2.0

//! Enables the layer's test device, as KUnit does in the kernel, with the feature `testing`.

use std::env;

fn main() {
    if env::var_os("CARGO_FEATURE_TESTING").is_some() {
        println!("cargo::rustc-cfg=CONFIG_KUNIT=\"y\"");
    }
}
