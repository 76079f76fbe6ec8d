// SPDX-License-Identifier: GPL-2.0

//! Tests that the layer's constants and layouts are those of the C headers.

use std::mem::{offset_of, size_of};

use vifa_headers as c;

use crate::layer::{
    address::{self, Space},
    identity::{self, Identity},
    interface::{Function, Interfaces, Plane},
    records,
    relation::Relations,
    state::DeviceState,
    stream::{self, Kind},
};

/// Asserts that each field of the C structure has the expected value in these bytes.
macro_rules! assert_fields {
    ($bytes:expr, $structure:ident { $($field:ident: $value:expr),* $(,)? }) => {
        $({
            let value = $value;
            let start = offset_of!(c::$structure, $field);
            let end = start + size_of_val(&value);

            assert_eq!(
                $bytes[start..end],
                value.to_le_bytes(),
                concat!(stringify!($structure), ".", stringify!($field)),
            );
            // Does not compile if the lengths of field and value differ.
            let mut structure = c::$structure::default();
            structure.$field = value;
            assert_eq!(structure.$field, value);
        })*
    };
}

#[test]
fn constants() {
    assert_eq!(&stream::MAGIC[..], &c::VIFA_STREAM_MAGIC[..8]);
    assert_eq!(u32::from(stream::MAJOR), c::VIFA_STREAM_MAJOR);
    assert_eq!(u32::from(stream::MINOR), c::VIFA_STREAM_MINOR);
    assert_eq!(u32::from(stream::MANDATORY), c::VIFA_SECTION_MANDATORY);
    assert_eq!(stream::SECTION_LENGTH_MAX, c::VIFA_SECTION_LENGTH_MAX);
    assert_eq!(stream::DATA_RUN_MAX, c::VIFA_DATA_RUN_MAX as usize);
    assert_eq!(
        c::VIFA_SECTION_LENGTH_MAX as usize,
        c::VIFA_CONTROL_PLANE_MAX as usize + size_of::<c::vifa_resources>(),
    );
    assert!(
        c::VIFA_SECTION_LENGTH_MAX as usize
            >= c::VIFA_DATA_RUN_MAX as usize + size_of::<c::vifa_data_run>()
    );
    assert_eq!(Kind::Identity as u32, c::VIFA_SECTION_IDENTITY);
    assert_eq!(Kind::Relations as u32, c::VIFA_SECTION_RELATIONS);
    assert_eq!(Kind::Address as u32, c::VIFA_SECTION_ADDRESS);
    assert_eq!(Kind::Data as u32, c::VIFA_SECTION_DATA);
    assert_eq!(Kind::Control as u32, c::VIFA_SECTION_CONTROL);
    assert_eq!(Kind::End as u32, c::VIFA_SECTION_END);
    assert_eq!(Kind::Claim as u32, c::VIFA_SECTION_CLAIM);

    assert_eq!(identity::BARS, c::VIFA_IDENTITY_BARS as usize);
    assert_eq!(
        identity::RECORD_TYPES,
        c::VIFA_IDENTITY_RECORD_TYPES as usize,
    );
    assert_eq!(identity::GRANULE_MIN, c::VIFA_GRANULE_MIN);
    assert_eq!(identity::GRANULE_MAX, c::VIFA_GRANULE_MAX);
    assert_eq!(identity::LOCAL_MEMORY_MAX, c::VIFA_LOCAL_MEMORY_MAX);
    assert_eq!(identity::CONTROL_PLANE_MAX, c::VIFA_CONTROL_PLANE_MAX);
    assert_eq!(identity::FEATURE_P2P, c::VIFA_FEATURE_P2P);
    assert_eq!(identity::FEATURE_DIRTY_LOG, c::VIFA_FEATURE_DIRTY_LOG);
    assert_eq!(identity::FEATURE_LOCAL_MEMORY, c::VIFA_FEATURE_LOCAL_MEMORY);
    assert_eq!(identity::FEATURE_LOCAL_DIRTY, c::VIFA_FEATURE_LOCAL_DIRTY);
    assert_eq!(records::ALIGN, c::VIFA_RECORD_ALIGN as usize);
    assert_eq!(u32::from(records::VERSION), c::VIFA_RESOURCES_VERSION);
    assert_eq!(
        u32::from(records::RUN_STATE_STOPPED),
        c::VIFA_RESOURCES_STOPPED,
    );
    assert_eq!(
        u32::from(records::CONFIGURATION),
        c::VIFA_RESOURCE_CONFIGURATION,
    );
    assert_eq!(u32::from(records::QUEUE), c::VIFA_RESOURCE_QUEUE);
    assert_eq!(u32::from(records::INTERRUPT), c::VIFA_RESOURCE_INTERRUPT);

    assert_eq!(Space::Local as u32, c::VIFA_SPACE_LOCAL);
    assert_eq!(Space::Guest as u32, c::VIFA_SPACE_GUEST);
    assert_eq!(address::RANGES_MAX, c::VIFA_ADDRESS_RANGES_MAX);
    assert_eq!(
        address::LENGTH_MAX,
        size_of::<c::vifa_address_record>()
            + c::VIFA_ADDRESS_RANGES_MAX as usize * size_of::<c::vifa_address_range>(),
    );
    assert_eq!(
        Relations::LENGTH,
        c::VIFA_RELATIONS as usize * size_of::<c::vifa_relation>(),
    );
}

