// SPDX-License-Identifier: GPL-2.0

//! Sets of granules of local memory.
//!
//! Local memory is sparse and large, and a device tells of it in bitmaps. A set is such a bitmap of
//! all of it: 32 MiB for a tebibyte of the smallest granules, which is the most that there can be.

use super::{
    address::Range,
    check::{
        check,
        Expectation,
        Violation, //
    },
    identity::Identity,
};
use crate::seam::{
    Bytes,
    OutOfMemory, //
};
use core::num::NonZeroU64;

/// Most granules that a device is asked about at a time.
pub const WINDOW: u64 = 1 << 19;

const WORD: usize = size_of::<u64>();
const WORD_BITS: u64 = u64::BITS as u64;

/// A set of granules.
pub(super) struct Granules {
    /// Bit 0 of byte 0 is the first granule. The bytes are whole words; bits behind the last
    /// granule are 0.
    bits: Bytes,
    /// Bytes of a granule.
    granule: NonZeroU64,
}

impl Granules {
    /// Makes an empty set of the granules of a device that is as `identity` says.
    pub(super) fn none(identity: &Identity) -> Result<Self, OutOfMemory> {
        let granule = NonZeroU64::new(identity.granule.into()).unwrap_or(NonZeroU64::MIN);
        let words = (identity.local_memory / granule).div_ceil(WORD_BITS) as usize;
        let length = words.saturating_mul(WORD);
        let mut bits = Bytes::with_capacity(length)?;

        bits.resize_zeroed(length)?;
        Ok(Self { bits, granule })
    }

    /// Returns the ranges of local memory of a device that is as `identity` says that it can be asked
    /// about at a time, and that together are all of it.
    pub(super) fn windows(identity: &Identity) -> impl Iterator<Item = Range> {
        let &Identity {
            granule,
            local_memory,
            ..
        } = identity;
        let most = u64::from(granule).saturating_mul(WINDOW);
        let windows = local_memory.checked_div(most).map_or(0, |whole| {
            whole.saturating_add((local_memory % most != 0).into())
        });

        (0..windows).map(move |window| {
            let start = window.saturating_mul(most);

            Range {
                start,
                length: local_memory.saturating_sub(start).min(most),
            }
        })
    }

    /// Adds the granules of `window`, one of [`Self::windows`], whose bits are set in `bitmap`.
    ///
    /// # Errors
    ///
    /// The bitmap has another length than it must have.
    pub(super) fn add(&mut self, window: Range, bitmap: &[u8]) -> Result<(), Violation> {
        let (first, count) = self.numbers(window);
        let bytes = count.div_ceil(8);
        let padding = bytes.saturating_mul(8).saturating_sub(count);

        check("length", bitmap.len() as u64, Expectation::Equal(bytes))?;
        let start = (first / 8) as usize;
        let end = start.saturating_add(bitmap.len());
        let bits = self.bits.get_mut(start..end).unwrap_or_default();
        for (to, from) in bits.iter_mut().zip(bitmap) {
            *to |= from;
        }
        if let Some(last) = bits.last_mut() {
            *last &= 0xff >> padding;
        }
        Ok(())
    }

    /// Takes the granules of `range` out.
    pub(super) fn remove(&mut self, range: Range) {
        let (first, count) = self.numbers(range);
        let end = first.saturating_add(count);
        let head = first.next_multiple_of(8).min(end);
        let tail = (end / 8).saturating_mul(8).max(head);

        self.clear(first, head);
        if let Some(whole) = self.bits.get_mut((head / 8) as usize..(tail / 8) as usize) {
            whole.fill(0);
        }
        self.clear(tail, end);
    }

    /// Clears the bits from `first` to `end`, which are in one byte.
    fn clear(&mut self, first: u64, end: u64) {
        if let Some(byte) = self.bits.get_mut((first / 8) as usize) {
            *byte &= !mask(first % 8, end.saturating_sub(first)) as u8;
        }
    }

    /// Returns the first run of granules in the set, as long as it is, at or behind the offset
    /// `from`.
    pub(super) fn next(&self, from: u64) -> Option<Range> {
        let first = self.find(from / self.granule, 0)?;
        let end = self.find(first, u64::MAX).unwrap_or(self.len());

        Some(Range {
            start: first.saturating_mul(self.granule.get()),
            length: end.saturating_sub(first).saturating_mul(self.granule.get()),
        })
    }

    /// Returns how many bytes the granules in the set have that are in `range`.
    pub(super) fn bytes(&self, range: Range) -> u64 {
        let (first, count) = self.numbers(range);
        let end = first.saturating_add(count).min(self.len());
        let mut at = first;
        let mut granules = 0_u64;

        while at < end {
            let next = (at / WORD_BITS).saturating_add(1).saturating_mul(WORD_BITS);
            let next = next.min(end);
            let word = self.word(at / WORD_BITS) & mask(at % WORD_BITS, next.saturating_sub(at));

            granules = granules.saturating_add(word.count_ones().into());
            at = next;
        }
        granules.saturating_mul(self.granule.get())
    }

    /// Returns the first granule of `range`, and how many there are.
    fn numbers(&self, range: Range) -> (u64, u64) {
        (range.start / self.granule, range.length / self.granule)
    }

    /// How many bits there are.
    fn len(&self) -> u64 {
        (self.bits.len() as u64).saturating_mul(8)
    }

    /// Returns the word with this number.
    fn word(&self, number: u64) -> u64 {
        let start = (number as usize).saturating_mul(WORD);
        let bytes = self.bits.get(start..).and_then(<[u8]>::first_chunk);

        bytes.map_or(0, |&bytes| u64::from_le_bytes(bytes))
    }

    /// Returns the number of the first bit, at or behind the one with the number `from`, that is set
    /// in the bitmap once it is flipped where `flip` has ones.
    fn find(&self, from: u64, flip: u64) -> Option<u64> {
        let words = self.len() / WORD_BITS;
        let mut number = from / WORD_BITS;
        let mut hidden = mask(0, from % WORD_BITS);

        while number < words {
            let word = (self.word(number) ^ flip) & !hidden;

            if word != 0 {
                let bit = u64::from(word.trailing_zeros());
                return Some(number.saturating_mul(WORD_BITS).saturating_add(bit));
            }
            hidden = 0;
            number = number.saturating_add(1);
        }
        None
    }
}

/// Returns a word of which `count` bits are set from bit `first` on.
fn mask(first: u64, count: u64) -> u64 {
    let ones = u64::MAX
        .checked_shr(u64::BITS.saturating_sub(count as u32))
        .unwrap_or(0);

    ones.checked_shl(first as u32).unwrap_or(0)
}
