// SPDX-License-Identifier: GPL-2.0

//! `vifactl decode`

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
    thread,
};

use crate::{
    host::{vifactl, FakeHost},
    save_set::{golden, Set},
};

#[test]
fn a_valid_stream_is_shown() {
    let outcome = vifactl(&["decode", &golden("1.0-sparse.stream")]);

    assert!(outcome
        .done()
        .contains("3-4 data: 12288 bytes of local memory"));
}

#[test]
fn all_shows_every_section_and_range() {
    let outcome = vifactl(&["decode", "--all", &golden("1.0-sparse.stream")]);

    assert!(outcome.done().contains("  3 data: 8200 bytes"));
    assert!(outcome.done().contains("  4 data: 4104 bytes"));
}

#[test]
fn json_contains_every_section() {
    let shown = vifactl(&["--json", "decode", &golden("1.0-parts.stream")]).json();

    assert_eq!(shown["decode"]["major"], 1);
    assert_eq!(shown["sections"].as_array().unwrap().len(), 13);
    assert_eq!(shown["sections"][2]["ranges"][1]["length"], 0x10_2000);
    assert_eq!(shown["damage"], serde_json::Value::Null);
    assert!(shown["sections"][11]["records"][0].get("content").is_none());
}

#[test]
fn json_contains_the_content_of_records_with_the_option() {
    let shown = vifactl(&["--json", "decode", "--content", &golden("1.0-parts.stream")]).json();

    assert_eq!(shown["sections"][11]["records"][0]["content"], "c0ffee11");
}

#[test]
fn a_save_set_is_shown_with_its_manifest() {
    let host = FakeHost::empty();
    let set = host.file("set", Set::new().bytes());
    let shown = vifactl(&["--json", "decode", &set]).json();

    assert_eq!(shown["save_set"]["header"]["magic"], "VIFASAVE");
    assert_eq!(shown["save_set"]["manifest"]["host"]["name"], "alpha");
    assert_eq!(shown["sections"].as_array().unwrap().len(), 7);
    assert!(vifactl(&["decode", &set])
        .done()
        .contains("\"name\": \"alpha\""));
}

#[test]
fn everything_before_the_damage_is_shown() {
    let host = FakeHost::empty();
    let mut stream = fs::read(golden("1.0-sparse.stream")).unwrap();
    stream[0x3000] ^= 1;
    let file = host.file("damaged", &stream);
    let outcome = vifactl(&["decode", &file]);

    outcome.failed(4, "at byte 0x2198: section 4 (data): payload_crc");
    assert!(outcome.stdout.contains("1 relations"));
    let outcome = vifactl(&["--json", "decode", &file]);
    outcome.failed(4, "damaged: at byte");
    let shown = outcome.json();
    assert_eq!(shown["sections"].as_array().unwrap().len(), 5);
    assert_eq!(shown["damage"]["field"], "payload_crc");
    assert_eq!(shown["damage"]["section"], 4);
}

#[test]
fn the_damage_of_a_save_set_is_named() {
    let host = FakeHost::empty();
    let sound = Set::new().bytes();
    let cases: [(&str, Vec<u8>, &str); 5] = [
        (
            "magic",
            [b"VIFASAVX", &sound[8..]].concat(),
            "stream header",
        ),
        (
            "short",
            sound[..20].to_vec(),
            "at byte 0x14: save set header",
        ),
        ("cut", sound[..sound.len() - 1].to_vec(), "incomplete"),
        ("longer", [&sound[..], b"x"].concat(), "nothing may follow"),
        ("empty", Vec::new(), "stream header"),
    ];

    for (name, bytes, message) in cases {
        let outcome = vifactl(&["decode", &host.file(name, bytes)]);

        outcome.failed(4, message);
    }
}

#[test]
fn standard_input_is_read() {
    let host = FakeHost::empty();
    let stream = fs::read(golden("1.0-sparse.stream")).unwrap();
    let outcome = host.run_with_input(&["decode", "-"], &stream);

    assert!(outcome.done().contains("12872 bytes, 7 sections"));
}

#[test]
fn a_missing_file_is_not_damage() {
    vifactl(&["decode", "/nowhere"]).failed(1, "/nowhere: No such file");
}

/// A process limited to 48 MiB decodes a stream of 96 MiB.
#[test]
fn memory_does_not_grow_with_the_stream() {
    const LIMIT: &str = "ulimit -v 49152; exec \"$0\" \"$@\"";
    let stream = crate::save_set::long(96);

    for json in [false, true] {
        let mut child = Command::new("sh")
            .args(["-c", LIMIT, env!("CARGO_BIN_EXE_vifactl"), "decode", "-"])
            .args(json.then_some("--json"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let bytes = stream.clone();
        let writer = thread::spawn(move || input.write_all(&bytes));
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);

        assert!(output.status.success(), "{errors}");
        writer.join().unwrap().unwrap();
    }
}
