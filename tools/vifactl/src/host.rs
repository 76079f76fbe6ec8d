// SPDX-License-Identifier: GPL-2.0

//! Where the host's sysfs, debugfs, procfs and device files are.
//!
//! Below `/`; tests give another root, with a tree of files that looks like these.

use std::path::PathBuf;

/// A host, by its root directory.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// The host whose root directory is `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// PCI functions, a directory each.
    pub fn pci_devices(&self) -> PathBuf {
        self.path("sys/bus/pci/devices")
    }

    /// PCI drivers, a directory each.
    pub fn pci_drivers(&self) -> PathBuf {
        self.path("sys/bus/pci/drivers")
    }

    /// The driver's debugfs: VIFA interfaces, a directory each.
    pub fn debugfs(&self) -> PathBuf {
        self.path("sys/kernel/debug/vifa")
    }

    /// Processes.
    pub fn processes(&self) -> PathBuf {
        self.path("proc")
    }

    /// VFIO's device files.
    pub fn vfio(&self) -> PathBuf {
        self.path("dev/vfio")
    }

    /// The device file of iommufd.
    pub fn iommufd(&self) -> PathBuf {
        self.path("dev/iommu")
    }
}
