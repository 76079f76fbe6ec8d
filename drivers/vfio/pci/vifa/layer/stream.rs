// SPDX-License-Identifier: GPL-2.0

//! The encoding of the migration stream.
//!
//! `include/uapi/linux/vifa.h` defines the layout and `Documentation/vifa/stream.rst` describes it.
//! This module uses their names. [`layout`] encodes and decodes structures, and [`checksum`] covers
//! them. [`save`](super::save) and [`restore`](super::restore) define the order of sections.

mod checksum;
pub mod layout;

use super::{
    check::{
        check,
        Expectation,
        Violation, //
    },
    identity::{
        Identity,
        BARS,
        RECORD_TYPES, //
    },
    interface::Plane,
};
use core::fmt;
use layout::layout;

pub use checksum::Checksum;

/// First bytes of every stream.
pub const MAGIC: [u8; 8] = *b"VIFASTRM";
/// Major version of the format. Streams of another major version are refused.
pub const MAJOR: u16 = 1;
/// Minor version of the format. A minor version only adds section types.
pub const MINOR: u16 = 1;

/// Section flag: a receiver that does not support the type refuses the stream.
pub const MANDATORY: u16 = 0x1;

/// Maximum number of bytes of local memory in one data section. A multiple of every granule.
pub const DATA_RUN_MAX: usize = 0x10_0000;

/// Maximum number of payload bytes in one section.
pub const SECTION_LENGTH_MAX: u32 = 0x10_0010;

layout! {
    /// `struct vifa_stream_header` without its CRC, which covers these bytes.
    pub struct Preamble {
        /// [`MAGIC`].
        pub magic: [u8; 8],
        /// [`MAJOR`].
        pub major: u16,
        /// [`MINOR`].
        pub minor: u16,
    }
}

layout! {
    /// `struct vifa_section_header` without its CRC, which covers these bytes.
    pub struct Section {
        /// Number of the type, see [`Kind`].
        pub kind: u16,
        /// [`MANDATORY`] or 0.
        pub flags: u16,
        /// Length of the payload in bytes.
        pub length: u32,
        /// The source's interface that the payload belongs to.
        pub interface: u64,
        /// Number of sections before this one.
        pub sequence: u64,
        /// CRC of the payload.
        pub payload_crc: u32,
    }
}

layout! {
    /// `struct vifa_identity`.
    pub struct IdentityPayload {
        vendor: u16,
        device: u16,
        subsystem_vendor: u16,
        subsystem: u16,
        revision_id: u8,
        reserved0: u8,
        vifa_revision: u16,
        features: u32,
        bar_size: [u64; BARS],
        interrupt_vectors: u16,
        queues: u16,
        granule: u32,
        local_memory: u64,
        control_plane_max: u32,
        reserved1: u32,
        record_version: [u16; RECORD_TYPES],
    }
}

layout! {
    /// `struct vifa_relation`.
    pub struct RelationPayload {
        /// Number of the plane.
        pub plane: u8,
        /// Zero.
        pub reserved: [u8; 7],
        /// The source's interface.
        pub output: u64,
        /// The destination's interface, or 0 for any.
        pub receiver: u64,
    }
}

layout! {
    /// `struct vifa_address_record`.
    pub struct AddressHeader {
        /// Number of the memory space of the ranges.
        pub space: u32,
        /// 0 for the mapped ranges, from 1 for the ranges that have changed since.
        pub round: u32,
        /// Unit of the ranges in bytes.
        pub granule: u32,
        /// Number of ranges that follow.
        pub count: u32,
    }
}

layout! {
    /// `struct vifa_address_range`.
    pub struct AddressEntry {
        /// Offset or IOVA of the first byte.
        pub start: u64,
        /// Length in bytes.
        pub length: u64,
        /// Sequence number of the first data section with these bytes, or 0 without data sections.
        pub sequence: u64,
    }
}

layout! {
    /// `struct vifa_data_run`.
    pub struct DataRun {
        /// Offset in local memory of the bytes that follow.
        pub offset: u64,
    }
}

layout! {
    /// `struct vifa_resources`.
    pub struct ResourcesHeader {
        /// Version of the structure.
        pub version: u16,
        /// The run state in which the records were read.
        pub run_state: u16,
        /// Number of records.
        pub records: u32,
        /// Number of bytes of records.
        pub length: u32,
        /// Zero.
        pub reserved: u32,
    }
}

layout! {
    /// `struct vifa_record`.
    pub struct Record {
        /// Number of the record type.
        pub kind: u16,
        /// Version of the record's content, from 1.
        pub version: u16,
        /// Index of the queue or vector, or 0 for other types.
        pub index: u32,
        /// Number of bytes that follow, without the padding.
        pub length: u32,
        /// Zero.
        pub reserved: u32,
    }
}

layout! {
    /// `struct vifa_stream_end`.
    pub struct End {
        /// Number of sections before this one.
        pub sections: u64,
        /// Number of bytes of local memory in all data sections.
        pub data_bytes: u64,
        /// Number of bytes of records in the control section.
        pub control_bytes: u64,
        /// CRC of the stream header and of all section headers before this one, each without its
        /// own CRC.
        pub headers_crc: u32,
        /// Zero.
        pub reserved: u32,
    }
}

