// SPDX-License-Identifier: GPL-2.0

//! Bytes that are known by a seed and their place.
//!
//! No two places of a stream look alike, so data that is shifted, repeated or of another stream
//! differs as much as data that is damaged.

/// How much is compared at once.
const BLOCK: usize = 4096;

/// The bytes of one seed, from offset 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Where the seed's words begin among those of all seeds: far from any other's.
    base: u64,
}

/// The finalizer of SplitMix64, which maps different numbers to different ones.
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Pattern {
    /// The pattern of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { base: mix(seed) }
    }

    fn word(self, index: u64) -> u64 {
        mix(self.base.wrapping_add(index))
    }

    /// Writes the bytes from `offset` on to `buffer`.
    pub fn fill(self, mut offset: u64, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            let word = self.word(offset / 8).to_le_bytes();
            let skipped = (offset % 8) as usize;
            let length = buffer.len().min(word.len() - skipped);
            let (part, rest) = buffer.split_at_mut(length);
            part.copy_from_slice(&word[skipped..][..length]);
            offset += length as u64;
            buffer = rest;
        }
    }

    /// The offset of the first byte of `data` that is not what it should be from `offset` on.
    pub fn first_difference(self, offset: u64, data: &[u8]) -> Option<u64> {
        let mut expected = [0; BLOCK];
        let mut start = offset;
        for block in data.chunks(BLOCK) {
            let expected = &mut expected[..block.len()];
            self.fill(start, expected);
            if block != expected {
                let place = block.iter().zip(&*expected).position(|(a, b)| a != b);
                return place.map(|place| start + place as u64);
            }
            start += block.len() as u64;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn bytes(seed: u64, offset: u64, length: usize) -> Vec<u8> {
        let mut buffer = vec![0; length];
        Pattern::new(seed).fill(offset, &mut buffer);
        buffer
    }

    #[test]
    fn any_cut_gives_the_same_bytes() {
        let whole = bytes(5, 0, 10_000);
        for (offset, length) in [(0, 1), (3, 5), (7, 2), (4095, 4097), (9_999, 1)] {
            let part = bytes(5, offset, length);
            assert_eq!(
                part,
                whole[offset as usize..][..length],
                "{offset} {length}"
            );
        }
    }

    #[test]
    fn finds_each_wrong_byte() {
        for place in [0, 1, 4095, 4096, 9_999] {
            let mut data = bytes(6, 13, 10_000);
            assert_eq!(Pattern::new(6).first_difference(13, &data), None);
            data[place] ^= 0x10;
            let found = Pattern::new(6).first_difference(13, &data);
            assert_eq!(found, Some(13 + place as u64));
        }
    }

    #[test]
    fn tells_streams_and_places_apart() {
        let streams = (0..8).map(|seed| bytes(seed, 0, 64 * 1024));
        let words: Vec<_> = streams
            .flat_map(|stream| {
                let words = stream.chunks_exact(8);
                words.map(<[u8]>::to_vec).collect::<Vec<_>>()
            })
            .collect();
        let different: BTreeSet<_> = words.iter().collect();
        assert_eq!(different.len(), words.len());
        assert_eq!(
            Pattern::new(1).first_difference(1, &bytes(1, 0, 8)),
            Some(1)
        );
    }
}