#[test]
fn the_stream_uses_the_values_of_the_hardware_interface() {
    assert_eq!(c::VIFA_IDENTITY_BARS, c::VIFA_HW_BARS);
    assert_eq!(c::VIFA_IDENTITY_RECORD_TYPES, c::VIFA_HW_RECORD_KINDS);
    assert_eq!(c::VIFA_GRANULE_MIN, c::VIFA_LOCAL_GRANULE_MIN);
    assert_eq!(c::VIFA_GRANULE_MAX, c::VIFA_LOCAL_GRANULE_MAX);
    assert_eq!(c::VIFA_FEATURE_P2P, c::VIFA_HW_FEATURE_P2P);
    assert_eq!(c::VIFA_FEATURE_DIRTY_LOG, c::VIFA_HW_FEATURE_DIRTY_LOG);
    assert_eq!(
        c::VIFA_FEATURE_LOCAL_MEMORY,
        c::VIFA_HW_FEATURE_LOCAL_MEMORY,
    );
    assert_eq!(c::VIFA_FEATURE_LOCAL_DIRTY, c::VIFA_HW_FEATURE_LOCAL_DIRTY);

    assert_eq!(c::VIFA_RESOURCE_CONFIGURATION, c::VIFA_RECORD_CONFIGURATION);
    assert_eq!(c::VIFA_RESOURCE_QUEUE, c::VIFA_RECORD_QUEUE);
    assert_eq!(c::VIFA_RESOURCE_INTERRUPT, c::VIFA_RECORD_INTERRUPT);
    assert_eq!(c::VIFA_RESOURCE_PRIVATE, c::VIFA_RECORD_PRIVATE);
    assert_eq!(c::VIFA_RESOURCES_STOPPED, c::VIFA_RUN_STATE_STOPPED);

    assert_eq!(size_of::<c::vifa_record>(), size_of::<c::vifa_hw_record>(),);
    macro_rules! assert_same_offset {
        ($($field:ident),*) => {
            $(assert_eq!(
                offset_of!(c::vifa_record, $field),
                offset_of!(c::vifa_hw_record, $field),
            );)*
        };
    }
    assert_same_offset!(type_, version, index, length, reserved);
}

#[test]
fn states() {
    for (state, value) in [
        (DeviceState::Error, c::VFIO_DEVICE_STATE_ERROR),
        (DeviceState::Stop, c::VFIO_DEVICE_STATE_STOP),
        (DeviceState::Running, c::VFIO_DEVICE_STATE_RUNNING),
        (DeviceState::StopCopy, c::VFIO_DEVICE_STATE_STOP_COPY),
        (DeviceState::Resuming, c::VFIO_DEVICE_STATE_RESUMING),
        (DeviceState::RunningP2p, c::VFIO_DEVICE_STATE_RUNNING_P2P),
        (DeviceState::PreCopy, c::VFIO_DEVICE_STATE_PRE_COPY),
        (DeviceState::PreCopyP2p, c::VFIO_DEVICE_STATE_PRE_COPY_P2P),
    ] {
        assert_eq!(u32::from(state), value);
        assert_eq!(DeviceState::try_from(value), Ok(state));
    }
    assert!(DeviceState::try_from(c::VFIO_DEVICE_STATE_NR).is_err());
}

