// SPDX-License-Identifier: GPL-2.0

//! The migration stream: its parts as they stand in bytes.
//!
//! `include/uapi/linux/vifa.h` holds the layout and `Documentation/vifa/stream.rst` explains it;
//! the names here are theirs. [`layout`] turns parts into bytes and back, [`checksum`] covers them.
//! Which part may follow which is the matter of [`save`](super::save) and
//! [`restore`](super::restore).

mod checksum;
mod layout;

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

pub(crate) use checksum::Checksum;

/// First bytes of every stream.
pub(crate) const MAGIC: [u8; 8] = *b"VIFASTRM";
/// Version of the format: streams of another major version are refused.
pub(crate) const MAJOR: u16 = 0;
/// Version of the format: a minor version adds section types only.
pub(crate) const MINOR: u16 = 1;

/// Section flag: a receiver that does not know the type refuses the stream.
pub(crate) const MANDATORY: u16 = 0x1;

/// Most bytes of local memory in one data section. A multiple of every granule.
pub(crate) const DATA_RUN_MAX: usize = 0x10_0000;

/// Most bytes of payload in one section.
pub(crate) const SECTION_LENGTH_MAX: u32 = 0x10_0008;

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
    /// `struct vifa_data_run`.
    pub(crate) struct DataRun {
        /// Where in local memory the bytes that follow belong.
        pub(crate) offset: u64,
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
    /// A run of local memory.
    Data = 2,
    /// The records of the control plane.
    Control = 3,
    /// The totals.
    End = 4,
}

impl Kind {
    /// Returns the type with this number; `None` if this version knows none.
    pub(crate) fn from_raw(raw: u16) -> Option<Self> {
        Some(match raw {
            1 => Self::Identity,
            2 => Self::Data,
            3 => Self::Control,
            4 => Self::End,
            _ => return None,
        })
    }

    /// Returns the plane that sections of this type belong to.
    pub(crate) fn plane(self) -> Plane {
        match self {
            Self::Data => Plane::Data,
            Self::Identity | Self::Control | Self::End => Plane::Control,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::Data => "data",
            Self::Control => "control",
            Self::End => "end",
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

/// What was sent or received so far; the end section carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Totals {
    sections: u64,
    data_bytes: u64,
    control_bytes: u64,
    headers: Checksum,
}

impl Totals {
    /// Nothing yet.
    pub(crate) const NONE: Self = Self {
        sections: 0,
        data_bytes: 0,
        control_bytes: 0,
        headers: Checksum::EMPTY,
    };

    /// Returns the number of sections so far, which is the next section's sequence number.
    pub(crate) fn sections(&self) -> u64 {
        self.sections
    }

    /// Takes in the stream header.
    pub(crate) fn count_header(&mut self, preamble: Preamble) {
        self.headers = self.headers.and(&preamble.encode());
    }

    /// Takes in a section with this header.
    pub(crate) fn count_section(&mut self, section: Section) {
        self.headers = self.headers.and(&section.encode());
        self.sections = self.sections.saturating_add(1);
    }

    /// Takes in bytes of local memory.
    pub(crate) fn count_data(&mut self, bytes: u64) {
        self.data_bytes = self.data_bytes.saturating_add(bytes);
    }

    /// Takes in bytes of records.
    pub(crate) fn count_control(&mut self, bytes: u64) {
        self.control_bytes = self.control_bytes.saturating_add(bytes);
    }

    /// Returns the end section's payload.
    pub(crate) fn end(&self) -> End {
        End {
            sections: self.sections,
            data_bytes: self.data_bytes,
            control_bytes: self.control_bytes,
            headers_crc: self.headers.value(),
            reserved: 0,
        }
    }
}

impl End {
    /// Checks that these totals are those of what was `received`.
    ///
    /// # Errors
    ///
    /// The first field that differs.
    pub(crate) fn validate(&self, received: &Totals) -> Result<(), Violation> {
        use Expectation::Equal;

        let expected = received.end();

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
