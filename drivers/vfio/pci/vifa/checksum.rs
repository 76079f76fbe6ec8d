// SPDX-License-Identifier: GPL-2.0

//! CRC-32C for processors without an instruction for it.
//!
//! On such processors, the kernel's library processes one byte at a time, which would dominate the
//! time of a transfer. This module first folds a long message into a short one with the same CRC,
//! eight bytes at a time and with XOR alone. The library then computes the CRC of the short
//! message, so that the result is that of the library. The code belongs in `lib/crc`, and can be
//! removed once the library contains it.
//!
//! # Folding
//!
//! A message is a polynomial over GF(2) in x, whose highest coefficient is the first bit. Its CRC
//! is the remainder of a division by the CRC's polynomial P. Adding a multiple of P does not change
//! the remainder. The following multiple of P was found by search. It has the lowest degree of
//! those with six terms (with four terms, the lowest degree is 5275):
//!
//! ```text
//! G = x^209 + x^144 + x^54 + x^39 + x^14 + 1
//! ```
//!
//! Squaring is linear over GF(2), so P divides G(x^64), too: the multiple applies to words of 64
//! bits as well as to bits. A word at the front of the message is removed by XORing it into the
//! words 65 (209 - 144), 155, 170, 195 and 209 words after it. Words are removed 209 at a time,
//! until fewer than 2 * 209 words remain.
//!
//! The module has no dependencies: the host tests compile the same file.

use core::cell::Cell;

/// Size of a word in bytes.
const WORD: usize = size_of::<u64>();

/// Distances, in words, from a removed word to the words it is XORed into. The last is the degree
/// of G.
const TAPS: [usize; 5] = [65, 155, 170, 195, LAP];

/// Number of words that are removed at a time.
const LAP: usize = 209;

/// Minimum length in bytes for which folding is faster.
pub(crate) const FOLD_MIN: usize = 4096;

/// The last [`LAP`] words that were removed, each including the words that were XORed into it. The
/// index of a word is its index in its lap.
type Ring = [Cell<u64>; LAP];

/// Returns the index in a [`Ring`] of the word `tap` words before the word at `place`.
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
/// `bytes` has at least [`FOLD_MIN`] bytes. `library` processes the folded message.
pub(crate) fn crc32c(seed: u32, bytes: &[u8], library: impl Fn(u32, &[u8]) -> u32) -> u32 {
    let words = bytes.len() / WORD;
    let removed = words.saturating_sub(LAP) / LAP * LAP;
    if removed == 0 {
        return library(seed, bytes);
    }
    let (front, left) = bytes.split_at(removed * WORD);
    let ring = [const { Cell::new(0) }; LAP];

    // A nonzero register is equivalent to XORing it into the first word.
    ring[0].set(seed.into());
    for lap in front.chunks_exact(LAP * WORD) {
        // No tap wraps around within one of these parts.
        fold::<0, 65>(&ring, lap);
        fold::<65, 155>(&ring, lap);
        fold::<155, 170>(&ring, lap);
        fold::<170, 195>(&ring, lap);
        fold::<195, LAP>(&ring, lap);
    }

    let mut register = 0;
    let (folded, rest) = left.split_at(LAP * WORD);
    for (place, bytes) in folded.chunks_exact(WORD).enumerate() {
        // Apply the removed words that are XORed into this one.
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

/// Removes the words `START..END` of `lap`.
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
