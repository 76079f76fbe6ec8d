// SPDX-License-Identifier: GPL-2.0

//! The resource abstraction structure: the device-independent form of the control plane.
//!
//! A control plane is a table of typed, versioned records, in the same form for every device. The
//! content of a record is device-specific. Before a table is sent or loaded, this module checks
//! that the table is well formed, that the device supports each record's type and version, and that
//! the device has the queue or vector of each record.

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

/// The run state in which records are read: the device is stopped.
pub const RUN_STATE_STOPPED: u16 = 2;

/// Record type: the guest's configuration.
pub const CONFIGURATION: u16 = 1;
/// Record type: context of a queue pair.
pub const QUEUE: u16 = 2;
/// Record type: causes and masks of an interrupt vector.
pub const INTERRUPT: u16 = 3;

/// Alignment of records in bytes.
pub const ALIGN: usize = 8;

/// The error of an invalid record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidRecord {
    /// Offset of the record in the table, in bytes.
    pub offset: usize,
    /// The invalid field.
    pub violation: Violation,
}

impl fmt::Display for InvalidRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record at byte {:#x}: {}", self.offset, self.violation)
    }
}

/// Totals of a resource abstraction structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Number of records of each type.
    pub count: [u32; RECORD_TYPES],
    /// Number of bytes of all records.
    pub bytes: u64,
}

impl Summary {
    /// The totals of an empty structure.
    pub(super) const NONE: Self = Self {
        count: [0; RECORD_TYPES],
        bytes: 0,
    };

    /// Returns the number of records of all types.
    fn records(&self) -> u32 {
        self.count.into_iter().fold(0, u32::saturating_add)
    }
}

/// A control plane that a device can load: a table of valid records.
#[derive(Clone, Copy)]
pub struct Table<'a> {
    bytes: &'a [u8],
    summary: Summary,
}

impl<'a> Table<'a> {
    /// Parses `bytes` as the control plane of a device with this identity.
    ///
    /// # Errors
    ///
    /// Returns the first invalid record. A table without records is invalid.
    pub fn new(bytes: &'a [u8], identity: &Identity) -> Result<Self, InvalidRecord> {
        let mut association = Association {
            identity,
            next_index: [0; RECORD_TYPES],
        };
        let mut summary = Summary {
            bytes: bytes.len() as u64,
            ..Summary::NONE
        };
        let mut offset = 0;

        loop {
            let (entry, next) = Entry::at(bytes, offset)?;

            association
                .validate(&entry.header)
                .map_err(|violation| entry.invalid(violation))?;
            if let Some(count) = summary.count.get_mut(usize::from(entry.header.kind)) {
                *count = count.saturating_add(1);
            }
            if next >= bytes.len() {
                return Ok(Self { bytes, summary });
            }
            offset = next;
        }
    }

    /// Returns the totals of the table.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// Returns the header that precedes the records in a stream.
    pub(super) fn header(&self) -> ResourcesHeader {
        ResourcesHeader {
            version: VERSION,
            run_state: RUN_STATE_STOPPED,
            records: self.summary.records(),
            // A table is at most as long as a device's control plane, which is less than 4 GiB.
            length: self.bytes.len() as u32,
            reserved: 0,
        }
    }
}

impl<'a> IntoIterator for Table<'a> {
    type Item = Entry<'a>;
    type IntoIter = Entries<'a>;

    fn into_iter(self) -> Entries<'a> {
        Entries {
            table: self.bytes,
            next: 0,
        }
    }
}

/// Iterator over the records of a table.
pub struct Entries<'a> {
    table: &'a [u8],
    /// Offset of the next record.
    next: usize,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let (entry, next) = Entry::at(self.table, self.next).ok()?;

        self.next = next;
        Some(entry)
    }
}

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Offset of the record in its table, in bytes.
    offset: usize,
    /// The header.
    pub header: Record,
    /// The content, without padding.
    pub content: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Returns the record at `offset` of `table`, and the offset of the byte after it.
    fn at(table: &'a [u8], offset: usize) -> Result<(Self, usize), InvalidRecord> {
        let bytes = table.get(offset..).unwrap_or_default();

        Self::split(bytes)
            .map(|(header, content, rest)| {
                let entry = Self {
                    offset,
                    header,
                    content,
                };

                (entry, table.len().saturating_sub(rest.len()))
            })
            .map_err(|violation| InvalidRecord { offset, violation })
    }

    /// Returns the header and content of the first record of `bytes`, and the bytes after it.
    fn split(bytes: &'a [u8]) -> Result<(Record, &'a [u8], &'a [u8]), Violation> {
        let header = Record::decode(bytes).map_err(|violation| Violation {
            field: "record header",
            ..violation
        })?;
        let body = bytes.get(Record::LENGTH..).unwrap_or_default();
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
        Ok((header, content, rest))
    }

    /// Returns the error for this record, which is invalid.
    pub fn invalid(&self, violation: Violation) -> InvalidRecord {
        InvalidRecord {
            offset: self.offset,
            violation,
        }
    }
}

/// Associates records with the queues and vectors of a device.
struct Association<'a> {
    identity: &'a Identity,
    /// The lowest index that the next record of each type may have.
    next_index: [u64; RECORD_TYPES],
}

impl Association<'_> {
    /// Checks that the device loads this record, and that it is valid at this place in the table.
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
        // The number of objects of this type in the device.
        let objects = match record.kind {
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
        check("index", record.index, Below(objects))?;
        check("reserved", record.reserved, Equal(0))?;
        *next_index = u64::from(record.index) + 1;
        Ok(())
    }
}

impl ResourcesHeader {
    /// Checks that this is a valid header of `records`, except for the number of records.
    ///
    /// # Errors
    ///
    /// Returns the first invalid field.
    pub(super) fn validate(&self, records: &[u8]) -> Result<(), Violation> {
        use Expectation::Equal;

        check("version", self.version, Equal(VERSION.into()))?;
        check("run_state", self.run_state, Equal(RUN_STATE_STOPPED.into()))?;
        check("length", self.length, Equal(records.len() as u64))?;
        check("reserved", self.reserved, Equal(0))
    }

    /// Checks that the number of records is that of `table`.
    ///
    /// # Errors
    ///
    /// Returns an error if the number of records is wrong.
    pub(super) fn validate_count(&self, table: &Table<'_>) -> Result<(), Violation> {
        check(
            "records",
            self.records,
            Expectation::Equal(table.summary.records().into()),
        )
    }
}
