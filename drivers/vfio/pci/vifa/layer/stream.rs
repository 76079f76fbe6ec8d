// SPDX-License-Identifier: GPL-2.0

//! The migration stream: its parts as they stand in bytes.
//!
//! `include/uapi/linux/vifa.h` holds the layout and `Documentation/vifa/stream.rst` explains it;
//! the names here are theirs. [`layout`] turns parts into bytes and back, [`checksum`] covers them.
//! Which part may follow which is the matter of [`save`](super::save) and
//! [`restore`](super::restore).

mod checksum;
pub(crate) mod layout;

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
    progress::Progress,
};
use core::fmt;
use layout::layout;

pub(crate) use checksum::Checksum;

/// First bytes of every stream.
pub(crate) const MAGIC: [u8; 8] = *b"VIFASTRM";
/// Version of the format: streams of another major version are refused.
pub(crate) const MAJOR: u16 = 1;
/// Version of the format: a minor version adds section types only.
pub(crate) const MINOR: u16 = 1;

/// Section flag: a receiver that does not know the type refuses the stream.
pub(crate) const MANDATORY: u16 = 0x1;

/// Most bytes of local memory in one data section. A multiple of every granule.
pub(crate) const DATA_RUN_MAX: usize = 0x10_0000;

/// Most bytes of payload in one section.
pub(crate) const SECTION_LENGTH_MAX: u32 = 0x10_0010;

layout! {
    /// `struct vifa_stream_header` without its CRC, which covers these bytes.
    pub(crate) struct Preamble {
        /// [`MAGIC`].
        pub(crate) magic: [u8; 8],
        /// [`MAJOR`].
        pub(crate) major: u16,
        /// [`MINOR`].
        pub(crate) minor: u16,
    }
}

layout! {
    /// `struct vifa_section_header` without its CRC, which covers these bytes.
    pub(crate) struct Section {
        /// Number of the type; see [`Kind`].
        pub(crate) kind: u16,
        /// [`MANDATORY`] or 0.
        pub(crate) flags: u16,
        /// Bytes of payload.
        pub(crate) length: u32,
        /// The source's interface that the payload belongs to.
        pub(crate) interface: u64,
        /// Sections before this one.
        pub(crate) sequence: u64,
        /// CRC of the payload.
        pub(crate) payload_crc: u32,
    }
}

layout! {
    /// `struct vifa_identity`.
    pub(crate) struct IdentityPayload {
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
    pub(crate) struct RelationPayload {
        /// Number of the plane.
        pub(crate) plane: u8,
        /// Zero.
        pub(crate) reserved: [u8; 7],
        /// The source's interface.
        pub(crate) output: u64,
        /// The destination's interface; 0: whichever takes the stream.
        pub(crate) receiver: u64,
    }
}

layout! {
    /// `struct vifa_address_record`.
    pub(crate) struct AddressHeader {
        /// Number of the memory that the ranges lie in.
        pub(crate) space: u32,
        /// 0: what is mapped; from 1: what has changed since.
        pub(crate) round: u32,
        /// Unit of the ranges in bytes.
        pub(crate) granule: u32,
        /// Ranges that follow.
        pub(crate) count: u32,
    }
}

layout! {
    /// `struct vifa_address_range`.
    pub(crate) struct AddressEntry {
        /// Offset or IOVA of the first byte.
        pub(crate) start: u64,
        /// Bytes.
        pub(crate) length: u64,
        /// Sequence number of the first data section with these bytes; 0: none has them.
        pub(crate) sequence: u64,
    }
}

layout! {
    /// `struct vifa_data_run`.
    pub(crate) struct DataRun {
        /// Where in local memory the bytes that follow belong.
        pub(crate) offset: u64,
    }
}

layout! {
    /// `struct vifa_resources`.
    pub(crate) struct ResourcesHeader {
        /// Version of the structure.
        pub(crate) version: u16,
        /// The run state in which the records were taken.
        pub(crate) run_state: u16,
        /// Number of records.
        pub(crate) records: u32,
        /// Bytes of records.
        pub(crate) length: u32,
        /// Zero.
        pub(crate) reserved: u32,
    }
}

layout! {
    /// `struct vifa_record`.
    pub(crate) struct Record {
        /// Number of the record type.
        pub(crate) kind: u16,
        /// Version of the record's content, from 1.
        pub(crate) version: u16,
        /// Which queue, which vector; else 0.
        pub(crate) index: u32,
        /// Bytes that follow, without the padding.
        pub(crate) length: u32,
        /// Zero.
        pub(crate) reserved: u32,
    }
}

layout! {
    /// `struct vifa_stream_end`.
    pub(crate) struct End {
        /// Sections before this one.
        pub(crate) sections: u64,
        /// Bytes of local memory in all data sections.
        pub(crate) data_bytes: u64,
        /// Bytes of records in the control section.
        pub(crate) control_bytes: u64,
        /// CRC of the stream header and of all section headers before this one, each without its
        /// own CRC.
        pub(crate) headers_crc: u32,
        /// Zero.
        pub(crate) reserved: u32,
    }
}

/// Length of the CRC behind a [`Preamble`] and behind a [`Section`].
const SEAL_LENGTH: usize = 4;

/// Length of the stream header.
pub(crate) const HEADER_LENGTH: usize = Preamble::LENGTH + SEAL_LENGTH;

/// Length of a section header.
pub(crate) const SECTION_HEADER_LENGTH: usize = Section::LENGTH + SEAL_LENGTH;

/// Returns what stands in `header` before its CRC.
///
/// # Errors
///
/// The CRC, which is called `field`, is not that of what it covers.
pub(crate) fn unseal<'a>(field: &'static str, header: &'a [u8]) -> Result<&'a [u8], Violation> {
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
pub(crate) enum Kind {
    /// What the source is.
    Identity = 1,
    /// Who sends to whom.
    Relations = 2,
    /// A part of the address record file.
    Address = 3,
    /// A run of local memory.
    Data = 4,
    /// The resource abstraction structure.
    Control = 5,
    /// The totals.
    End = 6,
    /// What the destination has to obtain from its own host.
    Claim = 7,
}

impl Kind {
    /// Returns the type with this number; `None` if this version knows none.
    pub(crate) fn from_raw(raw: u16) -> Option<Self> {
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
    pub(crate) fn plane(self) -> Plane {
        match self {
            Self::Address | Self::Data => Plane::Data,
            Self::Identity | Self::Relations | Self::Control | Self::End | Self::Claim => {
                Plane::Control
            }
        }
    }

    /// Returns the flags that sections of this type carry.
    pub(crate) fn flags(self) -> u16 {
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
    /// What a stream of this version begins with.
    pub(crate) const CURRENT: Self = Self {
        magic: MAGIC,
        major: MAJOR,
        minor: MINOR,
    };

    /// Returns this header if a stream with it can be read.
    ///
    /// # Errors
    ///
    /// The first field that is wrong.
    pub(crate) fn validated(self) -> Result<Self, Violation> {
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
    /// Returns the totals of a stream that has come as far as `progress` says; `headers` covers its
    /// headers so far.
    pub(super) fn new(progress: &Progress, headers: Checksum) -> Self {
        Self {
            sections: progress.sections,
            data_bytes: progress.data_bytes,
            control_bytes: progress.records.bytes,
            headers_crc: headers.value(),
            reserved: 0,
        }
    }

    /// Checks that these are the `expected` totals.
    ///
    /// # Errors
    ///
    /// The first field that differs.
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
