// SPDX-License-Identifier: GPL-2.0

//! The resource abstraction structure: the control plane, whatever the device.
//!
//! A control plane is a table of typed, versioned records, the same shape for every device. What a
//! record holds is the device's matter; that the table is well formed, that the device knows each
//! record's type and version, and that it has what a record belongs to, is checked here, before a
//! table is sent and before one is loaded.

use super::{
    check::{
        check,
        Expectation,
        Violation, //
    },
    identity::{
        Identity,
        RECORD_TYPES, //
    },
    stream::{
        Record,
        ResourcesHeader, //
    },
};
use core::fmt;

/// Version of the resource abstraction structure.
pub const VERSION: u16 = 1;

/// The run state in which records are taken: the device stands still.
pub const RUN_STATE_STOPPED: u16 = 2;

/// Record type: what the guest configured.
pub const CONFIGURATION: u16 = 1;
/// Record type: context of a queue pair.
pub const QUEUE: u16 = 2;
/// Record type: causes and masks of an interrupt vector.
pub const INTERRUPT: u16 = 3;

/// Records begin at multiples of this many bytes.
pub const ALIGN: usize = 8;

/// A record that is not as it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidRecord {
    /// Where in the table the record begins, in bytes.
    pub offset: usize,
    /// The field that is wrong.
    pub violation: Violation,
}

impl fmt::Display for InvalidRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record at byte {:#x}: {}", self.offset, self.violation)
    }
}

/// What a resource abstraction structure holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Records of each type.
    pub count: [u32; RECORD_TYPES],
    /// Bytes that all records take.
    pub bytes: u64,
}

impl Summary {
    /// Nothing.
    pub(super) const NONE: Self = Self {
        count: [0; RECORD_TYPES],
        bytes: 0,
    };

    /// Returns the number of records of all types.
    fn records(&self) -> u32 {
        self.count.into_iter().fold(0, u32::saturating_add)
    }
}

/// A control plane that a device can load: a table of sound records.
#[derive(Clone, Copy)]
pub struct Table<'a> {
    bytes: &'a [u8],
    summary: Summary,
}

impl<'a> Table<'a> {
    /// Takes `bytes` for the control plane of a device with this identity.
    ///
    /// # Errors
    ///
    /// The first record that is wrong. A table without a record is wrong, too.
    pub fn new(bytes: &'a [u8], identity: &Identity) -> Result<Self, InvalidRecord> {
        let mut association = Association {
            identity,
            next_index: [0; RECORD_TYPES],
        };
        let mut summary = Summary {
            bytes: bytes.len() as u64,
            ..Summary::NONE
        };
        let mut rest = bytes;

        loop {
            let offset = bytes.len().saturating_sub(rest.len());
            let behind = Entry::split(rest).and_then(|(entry, behind)| {
                association
                    .validate(&entry.header)
                    .map(|()| (entry, behind))
            });
            let (entry, behind) =
                behind.map_err(|violation| InvalidRecord { offset, violation })?;

            if let Some(count) = summary.count.get_mut(usize::from(entry.header.kind)) {
                *count = count.saturating_add(1);
            }
            if behind.is_empty() {
                return Ok(Self { bytes, summary });
            }
            rest = behind;
        }
    }

    /// Returns what the table holds.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// Returns what stands before the records in a stream.
    pub(super) fn header(&self) -> ResourcesHeader {
        ResourcesHeader {
            version: VERSION,
            run_state: RUN_STATE_STOPPED,
            records: self.summary.records(),
            // A table is no longer than a device's control plane, which is less than 4 GiB.
            length: self.bytes.len() as u32,
            reserved: 0,
        }
    }
}

impl<'a> IntoIterator for Table<'a> {
    type Item = Entry<'a>;
    type IntoIter = Entries<'a>;

    fn into_iter(self) -> Entries<'a> {
        Entries(self.bytes)
    }
}

/// The records of a table in their order.
pub struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let (entry, rest) = Entry::split(self.0).ok()?;

        self.0 = rest;
        Some(entry)
    }
}

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it is.
    pub header: Record,
    /// What it holds.
    pub content: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Takes the first record of `table` and returns what follows it, too.
    fn split(table: &'a [u8]) -> Result<(Self, &'a [u8]), Violation> {
        let header = Record::decode(table).map_err(|violation| Violation {
            field: "record header",
            ..violation
        })?;
        let body = table.get(Record::LENGTH..).unwrap_or_default();
        let too_long = Violation {
            field: "length",
            expected: Expectation::AtMost(body.len() as u64),
            found: header.length.into(),
        };
        let length = usize::try_from(header.length).map_err(|_| too_long)?;
        let padded = length.checked_next_multiple_of(ALIGN).ok_or(too_long)?;
        let (padded, rest) = body.split_at_checked(padded).ok_or(too_long)?;
        let (content, padding) = padded.split_at_checked(length).ok_or(too_long)?;

        for &byte in padding {
            check("padding", byte, Expectation::Equal(0))?;
        }
        Ok((Self { header, content }, rest))
    }
}

/// Associates records with what a device has.
struct Association<'a> {
    identity: &'a Identity,
    /// The lowest index that the next record of each type may have.
    next_index: [u64; RECORD_TYPES],
}

impl Association<'_> {
    /// Checks that the device loads such a record, and that it may come next.
    fn validate(&mut self, record: &Record) -> Result<(), Violation> {
        use Expectation::*;

        let kind = usize::from(record.kind);
        let unknown = Violation {
            field: "type",
            expected: Known,
            found: record.kind.into(),
        };
        let version = *self.identity.record_version.get(kind).ok_or(unknown)?;
        let next_index = self.next_index.get_mut(kind).ok_or(unknown)?;
        // How many of the things of this type the device has.
        let things = match record.kind {
            CONFIGURATION => 1,
            QUEUE => self.identity.queues.into(),
            INTERRUPT => self.identity.interrupt_vectors.into(),
            _ => u64::MAX,
        };

        if version == 0 {
            return Err(unknown);
        }
        check("version", record.version, AtLeast(1))?;
        check("version", record.version, AtMost(version.into()))?;
        check("index", record.index, AtLeast(*next_index))?;
        check("index", record.index, Below(things))?;
        check("reserved", record.reserved, Equal(0))?;
        *next_index = u64::from(record.index) + 1;
        Ok(())
    }
}

impl ResourcesHeader {
    /// Checks that this stands before `records`.
    ///
    /// # Errors
    ///
    /// The first field that is wrong, but for the number of records.
    pub(super) fn validate(&self, records: &[u8]) -> Result<(), Violation> {
        use Expectation::Equal;

        check("version", self.version, Equal(VERSION.into()))?;
        check("run_state", self.run_state, Equal(RUN_STATE_STOPPED.into()))?;
        check("length", self.length, Equal(records.len() as u64))?;
        check("reserved", self.reserved, Equal(0))
    }

    /// Checks that this stands before `table`.
    ///
    /// # Errors
    ///
    /// The number of records is wrong.
    pub(super) fn validate_count(&self, table: &Table<'_>) -> Result<(), Violation> {
        check(
            "records",
            self.records,
            Expectation::Equal(table.summary.records().into()),
        )
    }
}
