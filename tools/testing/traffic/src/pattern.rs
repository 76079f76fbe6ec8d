// SPDX-License-Identifier: GPL-2.0

//! Bytes that are determined by a seed and an offset.
//!
//! No two places of a stream are alike, so shifted data, repeated data and data of another stream
//! are detected like damaged data.

/// Number of bytes to compare at a time.
const BLOCK: usize = 4096;

/// The bytes of one seed, starting at offset 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Start of the seed's words among those of all seeds, far from any other seed's.
    base: u64,
}

/// The finalizer of SplitMix64, which is a bijection.
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Pattern {
    /// Returns the pattern of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { base: mix(seed) }
    }

    fn word(self, index: u64) -> u64 {
        mix(self.base.wrapping_add(index))
    }

    /// Writes the bytes starting at `offset` to `buffer`.
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

    /// Returns the offset of the first wrong byte of `data`, which begins at `offset`.
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
    fn any_split_gives_the_same_bytes() {
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
    fn detects_each_wrong_byte() {
        for place in [0, 1, 4095, 4096, 9_999] {
            let mut data = bytes(6, 13, 10_000);
            assert_eq!(Pattern::new(6).first_difference(13, &data), None);
            data[place] ^= 0x10;
            let found = Pattern::new(6).first_difference(13, &data);
            assert_eq!(found, Some(13 + place as u64));
        }
    }

    #[test]
    fn distinguishes_streams_and_offsets() {
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
