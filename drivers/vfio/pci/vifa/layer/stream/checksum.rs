// SPDX-License-Identifier: GPL-2.0

//! CRC-32C as RFC 3720 defines it.

use crate::seam::crc32c;

/// A checksum over bytes that come piece by piece.
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

    /// Returns the checksum of what this one covers and `bytes` behind it.
    pub fn and(self, bytes: &[u8]) -> Self {
        Self {
            register: crc32c(self.register, bytes),
        }
    }

    /// Returns the value as it stands in a stream.
    pub fn value(self) -> u32 {
        !self.register
    }
}
