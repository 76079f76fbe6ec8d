// SPDX-License-Identifier: GPL-2.0

//! Paths of the host's sysfs, debugfs, procfs and device files.
//!
//! The root is `/`. Tests use another root with a similar tree of files.

use std::path::PathBuf;

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

    /// Returns the directory of PCI functions.
    pub fn pci_devices(&self) -> PathBuf {
        self.path("sys/bus/pci/devices")
    }

    /// Returns the directory of PCI drivers.
    pub fn pci_drivers(&self) -> PathBuf {
        self.path("sys/bus/pci/drivers")
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
