// SPDX-License-Identifier: GPL-2.0

//! Turns the project's own headers into Rust, so that what is compared here is where the driver
//! has it. The program `bindgen` does it, as in the kernel's build.

use std::{env, fs, path::Path, process::Command};

/// Headers, relative to the repository's root.
const HEADERS: [&str; 3] = [
    "include/linux/vifa_hw.h",
    "include/linux/vifa_fault.h",
    "include/uapi/linux/vifa.h",
];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../..")
        .canonicalize()
        .expect("the crate stands inside its repository");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let all = Path::new(&out).join("all.h");
    let mut includes = String::new();
    for header in HEADERS {
        let path = root.join(header);
        println!("cargo::rerun-if-changed={}", path.display());
        includes += &format!("#include \"{}\"\n", path.display());
    }
    fs::write(&all, includes).expect("OUT_DIR is writable");

    let bindgen = env::var("BINDGEN").unwrap_or_else(|_| "bindgen".into());
    println!("cargo::rerun-if-env-changed=BINDGEN");
    let status = Command::new(&bindgen)
        .arg(&all)
        .args(["--allowlist-item", "(VIFA|vifa)_.*"])
        .args(["--with-derive-default", "--no-doc-comments"])
        .arg("--output")
        .arg(Path::new(&out).join("hw.rs"))
        .arg("--")
        .arg(format!("-I{}", root.join("include").display()))
        .status()
        .unwrap_or_else(|error| panic!("{bindgen}: {error}; install the package bindgen"));
    assert!(status.success(), "{bindgen} could not read the headers");
}
