// SPDX-License-Identifier: GPL-2.0

//! Comparison of a virtual machine that exists in two QEMUs, at the source and at the destination:
//! its whole memory and each of its devices must be equal.
//!
//! Neither the machine nor the code that moved it takes part. QEMU dumps the memory of both
//! machines, and each device is saved once more, from the beginning, at both ends. The stream
//! contains the data in local memory, its location, and the control plane.

use std::{
    fmt,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{bail, ensure, Context, Result};
use serde_json::json;

use crate::{hw, style::mebibytes, vfio::Device, vmm::Vmm};

/// Unit of comparison.
const PAGE: usize = 4096;

/// Number of bytes of memory that are compared at a time.
const CHUNK: usize = 256 * PAGE;

/// Maximum number of differing places to report.
const PLACES: usize = 4;

/// The amounts of data that were equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Number of bytes of memory.
    pub memory: u64,
    /// Number of bytes of local memory that hold data, of all devices.
    pub local: u64,
    /// Number of devices.
    pub devices: usize,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of memory and {} of local memory of {} devices are the same",
            mebibytes(self.memory),
            mebibytes(self.local),
            self.devices
        )
    }
}

impl Comparison {
    /// Compares all `memory` bytes, and all devices. The machine is paused in both QEMUs. Creates
    /// files in `directory` and removes them.
    ///
    /// # Errors
    ///
    /// Fails if anything differs.
    pub fn of(
        source: &mut Vmm,
        destination: &mut Vmm,
        memory: u64,
        directory: &Path,
    ) -> Result<Self> {
        let left = Dump::make(source, memory, directory, "left")?;
        let arrived = Dump::make(destination, memory, directory, "arrived")?;
        let differences = compare_files(&left.0, &arrived.0, memory)?;
        ensure!(
            differences.is_empty(),
            "{} of {} pages of memory differ: {}",
            differences.len(),
            memory / PAGE as u64,
            places(&differences)
        );

        let functions =
            [source, destination].map(|vmm| (vmm.process(), &vmm.passthrough.functions));
        let [(left, sources), (arrived, destinations)] = functions;
        let mut local = 0;
        for (source, destination) in sources.iter().zip(destinations) {
            let left = Contents::parse(&Device::of(left, source)?.save()?)
                .with_context(|| format!("stream of {source}"))?;
            let arrived = Contents::parse(&Device::of(arrived, destination)?.save()?)
                .with_context(|| format!("stream of {destination}"))?;
            left.compare(&arrived)
                .with_context(|| format!("{source} and {destination}"))?;
            local += left.bytes();
        }
        Ok(Self {
            memory,
            local,
            devices: sources.len(),
        })
    }
}

/// The memory of a virtual machine in a file, which is removed on drop.
struct Dump(PathBuf);

impl Dump {
    fn make(vmm: &mut Vmm, size: u64, directory: &Path, name: &str) -> Result<Self> {
        let dump = Self(directory.join(format!("{name}-{}", vmm.process())));
        vmm.qmp()?.execute(
            "pmemsave",
            json!({ "val": 0, "size": size, "filename": dump.0 }),
        )?;
        Ok(dump)
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        // A file that remains in a directory of scratch files is harmless.
        let _ = fs::remove_file(&self.0);
    }
}

/// Returns the addresses of the pages that differ between two files of `size` bytes.
fn compare_files(left: &Path, right: &Path, size: u64) -> Result<Vec<u64>> {
    let open = |path: &Path| {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let length = file.metadata()?.len();
        ensure!(
            length == size,
            "invalid length of {}: got {length} bytes, expected {size}",
            path.display()
        );
        Ok(file)
    };
    let (mut left, mut right) = (open(left)?, open(right)?);
    let mut differences = Vec::new();
    let (mut a, mut b) = (vec![0; CHUNK], vec![0; CHUNK]);
    for start in (0..size).step_by(CHUNK) {
        let length = CHUNK.min((size - start) as usize);
        left.read_exact(&mut a[..length])?;
        right.read_exact(&mut b[..length])?;
        differences.extend(compare(&a[..length], &b[..length]).map(|page| start + page));
    }
    Ok(differences)
}

/// Returns the offsets of the pages that differ between `left` and `right`, which have equal
/// lengths.
fn compare<'a>(left: &'a [u8], right: &'a [u8]) -> impl Iterator<Item = u64> + 'a {
    let pages = left.chunks(PAGE).zip(right.chunks(PAGE)).enumerate();
    pages
        .filter(|(_, (left, right))| left != right)
        .map(|(page, _)| (page * PAGE) as u64)
}

fn places(offsets: &[u64]) -> String {
    let some = offsets.iter().take(PLACES);
    let some: Vec<_> = some.map(|offset| format!("{offset:#x}")).collect();
    let more = if offsets.len() > PLACES { ", ..." } else { "" };
    format!("at {}{more}", some.join(", "))
}

/// The contents of a stream.
#[derive(Debug, Default, PartialEq)]
struct Contents {
    /// Runs of local memory with their offsets, in order.
    runs: Vec<(u64, Vec<u8>)>,
    /// The control plane.
    control: Vec<u8>,
}

