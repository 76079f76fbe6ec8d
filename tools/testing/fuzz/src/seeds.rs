// SPDX-License-Identifier: GPL-2.0

//! The inputs that everything begins with: streams and save sets that are sound.

use crate::mutation::LENGTH_MAX;
use anyhow::{ensure, Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A sound input.
pub struct Seed {
    /// The name of its file.
    pub name: String,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// Returns the directory of the corpus for the fuzz target `target`.
pub fn corpus(target: &str) -> PathBuf {
    here().join("corpus").join(target)
}

/// Returns the directory of the streams that load for ever.
pub fn golden() -> PathBuf {
    here().join("../../layer/golden")
}

/// Returns the sound streams of the tree: the golden ones, and what the driver made.
///
/// # Errors
///
/// They cannot be read, or there are none.
pub fn streams() -> Result<Vec<Seed>> {
    read(&[&golden(), &corpus("stream")])
}

/// As [`streams`], those that are short enough to make changes of.
///
/// # Errors
///
/// They cannot be read.
pub fn short_streams() -> Result<Vec<Seed>> {
    let mut seeds = streams()?;

    seeds.retain(|seed| seed.bytes.len() <= LENGTH_MAX);
    Ok(seeds)
}

/// Returns the sound save sets of the tree.
///
/// # Errors
///
/// They cannot be read, or there are none.
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
        let shown = || format!("cannot read {}", directory.display());
        let entries = fs::read_dir(directory).with_context(shown)?;
        let mut paths = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<Vec<_>>>()
            .with_context(shown)?;

        paths.sort();
        for path in paths {
            seeds.push(Seed {
                name: path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                bytes: fs::read(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?,
            });
        }
        ensure!(!seeds.is_empty(), "{} holds no file", directory.display());
    }
    Ok(seeds)
}
