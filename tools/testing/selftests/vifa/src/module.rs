// SPDX-License-Identifier: GPL-2.0

//! Kernel modules.

use std::{
    ffi::CString,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{bail, Context, Result};

use crate::sys;

/// A kernel module, by its name as in `vifa_vfio_pci`.
pub struct Module<'a>(pub &'a str);

impl Module<'_> {
    fn directory(&self) -> PathBuf {
        Path::new("/sys/module").join(self.0)
    }

    /// Returns whether the module is loaded.
    pub fn is_loaded(&self) -> bool {
        self.directory().exists()
    }

    /// Returns the PCI drivers that the module registered.
    pub fn pci_drivers(&self) -> Result<Vec<String>> {
        let directory = self.directory().join("drivers");
        let mut drivers = Vec::new();
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            drivers.extend(name.strip_prefix("pci:").map(str::to_owned));
        }
        Ok(drivers)
    }

    /// Loads the module from the file `path`.
    pub fn insert(&self, path: &Path) -> Result<()> {
        let file = fs::File::open(path).with_context(|| path.display().to_string())?;
        sys::insert_module(file).with_context(|| format!("insertion of {}", path.display()))
    }

    /// Removes the module; fails immediately if it is in use.
    pub fn remove(&self) -> io::Result<()> {
        sys::remove_module(&CString::new(self.0)?)
    }

    /// Loads the module and its dependencies from the installed modules.
    pub fn probe(&self) -> Result<()> {
        let status = Command::new("modprobe")
            .arg(self.0)
            .status()
            .context("modprobe")?;
        if !status.success() {
            bail!("modprobe {}: {status}", self.0);
        }
        Ok(())
    }
}
