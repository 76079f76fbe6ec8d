// SPDX-License-Identifier: GPL-2.0

//! CRC-32C as defined by RFC 3720.

use crate::seam::crc32c;

/// A checksum that is computed incrementally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    register: u32,
}

impl Checksum {
    /// The checksum of no bytes.
    pub const EMPTY: Self = Self { register: !0 };

    /// Returns the checksum of `bytes`.
    pub fn of(bytes: &[u8]) -> u32 {
        Self::EMPTY.and(bytes).value()
    }

    /// Returns the checksum of the bytes so far, followed by `bytes`.
    pub fn and(self, bytes: &[u8]) -> Self {
        Self {
            register: crc32c(self.register, bytes),
        }
    }

    /// Returns the value as encoded in a stream.
    pub fn value(self) -> u32 {
        !self.register
    }
}
