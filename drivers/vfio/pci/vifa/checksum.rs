// SPDX-License-Identifier: GPL-2.0

//! CRC-32C for processors that have no instruction for it.
//!
//! The kernel's library then takes a byte at a time, which would be most of the time that a transfer
//! takes. This folds a long message into a short one with the same CRC first, eight bytes at a time
//! and with nothing but XOR, and leaves the short one to the library. The results are the library's.
//! The right home of it is `lib/crc`; it goes when that has it.
//!
//! # Folding
//!
//! A message is a polynomial over GF(2) in x, the first bit its highest coefficient, and its CRC is
//! the remainder of a division by the CRC's polynomial P. Adding a multiple of P changes nothing.
//! Found by search, this is the multiple of the lowest degree that has six terms (with four, the
//! lowest degree is 5275):
//!
//! ```text
//! G = x^209 + x^144 + x^54 + x^39 + x^14 + 1
//! ```
//!
//! Squaring is linear over GF(2), so P divides G(x^64) too: the same holds for words of 64 bits as
//! for bits. A word at the front of the message is removed by XORing it into the words that stand 65
//! (209 - 144), 155, 170, 195 and 209 words behind it. Words are removed 209 at a time; what is left
//! in the end are less than twice as many.
//!
//! This is pure: the host tests compile the same file.

use core::cell::Cell;

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// Where a word goes that is removed: words behind it. The last is the degree of G.
const TAPS: [usize; 5] = [65, 155, 170, 195, LAP];

/// Words that are removed at a time.
const LAP: usize = 209;

/// Length in bytes from which on folding pays.
pub(crate) const FOLD_MIN: usize = 4096;

/// The last [`LAP`] words that were removed, each with what had been XORed into it. The place of a
/// word in its lap is its place here.
type Ring = [Cell<u64>; LAP];

/// Returns the place in a [`Ring`] of the word that stands `tap` words before the one at `place`.
const fn before(place: usize, tap: usize) -> usize {
    if place < tap {
        place + LAP - tap
    } else {
        place - tap
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

/// Feeds `bytes` into a CRC-32C whose register holds `seed`, and returns the register, as
/// `library(seed, bytes)` does.
///
/// `bytes` are at least [`FOLD_MIN`]; `library` gets what is left of them.
pub(crate) fn crc32c(seed: u32, bytes: &[u8], library: impl Fn(u32, &[u8]) -> u32) -> u32 {
    let words = bytes.len() / WORD;
    let removed = words.saturating_sub(LAP) / LAP * LAP;
    if removed == 0 {
        return library(seed, bytes);
    }
    let (front, left) = bytes.split_at(removed * WORD);
    let ring = [const { Cell::new(0) }; LAP];

    // A register that is not zero counts as if it were part of the first word.
    ring[0].set(seed.into());
    for lap in front.chunks_exact(LAP * WORD) {
        // No tap wraps around within one of these.
        fold::<0, 65>(&ring, lap);
        fold::<65, 155>(&ring, lap);
        fold::<155, 170>(&ring, lap);
        fold::<170, 195>(&ring, lap);
        fold::<195, LAP>(&ring, lap);
    }

    let mut register = 0;
    let (folded, rest) = left.split_at(LAP * WORD);
    for (place, bytes) in folded.chunks_exact(WORD).enumerate() {
        // What the words before it, as far as they were removed, have left it.
        let word = TAPS
            .into_iter()
            .filter(|&tap| tap > place)
            .fold(word(bytes), |word, tap| {
                word ^ ring[before(place, tap)].get()
            });
        register = library(register, &word.to_le_bytes());
    }
    library(register, rest)
}

/// Removes the words of `lap` from the one at `START` to before the one at `END`.
#[inline(always)]
fn fold<const START: usize, const END: usize>(ring: &Ring, lap: &[u8]) {
    let [a, b, c, d, place] = TAPS.map(|tap| {
        let from = before(START, tap);
        &ring[from..from + END - START]
    });
    let words = lap[START * WORD..END * WORD].chunks_exact(WORD);

    for (((((bytes, place), a), b), c), d) in words.zip(place).zip(a).zip(b).zip(c).zip(d) {
        place.set(word(bytes) ^ place.get() ^ a.get() ^ b.get() ^ c.get() ^ d.get());
    }
}
