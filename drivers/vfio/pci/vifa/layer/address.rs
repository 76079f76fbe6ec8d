// SPDX-License-Identifier: GPL-2.0

//! The address record file: where the data plane lives.
//!
//! It lists ranges of memory, in parts of bounded length: of local memory, each with the place in
//! the stream where its bytes stand, and of guest memory, whose pages the virtual machine monitor
//! transfers. The output party composes a part before it sends the data that the part lists; the
//! receiver thus knows each data section before it comes, and takes no other.

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

/// Most ranges of a part.
pub const RANGES_MAX: u32 = 1024;

/// Most bytes of a part.
pub const LENGTH_MAX: usize = AddressHeader::LENGTH + RANGES_MAX as usize * AddressEntry::LENGTH;

/// Fewest bytes of a part.
pub(super) const LENGTH_MIN: usize = AddressHeader::LENGTH + AddressEntry::LENGTH;

/// Smallest page of guest memory in bytes.
const PAGE_MIN: u32 = GRANULE_MIN;

/// The memory that ranges lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Space {
    /// Local memory of the virtual function: offsets.
    Local = 1,
    /// Guest memory whose pages were tracked: IOVAs.
    Guest = 2,
}

/// A range of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Offset or IOVA of the first byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
}

impl Range {
    /// Returns where the range ends.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }

    /// Appends `next`, which does not begin before this range, if it begins in it or where it ends;
    /// returns whether it does.
    pub fn join(&mut self, next: Self) -> bool {
        let touches = self.end() >= next.start;

        if touches {
            self.length = self.end().max(next.end()).saturating_sub(self.start);
        }
        touches
    }

    /// Checks that the range lies in memory of `size` bytes, consists of granules, and begins where
    /// `start` says.
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

    /// Returns how many data sections carry a range of local memory.
    fn sections(&self) -> u64 {
        self.length.div_ceil(DATA_RUN_MAX as u64)
    }
}

/// What an address record file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Ranges of local memory, in all rounds.
    pub local_ranges: u64,
    /// Bytes in them.
    pub local_bytes: u64,
    /// Ranges of guest memory.
    pub guest_ranges: u64,
    /// Bytes in them.
    pub guest_bytes: u64,
}

impl Summary {
    /// An empty file.
    pub(super) const NONE: Self = Self {
        local_ranges: 0,
        local_bytes: 0,
        guest_ranges: 0,
        guest_bytes: 0,
    };

    /// Counts the ranges of a part.
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

/// Returns the entry with this number of a part that stands in `bytes`.
fn entry(bytes: &[u8], index: usize) -> Option<AddressEntry> {
    let position = index
        .saturating_mul(AddressEntry::LENGTH)
        .saturating_add(AddressHeader::LENGTH);

    AddressEntry::decode(bytes.get(position..)?).ok()
}

/// Returns the entries of a part that stands in `bytes`.
fn entries(bytes: &[u8]) -> impl Iterator<Item = AddressEntry> + '_ {
    (0..).map_while(|index| entry(bytes, index))
}

/// A buffer for parts, which are transferred one after another.
///
/// It takes its memory, [`LENGTH_MAX`] bytes, when it is first used.
pub(super) struct Buffer(Option<Bytes>);

impl Buffer {
    /// A buffer that was not yet used.
    pub(super) const UNUSED: Self = Self(None);

    /// Returns room for `length` bytes, up to [`LENGTH_MAX`]; they may hold what an earlier part
    /// was.
    pub(super) fn take(&mut self, length: usize) -> Result<Bytes, OutOfMemory> {
        let mut bytes = match self.0.take() {
            Some(bytes) => bytes,
            None => Bytes::with_capacity(LENGTH_MAX)?,
        };

        bytes.resize_zeroed(length.min(LENGTH_MAX))?;
        Ok(bytes)
    }

    /// Takes back what a part stood in.
    pub(super) fn put_back(&mut self, part: Part) {
        self.0 = Some(part.bytes);
    }
}

