// SPDX-License-Identifier: GPL-2.0

//! Turns the project's own headers into Rust, so that a program has the layout where the driver and
//! the device's model have it. For build scripts; the program `bindgen` does it, as in the kernel's
//! build.

use std::{env, fs, path::Path, process::Command};

/// Makes `file` in `OUT_DIR` of the `headers`, which are named relative to the repository's root:
/// everything in them that is called `VIFA_` or `vifa_`. `options` are bindgen's.
///
/// # Panics
///
/// Without bindgen, or with headers that it cannot read: a build ends so.
pub fn translate(headers: &[&str], file: &str, options: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("this crate stands two levels below the repository's root");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let all = Path::new(&out).join("headers.h");
    let mut includes = String::new();
    for header in headers {
        let path = root.join(header);
        println!("cargo::rerun-if-changed={}", path.display());
        includes += &format!("#include \"{}\"\n", path.display());
    }
    fs::write(&all, includes).expect("OUT_DIR is writable");

    let bindgen = env::var("BINDGEN").unwrap_or_else(|_| "bindgen".into());
    println!("cargo::rerun-if-env-changed=BINDGEN");
    let status = Command::new(&bindgen)
        .arg(&all)
        .args(["--allowlist-item", "(VIFA|vifa)_.*", "--no-doc-comments"])
        .args(options)
        .arg("--output")
        .arg(Path::new(&out).join(file))
        .arg("--")
        .arg(format!("-I{}", root.join("include").display()))
        .status()
        .unwrap_or_else(|error| panic!("{bindgen}: {error}; install the package bindgen"));
    assert!(status.success(), "{bindgen} could not read the headers");
}
