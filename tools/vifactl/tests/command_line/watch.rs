// SPDX-License-Identifier: GPL-2.0

//! `vifactl watch`

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use crate::host::{path_text, region, FakeHost, VF, VF_DRIVER};

fn host() -> FakeHost {
    let host = FakeHost::with_vfs();

    host.bound(VF, VF_DRIVER);
    host.region(VF, &region());
    host
}

#[test]
fn count_limits_the_lines() {
    let outcome = host().run(&["watch", VF, "--interval", "0.01", "--count", "3"]);
    let lines: Vec<_> = outcome.done().lines().collect();

    assert_eq!(lines.len(), 4);
    assert!(lines[0].trim_start().starts_with("SECONDS  STATE"));
    assert!(lines[3].contains("RUNNING"));
}

#[test]
fn each_line_is_a_json_object() {
    let outcome = host().run(&["watch", VF, "-i", "0.01", "-c", "2", "--json"]);
    let lines: Vec<serde_json::Value> = outcome
        .done()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();

    assert_eq!(lines[0]["seconds"], 0.0);
    assert_eq!(lines[0]["bytes_per_second"], serde_json::Value::Null);
    assert_eq!(lines[1]["bytes_per_second"], 0);
    assert_eq!(lines[1]["state"], "RUNNING");
}

#[test]
fn it_ends_when_the_device_is_removed() {
    let host = host();
    let root = path_text(&host.path(""));
    let mut command = Command::new(env!("CARGO_BIN_EXE_vifactl"))
        .args(["--root", &root, "watch", VF, "-i", "0.01"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(command.stdout.take().unwrap()).lines();

    assert!(lines.by_ref().nth(1).unwrap().unwrap().contains("RUNNING"));
    fs::remove_dir_all(host.path("sys/kernel/debug/vifa")).unwrap();
    for line in lines {
        line.unwrap();
    }
    assert_eq!(command.wait().unwrap().code(), Some(0));
}

#[test]
fn it_ends_silently_when_its_output_is_closed() {
    let host = host();
    let root = path_text(&host.path(""));
    let mut command = Command::new(env!("CARGO_BIN_EXE_vifactl"))
        .args(["--root", &root, "watch", VF, "-i", "0.01"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();

    drop(command.stdout.take());
    let output = command.wait_with_output().unwrap();

    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn a_device_without_debugfs_and_holder_cannot_be_watched() {
    let host = FakeHost::with_vfs();

    host.bound(VF, VF_DRIVER);
    host.run(&["watch", VF])
        .failed(1, "failed to watch 0000:01:00.1");
}