/// A part of the address record file: sound, and as it stands in the stream.
pub struct Part {
    bytes: Bytes,
    space: Space,
    /// The first run whose data was not yet transferred: the range that it belongs to, and where in
    /// that range it begins.
    next: (usize, u64),
}

impl Part {
    /// Returns the address section's payload.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the first run whose data was not yet transferred: what the next data section carries.
    /// `None` behind the last one, and for guest memory.
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

    /// Returns how many bytes of local memory are not yet sent or received.
    pub(super) fn left_bytes(&self) -> u64 {
        self.left()
            .fold(0, |bytes, range| bytes.saturating_add(range.length))
    }

    /// Returns the ranges of local memory whose data was not yet transferred; of the first one, what
    /// is left.
    pub(super) fn left(&self) -> impl Iterator<Item = Range> + '_ {
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

    /// Goes on to the next run.
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
    /// Begins a part that lists local memory, in the section with this sequence number.
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

    /// Returns whether the part can take no more ranges.
    pub(super) fn is_full(&self) -> bool {
        self.count >= RANGES_MAX
    }

    /// Appends a range. Its place behind the ranges before, and its unit, are the caller's care.
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

    /// Returns the part; the buffer takes back what has no range.
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

/// Guest memory whose pages are tracked.
pub struct Tracked {
    /// Bytes of a page.
    page_size: u32,
    /// The ranges, as entries: they ascend and do not touch.
    entries: Bytes,
    /// How many of them parts have listed.
    listed: usize,
}

impl Tracked {
    /// Makes a list of `ranges`, which ascend and do not overlap, in pages of `page_size` bytes.
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

    /// Composes the next part; `None` when all ranges are listed.
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

/// A part that is not as it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPart {
    /// The range that is wrong, counted from 0; `None`: what stands before the ranges.
    pub range: Option<u32>,
    /// The field that is wrong.
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

/// The ranges of one space that were received so far, and with them what the next part can be.
#[derive(Clone, Copy)]
struct Line {
    /// The last round; `None`: no part came yet.
    round: Option<u32>,
    /// Where the last range of that round ends; `None`: the round has none yet.
    end: Option<u64>,
}

impl Line {
    const NONE: Self = Self {
        round: None,
        end: None,
    };

    /// Checks that a part of this `round` can come next, and begins the round if it is a new one.
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

    /// Checks that `range` can come next.
    fn extend(&mut self, range: Range, granule: u64, size: u64) -> Result<(), Violation> {
        range.validate(self.end.map(Expectation::Above), granule, size)?;
        self.end = Some(range.end());
        Ok(())
    }
}

/// The parts that were received so far, and with them what the next one can be.
pub(super) struct Received {
    local: Line,
    guest: Line,
}

impl Received {
    /// No part.
    pub(super) const NONE: Self = Self {
        local: Line::NONE,
        guest: Line::NONE,
    };

    /// Takes a part that stands in the section with this sequence number, from a source that is as
    /// `identity` says.
    ///
    /// # Errors
    ///
    /// The first field that is wrong.
    pub(super) fn accept(
        &mut self,
        bytes: Bytes,
        sequence: u64,
        identity: &Identity,
    ) -> Result<Part, InvalidPart> {
        use Expectation::*;

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
        match space {
            Space::Local => check("granule", header.granule, Equal(identity.granule.into()))?,
            Space::Guest => {
                check("granule", header.granule, PowerOfTwo)?;
                check("granule", header.granule, AtLeast(PAGE_MIN.into()))?;
            }
        }
        check("count", header.count, AtLeast(1))?;
        check("count", header.count, AtMost(RANGES_MAX.into()))?;
        check(
            "length",
            bytes.len() as u64,
            Equal(
                AddressHeader::LENGTH as u64
                    + u64::from(header.count) * AddressEntry::LENGTH as u64,
            ),
        )?;

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
