// SPDX-License-Identifier: GPL-2.0

//! Arguments, help, manual pages and completions.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, process::Command};

use crate::host::{path_text, vifactl, FakeHost};

/// The sub-commands.
const COMMANDS: [&str; 11] = [
    "list",
    "bind",
    "unbind",
    "show",
    "check",
    "save",
    "restore",
    "decode",
    "watch",
    "completions",
    "man",
];

#[test]
fn every_command_has_help() {
    for command in COMMANDS {
        assert!(vifactl(&[command, "--help"])
            .done()
            .contains("Usage: vifactl"));
    }
}

#[test]
fn help_and_manual_pages_list_the_exit_codes() {
    let directory = FakeHost::empty();
    let path = directory.path("");

    assert!(vifactl(&["--help"])
        .done()
        .contains("  3  the destination cannot accept the source's state"));
    vifactl(&["man", "--directory", &path_text(&path)]).done();
    for command in COMMANDS {
        let page = fs::read_to_string(path.join(format!("vifactl-{command}.1"))).unwrap();

        assert!(page.contains(".SH \"EXIT STATUS\""), "{command}");
        assert!(page.contains("3\nthe destination cannot accept the source\\(aqs state"));
    }
    assert!(vifactl(&["man"]).done().contains("vifactl\\-watch(1)"));
}

#[test]
fn every_shell_gets_completions_of_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let outcome = vifactl(&["completions", shell]);

        for command in COMMANDS {
            assert!(outcome.done().contains(command), "{command} in {shell}");
        }
    }
}

#[test]
fn a_wrong_command_line_has_its_own_exit_code() {
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["bind"],
        &["bind", "--force", "0000:01:00.1"],
        &["show", "0000:01:00.8"],
        &["show", "../../etc"],
        &["check", "one"],
        &["watch", "0000:01:00.1", "--interval", "0"],
        &["watch", "0000:01:00.1", "--interval", "nan"],
        &["watch", "0000:01:00.1", "--interval", "1e300"],
        &["watch", "0000:01:00.1", "--count", "-1"],
        &["completions", "cmd.exe"],
    ] {
        assert_eq!(vifactl(arguments).code, Some(2), "{arguments:?}");
    }
}

#[test]
fn arguments_that_are_not_utf8_are_an_error() {
    for command in COMMANDS {
        let output = Command::new(env!("CARGO_BIN_EXE_vifactl"))
            .args([
                OsStr::new(command),
                OsStr::from_bytes(b"\xff\xfe"),
                OsStr::from_bytes(b"\xff"),
            ])
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);

        assert!(
            matches!(output.status.code(), Some(1 | 2)),
            "{command}: {stderr}"
        );
        assert!(!stderr.contains("panicked"), "{command}: {stderr}");
    }
}
