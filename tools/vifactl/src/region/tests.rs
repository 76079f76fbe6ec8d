// SPDX-License-Identifier: GPL-2.0

use proptest::prelude::*;

use super::*;

const LENGTH: usize = size_of::<vifa_region>();

/// Returns a valid region.
fn sound() -> Vec<u8> {
    let mut bytes = vec![0; LENGTH];
    let mut put = |offset: usize, value: &[u8]| {
        bytes[offset..offset + value.len()].copy_from_slice(value);
    };

    put(0, b"VIFAREGN");
    put(offset_of!(vifa_region, major), &1_u16.to_le_bytes());
    put(offset_of!(vifa_region, minor), &1_u16.to_le_bytes());
    put(
        offset_of!(vifa_region, size),
        &(LENGTH as u32).to_le_bytes(),
    );
    put(offset_of!(vifa_region, state), &2_u32.to_le_bytes());
    bytes
}

fn with(change: impl FnOnce(&mut [u8])) -> Result<Region, Violation> {
    let mut bytes = sound();

    change(&mut bytes);
    Region::decode(&bytes)
}

fn refused(change: impl FnOnce(&mut [u8])) -> &'static str {
    with(change).unwrap_err().field
}

/// Offsets of the fields with numbers of 8 bytes.
const NUMBERS: [usize; 18] = [
    offset_of!(vifa_region, generation),
    offset_of!(vifa_region, stream_bytes),
    offset_of!(vifa_region, sections),
    offset_of!(vifa_region, record_bytes),
    offset_of!(vifa_region, local_ranges),
    offset_of!(vifa_region, local_bytes),
    offset_of!(vifa_region, data_bytes),
    offset_of!(vifa_region, guest_ranges),
    offset_of!(vifa_region, guest_bytes),
    offset_of!(vifa_region, saved),
    offset_of!(vifa_region, restored),
    offset_of!(vifa_region, failed),
    offset_of!(vifa_region, log_page_size),
    offset_of!(vifa_region, log_ranges),
    offset_of!(vifa_region, log_bytes),
    offset_of!(vifa_region, log_reports),
    offset_of!(vifa_region, log_dirty_bytes),
    offset_of!(vifa_region, log_lost),
];

