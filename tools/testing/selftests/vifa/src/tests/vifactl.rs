// SPDX-License-Identifier: GPL-2.0

//! End-to-end tests of the administrator's command: each sub-command on real devices.

mod administration;
mod check;
mod restore;
mod save;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{claims, fixture::Guest, Test};
use crate::{bed::Bed, vifactl::succeed};

pub fn tests() -> Vec<Test> {
    [
        administration::tests(),
        check::tests(),
        save::tests(),
        restore::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A directory for a test's files, removed when dropped.
struct Directory(TempDir);

impl Directory {
    fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir().context("temporary directory")?))
    }

    /// Returns the path of the file `name`.
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Returns the path of the file `name` as text.
    fn name(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// Creates the file `name` and returns its path as text.
    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<String> {
        fs::write(self.path(name), content).context(name.to_owned())?;
        Ok(self.name(name))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        fs::read(self.path(name)).context(name.to_owned())
    }

    /// Returns the names of all files in the directory.
    fn names(&self) -> Result<Vec<String>> {
        let mut names = fs::read_dir(self.0.path())?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }
}

/// Returns a furnished guest on the VF 0, and the path of a save set of its state in `directory`.
fn saved_set(bed: &Bed, directory: &Directory) -> Result<(Guest, String)> {
    let mut guest = Guest::new(bed, 0)?;
    guest.furnish(0x5e7)?;
    let set = directory.name("set");
    succeed(&["save", &bed.vf(0)?.to_string(), &set])?;
    Ok((guest, set))
}
