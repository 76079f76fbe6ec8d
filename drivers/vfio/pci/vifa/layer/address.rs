// SPDX-License-Identifier: GPL-2.0

//! The address record file: the location of the data plane.
//!
//! It lists ranges of memory, in parts of bounded length. A range of local memory has the place of
//! its bytes in the stream. The pages of a range of guest memory are transferred by the virtual
//! machine monitor. The output party composes a part before it sends the data that the part lists.
//! The receiver therefore expects each data section before it arrives, and rejects all others.

use super::{
    check::{
        check,
        Expectation,
        Violation, //
    },
    identity::{
        Identity,
        GRANULE_MIN, //
    },
    stream::{
        AddressEntry,
        AddressHeader,
        DATA_RUN_MAX, //
    },
};
use crate::seam::{
    Bytes,
    OutOfMemory, //
};
use core::mem;

/// Maximum number of ranges in a part.
pub const RANGES_MAX: u32 = 1024;

/// Maximum length of a part in bytes.
pub const LENGTH_MAX: usize = AddressHeader::LENGTH + RANGES_MAX as usize * AddressEntry::LENGTH;

/// Minimum length of a part in bytes.
pub(super) const LENGTH_MIN: usize = AddressHeader::LENGTH + AddressEntry::LENGTH;

/// Smallest page of guest memory in bytes.
const PAGE_MIN: u32 = GRANULE_MIN;

/// The kind of memory that contains a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Space {
    /// Local memory of the virtual function, addressed by offset.
    Local = 1,
    /// Guest memory with tracked pages, addressed by IOVA.
    Guest = 2,
}

/// A range of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Offset or IOVA of the first byte.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
}

impl Range {
    /// Returns the offset or IOVA after the last byte.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }

    /// Appends `next` if it begins in this range or at its end, and returns whether it does.
    ///
    /// `next` must not begin before this range.
    pub fn join(&mut self, next: Self) -> bool {
        let touches = self.end() >= next.start;

        if touches {
            self.length = self.end().max(next.end()).saturating_sub(self.start);
        }
        touches
    }

    /// Checks that the range lies in memory of `size` bytes, consists of whole granules, and begins
    /// at an offset that satisfies `start`.
    pub(super) fn validate(
        &self,
        start: Option<Expectation>,
        granule: u64,
        size: u64,
    ) -> Result<(), Violation> {
        use Expectation::*;

        check("start", self.start, MultipleOf(granule))?;
        if let Some(start) = start {
            check("start", self.start, start)?;
        }
        check("start", self.start, AtMost(size))?;
        check("length", self.length, MultipleOf(granule))?;
        check("length", self.length, AtLeast(granule))?;
        check(
            "length",
            self.length,
            AtMost(size.saturating_sub(self.start)),
        )
    }

    /// Returns the number of data sections that carry this range of local memory.
    fn sections(&self) -> u64 {
        self.length.div_ceil(DATA_RUN_MAX as u64)
    }
}

/// Totals of an address record file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Number of ranges of local memory, in all rounds.
    pub local_ranges: u64,
    /// Number of bytes in these ranges.
    pub local_bytes: u64,
    /// Number of ranges of guest memory.
    pub guest_ranges: u64,
    /// Number of bytes in these ranges.
    pub guest_bytes: u64,
}

impl Summary {
    /// The totals of an empty file.
    pub(super) const NONE: Self = Self {
        local_ranges: 0,
        local_bytes: 0,
        guest_ranges: 0,
        guest_bytes: 0,
    };

    /// Adds the ranges of `part`.
    pub(super) fn count(&mut self, part: &Part) {
        let (ranges, bytes) = match part.space {
            Space::Local => (&mut self.local_ranges, &mut self.local_bytes),
            Space::Guest => (&mut self.guest_ranges, &mut self.guest_bytes),
        };

        for entry in entries(&part.bytes) {
            *ranges = ranges.saturating_add(1);
            *bytes = bytes.saturating_add(entry.length);
        }
    }
}

