// SPDX-License-Identifier: GPL-2.0

//! A network adapter whose VFs the tests use besides the reference device's: an 82576, as QEMU models
//! it, with its physical function bound to the kernel's igb.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{bail, Context, Result};

use crate::{bed::VF_DRIVER, sysfs::PciFunction};

const VENDOR: u32 = 0x8086;
const PHYSICAL_82576: u32 = 0x10c9;

/// The id of an 82576's VFs.
pub const VIRTUAL_82576: u16 = 0x10ca;
/// The id of an I350's VFs.
pub const VIRTUAL_I350: u16 = 0x1520;

/// `STATUS`, which can be read as often as one likes.
pub const STATUS: u64 = 0x0008;
/// `VTEITR(0)`, which keeps what is written; its low bits are reserved.
pub const THROTTLE: u64 = 0x1680;
/// The first byte behind the page that the driver answers for.
pub const WINDOW_END: u64 = 0x1000;
/// Bytes of BAR 0.
pub const BAR_SIZE: u64 = 0x4000;

/// The virtual functions that the tests use.
const VFS: u32 = 3;

/// The adapter, with its VFs bound to `vifa_vfio_pci`.
pub struct Adapter {
    pf: PciFunction,
}

impl Adapter {
    /// Finds the adapter, brings its interface up, makes the VFs: what of that is not so yet.
    pub fn set_up() -> Result<Self> {
        let found = PciFunction::find(VENDOR, PHYSICAL_82576)?;
        let pf = found.into_iter().next().context("there is no 82576")?;
        let adapter = Self { pf };
        adapter.set_up_interface()?;
        let pf = &adapter.pf;
        if pf.virtual_functions()? != VFS {
            fs::write(pf.attribute("sriov_drivers_autoprobe"), "0")
                .with_context(|| format!("sriov_drivers_autoprobe of {pf}"))?;
            for count in [0, VFS] {
                pf.set_virtual_functions(count)
                    .with_context(|| format!("sriov_numvfs = {count} of {pf}"))?;
            }
        }
        for index in 0..VFS {
            adapter.vf(index)?.ensure_bound(VF_DRIVER)?;
        }
        Ok(adapter)
    }

    /// Sets the physical function's network interface up: it does not answer VFs otherwise.
    fn set_up_interface(&self) -> Result<()> {
        let directory: PathBuf = self.pf.attribute("net");
        let entry = fs::read_dir(&directory)
            .with_context(|| directory.display().to_string())?
            .next()
            .with_context(|| format!("{} has no network interface", self.pf))??;
        let status = Command::new("ip")
            .args(["link", "set", "up", "dev"])
            .arg(entry.file_name())
            .status()
            .context("ip")?;
        if !status.success() {
            bail!("ip link set up: {status}");
        }
        Ok(())
    }

    /// The virtual function `index`.
    pub fn vf(&self, index: u32) -> Result<PciFunction> {
        self.pf
            .virtual_function(index)
            .with_context(|| format!("{} has no VF {index}", self.pf))
    }
}
