// SPDX-License-Identifier: GPL-2.0

//! Writing of a table of records, and the parts that the contents of all records share.

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
        records::{
            InvalidRecord,
            ALIGN, //
        },
        stream::Record,
    },
    seam::{
        Bytes,
        OutOfMemory, //
    },
};

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
        let padded = content.len().checked_next_multiple_of(ALIGN);
        let length = Record::LENGTH.saturating_add(padded.unwrap_or(content.len()));

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