/// Returns entry number `index` of the part in `bytes`.
fn entry(bytes: &[u8], index: usize) -> Option<AddressEntry> {
    let position = index
        .saturating_mul(AddressEntry::LENGTH)
        .saturating_add(AddressHeader::LENGTH);

    AddressEntry::decode(bytes.get(position..)?).ok()
}

/// Returns the entries of the part in `bytes`.
fn entries(bytes: &[u8]) -> impl Iterator<Item = AddressEntry> + '_ {
    (0..).map_while(|index| entry(bytes, index))
}

/// A buffer that all parts of a transfer use in turn.
///
/// It allocates [`LENGTH_MAX`] bytes on first use.
pub(super) struct Buffer(Option<Bytes>);

impl Buffer {
    /// A buffer without memory.
    pub(super) const UNUSED: Self = Self(None);

    /// Returns memory of `length` bytes, at most [`LENGTH_MAX`]. It may contain bytes of an earlier
    /// part.
    pub(super) fn take(&mut self, length: usize) -> Result<Bytes, OutOfMemory> {
        let mut bytes = match self.0.take() {
            Some(bytes) => bytes,
            None => Bytes::with_capacity(LENGTH_MAX)?,
        };

        bytes.resize_zeroed(length.min(LENGTH_MAX))?;
        Ok(bytes)
    }

    /// Takes back the memory of a part.
    pub(super) fn put_back(&mut self, part: Part) {
        self.0 = Some(part.bytes);
    }
}

/// A valid part of the address record file, in the encoding of the stream.
pub struct Part {
    bytes: Bytes,
    space: Space,
    /// The first run that is not yet transferred: the number of its range, and its offset in that
    /// range.
    next: (usize, u64),
}

impl Part {
    /// Returns the address section's payload.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the first run that is not yet transferred, which the next data section carries.
    ///
    /// Returns `None` after the last run, and for guest memory.
    pub(super) fn run(&self) -> Option<Range> {
        let (index, done) = self.next;

        match self.space {
            Space::Local => entry(&self.bytes, index).map(|entry| Range {
                start: entry.start.saturating_add(done),
                length: entry.length.saturating_sub(done).min(DATA_RUN_MAX as u64),
            }),
            Space::Guest => None,
        }
    }

    /// Returns the number of bytes of local memory that are not yet transferred.
    pub(super) fn pending_bytes(&self) -> u64 {
        self.pending()
            .fold(0, |bytes, range| bytes.saturating_add(range.length))
    }

    /// Returns the ranges of local memory that are not yet transferred. The first one excludes its
    /// transferred bytes.
    pub(super) fn pending(&self) -> impl Iterator<Item = Range> + '_ {
        let (index, mut done) = self.next;
        let local = matches!(self.space, Space::Local);

        entries(&self.bytes)
            .skip(index)
            .take_while(move |_| local)
            .map(move |entry| {
                let done = mem::take(&mut done);

                Range {
                    start: entry.start.saturating_add(done),
                    length: entry.length.saturating_sub(done),
                }
            })
    }

    /// Advances to the next run.
    pub(super) fn advance(&mut self) {
        let (index, done) = self.next;
        let done = done.saturating_add(DATA_RUN_MAX as u64);
        let length = entry(&self.bytes, index).map(|entry| entry.length);

        self.next = if length > Some(done) {
            (index, done)
        } else {
            (index.saturating_add(1), 0)
        };
    }
}

/// Composes a part.
pub(super) struct Composer {
    bytes: Bytes,
    space: Space,
    round: u32,
    granule: u32,
    count: u32,
    /// Sequence number of the first data section of the next range of local memory.
    sequence: u64,
}

impl Composer {
    /// Begins a part that lists local memory, in section number `sequence`.
    pub(super) fn local(
        buffer: &mut Buffer,
        round: u32,
        granule: u32,
        sequence: u64,
    ) -> Result<Self, OutOfMemory> {
        Ok(Self {
            bytes: buffer.take(AddressHeader::LENGTH)?,
            space: Space::Local,
            round,
            granule,
            count: 0,
            sequence: sequence.saturating_add(1),
        })
    }

