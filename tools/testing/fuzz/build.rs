// SPDX-License-Identifier: GPL-2.0

//! Has the layer compiled with the device in memory of its own tests.

fn main() {
    println!("cargo::rustc-cfg=CONFIG_KUNIT=\"y\"");
}