/// Length of the CRC after a [`Preamble`] and after a [`Section`].
const SEAL_LENGTH: usize = 4;

/// Length of the stream header.
pub const HEADER_LENGTH: usize = Preamble::LENGTH + SEAL_LENGTH;

/// Length of a section header.
pub const SECTION_HEADER_LENGTH: usize = Section::LENGTH + SEAL_LENGTH;

/// Returns the bytes of `header` before its CRC, which they must match.
///
/// # Errors
///
/// Returns an error, with the name `field`, if the CRC is missing or wrong.
pub fn unseal<'a>(field: &'static str, header: &'a [u8]) -> Result<&'a [u8], Violation> {
    let (covered, crc) = header.split_last_chunk().ok_or(Violation {
        field,
        expected: Expectation::AtLeast(SEAL_LENGTH as u64),
        found: header.len() as u64,
    })?;

    check(
        field,
        u32::from_le_bytes(*crc),
        Expectation::Equal(Checksum::of(covered).into()),
    )?;
    Ok(covered)
}

/// The section types of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// The source's identity.
    Identity = 1,
    /// The transfer relationships.
    Relations = 2,
    /// A part of the address record file.
    Address = 3,
    /// A run of local memory.
    Data = 4,
    /// The resource abstraction structure.
    Control = 5,
    /// The totals.
    End = 6,
    /// The resources that the destination has to obtain from its host.
    Claim = 7,
}

impl Kind {
    /// Returns the type with this number, or `None` if this version does not define it.
    pub fn from_raw(raw: u16) -> Option<Self> {
        Some(match raw {
            1 => Self::Identity,
            2 => Self::Relations,
            3 => Self::Address,
            4 => Self::Data,
            5 => Self::Control,
            6 => Self::End,
            7 => Self::Claim,
            _ => return None,
        })
    }

    /// Returns the plane that sections of this type belong to.
    pub fn plane(self) -> Plane {
        match self {
            Self::Address | Self::Data => Plane::Data,
            Self::Identity | Self::Relations | Self::Control | Self::End | Self::Claim => {
                Plane::Control
            }
        }
    }

    /// Returns the flags of sections of this type.
    pub fn flags(self) -> u16 {
        match self {
            Self::Claim => 0,
            _ => MANDATORY,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::Relations => "relations",
            Self::Address => "address",
            Self::Data => "data",
            Self::Control => "control",
            Self::End => "end",
            Self::Claim => "claim",
        })
    }
}

impl Preamble {
    /// The header of streams of this version.
    pub const CURRENT: Self = Self {
        magic: MAGIC,
        major: MAJOR,
        minor: MINOR,
    };

    /// Returns this header if this version can read the stream.
    ///
    /// # Errors
    ///
    /// Returns the first invalid field.
    pub fn validated(self) -> Result<Self, Violation> {
        check(
            "magic",
            u64::from_le_bytes(self.magic),
            Expectation::Equal(u64::from_le_bytes(MAGIC)),
        )?;
        check("major", self.major, Expectation::Equal(MAJOR.into()))?;
        Ok(self)
    }
}

impl From<&Identity> for IdentityPayload {
    fn from(identity: &Identity) -> Self {
        Self {
            vendor: identity.vendor,
            device: identity.device,
            subsystem_vendor: identity.subsystem_vendor,
            subsystem: identity.subsystem,
            revision_id: identity.revision_id,
            reserved0: 0,
            vifa_revision: identity.vifa_revision,
            features: identity.features,
            bar_size: identity.bar_size,
            interrupt_vectors: identity.interrupt_vectors,
            queues: identity.queues,
            granule: identity.granule,
            local_memory: identity.local_memory,
            control_plane_max: identity.control_plane_max,
            reserved1: 0,
            record_version: identity.record_version,
        }
    }
}

impl TryFrom<IdentityPayload> for Identity {
    type Error = Violation;

    fn try_from(payload: IdentityPayload) -> Result<Self, Violation> {
        check("reserved0", payload.reserved0, Expectation::Equal(0))?;
        check("reserved1", payload.reserved1, Expectation::Equal(0))?;

        Ok(Self {
            vendor: payload.vendor,
            device: payload.device,
            subsystem_vendor: payload.subsystem_vendor,
            subsystem: payload.subsystem,
            revision_id: payload.revision_id,
            vifa_revision: payload.vifa_revision,
            features: payload.features,
            bar_size: payload.bar_size,
            interrupt_vectors: payload.interrupt_vectors,
            queues: payload.queues,
            granule: payload.granule,
            local_memory: payload.local_memory,
            control_plane_max: payload.control_plane_max,
            record_version: payload.record_version,
        })
    }
}

impl End {
    /// Checks that these are the `expected` totals.
    ///
    /// # Errors
    ///
    /// Returns the first field that differs.
    pub(super) fn validate(&self, expected: &Self) -> Result<(), Violation> {
        use Expectation::Equal;

        check("sections", self.sections, Equal(expected.sections))?;
        check("data_bytes", self.data_bytes, Equal(expected.data_bytes))?;
        check(
            "control_bytes",
            self.control_bytes,
            Equal(expected.control_bytes),
        )?;
        check(
            "headers_crc",
            self.headers_crc,
            Equal(expected.headers_crc.into()),
        )?;
        check("reserved", self.reserved, Equal(expected.reserved.into()))
    }
}