    /// Begins a part that lists guest memory in pages of `page_size` bytes.
    fn guest(buffer: &mut Buffer, page_size: u32) -> Result<Self, OutOfMemory> {
        Ok(Self {
            bytes: buffer.take(AddressHeader::LENGTH)?,
            space: Space::Guest,
            round: 0,
            granule: page_size,
            count: 0,
            sequence: 0,
        })
    }

    /// Returns whether the part has [`RANGES_MAX`] ranges.
    pub(super) fn is_full(&self) -> bool {
        self.count >= RANGES_MAX
    }

    /// Appends a range.
    ///
    /// The caller ensures that it lies after the previous ranges and consists of whole granules.
    pub(super) fn push(&mut self, range: Range) -> Result<(), OutOfMemory> {
        let start = self.bytes.len();
        let entry = AddressEntry {
            start: range.start,
            length: range.length,
            sequence: self.sequence,
        };

        self.bytes
            .resize_zeroed(start.saturating_add(AddressEntry::LENGTH))?;
        if let Some(end) = self.bytes.last_chunk_mut() {
            *end = entry.encode();
        }
        self.count = self.count.saturating_add(1);
        if let Space::Local = self.space {
            self.sequence = self.sequence.saturating_add(range.sections());
        }
        Ok(())
    }

    /// Returns the part. Returns the memory to `buffer` if the part has no range.
    pub(super) fn finish(mut self, buffer: &mut Buffer) -> Option<Part> {
        let header = AddressHeader {
            space: self.space as u32,
            round: self.round,
            granule: self.granule,
            count: self.count,
        };

        if let Some(start) = self.bytes.first_chunk_mut() {
            *start = header.encode();
        }
        let part = Part {
            bytes: self.bytes,
            space: self.space,
            next: (0, 0),
        };
        if self.count == 0 {
            buffer.put_back(part);
            return None;
        }
        Some(part)
    }
}

/// Guest memory with tracked pages.
pub struct Tracked {
    /// Page size in bytes.
    page_size: u32,
    /// The encoded ranges, in ascending order. They do not touch.
    entries: Bytes,
    /// Number of entries that are already in a part.
    listed: usize,
}

impl Tracked {
    /// Creates a list of `ranges` in pages of `page_size` bytes.
    ///
    /// The ranges must ascend and must not overlap.
    pub fn new(
        page_size: u32,
        ranges: impl IntoIterator<Item = Range>,
    ) -> Result<Self, OutOfMemory> {
        let mut ranges = ranges.into_iter().peekable();
        let mut entries = Bytes::with_capacity(0)?;

        while let Some(mut range) = ranges.next() {
            while ranges.next_if(|next| range.join(*next)).is_some() {}
            entries.resize_zeroed(entries.len().saturating_add(AddressEntry::LENGTH))?;
            if let Some(end) = entries.last_chunk_mut() {
                *end = AddressEntry {
                    start: range.start,
                    length: range.length,
                    sequence: 0,
                }
                .encode();
            }
        }
        Ok(Self {
            page_size,
            entries,
            listed: 0,
        })
    }

    /// Composes the next part. Returns `None` after the last range.
    pub(super) fn compose(&mut self, buffer: &mut Buffer) -> Result<Option<Part>, OutOfMemory> {
        let mut composer = Composer::guest(buffer, self.page_size)?;
        let position = self.listed.saturating_mul(AddressEntry::LENGTH);
        let left = self.entries.get(position..).unwrap_or_default();

        for entry in left.chunks_exact(AddressEntry::LENGTH) {
            let (false, Ok(entry)) = (composer.is_full(), AddressEntry::decode(entry)) else {
                break;
            };
            composer.push(Range {
                start: entry.start,
                length: entry.length,
            })?;
            self.listed = self.listed.saturating_add(1);
        }
        Ok(composer.finish(buffer))
    }
}

/// The error of an invalid part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPart {
    /// Number of the invalid range, from 0. `None` if the header is invalid.
    pub range: Option<u32>,
    /// The invalid field.
    pub violation: Violation,
}

impl From<Violation> for InvalidPart {
    fn from(violation: Violation) -> Self {
        Self {
            range: None,
            violation,
        }
    }
}

