// SPDX-License-Identifier: GPL-2.0

//! Recorded streams load, and what is saved today is what was saved when they were recorded.
//!
//! `VIFA_RECORD=1 cargo test` records them anew. Streams of a released version stay as they are.

use super::{
    decoder::decode,
    encoder::{sound, Section},
};
use crate::layer::{
    identity::Identity,
    tests::device::{Device, IDENTITY},
};
use std::{env, fs, path::Path};

/// Reads a recorded stream, after it was recorded anew as `stream` if that is asked for.
fn recorded(name: &str, stream: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name);

    if env::var_os("VIFA_RECORD").is_some() {
        fs::write(&path, stream).unwrap();
    }
    fs::read(&path).unwrap()
}

/// A device that was saved gives the recorded stream, and that makes such a device of another.
fn check(name: &str, mut source: Device) {
    let saved = source.save(&[usize::MAX]).unwrap();
    let golden = recorded(name, &saved);
    let mut destination = Device::new(source.identity).unwrap();

    assert!(saved[..] == golden[..]);
    destination.fill(5);
    destination.control.fill(0);
    destination.restore(&golden, &[usize::MAX]).unwrap();
    assert!(destination.has_state_of(&source));
    let decoded = decode(&golden, &source.identity).unwrap();
    assert!(decoded
        .device(source.identity)
        .unwrap()
        .has_state_of(&source));
}

#[test]
fn sparse() {
    let mut source = Device::new(IDENTITY).unwrap();

    for granule in [3, 4, 15] {
        source.fill(granule);
    }
    check("0.1-sparse.stream", source);
}

#[test]
fn no_local_memory() {
    let identity = Identity {
        features: 0,
        granule: 0,
        local_memory: 0,
        ..IDENTITY
    };

    check("0.1-no-local-memory.stream", Device::new(identity).unwrap());
}

/// What a later minor version may send.
#[test]
fn optional_sections() {
    let mut later = sound();
    later.minor = 7;
    later.sections.insert(1, Section::optional(vec![1, 2, 3]));
    later.sections.insert(3, Section::optional(vec![]));
    later.sections.push(Section::optional(vec![9; 5000]));

    let golden = recorded("0.7-optional-sections.stream", &later.sealed());
    let mut destination = Device::new(IDENTITY).unwrap();
    destination.restore(&golden, &[1000]).unwrap();
    let decoded = decode(&sound().sealed(), &IDENTITY).unwrap();
    assert!(destination.has_state_of(&decoded.device(IDENTITY).unwrap()));
}
