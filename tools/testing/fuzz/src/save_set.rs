// SPDX-License-Identifier: GPL-2.0

//! What has to hold for any bytes that are taken for a save set.
//!
//! - They are refused, or what is read is what the file says: the manifest as JSON, and the stream
//!   to its last byte. Written again, it reads back.
//! - Reading allocates no more than [`ALLOWANCE`] and panics nowhere.

use crate::{allocation::peak, layer::stream::Checksum};
use serde_json::Value;
use std::ops::Range;
use vifactl::save_set::{ReadError, SaveSet};

/// The most bytes that reading a save set may hold at one time, whatever the file says: the manifest
/// as text, at most 64 KiB, and what it is as strings and numbers.
pub const ALLOWANCE: usize = 4 * 0x1_0000;

/// Bytes of the header of a save set.
const HEADER_LENGTH: usize = 32;

const MANIFEST_LENGTH: Range<usize> = 12..16;
const STREAM_LENGTH: Range<usize> = 16..24;
const MANIFEST_CRC: Range<usize> = 24..28;
const HEADER_CRC: Range<usize> = 28..32;

/// Has `vifactl` read `file`, and asserts all that has to hold; returns whether it was read.
///
/// # Panics
///
/// Something does not hold.
pub fn judge(file: &[u8]) -> bool {
    let (result, bytes) = peak(|| SaveSet::parse(file));

    assert!(
        bytes <= ALLOWANCE,
        "reading a save set took {bytes} bytes of memory, more than {ALLOWANCE}"
    );
    let (save_set, stream) = match result {
        Ok(read) => read,
        Err(error @ ReadError::Damaged(_)) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
        Err(ReadError::Input(error)) => panic!("bytes in memory cannot be read: {error}"),
    };

    let (manifest, behind) =
        file[HEADER_LENGTH..].split_at(file.len() - HEADER_LENGTH - stream.len());
    assert!(behind == stream, "the stream is not what ends the file");
    let said: Value = serde_json::from_slice(manifest).expect("a manifest is JSON");
    let read = manifest_of(&save_set);
    assert_within("manifest", &read, &said);

    let written = write(read.to_string().as_bytes(), stream);
    match SaveSet::parse(&written) {
        Ok((again, same)) => assert!(manifest_of(&again) == read && same == stream),
        Err(error) => panic!("what was read and written again is refused: {error}"),
    }
    true
}

/// Returns the manifest that was read.
fn manifest_of(save_set: &SaveSet) -> Value {
    let value = serde_json::to_value(save_set).expect("a save set can be shown");

    value["manifest"].clone()
}

/// Makes lengths and checksums of a save set true, as if `file` had been written so: the manifest
/// takes what its length says, as far as there is something, and the stream the rest.
pub fn reseal(file: &mut [u8]) {
    let length = file.len();
    let Some((header, rest)) = file.split_at_mut_checked(HEADER_LENGTH) else {
        return;
    };

    let said = header[MANIFEST_LENGTH].iter().rev();
    let said = said.fold(0, |value: usize, &byte| (value << 8) | usize::from(byte));
    let manifest = said.min(length - HEADER_LENGTH);
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

/// Fills in what follows from the manifest and the stream.
fn complete(header: &mut [u8], manifest: &[u8], stream: &[u8]) {
    header[MANIFEST_LENGTH].copy_from_slice(&(manifest.len() as u32).to_le_bytes());
    header[STREAM_LENGTH].copy_from_slice(&(stream.len() as u64).to_le_bytes());
    header[MANIFEST_CRC].copy_from_slice(&Checksum::of(manifest).to_le_bytes());
    let crc = Checksum::of(&header[..HEADER_CRC.start]);
    header[HEADER_CRC].copy_from_slice(&crc.to_le_bytes());
}

/// Asserts that `read` says nothing that `said` does not say, too.
fn assert_within(place: &str, read: &Value, said: &Value) {
    match (read, said) {
        (Value::Object(read), Value::Object(said)) => {
            for (key, value) in read {
                let place = format!("{place}.{key}");
                assert_within(&place, value, said.get(key).unwrap_or(&Value::Null));
            }
        }
        (Value::Array(read), Value::Array(said)) => {
            assert_eq!(read.len(), said.len(), "{place}");
            for (index, (read, said)) in read.iter().zip(said).enumerate() {
                assert_within(&format!("{place}[{index}]"), read, said);
            }
        }
        _ => assert_eq!(read, said, "{place}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mutation, seeds};
    use fastrand::Rng;

    #[test]
    fn seeds_are_read() {
        for seed in seeds::save_sets().unwrap() {
            assert!(judge(&seed.bytes), "{}", seed.name);
        }
    }

    #[test]
    fn a_sealed_seed_is_as_it_was() {
        for seed in seeds::save_sets().unwrap() {
            let mut file = seed.bytes.clone();
            reseal(&mut file);
            assert!(file == seed.bytes, "{}", seed.name);
        }
    }

    /// Bytes that were changed are refused, but for those of the stream, which has its own checks.
    #[test]
    fn damaged() {
        let seeds = seeds::save_sets().unwrap();

        for number in 0..20_000 {
            let mut rng = Rng::with_seed(number);
            let seed = &seeds[rng.usize(..seeds.len())].bytes;
            let file = mutation::damage(seed, seed, &mut rng);
            let (sound, stream) = SaveSet::parse(seed).unwrap();
            if judge(&file) {
                let (read, _) = SaveSet::parse(&file).unwrap();
                assert!(read == sound && file.len() == seed.len());
                let start = file.len() - stream.len();
                assert!(file[..start] == seed[..start]);
            }
        }
    }

    /// Text that was changed and sealed anew is refused, or read as it stands there.
    #[test]
    fn resealed() {
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

    /// A manifest as long as can be, of what takes most memory, stays within the bound.
    #[test]
    fn memory() {
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
