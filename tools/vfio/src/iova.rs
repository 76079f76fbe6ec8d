// SPDX-License-Identifier: GPL-2.0

//! Ranges of device addresses.

/// A range of device addresses (IOVAs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IovaRange {
    /// The first IOVA.
    pub iova: u64,
    /// Length in bytes.
    pub length: u64,
}

impl IovaRange {
    /// Returns the range of `length` bytes at `iova`.
    pub const fn new(iova: u64, length: u64) -> Self {
        Self { iova, length }
    }

    /// Returns the first IOVA after the range.
    pub const fn end(self) -> u64 {
        self.iova + self.length
    }

    /// Returns whether the range contains `iova`.
    pub const fn contains(self, iova: u64) -> bool {
        self.iova <= iova && iova - self.iova < self.length
    }
}
