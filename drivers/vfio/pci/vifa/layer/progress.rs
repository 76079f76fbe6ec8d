// SPDX-License-Identifier: GPL-2.0

//! How far a transfer has come, and what it has carried.
//!
//! Both ends of a transfer keep the same account. The migration region shows it, and the end section
//! carries part of it, so that the receiver can tell whether it has everything.

use super::{
    address, records,
    relation::Relations,
    stream::{
        Checksum,
        End, //
    },
};

/// What was sent or received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The transfer relationships, once the output party has offered or the receiver has verified
    /// them.
    pub relations: Option<Relations>,
    /// Bytes of the stream.
    pub stream_bytes: u64,
    /// Whole sections.
    pub sections: u64,
    /// The resource abstraction structure.
    pub records: records::Summary,
    /// The address record file.
    pub addresses: address::Summary,
    /// Bytes of local memory.
    pub data_bytes: u64,
}

impl Progress {
    /// Nothing yet.
    pub const NONE: Self = Self {
        relations: None,
        stream_bytes: 0,
        sections: 0,
        records: records::Summary::NONE,
        addresses: address::Summary::NONE,
        data_bytes: 0,
    };

    /// Counts a section.
    pub(super) fn count_section(&mut self) {
        self.sections = self.sections.saturating_add(1);
    }

    /// Counts bytes of the stream.
    pub(super) fn count_stream(&mut self, bytes: u64) {
        self.stream_bytes = self.stream_bytes.saturating_add(bytes);
    }

    /// Counts bytes of local memory.
    pub(super) fn count_data(&mut self, bytes: u64) {
        self.data_bytes = self.data_bytes.saturating_add(bytes);
    }

    /// Returns the totals of a stream that has come so far; `headers` covers its headers.
    pub(super) fn totals(&self, headers: Checksum) -> End {
        End {
            sections: self.sections,
            data_bytes: self.data_bytes,
            control_bytes: self.records.bytes,
            headers_crc: headers.value(),
            reserved: 0,
        }
    }
}
