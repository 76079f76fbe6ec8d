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
//! (209 - 144), 155, 170, 195 and 209 words behind it. What is left in the end are 209 words.
//!
//! This is pure: the host tests compile the same file.

use core::{
    cell::Cell,
    mem::take, //
};

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// Where a word goes that is removed: words behind it. The last is the degree of G.
const TAPS: [usize; 5] = [65, 155, 170, 195, LAP];

/// Words that are left: so many are remembered.
const LAP: usize = 209;

/// Length in bytes from which on folding pays.
pub(crate) const FOLD_MIN: usize = 4096;

/// Where runs of a lap begin in which no tap wraps around.
const RUNS: [usize; 6] = [0, 65, 155, 170, 195, LAP];

/// Returns the place of the word that stands `tap` words before the one at `place` in the ring.
fn before(place: usize, tap: usize) -> usize {
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
    let Some(removed) = words.checked_sub(LAP) else {
        return library(seed, bytes);
    };
    let (front, left) = bytes.split_at(removed * WORD);
    let ring = [const { Cell::new(0) }; LAP];
    let mut seed = u64::from(seed);

    for lap in front.chunks(LAP * WORD) {
        // A register that is not zero counts as if it were part of the first word.
        ring[0].set(ring[0].get() ^ take(&mut seed));
        fold_lap(&ring, lap);
    }

    let mut register = seed as u32;
    for (place, bytes) in (removed..).zip(left.chunks_exact(WORD)) {
        // The words before, as far as they were removed: they are still in the ring.
        let folded = TAPS
            .into_iter()
            .filter_map(|tap| place.checked_sub(tap).filter(|&from| from < removed))
            .fold(word(bytes), |word, from| word ^ ring[from % LAP].get());
        register = library(register, &folded.to_le_bytes());
    }
    library(register, &left[LAP * WORD..])
}

/// Removes the words of `lap`, at most [`LAP`]. `ring` holds the last [`LAP`] words that were
/// removed, each with what had been XORed into it; the oldest stands where its successor goes.
fn fold_lap(ring: &[Cell<u64>; LAP], lap: &[u8]) {
    let length = lap.len() / WORD;

    for run in RUNS.windows(2) {
        let (start, end) = (run[0], run[1].min(length));
        if start >= end {
            break;
        }
        let [a, b, c, d, place] = TAPS.map(|tap| {
            let from = before(start, tap);
            &ring[from..from + end - start]
        });
        let words = lap[start * WORD..end * WORD].chunks_exact(WORD);
        for (((((bytes, place), a), b), c), d) in words.zip(place).zip(a).zip(b).zip(c).zip(d) {
            place.set(word(bytes) ^ place.get() ^ a.get() ^ b.get() ^ c.get() ^ d.get());
        }
    }
}
