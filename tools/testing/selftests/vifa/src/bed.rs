// SPDX-License-Identifier: GPL-2.0

//! The test bed: the reference device's physical function bound to the module's PF driver, and two
//! virtual functions bound to `vifa_vfio_pci`. Each test restores it first, whatever state the
//! previous test left.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::{bail, Context, Result};
use vifa_device::{capability, is_ready_at_once, RegisterFile};
use vifa_vfio::{
    pci::{Bus, Function},
    wait_for,
};

use crate::{hw, module::Module, process::DEADLINE};

/// The driver of virtual functions.
pub const VF_DRIVER: &str = "vifa_vfio_pci";
/// The module with both drivers.
pub const MODULE: Module<'static> = Module("vifa_vfio_pci");
/// The virtual functions that the tests use.
pub const VFS: u32 = 2;

/// Returns the physical functions of all reference devices.
pub fn physical_functions() -> io::Result<Vec<Function>> {
    Bus::default().functions_with_ids(hw::VIFA_REFERENCE_VENDOR, hw::VIFA_REFERENCE_PF_DEVICE)
}

/// The settings from the command line.
#[derive(Clone, Default)]
pub struct Settings {
    /// The module's file; `None` if it is already loaded and must stay loaded.
    pub module: Option<PathBuf>,
}

/// The test bed.
#[derive(Clone)]
pub struct Bed {
    /// The physical function.
    pub pf: Function,
    settings: Settings,
}

impl Bed {
    /// Finds the physical function, loads the module and binds the drivers, as far as necessary.
    pub fn set_up(settings: &Settings) -> Result<Self> {
        let bed = Self::find(settings)?;
        bed.restore()?;
        Ok(bed)
    }

    /// Finds the physical function, without changes.
    pub fn find(settings: &Settings) -> Result<Self> {
        Self::find_with(settings, |pf| {
            Ok(capability(pf)?.features & hw::VIFA_HW_FEATURE_P2P != 0)
        })
        .context("no VIFA reference device")
    }

    /// Returns a bed on another reference device, whose VFs have no P2P-quiesced run state.
    pub fn without_p2p(&self) -> Result<Self> {
        self.without(hw::VIFA_HW_FEATURE_P2P, "p2p")
    }

    /// Returns a bed on another reference device, whose VFs do not track changed local memory.
    pub fn without_local_dirty(&self) -> Result<Self> {
        self.without(hw::VIFA_HW_FEATURE_LOCAL_DIRTY, "local-dirty")
    }

    /// Returns a bed on another reference device, whose VFs do not log their writes.
    pub fn without_dirty_log(&self) -> Result<Self> {
        self.without(hw::VIFA_HW_FEATURE_DIRTY_LOG, "dirty-log")
    }

    /// Returns a bed on a reference device with P2P and a log, for which the host must wait after a
    /// reset.
    pub fn slow_to_reset(&self) -> Result<Self> {
        const FEATURES: u32 = hw::VIFA_HW_FEATURE_P2P | hw::VIFA_HW_FEATURE_DIRTY_LOG;
        let bed = Self::find_with(&self.settings, |pf| {
            Ok(!is_ready_at_once(pf)? && capability(pf)?.features & FEATURES == FEATURES)
        })
        .context("no VIFA reference device with immediate-readiness=off")?;
        bed.restore()?;
        Ok(bed)
    }

    /// Returns a bed on the first reference device without `feature`, which the device's `property`
    /// controls.
    fn without(&self, feature: u32, property: &str) -> Result<Self> {
        let bed = Self::find_with(&self.settings, |pf| {
            Ok(capability(pf)?.features & feature == 0)
        })
        .with_context(|| format!("no VIFA reference device with {property}=off"))?;
        bed.restore()?;
        Ok(bed)
    }

    /// Finds the first reference device for which `fit` returns true.
    fn find_with(settings: &Settings, fit: impl Fn(&Function) -> Result<bool>) -> Result<Self> {
        for pf in physical_functions()? {
            if fit(&pf)? {
                let settings = settings.clone();
                return Ok(Self { pf, settings });
            }
        }
        bail!("no physical function of such a device")
    }

    /// Restores the bed after the changes of a test.
    pub fn restore(&self) -> Result<()> {
        if !MODULE.is_loaded() {
            self.load_module()?;
        }
        self.pf.ensure_bound(&self.pf_driver()?)?;
        if self.pf.number("sriov_numvfs")? != u64::from(VFS) {
            self.set_virtual_functions(0)?;
            self.set_virtual_functions(VFS)?;
        }
        for index in 0..VFS {
            self.vf(index)?.ensure_bound(VF_DRIVER)?;
        }
        RegisterFile::map(&self.pf)?.disarm();
        Ok(())
    }

    fn set_virtual_functions(&self, count: u32) -> Result<()> {
        self.pf
            .set_virtual_functions(count)
            .with_context(|| format!("sriov_numvfs = {count} of {}", self.pf))
    }

    /// Returns the virtual function `index`.
    pub fn vf(&self, index: u32) -> Result<Function> {
        self.pf
            .virtual_function(index)
            .with_context(|| format!("{} has no VF {index}", self.pf))
    }

    /// Rebinds the virtual function `index`. This also resets the rate limit of its driver's
    /// messages.
    pub fn rebind(&self, index: u32) -> Result<()> {
        let vf = self.vf(index)?;
        vf.unbind().with_context(|| format!("unbind of {vf}"))?;
        Ok(vf.ensure_bound(VF_DRIVER)?)
    }

    /// Returns the driver of physical functions: the module's driver that is not for virtual
    /// functions.
    pub fn pf_driver(&self) -> Result<String> {
        let drivers = MODULE.pci_drivers()?;
        match drivers
            .iter()
            .filter(|name| *name != VF_DRIVER)
            .collect::<Vec<_>>()[..]
        {
            [name] => Ok(name.clone()),
            _ => {
                bail!("expected {VF_DRIVER} and one more PCI driver in the module, got {drivers:?}")
            }
        }
    }

    /// Returns the module's file.
    pub fn module_file(&self) -> Result<&Path> {
        self.settings
            .module
            .as_deref()
            .context("the module's file was not given (--module)")
    }

    /// Loads the module and its dependencies.
    pub fn load_module(&self) -> Result<()> {
        let file = self.module_file()?;
        let core = Module("vfio_pci_core");
        if !core.is_loaded() {
            core.probe()?;
        }
        MODULE.insert(file)
    }

    /// Removes the module, which must be unused. Waits for a use that is still ending, such as the
    /// deferred last close of a descriptor.
    ///
    /// Removes the VFs first: a PF that loses its driver removes them without the lock that the PCI
    /// core requires, which lockdep reports (driver.rst).
    pub fn unload_module(&self) -> Result<()> {
        let driver = self.pf_driver()?;
        for pf in physical_functions()? {
            if pf.driver().as_ref() == Some(&driver) {
                pf.set_virtual_functions(0)
                    .with_context(|| format!("sriov_numvfs = 0 of {pf}"))?;
            }
        }
        let removed = wait_for(DEADLINE, || match MODULE.remove() {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(None),
            result => result.map(Some),
        })
        .context("removal of the module")?;
        removed.context("the module is still in use")
    }
}
