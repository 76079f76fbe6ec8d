// SPDX-License-Identifier: GPL-2.0

//! Fuzz target: any bytes as a stream, see `vifa_fuzz::stream`.
//!
//! Each input is written to one destination of each kind of device among the seeds.

#![no_main]

use std::cell::RefCell;

use fastrand::Rng;
use libfuzzer_sys::{fuzz_crossover, fuzz_mutator, fuzz_target, fuzzer_mutate};
use vifa_fuzz::{
    mutation::{damage, edit, edit_with, splice},
    seeds,
    stream::Judge,
};

thread_local! {
    static JUDGES: RefCell<Vec<Judge>> = RefCell::new(judges());
}

/// Returns one judge for each kind of device among the seeds.
fn judges() -> Vec<Judge> {
    let mut judges: Vec<Judge> = Vec::new();

    for seed in seeds::streams().expect("there are seeds") {
        let judge = Judge::new(&seed).expect("a seed has an identity");
        if !judges.iter().any(|known| known.is_alike(&judge)) {
            judges.push(judge);
        }
    }
    judges
}

/// Copies `bytes` to `data` if they fit, and returns their length.
fn put(bytes: Option<Vec<u8>>, data: &mut [u8]) -> Option<usize> {
    let bytes = bytes?;

    data.get_mut(..bytes.len())?.copy_from_slice(&bytes);
    Some(bytes.len())
}

fuzz_target!(|data: &[u8]| {
    JUDGES.with_borrow_mut(|judges| {
        for judge in judges {
            judge.judge(data, &mut Rng::with_seed(data.len() as u64));
        }
    });
});

// A change of arbitrary bytes by libFuzzer fails at a checksum. Therefore libFuzzer also changes
// single payloads, and most changes use the format.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut rng = Rng::with_seed(seed.into());
    let stream = &data[..size];
    let changed = match rng.u8(..8) {
        0 => None,
        1 => Some(damage(stream, stream, &mut rng)),
        2 | 3 => edit_with(stream, 16, &mut rng, |payload, length| {
            let room = payload.len();
            fuzzer_mutate(payload, length, room)
        }),
        _ => edit(stream, stream, &mut rng),
    };
    let changed = changed.filter(|stream| stream.len() <= max_size);

    put(changed, data).unwrap_or_else(|| fuzzer_mutate(data, size, max_size))
});

fuzz_crossover!(|one: &[u8], other: &[u8], out: &mut [u8], seed: u32| {
    put(splice(one, other, &mut Rng::with_seed(seed.into())), out).unwrap_or(0)
});
