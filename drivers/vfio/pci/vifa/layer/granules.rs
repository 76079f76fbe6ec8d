// SPDX-License-Identifier: GPL-2.0

//! Sets of granules of local memory.
//!
//! Local memory is sparse and large, and a device reports its state in bitmaps. A set is a bitmap
//! of all granules. Its maximum size is 32 MiB, for one TiB of the smallest granules.

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

/// Maximum number of granules per query of a device.
pub const WINDOW: u64 = 1 << 19;

const WORD: usize = size_of::<u64>();
const WORD_BITS: u64 = u64::BITS as u64;

/// A set of granules.
pub(super) struct Granules {
    /// Bit 0 of byte 0 is the first granule. The length is a multiple of the word size. Bits after
    /// the last granule are 0.
    bits: Bytes,
    /// Granule size in bytes.
    granule: NonZeroU64,
}

impl Granules {
    /// Creates an empty set of the granules of a device with this identity.
    pub(super) fn none(identity: &Identity) -> Result<Self, OutOfMemory> {
        let granule = NonZeroU64::new(identity.granule.into()).unwrap_or(NonZeroU64::MIN);
        let words = (identity.local_memory / granule).div_ceil(WORD_BITS) as usize;
        let length = words.saturating_mul(WORD);
        let mut bits = Bytes::with_capacity(length)?;

        bits.resize_zeroed(length)?;
        Ok(Self { bits, granule })
    }

    /// Divides the local memory of a device with this identity into ranges of at most [`WINDOW`]
    /// granules.
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
    /// Returns an error if the bitmap has the wrong length.
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

    /// Removes the granules of `range`.
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

    /// Clears the bits from `first` up to `end`, all in one byte.
    fn clear(&mut self, first: u64, end: u64) {
        if let Some(byte) = self.bits.get_mut((first / 8) as usize) {
            *byte &= !mask(first % 8, end.saturating_sub(first)) as u8;
        }
    }

    /// Returns the first whole run of granules in the set at or after the offset `from`.
    pub(super) fn next(&self, from: u64) -> Option<Range> {
        let first = self.find(from / self.granule, 0)?;
        let end = self.find(first, u64::MAX).unwrap_or(self.len());

        Some(Range {
            start: first.saturating_mul(self.granule.get()),
            length: end.saturating_sub(first).saturating_mul(self.granule.get()),
        })
    }

    /// Returns the number of bytes of the granules in the set that are in `range`.
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

    /// Returns the number of the first granule of `range`, and the count of granules.
    fn numbers(&self, range: Range) -> (u64, u64) {
        (range.start / self.granule, range.length / self.granule)
    }

    /// Returns the number of bits.
    fn len(&self) -> u64 {
        (self.bits.len() as u64).saturating_mul(8)
    }

    /// Returns word `number`.
    fn word(&self, number: u64) -> u64 {
        let start = (number as usize).saturating_mul(WORD);
        let bytes = self.bits.get(start..).and_then(<[u8]>::first_chunk);

        bytes.map_or(0, |&bytes| u64::from_le_bytes(bytes))
    }

    /// Returns the number of the first bit from `from` on that is set after each word of the bitmap
    /// is XORed with `flip`.
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

/// Returns a word with `count` bits set from bit `first` on.
fn mask(first: u64, count: u64) -> u64 {
    let ones = u64::MAX
        .checked_shr(u64::BITS.saturating_sub(count as u32))
        .unwrap_or(0);

    ones.checked_shl(first as u32).unwrap_or(0)
}
