// SPDX-License-Identifier: GPL-2.0

//! The host's PCI functions, and the paths of debugfs, procfs and device files.
//!
//! The root is `/`. Tests use another root with a similar tree of files.

use std::{io, path::PathBuf};

use anyhow::{Context, Result};
use vifa_vfio::pci::{Address, Bus, Function};

use crate::exit::Exit;

/// A host, identified by its root directory.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// Returns the host with the root directory `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Returns the PCI bus.
    pub fn pci(&self) -> Bus {
        Bus::at(self.path("sys/bus/pci"))
    }

    /// Returns the PCI function at `address`.
    ///
    /// # Errors
    ///
    /// No such function exists.
    pub fn function(&self, address: Address) -> Result<Function> {
        let function = self.pci().function(address);

        if !function.exists() {
            return Err(Exit::Failed
                .because(format!("{address}: no such PCI function"))
                .into());
        }
        Ok(function)
    }

    /// Returns all PCI functions, in order of address.
    ///
    /// # Errors
    ///
    /// sysfs cannot be read.
    pub fn functions(&self) -> Result<Vec<Function>> {
        match self.pci().functions() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            functions => functions.with_context(|| self.pci().devices().display().to_string()),
        }
    }

    /// Returns the driver's debugfs directory, with a directory for each VIFA interface.
    pub fn debugfs(&self) -> PathBuf {
        self.path("sys/kernel/debug/vifa")
    }

    /// Returns the directory of processes.
    pub fn processes(&self) -> PathBuf {
        self.path("proc")
    }

    /// Returns the directory of VFIO's device files.
    pub fn vfio(&self) -> PathBuf {
        self.path("dev/vfio")
    }

    /// Returns the device file of iommufd.
    pub fn iommufd(&self) -> PathBuf {
        self.path("dev/iommu")
    }
}
