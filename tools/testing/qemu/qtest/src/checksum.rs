// SPDX-License-Identifier: GPL-2.0

//! CRC-32C, as RFC 3720 has it, independent of QEMU's.

/// The CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |mut crc: u32, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
        crc
    })
}

#[test]
fn check_value() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}
