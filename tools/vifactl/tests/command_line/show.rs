// SPDX-License-Identifier: GPL-2.0

//! `vifactl show`

use crate::host::{region, FakeHost, PF, VF, VF_DRIVER};

#[test]
fn the_region_in_debugfs_is_shown() {
    let host = FakeHost::with_vfs();

    host.bound(VF, VF_DRIVER);
    host.region(VF, &region());
    let outcome = host.run(&["show", VF]);
    let text = outcome.done();

    assert!(text.starts_with("0000:01:00.1, read from debugfs\n"));
    assert!(text.contains("control interface  0000:01:00.1/control\n"));
    assert!(text.contains("last error         none\n"));
    assert!(text.contains("  queues             4\n"));
}

#[test]
fn json_has_the_headers_names() {
    let host = FakeHost::with_vfs();

    host.bound(VF, VF_DRIVER);
    host.region(VF, &region());
    let shown = host.run(&["--json", "show", VF]).json();

    assert_eq!(shown["function"], VF);
    assert_eq!(shown["read_from"], "debugfs");
    assert_eq!(shown["state"], "RUNNING");
    assert_eq!(shown["interfaces"]["data"]["id"], "0x0000000000010102");
    assert_eq!(shown["identity"]["local_memory"], 0x10_0000);
    assert_eq!(shown["last_error"], serde_json::Value::Null);
}

#[test]
fn an_invalid_region_is_damaged() {
    let host = FakeHost::with_vfs();

    host.bound(VF, VF_DRIVER);
    host.region(VF, &region()[..100]);
    host.run(&["show", VF]).failed(
        4,
        "0000:01:00.1: invalid migration region: length: expected at least",
    );
}

#[test]
fn a_function_that_cannot_be_shown_is_reported() {
    let host = FakeHost::with_vfs();

    host.run(&["show", PF])
        .failed(1, "0000:01:00.0 is not a virtual function");
    host.run(&["show", "0000:09:00.0"])
        .failed(1, "0000:09:00.0: no such PCI function");
    host.run(&["show", VF]).failed(
        1,
        "0000:01:00.1 is bound to no driver (vifactl bind 0000:01:00.1)",
    );
    host.bound(VF, "vfio-pci");
    host.run(&["show", VF]).failed(
        1,
        "0000:01:00.1 is bound to the driver vfio-pci, not to vifa_vfio_pci",
    );
}

#[test]
fn a_holder_that_exited_is_named() {
    let host = FakeHost::with_vfs();

    host.bound(VF, VF_DRIVER);
    // Above the highest process id.
    host.holder(u32::MAX >> 1, "qemu-system-x86", VF);
    host.run(&["show", VF]).failed(
        1,
        "failed to get its descriptor from qemu-system-x86 (pid 2147483647)",
    );
}
