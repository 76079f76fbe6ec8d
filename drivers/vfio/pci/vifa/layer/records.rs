// SPDX-License-Identifier: GPL-2.0

//! The records of the control plane.
//!
//! A control plane is a table of typed, versioned records, the same shape for every device. What a
//! record holds is the device's matter; that the table is well formed, and that the device knows
//! each record's type and version, is checked here, before a table is sent and before one is loaded.

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
    stream::Record,
};
use core::fmt;

/// Records begin at multiples of this many bytes.
pub(crate) const ALIGN: usize = 8;

/// A record that is not as it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidRecord {
    /// Where in the table the record begins, in bytes.
    pub(crate) offset: usize,
    /// The field that is wrong.
    pub(crate) violation: Violation,
}

impl fmt::Display for InvalidRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record at byte {:#x}: {}", self.offset, self.violation)
    }
}

/// Checks that `table` is a control plane that the device with this identity loads.
///
/// # Errors
///
/// The first record that is wrong. A table without a record is wrong, too.
pub(crate) fn validate(table: &[u8], identity: &Identity) -> Result<(), InvalidRecord> {
    let mut next_index = [0; RECORD_TYPES];
    let mut rest = table;

    loop {
        let offset = table.len().saturating_sub(rest.len());

        rest = validate_first(rest, identity, &mut next_index)
            .map_err(|violation| InvalidRecord { offset, violation })?;
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// Checks the first record of `table` and returns what follows it.
///
/// `next_index` has the lowest index that the next record of each type may have.
fn validate_first<'a>(
    table: &'a [u8],
    identity: &Identity,
    next_index: &mut [u64; RECORD_TYPES],
) -> Result<&'a [u8], Violation> {
    use Expectation::*;

    let record = Record::decode(table)?;
    let kind = usize::from(record.kind);
    let unknown = Violation {
        field: "type",
        expected: Known,
        found: record.kind.into(),
    };
    let version = *identity.record_version.get(kind).ok_or(unknown)?;
    let next_index = next_index.get_mut(kind).ok_or(unknown)?;

    if version == 0 {
        return Err(unknown);
    }
    check("version", record.version, AtLeast(1))?;
    check("version", record.version, AtMost(version.into()))?;
    check("index", record.index, AtLeast(*next_index))?;
    check("reserved", record.reserved, Equal(0))?;
    *next_index = u64::from(record.index) + 1;

    let body = table.get(Record::LENGTH..).unwrap_or_default();
    let too_long = Violation {
        field: "length",
        expected: AtMost(body.len() as u64),
        found: record.length.into(),
    };
    let length = usize::try_from(record.length).map_err(|_| too_long)?;
    let padded = length.checked_next_multiple_of(ALIGN).ok_or(too_long)?;
    let (content, rest) = body.split_at_checked(padded).ok_or(too_long)?;

    for &byte in content.get(length..).unwrap_or_default() {
        check("padding", byte, Equal(0))?;
    }
    Ok(rest)
}
