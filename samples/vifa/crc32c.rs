// SPDX-License-Identifier: GPL-2.0

//! CRC-32C (RFC 3720), which the engine's CHECKSUM command computes.
//!
//! The kernel crate has no binding for the kernel's implementation. This one processes eight bytes
//! at a time.

/// The polynomial, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `TABLES[n][b]` is the contribution of byte `b` if `n` more bytes follow it in the same step.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 {
                (crc >> 1) ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[table - 1][byte];
            tables[table][byte] = (crc >> 8) ^ tables[0][(crc & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// A CRC over 64-bit words, each processed as eight little-endian bytes.
pub(crate) struct Crc32c(u32);

impl Crc32c {
    pub(crate) fn new() -> Self {
        Self(!0)
    }

    pub(crate) fn add(&mut self, word: u64) {
        let bytes = (word ^ u64::from(self.0)).to_le_bytes();
        self.0 = TABLES[7][usize::from(bytes[0])]
            ^ TABLES[6][usize::from(bytes[1])]
            ^ TABLES[5][usize::from(bytes[2])]
            ^ TABLES[4][usize::from(bytes[3])]
            ^ TABLES[3][usize::from(bytes[4])]
            ^ TABLES[2][usize::from(bytes[5])]
            ^ TABLES[1][usize::from(bytes[6])]
            ^ TABLES[0][usize::from(bytes[7])];
    }

    pub(crate) fn finish(&self) -> u32 {
        !self.0
    }
}
