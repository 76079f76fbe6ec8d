// SPDX-License-Identifier: GPL-2.0

//! Translates the C headers whose constants and layouts the layer repeats, so that a test can
//! compare them.

use std::{env, path::PathBuf};

const HEADERS: &str = "
#include <linux/vfio.h>
#include <linux/vifa.h>
#include <linux/vifa_hw.h>
";

fn main() {
    let tree = "../../..";
    let output = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));

    bindgen::Builder::default()
        .header_contents("headers.h", HEADERS)
        .clang_args([
            format!("-I{tree}/include/uapi"),
            format!("-I{tree}/include"),
        ])
        .allowlist_item("(VIFA|vifa)_.*")
        .allowlist_item("VFIO_DEVICE_STATE_.*")
        .allowlist_item("vfio_device_mig_state")
        .prepend_enum_name(false)
        .derive_default(true)
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()))
        .generate()
        .expect("the headers can be parsed")
        .write_to_file(output.join("headers.rs"))
        .expect("the output directory can be written");
}
