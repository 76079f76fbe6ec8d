// SPDX-License-Identifier: GPL-2.0

//! Fuzz target: any bytes as a save set, see `vifa_fuzz::save_set`.

#![no_main]

use fastrand::Rng;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use vifa_fuzz::save_set::{judge, reseal};

fuzz_target!(|data: &[u8]| {
    judge(data);
});

// Most changes are followed by a correction of the checksums.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);

    if Rng::with_seed(seed.into()).u8(..8) > 0 {
        reseal(&mut data[..size]);
    }
    size
});
