// SPDX-License-Identifier: GPL-2.0

//! `vifactl restore`, up to its access to the device.

use std::fs;

use serde_json::json;

use crate::{
    host::{FakeHost, VF, VF_DRIVER},
    save_set::{golden, identity, Set},
};

/// A process id above the maximum of 2^22.
const NO_PROCESS: u32 = 1 << 30;

/// The error at the access to the device, after all checks passed.
const REACHED: &str = "failed to get its descriptor from qemu (pid 1073741824)";

/// Returns the host `name`, with a VF of the golden streams' identity that a process has open.
fn host(name: &str) -> FakeHost {
    let host = FakeHost::with_vfs();
    let mut region = crate::host::region();
    let at = crate::host::identity_offset();

    region[at..at + identity().len()].copy_from_slice(&identity());
    host.bound(VF, VF_DRIVER);
    host.region(VF, &region);
    host.holder(NO_PROCESS, "qemu", VF);
    fs::create_dir_all(host.path("proc/sys/kernel")).unwrap();
    fs::write(host.path("proc/sys/kernel/hostname"), format!("{name}\n")).unwrap();
    fs::write(host.path("proc/sys/kernel/osrelease"), "7.3.4\n").unwrap();
    host
}

/// Writes a guide with these members; returns its path.
fn guide(host: &FakeHost, members: serde_json::Value) -> String {
    let mut guide = members;

    guide["guide"] = json!({"major": 1, "minor": 0});
    host.file("guide", guide.to_string())
}

#[test]
fn a_compatible_stream_reaches_the_device() {
    host("alpha")
        .run(&["restore", &golden("1.0-sparse.stream"), VF])
        .failed(1, REACHED);
}

#[test]
fn a_set_from_the_same_place_reaches_the_device() {
    let host = host("alpha");
    let mut set = Set::new();

    set.manifest["physical_function"] = "0000:01:00.0".into();
    let file = host.file("set", set.bytes());
    host.run(&["restore", &file, VF]).failed(1, REACHED);
}

#[test]
fn a_set_from_another_place_is_rejected_with_all_differences() {
    let host = host("beta");
    let mut set = Set::new();

    set.manifest["virtual_function"]["index"] = 1.into();
    let outcome = host.run(&["restore", &host.file("set", set.bytes()), VF]);
    outcome.failed(3, "host: the set is from alpha, this host is beta");
    outcome.failed(3, "physical function: the set is from 0000:02:00.0");
    outcome.failed(3, "virtual function: the set is of index 1");
}

#[test]
fn a_guide_allows_another_place() {
    let host = host("beta");
    let file = host.file("set", Set::new().bytes());
    let guide = guide(
        &host,
        json!({
            "hosts": {"alpha": "beta"},
            "physical_functions": {"0000:02:00.0": "0000:01:00.0"},
            "virtual_functions": {"0000:02:02.1": VF},
        }),
    );

    host.run(&["restore", &file, VF, "--guide", &guide])
        .failed(1, REACHED);
}

#[test]
fn a_guide_for_another_set_is_rejected() {
    let host = host("beta");
    let file = host.file("set", Set::new().bytes());
    let guide = guide(&host, json!({"hosts": {"gamma": "beta"}}));

    host.run(&["restore", &file, VF, "--guide", &guide])
        .failed(4, "the guide: hosts: gamma is mapped");
}

#[test]
fn an_invalid_guide_is_rejected() {
    let host = host("beta");
    let file = host.file("set", Set::new().bytes());

    for (text, why) in [
        ("", "EOF while parsing"),
        ("{}", "missing field `guide`"),
        (
            "{\"guide\": {\"major\": 2, \"minor\": 0}}",
            "invalid guide.major: got 2, expected 1",
        ),
    ] {
        let guide = host.file("guide", text);

        host.run(&["restore", &file, VF, "--guide", &guide])
            .failed(4, why);
    }
}

#[test]
fn an_incompatible_device_is_rejected_with_all_fields() {
    let host = host("alpha");

    host.region(VF, &crate::host::region());
    let outcome = host.run(&["restore", &golden("1.0-sparse.stream"), VF]);
    outcome.failed(3, "bar_size[0]: source has 0x1000, destination has 0x0");
    outcome.failed(3, "interrupt_vectors: source has 0x1, destination has 0x0");
}

#[test]
fn a_damaged_file_is_rejected() {
    let host = host("alpha");
    let mut set = Set::new();
    set.manifest["physical_function"] = "0000:01:00.0".into();
    let sound = set.bytes();

    for at in (0..sound.len()).step_by(1009).chain([sound.len() - 1]) {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x20;
        let file = host.file("damaged", damaged);

        host.run(&["restore", &file, VF])
            .failed(4, "damaged: at byte");
    }
    for length in [0, 1, 7, 8, 31, 32, 33, 500, sound.len() - 1] {
        let file = host.file("cut", &sound[..length]);

        host.run(&["restore", &file, VF]).failed(4, "cut: at byte");
    }
}

#[test]
fn a_stream_for_another_device_is_rejected() {
    host("alpha")
        .run(&["restore", &golden("1.0-addressed.stream"), VF])
        .failed(
            3,
            "addressed to 0001:03:00.2/control, not to 0000:01:00.1/control",
        );
}

#[test]
fn standard_input_is_verified_before_the_device_is_accessed() {
    let host = host("alpha");
    let mut stream = fs::read(golden("1.0-sparse.stream")).unwrap();

    host.run_with_input(&["restore", "-", VF], &stream)
        .failed(1, REACHED);
    *stream.last_mut().unwrap() ^= 1;
    host.run_with_input(&["restore", "-", VF], &stream)
        .failed(4, "standard input: at byte");
}

#[test]
fn a_device_that_no_process_has_open_is_rejected() {
    let host = host("alpha");

    fs::remove_dir_all(host.path(&format!("proc/{NO_PROCESS}"))).unwrap();
    host.run(&["restore", &golden("1.0-sparse.stream"), VF])
        .failed(5, "no process has 0000:01:00.1 open");
}
