// SPDX-License-Identifier: GPL-2.0

//! `vifactl save`, up to its access to the device.

use std::fs;

use crate::host::{path_text, FakeHost, VF, VF_DRIVER};

/// A process id above the maximum of 2^22.
const NO_PROCESS: u32 = 1 << 30;

fn host() -> FakeHost {
    let host = FakeHost::with_vfs();

    host.bound(VF, VF_DRIVER);
    host.holder(NO_PROCESS, "qemu", VF);
    fs::create_dir_all(host.path("proc/sys/kernel")).unwrap();
    fs::write(host.path("proc/sys/kernel/hostname"), "alpha\n").unwrap();
    fs::write(host.path("proc/sys/kernel/osrelease"), "7.3.4\n").unwrap();
    fs::create_dir(host.path("sets")).unwrap();
    host
}

#[test]
fn an_inaccessible_device_leaves_no_file() {
    let host = host();
    let set = path_text(&host.path("sets/set"));

    host.run(&["save", VF, &set])
        .failed(1, "failed to get its descriptor from qemu");
    assert_eq!(fs::read_dir(host.path("sets")).unwrap().count(), 0);
}

#[test]
fn an_existing_file_is_kept() {
    let host = host();
    let set = host.file("sets/set", "mine");

    host.run(&["save", VF, &set])
        .failed(1, "exists (--force replaces it)");
    host.run(&["save", VF, &set, "--force"])
        .failed(1, "failed to get its descriptor");
    assert_eq!(fs::read_to_string(&set).unwrap(), "mine");
    assert_eq!(fs::read_dir(host.path("sets")).unwrap().count(), 1);
}

#[test]
fn a_missing_directory_is_reported() {
    let host = host();
    let set = path_text(&host.path("nowhere/set"));

    host.run(&["save", VF, &set])
        .failed(1, &format!("failed to create {set}"));
}

#[test]
fn a_set_cannot_be_written_to_standard_output() {
    host().run(&["save", VF, "-"]).failed(2, "add --to-stream");
}
