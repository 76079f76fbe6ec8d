// SPDX-License-Identifier: GPL-2.0

//! `vifactl check`

use std::path::Path;

use serde_json::{json, Value};

use crate::host::{path_text, region, FakeHost, OTHER_VF, VF, VF_DRIVER};

/// A host with two equal VFs.
fn host() -> FakeHost {
    let host = FakeHost::with_vfs();

    for vf in [VF, OTHER_VF] {
        host.bound(vf, VF_DRIVER);
        host.region(vf, &region());
    }
    host
}

/// Writes the output of `vifactl show --json` with these identity fields changed; returns the path.
fn exported(host: &FakeHost, name: &str, fields: &[(&str, Value)]) -> String {
    let mut shown = host.run(&["show", VF, "--json"]).json();

    for (field, value) in fields {
        shown["identity"][field] = value.clone();
    }
    host.file(name, shown.to_string())
}

/// Returns the path of a golden stream of the layer's tests.
fn golden(name: &str) -> String {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../layer/golden");

    path_text(&golden.join(name))
}

#[test]
fn equal_devices_fit() {
    assert_eq!(
        host().run(&["check", VF, OTHER_VF]).done(),
        "0000:01:00.1 (device) fits 0000:01:00.2 (device)\n"
    );
}

#[test]
fn the_output_of_show_is_compared() {
    let host = host();
    let file = exported(&host, "export", &[]);

    host.run(&["check", &file, VF]).done();
    host.run(&["check", VF, &file]).done();
}

#[test]
fn the_output_of_show_can_be_piped() {
    let host = host();
    let shown = host.run(&["show", VF, "--json"]);

    assert_eq!(
        host.run_with_input(&["check", "-", VF], shown.done())
            .done(),
        "- (JSON) fits 0000:01:00.1 (device)\n"
    );
}

#[test]
fn all_mismatches_are_listed_with_both_values() {
    let host = host();
    let file = exported(
        &host,
        "export",
        &[("queues", json!(8)), ("vendor", json!(0x4321))],
    );
    let outcome = host.run(&["check", &file, VF, "--json"]);
    let found = outcome.json();

    outcome.failed(3, "does not fit 0000:01:00.1: vendor, queues");
    assert_eq!(found["fits"], false);
    assert_eq!(found["mismatches"][0]["field"], "vendor");
    assert_eq!(found["mismatches"][1]["field"], "queues");
    assert_eq!(found["mismatches"][1]["rule"], "at_least");
    assert_eq!(found["mismatches"][1]["source"], 8);
    assert_eq!(found["mismatches"][1]["destination"], 4);
}

#[test]
fn a_rule_can_hold_in_one_direction_only() {
    let host = host();
    let file = exported(&host, "export", &[("queues", json!(8))]);

    host.run(&["check", VF, &file]).done();
    host.run(&["check", &file, VF]).failed(3, "queues");
}

#[test]
fn a_stream_is_compared_by_its_identity() {
    let stream = golden("1.0-sparse.stream");
    let host = host();

    host.run(&["check", &stream, &stream]).done();
    assert_eq!(
        host.run(&["check", &stream, &stream, "--json"]).json()["source"]["kind"],
        "stream"
    );
    host.run(&["check", &stream, VF])
        .failed(3, "does not fit 0000:01:00.1");
}

#[test]
fn an_unknown_file_is_damaged() {
    let host = host();

    for content in [&b""[..], b"hello", b"VIFASTR", b"[1]", &[0; 4096]] {
        let file = host.file("file", content);

        host.run(&["check", &file, VF]).failed(
            4,
            "file is not a save set, a stream or output of `vifactl show --json`",
        );
    }
}

#[test]
fn a_stream_or_save_set_that_is_cut_off_is_damaged() {
    let host = host();

    for content in [&b"VIFASAVE"[..], b"VIFASTRM", b"VIFASTRM\x01\0\0\0"] {
        let file = host.file("file", content);

        host.run(&["check", &file, VF]).failed(4, &file);
    }
}

#[test]
fn json_that_show_does_not_print_is_damaged() {
    let host = host();

    for content in [
        "{",
        "{}",
        "{\"identity\": 5}",
        "{\"identity\": {\"vendor\": -1}}",
    ] {
        let file = host.file("export", content);

        host.run(&["check", &file, VF])
            .failed(4, "is not output of `vifactl show --json`");
    }
}

#[test]
fn json_of_an_invalid_identity_is_damaged() {
    let host = host();
    let file = exported(&host, "export", &[("granule", json!(0x1800))]);

    host.run(&["check", &file, VF]).failed(
        4,
        "identity: granule: expected a power of two, found 0x1800",
    );
}

#[test]
fn a_missing_file_is_named() {
    host()
        .run(&["check", VF, "/nonexistent/file"])
        .failed(1, "/nonexistent/file: No such file or directory");
}