#[test]
fn interface_ids() {
    let id = |domain, bus, devfn, plane| {
        Interfaces::of(Function { domain, bus, devfn })
            .plane(plane)
            .as_raw()
    };
    let control = u64::from(c::VIFA_PLANE_CONTROL);
    let data = u64::from(c::VIFA_PLANE_DATA);

    assert_eq!(id(0, 0, 0, Plane::Control), control);
    assert_eq!(id(0, 0, 0, Plane::Data), data);
    assert_eq!(
        id(!0, 0, 0, Plane::Control),
        c::VIFA_INTERFACE_DOMAIN as u64 | control,
    );
    assert_eq!(
        id(0, !0, 0, Plane::Control),
        u64::from(c::VIFA_INTERFACE_BUS) | control,
    );
    assert_eq!(
        id(0, 0, !0, Plane::Data),
        u64::from(c::VIFA_INTERFACE_DEVFN) | data,
    );
    assert_eq!(
        id(!0, !0, !0, Plane::Data) & !u64::from(c::VIFA_INTERFACE_PLANE),
        !u64::from(c::VIFA_INTERFACE_RESERVED | c::VIFA_INTERFACE_PLANE),
    );
}

#[test]
fn stream_header() {
    let preamble = stream::Preamble {
        magic: *b"ABCDEFGH",
        major: 0x1122,
        minor: 0x3344,
    };
    let bytes = preamble.encode();

    assert_eq!(stream::Preamble::decode(&bytes), Ok(preamble));
    assert_eq!(size_of::<c::vifa_stream_header>(), stream::HEADER_LENGTH,);
    assert_eq!(offset_of!(c::vifa_stream_header, crc), bytes.len());
    assert_eq!(
        bytes[offset_of!(c::vifa_stream_header, magic)..][..8],
        preamble.magic,
    );
    assert_fields!(
        bytes,
        vifa_stream_header {
            major: preamble.major,
            minor: preamble.minor,
        }
    );
}

#[test]
fn section_header() {
    let section = stream::Section {
        kind: 0x0102,
        flags: 0x0304,
        length: 0x0506_0708,
        interface: 0x090a_0b0c_0d0e_0f10,
        sequence: 0x1112_1314_1516_1718,
        payload_crc: 0x191a_1b1c,
    };
    let bytes = section.encode();

    assert_eq!(stream::Section::decode(&bytes), Ok(section));
    assert_eq!(
        size_of::<c::vifa_section_header>(),
        stream::SECTION_HEADER_LENGTH,
    );
    assert_eq!(offset_of!(c::vifa_section_header, header_crc), bytes.len());
    assert_fields!(
        bytes,
        vifa_section_header {
            type_: section.kind,
            flags: section.flags,
            length: section.length,
            interface: section.interface,
            sequence: section.sequence,
            payload_crc: section.payload_crc,
        }
    );
}

#[test]
fn identity_payload() {
    let identity = Identity {
        vendor: 0x0102,
        device: 0x0304,
        subsystem_vendor: 0x0506,
        subsystem: 0x0708,
        revision_id: 0x09,
        vifa_revision: 0x0b0c,
        features: 0x0d0e_0f10,
        bar_size: std::array::from_fn(|bar| 0x1112_1314_1516_1718 + bar as u64),
        interrupt_vectors: 0x191a,
        queues: 0x1b1c,
        granule: 0x1d1e_1f20,
        local_memory: 0x2122_2324_2526_2728,
        control_plane_max: 0x292a_2b2c,
        record_version: std::array::from_fn(|kind| 0x2d2e + kind as u16),
    };
    let bytes = stream::IdentityPayload::from(&identity).encode();

    assert_eq!(
        stream::IdentityPayload::decode(&bytes).map(Identity::try_from),
        Ok(Ok(identity)),
    );
    for size in [
        size_of::<c::vifa_identity>(),
        size_of::<c::vifa_hw_identity>(),
    ] {
        assert_eq!(size, bytes.len());
    }
    macro_rules! assert_identity {
        ($($structure:ident),*) => {
            $(
                assert_fields!(bytes, $structure {
                    vendor: identity.vendor,
                    device: identity.device,
                    subsystem_vendor: identity.subsystem_vendor,
                    subsystem: identity.subsystem,
                    revision_id: identity.revision_id,
                    reserved0: 0u8,
                    vifa_revision: identity.vifa_revision,
                    features: identity.features,
                    interrupt_vectors: identity.interrupt_vectors,
                    queues: identity.queues,
                    granule: identity.granule,
                    local_memory: identity.local_memory,
                    control_plane_max: identity.control_plane_max,
                    reserved1: 0u32,
                });
                for (bar, size) in identity.bar_size.iter().enumerate() {
                    let start = offset_of!(c::$structure, bar_size) + 8 * bar;
                    assert_eq!(bytes[start..start + 8], size.to_le_bytes());
                }
                for (kind, version) in identity.record_version.iter().enumerate() {
                    let start = offset_of!(c::$structure, record_version) + 2 * kind;
                    assert_eq!(bytes[start..start + 2], version.to_le_bytes());
                }
            )*
        };
    }
    assert_identity!(vifa_identity, vifa_hw_identity);
}

