// SPDX-License-Identifier: GPL-2.0

//! The properties of reading any bytes as a save set.
//!
//! - They are refused, or the result is the content of the file: the manifest as JSON, and the
//!   stream to its last byte. The result can be written and read again.
//! - Reading allocates at most [`ALLOWANCE`] bytes and never panics.

use std::ops::Range;

use serde_json::Value;
use vifactl::save_set::{ReadError, SaveSet};

use crate::{allocation::peak, layer::stream::Checksum};

/// Maximum number of bytes that reading a save set may allocate at a time: the manifest as text, at
/// most 64 KiB, and its strings and numbers.
pub const ALLOWANCE: usize = 4 * 0x1_0000;

/// Length of the header of a save set in bytes.
const HEADER_LENGTH: usize = 32;

const MANIFEST_LENGTH: Range<usize> = 12..16;
const STREAM_LENGTH: Range<usize> = 16..24;
const MANIFEST_CRC: Range<usize> = 24..28;
const HEADER_CRC: Range<usize> = 28..32;

/// Reads `file` with `vifactl`, asserts the properties, and returns whether it was accepted.
///
/// # Panics
///
/// Panics if a property does not hold.
pub fn judge(file: &[u8]) -> bool {
    let (result, bytes) = peak(|| SaveSet::parse(file));

    assert!(
        bytes <= ALLOWANCE,
        "reading a save set allocated {bytes} bytes, more than {ALLOWANCE}"
    );
    let (save_set, stream) = match result {
        Ok(read) => read,
        Err(error @ ReadError::Damaged(_)) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
        Err(ReadError::Input(error)) => panic!("failed to read from memory: {error}"),
    };

    let (manifest, rest) =
        file[HEADER_LENGTH..].split_at(file.len() - HEADER_LENGTH - stream.len());
    assert!(rest == stream, "the stream is not at the end of the file");
    let in_file: Value = serde_json::from_slice(manifest).expect("a manifest is JSON");
    let read = manifest_of(&save_set);
    assert_within("manifest", &read, &in_file);

    let written = write(read.to_string().as_bytes(), stream);
    match SaveSet::parse(&written) {
        Ok((again, same)) => assert!(manifest_of(&again) == read && same == stream),
        Err(error) => panic!("an accepted save set is refused after writing it: {error}"),
    }
    true
}

/// Returns the manifest that was read.
fn manifest_of(save_set: &SaveSet) -> Value {
    let value = serde_json::to_value(save_set).expect("a save set can be serialized");

    value["manifest"].clone()
}

/// Corrects the lengths and checksums of a save set. The manifest has the length in its header, at
/// most the rest of the file. The stream is the remainder.
pub fn reseal(file: &mut [u8]) {
    let length = file.len();
    let Some((header, rest)) = file.split_at_mut_checked(HEADER_LENGTH) else {
        return;
    };

    let stated = header[MANIFEST_LENGTH].iter().rev();
    let stated = stated.fold(0, |value: usize, &byte| (value << 8) | usize::from(byte));
    let manifest = stated.min(length - HEADER_LENGTH);
    let (manifest, stream) = rest.split_at(manifest);
    complete(header, manifest, stream);
}

/// Returns a save set with this manifest and this stream.
fn write(manifest: &[u8], stream: &[u8]) -> Vec<u8> {
    let mut header = [0; HEADER_LENGTH];

    header[..8].copy_from_slice(b"VIFASAVE");
    header[8] = 1;
    complete(&mut header, manifest, stream);
    [&header, manifest, stream].concat()
}

/// Sets the header's lengths and checksums for the manifest and the stream.
fn complete(header: &mut [u8], manifest: &[u8], stream: &[u8]) {
    header[MANIFEST_LENGTH].copy_from_slice(&(manifest.len() as u32).to_le_bytes());
    header[STREAM_LENGTH].copy_from_slice(&(stream.len() as u64).to_le_bytes());
    header[MANIFEST_CRC].copy_from_slice(&Checksum::of(manifest).to_le_bytes());
    let crc = Checksum::of(&header[..HEADER_CRC.start]);
    header[HEADER_CRC].copy_from_slice(&crc.to_le_bytes());
}

