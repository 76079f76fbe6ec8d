// SPDX-License-Identifier: GPL-2.0

//! The properties of `vifactl decode` for any input.
//!
//! It prints JSON, reports the first error and its offset, if any, allocates at most [`ALLOWANCE`]
//! bytes at a time, and never panics.

use serde_json::Value;
use vifactl::decode::to_json;

use crate::allocation::peak;

/// Maximum number of bytes that decoding allocates at a time, without its output: the buffers of
/// its input and of the layer, 1 MiB each, the records, at most 1 MiB, and a part of the address
/// record file.
pub const ALLOWANCE: usize = 4 * 0x10_0000;

/// Decodes `file` with `vifactl`, asserts the properties, and returns whether `file` is valid.
///
/// # Panics
///
/// Panics if a property does not hold.
pub fn judge(file: &[u8]) -> bool {
    let mut printed = Vec::with_capacity(0x40_0000);
    let (result, bytes) = peak(|| to_json(file, "input", true, &mut printed));

    assert!(
        bytes <= ALLOWANCE,
        "decoding allocated {bytes} bytes, more than {ALLOWANCE}"
    );
    let value: Value = match serde_json::from_slice(&printed) {
        Ok(value) => value,
        Err(error) => panic!("the output is not JSON: {error}"),
    };
    assert!(value.is_object());

    match result {
        Ok(None) => true,
        Ok(Some(damage)) => {
            assert!(!damage.to_string().is_empty());
            assert!(
                damage.offset <= file.len() as u64,
                "{damage}: after the end of the input"
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
    fn seeds_are_valid() {
        let seeds = seeds::streams().unwrap().into_iter();

        for seed in seeds.chain(seeds::save_sets().unwrap()) {
            assert!(judge(&seed.bytes), "{}", seed.name);
        }
    }

    #[test]
    fn changed_seeds_keep_the_properties() {
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
