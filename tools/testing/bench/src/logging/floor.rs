// SPDX-License-Identifier: GPL-2.0

//! The floor of a report: copying a bitmap and scanning the copy in user space.
//!
//! Any report from a bitmap has to read all of it, so no report can be faster than this at the same
//! density. In addition, a report sets the bits of another bitmap, pins pages and enters the
//! kernel, which the floor does not.
//!
//! The copy is scanned in words of 64 bits. Words with no page or with 64 pages cost a comparison.
//! In other words, runs are found by counting zeros and ones. The result is a list of runs, in
//! which adjacent runs are merged.

use vifa_selftests::vfio::DirtyBitmap;

/// The memory of the floor. All of it is written before its use.
pub struct Floor {
    source: Vec<u64>,
    copy: Vec<u64>,
    /// Number of words in use.
    words: usize,
}

impl Floor {
    /// Returns a floor for bitmaps of up to `pages` bits.
    pub fn new(pages: u64) -> Self {
        let memory = || vec![u64::MAX; pages.div_ceil(64) as usize];
        Self {
            source: memory(),
            copy: memory(),
            words: 0,
        }
    }

    /// Copies the contents of `bitmap`.
    pub fn fill(&mut self, bitmap: &DirtyBitmap) {
        self.words = 0;
        for (source, word) in self.source.iter_mut().zip(bitmap.words()) {
            *source = word;
            self.words += 1;
        }
    }

    /// Copies the bitmap and scans the copy. Returns the number of pages in it.
    pub fn copy_and_scan(&mut self) -> u64 {
        let copy = &mut self.copy[..self.words];
        copy.copy_from_slice(&self.source[..self.words]);
        // The compiler must not optimize the copy away.
        let mut pages = 0;
        scan(std::hint::black_box(copy), |_, length| pages += length);
        pages
    }
}

/// Calls `found` for each run of set bits in `words`, with its first bit and its length.
fn scan(words: &[u64], mut found: impl FnMut(u64, u64)) {
    const BITS: u64 = u64::BITS as u64;

    // The run that includes the current bit.
    let mut run: Option<u64> = None;
    for (bit, &word) in (0..).step_by(BITS as usize).zip(words) {
        match (word, run) {
            (0, None) | (u64::MAX, Some(_)) => {}
            (u64::MAX, None) => run = Some(bit),
            (0, Some(first)) => {
                found(first, bit - first);
                run = None;
            }
            _ => {
                let mut at = 0;
                while at < BITS {
                    let rest = word >> at;
                    let same = match run {
                        Some(_) => u64::from(rest.trailing_ones()),
                        None => u64::from(rest.trailing_zeros()),
                    };
                    at += same;
                    if at >= BITS {
                        break;
                    }
                    run = match run {
                        Some(first) => {
                            found(first, bit + at - first);
                            None
                        }
                        None => Some(bit + at),
                    };
                }
            }
        }
    }
    if let Some(first) = run {
        found(first, words.len() as u64 * BITS - first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(words: &[u64]) -> Vec<(u64, u64)> {
        let mut runs = Vec::new();
        scan(words, |first, length| runs.push((first, length)));
        runs
    }

    #[test]
    fn clear_bitmap_has_no_run() {
        assert_eq!(runs(&[0; 4]), []);
    }

    #[test]
    fn full_bitmap_is_one_run() {
        assert_eq!(runs(&[u64::MAX; 4]), [(0, 256)]);
    }

    #[test]
    fn runs_cross_words() {
        assert_eq!(runs(&[1 << 63, u64::MAX, 0b11, 0]), [(63, 67)]);
    }

    #[test]
    fn run_ends_with_the_word_before_a_clear_one() {
        assert_eq!(runs(&[u64::MAX << 60, 0, 1]), [(60, 4), (128, 1)]);
    }

    #[test]
    fn runs_of_one_word_are_separate() {
        assert_eq!(
            runs(&[0b1011_0110 | (1 << 63)]),
            [(1, 2), (4, 2), (7, 1), (63, 1)]
        );
    }

    #[test]
    fn scan_agrees_with_bit_by_bit() {
        let mut state = 1_u64;
        let words: Vec<u64> = (0..1000)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                match state >> 62 {
                    0 => 0,
                    1 => u64::MAX,
                    _ => state.rotate_left(17) & (state << 3),
                }
            })
            .collect();
        let bit = |at: u64| (words[(at / 64) as usize] >> (at % 64)) & 1 == 1;
        let mut expected: Vec<(u64, u64)> = Vec::new();
        for at in (0..words.len() as u64 * 64).filter(|&at| bit(at)) {
            match expected.last_mut() {
                Some((first, length)) if *first + *length == at => *length += 1,
                _ => expected.push((at, 1)),
            }
        }
        assert_eq!(runs(&words), expected);
    }

    #[test]
    fn floor_counts_the_pages_of_the_copy() {
        let mut floor = Floor::new(256);
        floor.words = 4;
        floor.source = vec![0, 0xff, 0, 1];
        assert_eq!(floor.copy_and_scan(), 9);
        assert_eq!(floor.copy, floor.source);
    }
}
