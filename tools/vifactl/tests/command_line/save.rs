// SPDX-License-Identifier: GPL-2.0

//! `vifactl save`, up to where it reaches for the device.

use crate::host::{path_text, FakeHost, VF, VF_DRIVER};
use std::fs;

/// No process has this number (the greatest is 2^22).
const NOBODY: u32 = 1 << 30;

fn host() -> FakeHost {
    let host = FakeHost::with_vfs();

    host.bound(VF, VF_DRIVER);
    host.holder(NOBODY, "qemu", VF);
    fs::create_dir_all(host.path("proc/sys/kernel")).unwrap();
    fs::write(host.path("proc/sys/kernel/hostname"), "alpha\n").unwrap();
    fs::write(host.path("proc/sys/kernel/osrelease"), "7.3.4\n").unwrap();
    fs::create_dir(host.path("sets")).unwrap();
    host
}

#[test]
fn a_device_that_cannot_be_reached_leaves_no_file() {
    let host = host();
    let set = path_text(&host.path("sets/set"));

    host.run(&["save", VF, &set])
        .failed(1, "its descriptor could not be had from qemu");
    assert_eq!(fs::read_dir(host.path("sets")).unwrap().count(), 0);
}

#[test]
fn a_file_of_that_name_is_kept() {
    let host = host();
    let set = host.file("sets/set", "mine");

    host.run(&["save", VF, &set])
        .failed(1, "exists (--force replaces it)");
    host.run(&["save", VF, &set, "--force"])
        .failed(1, "its descriptor could not be had");
    assert_eq!(fs::read_to_string(&set).unwrap(), "mine");
    assert_eq!(fs::read_dir(host.path("sets")).unwrap().count(), 1);
}

#[test]
fn a_directory_that_is_not_there_is_told() {
    let host = host();
    let set = path_text(&host.path("nowhere/set"));

    host.run(&["save", VF, &set])
        .failed(1, "set cannot be made");
}

#[test]
fn a_set_cannot_go_to_standard_output() {
    host().run(&["save", VF, "-"]).failed(2, "add --to-stream");
}
