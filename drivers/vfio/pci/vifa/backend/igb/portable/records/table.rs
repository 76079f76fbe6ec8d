// SPDX-License-Identifier: GPL-2.0

//! Reading and writing of a table of records.

use super::{
    CONTROL_PLANE_MAX,
    VERSION, //
};
use crate::{
    layer::{
        check::{
            check,
            Expectation,
            Violation, //
        },
        identity::Identity,
        records::{
            Entry,
            InvalidRecord,
            Table,
            ALIGN, //
        },
        stream::Record,
    },
    seam::{
        Bytes,
        OutOfMemory, //
    },
};

/// A record and its offset.
pub(super) struct Located<'a> {
    offset: usize,
    pub(super) entry: Entry<'a>,
}

impl<'a> Located<'a> {
    /// Returns the records of a table.
    pub(super) fn of(
        records: &'a [u8],
        identity: &Identity,
    ) -> Result<impl Iterator<Item = Located<'a>>, InvalidRecord> {
        let mut next = 0_usize;

        Ok(Table::new(records, identity)?
            .into_iter()
            .map(move |entry| {
                let offset = next;

                next = offset
                    .saturating_add(Record::LENGTH)
                    .saturating_add(padded(entry.content.len()));
                Located { offset, entry }
            }))
    }

    /// Returns the error for this invalid record.
    pub(super) fn invalid(&self, violation: Violation) -> InvalidRecord {
        InvalidRecord {
            offset: self.offset,
            violation,
        }
    }
}

/// Returns the padded length of a record's content.
fn padded(length: usize) -> usize {
    length.checked_next_multiple_of(ALIGN).unwrap_or(length)
}

/// A table of records that is being written.
pub(super) struct Records(Bytes);

impl Records {
    pub(super) fn new() -> Result<Self, OutOfMemory> {
        Bytes::with_capacity(CONTROL_PLANE_MAX as usize).map(Self)
    }

    /// Adds a record.
    pub(super) fn put(&mut self, kind: u16, index: u32, content: &[u8]) -> Result<(), OutOfMemory> {
        let header = Record {
            kind,
            version: VERSION,
            index,
            length: content.len() as u32,
            reserved: 0,
        };
        let start = self.0.len();
        let length = Record::LENGTH.saturating_add(padded(content.len()));

        self.0.resize_zeroed(start.saturating_add(length))?;
        let room = self.0.get_mut(start..).unwrap_or_default().iter_mut();
        for (to, from) in room.zip(header.encode().iter().chain(content)) {
            *to = *from;
        }
        Ok(())
    }

    /// Returns the error for an invalid next record.
    pub(super) fn invalid(&self, violation: Violation) -> InvalidRecord {
        InvalidRecord {
            offset: self.0.len(),
            violation,
        }
    }

    /// Returns the encoded table.
    pub(super) fn finish(self) -> Bytes {
        self.0
    }
}

/// Decodes a payload of `length` bytes from the whole `content` of a record.
pub(super) fn whole<T>(
    content: &[u8],
    length: usize,
    decode: impl FnOnce(&[u8]) -> Result<T, Violation>,
) -> Result<T, Violation> {
    check(
        "length",
        content.len() as u64,
        Expectation::Equal(length as u64),
    )?;
    decode(content)
}

/// Returns `flag` if `is_set`.
pub(super) fn flag(flag: u32, is_set: bool) -> u32 {
    if is_set {
        flag
    } else {
        0
    }
}