impl Contents {
    fn parse(stream: &[u8]) -> Result<Self> {
        let (header, mut stream) = stream
            .split_at_checked(size_of::<hw::vifa_stream_header>())
            .context("the header is truncated")?;
        let magic = &hw::VIFA_STREAM_MAGIC[..8];
        ensure!(header.starts_with(magic), "invalid magic of the stream");
        let mut contents = Self::default();
        let mut ended = false;
        while !stream.is_empty() {
            ensure!(!ended, "data after the end section");
            let (kind, payload, rest) = section(stream).context("a section is truncated")?;
            match kind {
                hw::VIFA_SECTION_DATA => {
                    let (offset, bytes) =
                        payload.split_first_chunk().context("a run has no offset")?;
                    contents
                        .runs
                        .push((u64::from_le_bytes(*offset), bytes.to_vec()));
                }
                hw::VIFA_SECTION_CONTROL => contents.control = payload.to_vec(),
                hw::VIFA_SECTION_END => ended = true,
                _ => (),
            }
            stream = rest;
        }
        ensure!(ended, "the stream has no end section");
        ensure!(
            !contents.control.is_empty(),
            "the stream has no control plane"
        );
        Ok(contents)
    }

    fn bytes(&self) -> u64 {
        self.runs.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    fn compare(&self, other: &Self) -> Result<()> {
        ensure!(self.control == other.control, "the control planes differ");
        let ranges = |contents: &Self| -> Vec<_> {
            let runs = contents.runs.iter();
            runs.map(|(offset, bytes)| (*offset, bytes.len())).collect()
        };
        ensure!(
            ranges(self) == ranges(other),
            "the ranges of local memory with data differ: {} bytes and {}",
            self.bytes(),
            other.bytes()
        );
        let mut differences = Vec::new();
        for ((offset, left), (_, right)) in self.runs.iter().zip(&other.runs) {
            differences.extend(compare(left, right).map(|page| offset + page));
        }
        if !differences.is_empty() {
            bail!(
                "{} pages of local memory differ: {}",
                differences.len(),
                places(&differences)
            );
        }
        Ok(())
    }
}

/// Returns the type and the payload of the first section of `stream`, and the rest of the stream.
fn section(stream: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let (header, rest) = stream.split_at_checked(size_of::<hw::vifa_section_header>())?;
    let kind = u16::from_le_bytes(header[..2].try_into().ok()?);
    let length = u32::from_le_bytes(header[4..8].try_into().ok()?);
    let (payload, rest) = rest.split_at_checked(length as usize)?;
    Some((kind.into(), payload, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(runs: &[(u64, &[u8])], control: &[u8]) -> Vec<u8> {
        let mut stream = hw::VIFA_STREAM_MAGIC[..8].to_vec();
        stream.resize(size_of::<hw::vifa_stream_header>(), 0);
        let mut push = |kind: u32, payload: &[u8]| {
            let mut header = vec![0; size_of::<hw::vifa_section_header>()];
            header[..2].copy_from_slice(&(kind as u16).to_le_bytes());
            header[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
            stream.extend(header);
            stream.extend(payload);
        };
        push(hw::VIFA_SECTION_IDENTITY, &[1, 2, 3]);
        for (offset, bytes) in runs {
            push(
                hw::VIFA_SECTION_DATA,
                &[&offset.to_le_bytes()[..], bytes].concat(),
            );
        }
        push(hw::VIFA_SECTION_CONTROL, control);
        push(hw::VIFA_SECTION_END, &[0; 8]);
        stream
    }

    #[test]
    fn a_wrong_byte_a_lost_run_and_another_control_plane_are_differences() {
        let page = [7; PAGE];
        let mut wrong = page;
        wrong[PAGE - 1] = 8;
        let contents =
            |runs: &[(u64, &[u8])], control| Contents::parse(&stream(runs, control)).unwrap();
        let whole = contents(&[(0, &page), (8192, &page)], &[1]);
        assert_eq!(whole.bytes(), 8192);
        assert!(whole.compare(&whole).is_ok());
        for other in [
            contents(&[(0, &page), (8192, &wrong)], &[1]),
            contents(&[(0, &page)], &[1]),
            contents(&[(0, &page), (4096, &page)], &[1]),
            contents(&[(0, &page), (8192, &page)], &[2]),
        ] {
            assert!(whole.compare(&other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn reads_a_golden_stream() {
        let golden = include_bytes!("../../../layer/golden/1.0-sparse.stream");
        let contents = Contents::parse(golden).unwrap();
        assert!(!contents.runs.is_empty() && contents.bytes() > 0);
        let mut lost = golden.to_vec();
        let (offset, bytes) = &contents.runs[0];
        let place = lost
            .windows(bytes.len())
            .position(|window| window == bytes)
            .unwrap();
        lost[place] ^= 1;
        let lost = Contents::parse(&lost).unwrap();
        let error = format!("{:#}", contents.compare(&lost).unwrap_err());
        assert!(error.contains(&format!("{offset:#x}")), "{error}");
    }

    #[test]
    fn rejects_a_truncated_stream() {
        let stream = stream(&[(0, &[1; 64])], &[1]);
        assert!(Contents::parse(&stream).is_ok());
        assert!(Contents::parse(&stream[..stream.len() - 1]).is_err());
        assert!(Contents::parse(&stream[..stream.len() - 40]).is_err());
        assert!(Contents::parse(&[]).is_err());
    }

    #[test]
    fn finds_the_pages_that_differ() {
        let directory = std::env::temp_dir();
        let path = |name| directory.join(format!("vifa-compare-{}-{name}", std::process::id()));
        let size = CHUNK + PAGE;
        let mut bytes = vec![1; size];
        fs::write(path("a"), &bytes).unwrap();
        bytes[5000] = 2;
        bytes[size - 1] = 2;
        fs::write(path("b"), &bytes).unwrap();
        let differences = compare_files(&path("a"), &path("b"), size as u64).unwrap();
        assert_eq!(differences, [4096, CHUNK as u64]);
        assert!(compare_files(&path("a"), &path("b"), 5).is_err());
        for name in ["a", "b"] {
            fs::remove_file(path(name)).unwrap();
        }
    }
}
