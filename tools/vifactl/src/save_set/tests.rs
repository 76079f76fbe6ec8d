// SPDX-License-Identifier: GPL-2.0

use proptest::prelude::*;
use vifa_vfio::pci::Address;

use super::*;
use crate::layer::identity::Identity;

fn address() -> Address {
    "0000:01:00.1".parse().unwrap()
}

fn manifest(stream: &[u8]) -> Manifest {
    Manifest {
        manifest: Manifest::VERSION,
        saved: "2026-11-22T18:40:05Z".to_owned(),
        host: Host {
            name: "alpha".to_owned(),
            kernel: "7.3.4".to_owned(),
        },
        driver: Driver {
            name: "vifa_vfio_pci".to_owned(),
            version: None,
        },
        physical_function: "0000:01:00.0".parse().unwrap(),
        virtual_function: VirtualFunction {
            address: address(),
            index: 0,
        },
        interfaces: Interfaces::of(address()),
        configuration: (&Identity {
            vifa_revision: 1,
            control_plane_max: 1,
            ..Identity::default()
        })
            .into(),
        stream: Stream {
            bytes: stream.len() as u64,
            crc32c: Checksum::of(stream),
        },
    }
}

/// Returns a save set with this manifest text and this stream.
fn file(manifest: &[u8], stream: &[u8]) -> Vec<u8> {
    [
        &Header::encode(manifest, stream.len() as u64),
        manifest,
        stream,
    ]
    .concat()
}

fn sound(stream: &[u8]) -> Vec<u8> {
    file(&serde_json::to_vec(&manifest(stream)).unwrap(), stream)
}

/// Returns the damage of `file`.
fn damage(file: &[u8]) -> Damage {
    match SaveSet::parse(file) {
        Err(ReadError::Damaged(damage)) => damage,
        other => panic!("{other:?}"),
    }
}

fn field(file: &[u8]) -> Option<Box<str>> {
    damage(file).field
}

/// Returns a save set whose manifest `change` has modified, with valid CRCs.
fn changed(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let mut value = serde_json::to_value(manifest(b"stream")).unwrap();

    change(&mut value);
    file(&serde_json::to_vec(&value).unwrap(), b"stream")
}

/// Returns a save set with these bytes at `offset` of its header, with a valid header CRC.
fn with_header(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = sound(b"stream");

    file[offset..offset + bytes.len()].copy_from_slice(bytes);
    let crc = Checksum::of(&file[..HEADER_COVERED]);
    file[HEADER_COVERED..HEADER_LENGTH].copy_from_slice(&crc.to_le_bytes());
    file
}

#[test]
fn a_save_set_reads_back() {
    let file = sound(b"the stream");
    let (save_set, stream) = SaveSet::parse(&file).unwrap();

    assert_eq!(save_set.manifest, manifest(b"the stream"));
    assert_eq!(stream, b"the stream");
    assert_eq!(&file[save_set.stream_offset as usize..], stream);
}

#[test]
fn a_later_minor_version_may_add_members() {
    let file = changed(|manifest| {
        manifest["manifest"]["minor"] = 9.into();
        manifest["more"] = serde_json::json!({"deep": [1, 2, 3]});
    });

    SaveSet::parse(&file).unwrap();
}

#[test]
fn another_major_version_is_rejected() {
    let file =
        changed(|manifest| *manifest = serde_json::json!({"manifest": {"major": 2, "minor": 0}}));

    assert_eq!(field(&file).as_deref(), Some("manifest.major"));
    assert_eq!(
        field(&with_header(8, &2_u16.to_le_bytes())).as_deref(),
        Some("major")
    );
    SaveSet::parse(&with_header(10, &7_u16.to_le_bytes())).unwrap();
}

#[test]
fn every_field_of_the_header_is_checked() {
    assert_eq!(
        field(&with_header(0, b"VIFASAVX")).as_deref(),
        Some("magic")
    );
    for length in [0, uapi::VIFA_MANIFEST_MAX + 1, u32::MAX] {
        let file = with_header(12, &length.to_le_bytes());

        assert_eq!(field(&file).as_deref(), Some("manifest_length"));
    }
    for length in [0, 5, 7, u64::MAX, u64::MAX - 31, i64::MAX as u64] {
        let file = with_header(16, &length.to_le_bytes());

        assert_eq!(
            field(&file).as_deref(),
            Some("stream_length"),
            "{length:#x}"
        );
    }
    assert_eq!(
        field(&with_header(24, &[0; 4])).as_deref(),
        Some("manifest_crc")
    );
    let mut file = sound(b"");
    file[HEADER_COVERED] ^= 1;
    assert_eq!(field(&file).as_deref(), Some("header_crc"));
}

