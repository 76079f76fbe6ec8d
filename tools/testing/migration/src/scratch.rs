// SPDX-License-Identifier: GPL-2.0

//! A directory for the files of this process.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

/// The directory, which is removed on drop.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Creates a directory among the temporary files.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);

        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("vifa-migrate-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).with_context(|| format!("failed to create {}", path.display()))?;
        Ok(Self(path))
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A remaining temporary directory is harmless.
        let _ = fs::remove_dir_all(&self.0);
    }
}
