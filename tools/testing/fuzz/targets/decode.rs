// SPDX-License-Identifier: GPL-2.0

//! Fuzz target: any bytes as input of `vifactl decode`, see `vifa_fuzz::decode`.

#![no_main]

use fastrand::Rng;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use vifa_fuzz::{decode::judge, mutation::edit, save_set::reseal};

fuzz_target!(|data: &[u8]| {
    judge(data);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut rng = Rng::with_seed(seed.into());
    let edited = match rng.u8(..4) {
        0 => None,
        _ => edit(&data[..size], &data[..size], &mut rng),
    };

    match edited.filter(|stream| stream.len() <= max_size) {
        Some(stream) => {
            data[..stream.len()].copy_from_slice(&stream);
            stream.len()
        }
        None => {
            let size = fuzzer_mutate(data, size, max_size);
            reseal(&mut data[..size]);
            size
        }
    }
});