/// Asserts that all values of `read` are in `whole`.
fn assert_within(place: &str, read: &Value, whole: &Value) {
    match (read, whole) {
        (Value::Object(read), Value::Object(whole)) => {
            for (key, value) in read {
                let place = format!("{place}.{key}");
                assert_within(&place, value, whole.get(key).unwrap_or(&Value::Null));
            }
        }
        (Value::Array(read), Value::Array(whole)) => {
            assert_eq!(read.len(), whole.len(), "{place}");
            for (index, (read, whole)) in read.iter().zip(whole).enumerate() {
                assert_within(&format!("{place}[{index}]"), read, whole);
            }
        }
        _ => assert_eq!(read, whole, "{place}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mutation, seeds};
    use fastrand::Rng;

    #[test]
    fn seeds_are_accepted() {
        for seed in seeds::save_sets().unwrap() {
            assert!(judge(&seed.bytes), "{}", seed.name);
        }
    }

    #[test]
    fn sealing_does_not_change_a_seed() {
        for seed in seeds::save_sets().unwrap() {
            let mut file = seed.bytes.clone();
            reseal(&mut file);
            assert!(file == seed.bytes, "{}", seed.name);
        }
    }

    /// Changed bytes are refused, except in the stream, which has its own checks.
    #[test]
    fn damage_is_refused() {
        let seeds = seeds::save_sets().unwrap();

        for number in 0..20_000 {
            let mut rng = Rng::with_seed(number);
            let seed = &seeds[rng.usize(..seeds.len())].bytes;
            let file = mutation::damage(seed, seed, &mut rng);
            let (original, stream) = SaveSet::parse(seed).unwrap();
            if judge(&file) {
                let (read, _) = SaveSet::parse(&file).unwrap();
                assert!(read == original && file.len() == seed.len());
                let start = file.len() - stream.len();
                assert!(file[..start] == seed[..start]);
            }
        }
    }

    /// Changed and resealed text is refused, or read unchanged.
    #[test]
    fn resealed_text_is_refused_or_read() {
        let seeds = seeds::save_sets().unwrap();
        let mut read = 0;

        for number in 0..20_000 {
            let mut rng = Rng::with_seed(number);
            let seed = &seeds[rng.usize(..seeds.len())].bytes;
            let mut file = mutation::damage(seed, seed, &mut rng);
            reseal(&mut file);
            read += u32::from(judge(&file));
        }
        assert!(read > 0);
    }

    /// The longest manifests, with the content that requires most memory, stay within the bound.
    #[test]
    fn memory_is_bounded() {
        for seed in seeds::save_sets().unwrap() {
            let (save_set, stream) = SaveSet::parse(&seed.bytes).unwrap();
            let mut manifest = manifest_of(&save_set);
            manifest["host"]["name"] = "NAME".into();
            let manifest = manifest.to_string();
            let open = manifest.strip_suffix('}').unwrap();
            let room = 0x1_0000 - manifest.len() - 16;

            for filling in ["[", "{\"a\":", "1,", "\"\\u0041\"", "[],", "\"\\\""] {
                let filling = filling.repeat(room / filling.len());
                judge(&write(format!("{open},\"x\":{filling}").as_bytes(), stream));
            }
            for character in ["n", "\\u0041", "\\n"] {
                let text = format!("\"{}\"", character.repeat(room / character.len()));
                let unknown = format!("{open},\"x\":{text}}}");
                assert!(judge(&write(unknown.as_bytes(), stream)));
                let long = manifest.replace("\"NAME\"", &text);
                assert!(judge(&write(long.as_bytes(), stream)));
            }
        }
    }
}
