// SPDX-License-Identifier: GPL-2.0

//! Progress and totals of a transfer.
//!
//! Both ends of a transfer keep the same totals. The migration region shows them. The end section
//! carries part of them, so that the receiver can check that the stream is complete.

use super::{
    address, records,
    relation::Relations,
    stream::{
        Checksum,
        End, //
    },
};

/// Totals of the sent or received part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The transfer relationships, once the output party has offered or the receiver has verified
    /// them.
    pub relations: Option<Relations>,
    /// Number of bytes of the stream.
    pub stream_bytes: u64,
    /// Number of complete sections.
    pub sections: u64,
    /// Totals of the resource abstraction structure.
    pub records: records::Summary,
    /// Totals of the address record file.
    pub addresses: address::Summary,
    /// Number of bytes of local memory.
    pub data_bytes: u64,
}

impl Progress {
    /// The totals before the first byte.
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

    /// Returns the totals for the end section. `headers` is the checksum of all headers so far.
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
