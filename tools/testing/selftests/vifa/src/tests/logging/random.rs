// SPDX-License-Identifier: GPL-2.0

//! Reproducible pseudo-random numbers.

use crate::vfio::IovaRange;

/// The generator xorshift64*.
pub struct Random(u64);

impl Random {
    /// Creates a generator from `seed`, which must not be 0.
    pub fn new(seed: u64) -> Self {
        assert_ne!(seed, 0, "a generator without change");
        Self(seed)
    }

    /// Returns the next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number less than `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The upper bits have a better distribution.
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// Returns a part of `space` in units of `unit` bytes; short parts are likelier.
    pub fn range_in(&mut self, space: IovaRange, unit: u64) -> IovaRange {
        let units = space.length / unit;
        let first = self.below(units);
        let longest = (units - first).min(1 << self.below(u64::from(units.ilog2()) + 1));
        let length = 1 + self.below(longest);
        IovaRange::new(space.iova + first * unit, length * unit)
    }
}