#[test]
fn an_invalid_field_is_named_with_its_place() {
    let damage = damage(&with_header(12, &u32::MAX.to_le_bytes()));

    assert_eq!(damage.offset, 12);
    assert_eq!(damage.found, Some(Found::Number(u32::MAX.into())));
    assert_eq!(damage.expected.as_deref(), Some("1 to 0x10000"));
}

#[test]
fn the_manifest_must_be_consistent() {
    type Change = fn(&mut serde_json::Value);
    let changes: [(&str, Change); 6] = [
        ("saved", |manifest| manifest["saved"] = "yesterday".into()),
        ("interfaces.control", |manifest| {
            manifest["interfaces"]["control"] = 0.into();
        }),
        ("interfaces.data", |manifest| {
            manifest["interfaces"]["data"] = 0.into();
        }),
        ("configuration.vifa_revision", |manifest| {
            manifest["configuration"]["vifa_revision"] = 0.into();
        }),
        ("configuration.bar_size[2]", |manifest| {
            manifest["configuration"]["bar_size"][2] = 3.into();
        }),
        ("stream.bytes", |manifest| {
            manifest["stream"]["bytes"] = 7.into();
        }),
    ];

    for (name, change) in changes {
        assert_eq!(field(&changed(change)).as_deref(), Some(name));
    }
}

#[test]
fn a_member_that_is_missing_is_named() {
    let file = changed(|manifest| {
        manifest
            .as_object_mut()
            .unwrap()
            .remove("physical_function");
    });

    assert!(damage(&file).message.contains("physical_function"));
}

#[test]
fn invalid_json_is_rejected_with_its_place() {
    let text = b"{\n\"manifest\" 1}";
    let damage = damage(&file(text, b""));

    assert_eq!(&*damage.part, "manifest");
    assert_eq!(damage.offset, HEADER_LENGTH as u64 + 13);
}

#[test]
fn nested_text_does_not_exhaust_the_stack() {
    damage(&file("[".repeat(60_000).as_bytes(), b""));
    let text = format!("{{\"x\":{}", "[".repeat(60_000));
    damage(&file(text.as_bytes(), b""));
}

#[test]
fn a_truncated_file_is_rejected() {
    let file = sound(b"stream");

    for length in 0..file.len() {
        damage(&file[..length]);
    }
}

#[test]
fn bytes_after_the_stream_are_rejected() {
    let file = [sound(b"stream"), vec![0]].concat();

    assert_eq!(field(&file).as_deref(), Some("stream_length"));
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
        let _ = SaveSet::parse(&bytes);
    }

    #[test]
    fn any_mutation_before_the_stream_is_rejected_or_equal(
        place: prop::sample::Index, byte: u8, sealed: bool,
    ) {
        let mut file = sound(b"stream");
        let before = file.len() - 6;
        let place = place.index(before);
        let old = std::mem::replace(&mut file[place], byte);

        if sealed && place >= HEADER_LENGTH {
            let crc = Checksum::of(&file[HEADER_LENGTH..before]);
            file[24..28].copy_from_slice(&crc.to_le_bytes());
            let crc = Checksum::of(&file[..HEADER_COVERED]);
            file[HEADER_COVERED..HEADER_LENGTH].copy_from_slice(&crc.to_le_bytes());
        }
        match SaveSet::parse(&file) {
            Err(_) => {}
            // A changed text with a valid CRC may still be a manifest; it must read back.
            Ok((save_set, _)) if sealed => {
                let text = serde_json::to_vec(&save_set.manifest).unwrap();
                let again = self::file(&text, b"stream");

                prop_assert_eq!(SaveSet::parse(&again).unwrap().0.manifest, save_set.manifest);
            }
            Ok((save_set, _)) => {
                prop_assert_eq!(old, byte);
                prop_assert_eq!(save_set.manifest, manifest(b"stream"));
            }
        }
    }
}
