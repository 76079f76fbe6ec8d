// SPDX-License-Identifier: GPL-2.0

//! What has to hold for any bytes that `vifactl decode` is given.
//!
//! It prints JSON, says what is wrong and where, or that nothing is, holds no more memory than
//! [`ALLOWANCE`], and panics nowhere.

use crate::allocation::peak;
use serde_json::Value;
use vifactl::decode::to_json;

/// The most bytes that decoding holds at one time besides what it prints: the buffers of its input
/// and of the layer, 1 MiB each, the records, 1 MiB at most, and a part of the address record file.
pub const ALLOWANCE: usize = 4 * 0x10_0000;

/// Has `vifactl` decode `file`, and asserts all that has to hold; returns whether it is sound.
///
/// # Panics
///
/// Something does not hold.
pub fn judge(file: &[u8]) -> bool {
    let mut printed = Vec::with_capacity(0x40_0000);
    let (result, bytes) = peak(|| to_json(file, "input", true, &mut printed));

    assert!(
        bytes <= ALLOWANCE,
        "decoding took {bytes} bytes of memory, more than {ALLOWANCE}"
    );
    let value: Value = match serde_json::from_slice(&printed) {
        Ok(value) => value,
        Err(error) => panic!("what is printed is no JSON: {error}"),
    };
    assert!(value.is_object());

    match result {
        Ok(None) => true,
        Ok(Some(damage)) => {
            assert!(!damage.to_string().is_empty());
            assert!(
                damage.offset <= file.len() as u64,
                "{damage}: behind the end of the input"
            );
            false
        }
        Err(error) => panic!("{error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mutation, seeds};
    use fastrand::Rng;

    #[test]
    fn seeds_are_sound() {
        let seeds = seeds::streams().unwrap().into_iter();

        for seed in seeds.chain(seeds::save_sets().unwrap()) {
            assert!(judge(&seed.bytes), "{}", seed.name);
        }
    }

    #[test]
    fn changed() {
        let mut seeds = seeds::short_streams().unwrap();
        seeds.extend(seeds::save_sets().unwrap());

        for number in 0..2_000 {
            let mut rng = Rng::with_seed(number);
            let seed = &seeds[rng.usize(..seeds.len())].bytes;
            let other = &seeds[rng.usize(..seeds.len())].bytes;
            judge(&mutation::damage(seed, other, &mut rng));
            if let Some(stream) = mutation::edit(seed, other, &mut rng) {
                judge(&stream);
            }
        }
    }
}
