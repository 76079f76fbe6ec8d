// SPDX-License-Identifier: GPL-2.0

//! Save sets and streams, composed according to the documentation.

use std::{fs, path::Path};

use serde_json::{json, Value};
use vifa_decoder::encoder;

use crate::host::path_text;

/// Returns the path of a golden stream of the layer's tests.
pub fn golden(name: &str) -> String {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../layer/golden");

    path_text(&golden.join(name))
}

/// A save set.
pub struct Set {
    pub manifest: Value,
    pub stream: Vec<u8>,
}

impl Set {
    /// The golden stream `1.0-sparse`, saved on the host alpha from the first VF of 0000:02:00.0.
    pub fn new() -> Self {
        let stream = fs::read(golden("1.0-sparse.stream")).unwrap();
        let manifest = json!({
            "manifest": {"major": 1, "minor": 0},
            "saved": "2026-11-22T18:40:05Z",
            "host": {"name": "alpha", "kernel": "7.3.4"},
            "driver": {"name": "vifa_vfio_pci", "version": null},
            "physical_function": "0000:02:00.0",
            "virtual_function": {"address": "0000:02:02.1", "index": 0},
            "interfaces": {
                "control": encoder::CONTROL_INTERFACE,
                "data": encoder::DATA_INTERFACE,
            },
            "configuration": {
                "vendor": 0x1234,
                "device": 0x5656,
                "subsystem_vendor": 0x1af4,
                "subsystem": 0x1100,
                "revision_id": 1,
                "vifa_revision": 1,
                "features": 5,
                "bar_size": [0x1000, 0, 0, 0, 0x4000, 0],
                "interrupt_vectors": 1,
                "queues": 1,
                "granule": 0x1000,
                "local_memory": 0x1_0000,
                "control_plane_max": 0x1000,
                "record_version": [0, 1, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            },
            "stream": {"bytes": stream.len(), "crc32c": encoder::crc(&stream)},
        });

        Self { manifest, stream }
    }

    /// Returns the file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let manifest = self.manifest.to_string().into_bytes();
        let mut file = b"VIFASAVE".to_vec();

        file.extend(1_u16.to_le_bytes());
        file.extend(0_u16.to_le_bytes());
        file.extend((manifest.len() as u32).to_le_bytes());
        file.extend((self.stream.len() as u64).to_le_bytes());
        file.extend(encoder::crc(&manifest).to_le_bytes());
        file.extend(encoder::crc(&file).to_le_bytes());
        [file, manifest, self.stream.clone()].concat()
    }
}

/// Returns the payload of the golden streams' identity section.
pub fn identity() -> Vec<u8> {
    encoder::identity()
}

/// Returns a stream with this many MiB of local memory.
pub fn long(mebibytes: u64) -> Vec<u8> {
    const MEBIBYTE: u64 = 1 << 20;
    let mut stream = encoder::head();
    let identity = &mut stream.sections[0].payload;
    let mut resources = encoder::sound().sections.split_off(3);

    identity[72..80].copy_from_slice(&(mebibytes * MEBIBYTE).to_le_bytes());
    stream.sections.push(encoder::Section::new(
        3,
        encoder::address(1, 0, 0x1000, &[encoder::range(0, mebibytes * MEBIBYTE, 3)]),
    ));
    for run in 0..mebibytes {
        stream.sections.push(encoder::Section::data(
            run * MEBIBYTE,
            &vec![0; MEBIBYTE as usize],
        ));
    }
    resources.retain(|section| section.kind == 5);
    stream.sections.append(&mut resources);
    stream.sealed()
}
