// SPDX-License-Identifier: GPL-2.0

//! Compiles the layer's test device, as the kernel does for KUnit, if the feature `testing` is on.

use std::env;

fn main() {
    if env::var_os("CARGO_FEATURE_TESTING").is_some() {
        println!("cargo::rustc-cfg=CONFIG_KUNIT=\"y\"");
    }
}
