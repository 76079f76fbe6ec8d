// SPDX-License-Identifier: GPL-2.0

//! The initial inputs: valid streams and save sets.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{ensure, Context, Result};

use crate::mutation::LENGTH_MAX;

/// A valid input.
pub struct Seed {
    /// The name of its file.
    pub name: String,
    /// The content.
    pub bytes: Vec<u8>,
}

/// Returns the directory of the corpus for the fuzz target `target`.
pub fn corpus(target: &str) -> PathBuf {
    here().join("corpus").join(target)
}

/// Returns the directory of the golden streams, which every version must load.
pub fn golden() -> PathBuf {
    here().join("../../layer/golden")
}

/// Returns the valid streams of the tree: the golden ones, and those that the driver wrote.
///
/// # Errors
///
/// Returns an error if they cannot be read, or if there are none.
pub fn streams() -> Result<Vec<Seed>> {
    read(&[&golden(), &corpus("stream")])
}

/// As [`streams`], but returns only streams that are short enough for changes.
///
/// # Errors
///
/// Returns an error if they cannot be read.
pub fn short_streams() -> Result<Vec<Seed>> {
    let mut seeds = streams()?;

    seeds.retain(|seed| seed.bytes.len() <= LENGTH_MAX);
    Ok(seeds)
}

/// Returns the valid save sets of the tree.
///
/// # Errors
///
/// Returns an error if they cannot be read, or if there are none.
pub fn save_sets() -> Result<Vec<Seed>> {
    read(&[&corpus("save-set")])
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the files of directories, ordered by name.
fn read(directories: &[&Path]) -> Result<Vec<Seed>> {
    let mut seeds = Vec::new();

    for directory in directories {
        let message = || format!("failed to read {}", directory.display());
        let entries = fs::read_dir(directory).with_context(message)?;
        let mut paths = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<Vec<_>>>()
            .with_context(message)?;

        paths.sort();
        for path in paths {
            seeds.push(Seed {
                name: path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                bytes: fs::read(&path)
                    .with_context(|| format!("failed to read {}", path.display()))?,
            });
        }
        ensure!(!seeds.is_empty(), "no files in {}", directory.display());
    }
    Ok(seeds)
}
