// SPDX-License-Identifier: GPL-2.0

//! Tests that folding does not change a CRC.

use proptest::prelude::*;

use crate::{
    driver::checksum::{crc32c, FOLD_MIN},
    seam,
};

proptest! {
    #[test]
    fn folding_equals_the_bytewise_checksum(
        seed: u32,
        bytes in prop::collection::vec(any::<u8>(), 0..3 * FOLD_MIN),
    ) {
        prop_assert_eq!(crc32c(seed, &bytes, seam::crc32c), seam::crc32c(seed, &bytes));
    }
}

/// Covers the boundaries: no folding, one word, complete iterations, and remainders of a word.
#[test]
fn folding_works_at_each_length() {
    let bytes: Vec<u8> = (0..3 * FOLD_MIN).map(|at| ((at * at) >> 4) as u8).collect();

    for length in 0..bytes.len() {
        let part = &bytes[bytes.len() - length..];
        assert_eq!(
            crc32c(!0, part, seam::crc32c),
            seam::crc32c(!0, part),
            "{length} bytes"
        );
    }
}

#[test]
fn folding_leaves_few_bytes_to_the_library() {
    let given = std::cell::Cell::new(0);
    let library = |seed, bytes: &[u8]| {
        given.set(given.get() + bytes.len());
        seam::crc32c(seed, bytes)
    };

    crc32c(0, &vec![1; 1 << 20], library);
    assert!(given.get() < 2 * 209 * 8, "{} bytes", given.get());
}

#[test]
fn the_check_values_of_rfc_3720_match() {
    assert_eq!(!seam::crc32c(!0, &[0; 32]), 0x8a91_36aa);
    assert_eq!(!seam::crc32c(!0, b"123456789"), 0xe306_9283);
}
