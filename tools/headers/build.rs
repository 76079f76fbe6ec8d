// SPDX-License-Identifier: GPL-2.0

//! Translates the headers with the program `bindgen`, as the kernel's build does. `$BINDGEN`
//! overrides the program.

use std::{env, fs, path::Path, process::Command};

/// The headers, relative to the repository's `include`.
const HEADERS: [&str; 4] = [
    "linux/vifa_fault.h",
    "linux/vifa_hw.h",
    "linux/vifa_reference.h",
    "uapi/linux/vifa.h",
];

/// Names of constants and types: the project's own, and VFIO's device states.
const NAMES: &str = "(VIFA|vifa)_.*|VFIO_DEVICE_STATE_.*|vfio_device_mig_state";

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("this crate stands two levels below the repository's root");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let all = Path::new(&out).join("headers.h");
    let mut includes = String::from("#include <linux/vfio.h>\n");

    for header in HEADERS {
        let path = root.join("include").join(header);
        println!("cargo::rerun-if-changed={}", path.display());
        includes += &format!("#include \"{}\"\n", path.display());
    }
    // bindgen does not translate macros with arguments.
    for name in [
        "VIFA_FAULT_SLOT",
        "VIFA_HW_FRAME_CONTROL",
        "VIFA_HW_FRAME_DATA",
    ] {
        for n in 0..2 {
            includes += &format!("static const unsigned int {name}_{n} = {name}({n});\n");
        }
    }
    fs::write(&all, includes).expect("OUT_DIR is writable");

    let bindgen = env::var("BINDGEN").unwrap_or_else(|_| "bindgen".into());
    println!("cargo::rerun-if-env-changed=BINDGEN");
    // bindgen 0.60 of Debian 12 does not support --allowlist-item.
    let status = Command::new(&bindgen)
        .arg(&all)
        .args(["--allowlist-var", NAMES, "--allowlist-type", NAMES])
        .args(["--no-doc-comments", "--no-prepend-enum-name"])
        .arg("--with-derive-default")
        .arg("--output")
        .arg(Path::new(&out).join("headers.rs"))
        .arg("--")
        .arg(format!("-I{}", root.join("include").display()))
        .status()
        .unwrap_or_else(|error| panic!("{bindgen}: {error}; install the package bindgen"));
    assert!(
        status.success(),
        "{bindgen} failed to translate the headers"
    );
}