/// The last received round and range of one space. They limit the next part.
#[derive(Clone, Copy)]
struct Line {
    /// The last round. `None` before the first part.
    round: Option<u32>,
    /// The end of the last range of that round. `None` before its first range.
    end: Option<u64>,
}

impl Line {
    const NONE: Self = Self {
        round: None,
        end: None,
    };

    /// Checks that a part of `round` is valid next, and begins the round if it is new.
    ///
    /// `last` is the last valid round.
    fn enter(&mut self, round: u32, last: u32) -> Result<(), Violation> {
        use Expectation::*;

        match self.round {
            None => check("round", round, Equal(0))?,
            Some(current) => {
                let next = current.saturating_add(1).min(last);

                check("round", round, AtLeast(current.into()))?;
                check("round", round, AtMost(next.into()))?;
            }
        }
        if self.round != Some(round) {
            self.round = Some(round);
            self.end = None;
        }
        Ok(())
    }

    /// Checks that `range` is valid next, and records its end.
    fn extend(&mut self, range: Range, granule: u64, size: u64) -> Result<(), Violation> {
        range.validate(self.end.map(Expectation::Above), granule, size)?;
        self.end = Some(range.end());
        Ok(())
    }
}

impl Space {
    /// Checks the granule of a part, from a source with this `identity`.
    fn check_granule(self, granule: u32, identity: &Identity) -> Result<(), Violation> {
        use Expectation::{AtLeast, Equal, PowerOfTwo};

        match self {
            Self::Local => check("granule", granule, Equal(identity.granule.into())),
            Self::Guest => {
                check("granule", granule, PowerOfTwo)?;
                check("granule", granule, AtLeast(PAGE_MIN.into()))
            }
        }
    }
}

/// Checks the number of ranges of a part of `length` bytes.
fn check_count(count: u32, length: usize) -> Result<(), Violation> {
    use Expectation::{AtLeast, AtMost, Equal};

    check("count", count, AtLeast(1))?;
    check("count", count, AtMost(RANGES_MAX.into()))?;
    check(
        "length",
        length as u64,
        Equal(AddressHeader::LENGTH as u64 + u64::from(count) * AddressEntry::LENGTH as u64),
    )
}

/// The state of the received parts, against which the next part is checked.
pub(super) struct Received {
    local: Line,
    guest: Line,
}

impl Received {
    /// The state before the first part.
    pub(super) const NONE: Self = Self {
        local: Line::NONE,
        guest: Line::NONE,
    };

    /// Accepts the part of section number `sequence`, from a source with this `identity`.
    ///
    /// # Errors
    ///
    /// Returns the first invalid field.
    pub(super) fn accept(
        &mut self,
        bytes: Bytes,
        sequence: u64,
        identity: &Identity,
    ) -> Result<Part, InvalidPart> {
        use Expectation::{Equal, Known};

        let header = AddressHeader::decode(&bytes)?;
        let (space, line, size, last_round) = match header.space {
            1 => (
                Space::Local,
                &mut self.local,
                identity.local_memory,
                u32::MAX,
            ),
            2 => (Space::Guest, &mut self.guest, u64::MAX, 0),
            space => {
                return Err(Violation {
                    field: "space",
                    expected: Known,
                    found: space.into(),
                }
                .into());
            }
        };
        let granule = header.granule.into();

        line.enter(header.round, last_round)?;
        space.check_granule(header.granule, identity)?;
        check_count(header.count, bytes.len())?;

        let mut data = sequence.saturating_add(1);
        for (index, entry) in (0..).zip(entries(&bytes)) {
            let range = Range {
                start: entry.start,
                length: entry.length,
            };
            let first = match space {
                Space::Local => data,
                Space::Guest => 0,
            };

            line.extend(range, granule, size)
                .and_then(|()| check("sequence", entry.sequence, Equal(first)))
                .map_err(|violation| InvalidPart {
                    range: Some(index),
                    violation,
                })?;
            data = data.saturating_add(range.sections());
        }
        Ok(Part {
            bytes,
            space,
            next: (0, 0),
        })
    }
}