#[test]
fn relation() {
    let relation = stream::RelationPayload {
        plane: 0x01,
        reserved: [0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08],
        output: 0x090a_0b0c_0d0e_0f10,
        receiver: 0x1112_1314_1516_1718,
    };
    let bytes = relation.encode();

    assert_eq!(stream::RelationPayload::decode(&bytes), Ok(relation));
    assert_eq!(size_of::<c::vifa_relation>(), bytes.len());
    assert_eq!(
        bytes[offset_of!(c::vifa_relation, reserved)..][..7],
        relation.reserved,
    );
    assert_fields!(
        bytes,
        vifa_relation {
            plane: relation.plane,
            output: relation.output,
            receiver: relation.receiver,
        }
    );
}

#[test]
fn address_record() {
    let header = stream::AddressHeader {
        space: 0x0102_0304,
        round: 0x0506_0708,
        granule: 0x090a_0b0c,
        count: 0x0d0e_0f10,
    };
    let bytes = header.encode();

    assert_eq!(stream::AddressHeader::decode(&bytes), Ok(header));
    assert_eq!(size_of::<c::vifa_address_record>(), bytes.len());
    assert_fields!(
        bytes,
        vifa_address_record {
            space: header.space,
            round: header.round,
            granule: header.granule,
            count: header.count,
        }
    );
}

#[test]
fn address_range() {
    let entry = stream::AddressEntry {
        start: 0x0102_0304_0506_0708,
        length: 0x090a_0b0c_0d0e_0f10,
        sequence: 0x1112_1314_1516_1718,
    };
    let bytes = entry.encode();

    assert_eq!(stream::AddressEntry::decode(&bytes), Ok(entry));
    assert_eq!(size_of::<c::vifa_address_range>(), bytes.len());
    assert_fields!(
        bytes,
        vifa_address_range {
            start: entry.start,
            length: entry.length,
            sequence: entry.sequence,
        }
    );
}

#[test]
fn resources() {
    let header = stream::ResourcesHeader {
        version: 0x0102,
        run_state: 0x0304,
        records: 0x0506_0708,
        length: 0x090a_0b0c,
        reserved: 0x0d0e_0f10,
    };
    let bytes = header.encode();

    assert_eq!(stream::ResourcesHeader::decode(&bytes), Ok(header));
    assert_eq!(size_of::<c::vifa_resources>(), bytes.len());
    assert_fields!(
        bytes,
        vifa_resources {
            version: header.version,
            run_state: header.run_state,
            records: header.records,
            length: header.length,
            reserved: header.reserved,
        }
    );
}

#[test]
fn data_run() {
    let run = stream::DataRun {
        offset: 0x0102_0304_0506_0708,
    };
    let bytes = run.encode();

    assert_eq!(stream::DataRun::decode(&bytes), Ok(run));
    assert_eq!(size_of::<c::vifa_data_run>(), bytes.len());
    assert_fields!(bytes, vifa_data_run { offset: run.offset });
}

#[test]
fn record() {
    let record = stream::Record {
        kind: 0x0102,
        version: 0x0304,
        index: 0x0506_0708,
        length: 0x090a_0b0c,
        reserved: 0x0d0e_0f10,
    };
    let bytes = record.encode();

    assert_eq!(stream::Record::decode(&bytes), Ok(record));
    assert_eq!(size_of::<c::vifa_record>(), bytes.len());
    assert_fields!(
        bytes,
        vifa_record {
            type_: record.kind,
            version: record.version,
            index: record.index,
            length: record.length,
            reserved: record.reserved,
        }
    );
}

#[test]
fn end() {
    let end = stream::End {
        sections: 0x0102_0304_0506_0708,
        data_bytes: 0x090a_0b0c_0d0e_0f10,
        control_bytes: 0x1112_1314_1516_1718,
        headers_crc: 0x191a_1b1c,
        reserved: 0x1d1e_1f20,
    };
    let bytes = end.encode();

    assert_eq!(stream::End::decode(&bytes), Ok(end));
    assert_eq!(size_of::<c::vifa_stream_end>(), bytes.len());
    assert_fields!(
        bytes,
        vifa_stream_end {
            sections: end.sections,
            data_bytes: end.data_bytes,
            control_bytes: end.control_bytes,
            headers_crc: end.headers_crc,
            reserved: end.reserved,
        }
    );
}