#[test]
fn each_field_is_read_where_the_header_has_it() {
    let region = with(|bytes| {
        for (offset, value) in NUMBERS.into_iter().zip(1_u64..) {
            bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes[offset_of!(vifa_region, records) + 4 * 2] = 7;
        bytes[offset_of!(vifa_region, identity.queues)] = 9;
    })
    .unwrap();

    assert_eq!(region.generation, 1);
    assert_eq!(
        region.transfer,
        Transfer {
            stream_bytes: 2,
            sections: 3
        }
    );
    assert_eq!(region.records.bytes, 4);
    assert_eq!(
        region.records.types,
        [RecordType {
            kind: 2,
            name: Some("queue"),
            count: 7
        }]
    );
    assert_eq!(
        region.addresses,
        Addresses {
            local_ranges: 5,
            local_bytes: 6,
            data_bytes: 7,
            guest_ranges: 8,
            guest_bytes: 9,
        }
    );
    assert_eq!(
        region.counters,
        Counters {
            saved: 10,
            restored: 11,
            failed: 12
        }
    );
    assert_eq!(
        region.logging,
        Some(Logging {
            page_size: 13,
            ranges: 14,
            bytes: 15,
            reports: 16,
            dirty_bytes: 17,
            lost: 18,
        })
    );
    assert!(region
        .identity
        .to_string()
        .contains("queues             9\n"));
}

#[test]
fn a_relation_is_shown_where_it_has_a_role() {
    let place = offset_of!(vifa_region, relations) + size_of::<vifa_region_relation>();
    let region = with(|bytes| {
        bytes[place..place + 8].copy_from_slice(&0x1_0902_u64.to_le_bytes());
        bytes[place + offset_of!(vifa_region_relation, plane)] = 2;
        bytes[place + offset_of!(vifa_region_relation, role)] = 1;
    })
    .unwrap();

    assert_eq!(
        region.relations,
        [Relation {
            plane: Plane::Data,
            role: Role::Output,
            output: Interface(0x1_0902),
            receiver: None,
        }]
    );
}

#[test]
fn the_last_error_ends_with_its_first_nul_and_has_no_control_characters() {
    let region = with(|bytes| {
        let text = offset_of!(vifa_region, error_text);

        bytes[offset_of!(vifa_region, error)] = 22;
        bytes[text..text + 8].copy_from_slice(b"a\x1bb\0cdef");
    })
    .unwrap();

    assert_eq!(
        region.last_error,
        Some(LastError {
            errno: 22,
            text: "a\u{fffd}b".to_owned()
        })
    );
}

#[test]
fn an_invalid_region_is_rejected_with_its_field() {
    assert_eq!(
        Region::decode(&sound()[..LENGTH - 1]).unwrap_err().field,
        "length"
    );
    assert_eq!(refused(|bytes| bytes[0] = 0), "magic");
    assert_eq!(
        refused(|bytes| bytes[offset_of!(vifa_region, major)] = 2),
        "major"
    );
    assert_eq!(
        refused(|bytes| bytes[offset_of!(vifa_region, size)] -= 1),
        "size"
    );
    assert_eq!(
        refused(|bytes| bytes[offset_of!(vifa_region, state)] = 8),
        "state"
    );
    assert_eq!(
        refused(|bytes| bytes
            [offset_of!(vifa_region, relations) + offset_of!(vifa_region_relation, role)] =
            3),
        "role"
    );
    assert_eq!(
        refused(|bytes| bytes
            [offset_of!(vifa_region, relations) + offset_of!(vifa_region_relation, role)] =
            1),
        "plane"
    );
}

#[test]
fn data_of_a_later_minor_version_is_ignored() {
    let mut bytes = sound();

    bytes[offset_of!(vifa_region, minor)] = 2;
    bytes[offset_of!(vifa_region, size)] += 8;
    bytes.extend([0xff; 8]);
    assert_eq!(
        Region::decode(&bytes).unwrap().version,
        Version { major: 1, minor: 2 }
    );
}

#[test]
fn a_region_of_version_1_0_does_not_tell_of_logging() {
    let mut bytes = sound();

    bytes.truncate(LENGTH_1_0);
    bytes[offset_of!(vifa_region, minor)] = 0;
    bytes[offset_of!(vifa_region, size)..][..4].copy_from_slice(&(LENGTH_1_0 as u32).to_le_bytes());
    let region = Region::decode(&bytes).unwrap();
    assert_eq!(region.logging, None);
    assert!(!region.to_string().contains("DMA"));

    bytes.pop();
    assert_eq!(Region::decode(&bytes).unwrap_err().field, "length");
}

#[test]
fn logging_is_shown_with_its_extent() {
    let put = |bytes: &mut [u8], offset: usize, value: u64| {
        bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    };
    let off = with(|_| {}).unwrap().to_string();
    let on = with(|bytes| {
        put(bytes, offset_of!(vifa_region, log_page_size), 4096);
        put(bytes, offset_of!(vifa_region, log_ranges), 2);
        put(bytes, offset_of!(vifa_region, log_bytes), 8192);
        put(bytes, offset_of!(vifa_region, log_reports), 3);
        put(bytes, offset_of!(vifa_region, log_dirty_bytes), 4096);
        put(bytes, offset_of!(vifa_region, log_lost), 1);
    })
    .unwrap()
    .to_string();

    assert!(off.contains("DMA logging        off\n"));
    assert!(on.contains("DMA logging        8192 bytes in 2 ranges, pages of 4096 bytes\n"));
    assert!(on.contains("DMA reports        3, 4096 bytes dirty; 1 without a valid log\n"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2 * LENGTH)) {
        let _ = Region::decode(&bytes);
    }

    #[test]
    fn no_change_of_a_region_makes_it_panic(
        changes in prop::collection::vec((0..LENGTH, any::<u8>()), 1..16),
    ) {
        let shown = with(|bytes| {
            for (offset, value) in changes {
                bytes[offset] = value;
            }
        });

        if let Ok(region) = shown {
            let _ = region.to_string();
            prop_assert!(serde_json::to_string(&region).is_ok());
        }
    }
}
