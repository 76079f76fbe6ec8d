// SPDX-License-Identifier: GPL-2.0

//! PCI functions, their drivers and kernel modules in sysfs.

use std::{
    ffi::CString,
    fmt, fs,
    fs::OpenOptions,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{bail, Context, Result};

const DEVICES: &str = "/sys/bus/pci/devices";
const DRIVERS: &str = "/sys/bus/pci/drivers";

/// Writes `value` to the attribute `path` in one write, as sysfs requires.
fn write_attribute(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
}

fn read_attribute(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("read of {}", path.display()))?;
    Ok(text.trim_end().to_owned())
}

/// Returns the last component of the target of the link `path`; `None` if the link does not exist.
fn link_name(path: &Path) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// A PCI function, by its address as in `0000:01:00.0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciFunction(String);

impl fmt::Display for PciFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PciFunction {
    /// Returns all functions with these PCI ids, in order of address.
    pub fn find(vendor: u32, device: u32) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(DEVICES).context(DEVICES)? {
            let function = Self(entry?.file_name().to_string_lossy().into_owned());
            if function.id("vendor")? == vendor && function.id("device")? == device {
                found.push(function);
            }
        }
        found.sort();
        Ok(found)
    }

    fn id(&self, attribute: &str) -> Result<u32> {
        let text = read_attribute(&self.attribute(attribute))?;
        u32::from_str_radix(text.trim_start_matches("0x"), 16)
            .with_context(|| format!("{attribute} of {self}: {text}"))
    }

    /// Returns domain, bus, and device with function.
    pub fn address(&self) -> Result<(u32, u8, u8)> {
        let parse = || -> Option<(u32, u8, u8)> {
            let (domain, rest) = self.0.split_once(':')?;
            let (bus, rest) = rest.split_once(':')?;
            let (device, function) = rest.split_once('.')?;
            let hex = |text| u32::from_str_radix(text, 16).ok();
            let devfn = (hex(device)? << 3) | hex(function)?;
            Some((hex(domain)?, hex(bus)? as u8, devfn as u8))
        };
        parse().with_context(|| format!("{self} is not a PCI address"))
    }

    /// Resets the function through its attribute, even if it is in use.
    pub fn reset(&self) -> io::Result<()> {
        write_attribute(&self.attribute("reset"), "1")
    }

    /// Returns the port above the function.
    pub fn port(&self) -> Result<Self> {
        let path = Path::new(DEVICES).join(&self.0);
        let path = fs::canonicalize(&path).with_context(|| path.display().to_string())?;
        let port = path.parent().and_then(Path::file_name);
        let port = port.with_context(|| format!("{self} has no port"))?;
        Ok(Self(port.to_string_lossy().into_owned()))
    }

    /// Removes the function and all functions below it, like an orderly hot-unplug.
    pub fn remove(&self) -> io::Result<()> {
        write_attribute(&self.attribute("remove"), "1")
    }

    /// Returns the path of the function's attribute `name`.
    pub fn attribute(&self, name: &str) -> PathBuf {
        Path::new(DEVICES).join(&self.0).join(name)
    }

    /// Returns the driver bound to the function.
    pub fn driver(&self) -> Option<String> {
        link_name(&self.attribute("driver"))
    }

    /// Returns the function's IOMMU group.
    pub fn iommu_group(&self) -> Result<String> {
        link_name(&self.attribute("iommu_group"))
            .with_context(|| format!("{self} is not in an IOMMU group"))
    }

    /// Returns the function's VFIO character device.
    pub fn vfio_device(&self) -> Result<PathBuf> {
        let directory = self.attribute("vfio-dev");
        let entry = fs::read_dir(&directory)
            .with_context(|| format!("{self} is not a VFIO device"))?
            .next()
            .with_context(|| format!("{} is empty", directory.display()))??;
        Ok(Path::new("/dev/vfio/devices").join(entry.file_name()))
    }

    /// Returns the physical function's virtual function `index`.
    pub fn virtual_function(&self, index: u32) -> Option<Self> {
        link_name(&self.attribute(&format!("virtfn{index}"))).map(Self)
    }

    /// Returns the number of virtual functions.
    pub fn virtual_functions(&self) -> Result<u32> {
        Ok(read_attribute(&self.attribute("sriov_numvfs"))?.parse()?)
    }

    /// Returns the maximum number of virtual functions.
    pub fn most_virtual_functions(&self) -> Result<u32> {
        Ok(read_attribute(&self.attribute("sriov_totalvfs"))?.parse()?)
    }

    /// Creates `count` virtual functions, or removes them if `count` is 0.
    pub fn set_virtual_functions(&self, count: u32) -> io::Result<()> {
        write_attribute(&self.attribute("sriov_numvfs"), &count.to_string())
    }

    /// Sets driver_override to `driver`.
    pub fn set_driver_override(&self, driver: &str) -> Result<()> {
        write_attribute(&self.attribute("driver_override"), &format!("{driver}\n"))
            .with_context(|| format!("driver_override of {self}"))
    }

    /// Unbinds the function from its driver, if it has one.
    pub fn unbind(&self) -> io::Result<()> {
        match write_attribute(&self.attribute("driver/unbind"), &self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Binds the function to `driver`; returns the error of its probe.
    pub fn bind(&self, driver: &str) -> io::Result<()> {
        write_attribute(&Path::new(DRIVERS).join(driver).join("bind"), &self.0)
    }

    /// Binds the function to `driver`, after unbinding it from any other driver.
    pub fn ensure_bound(&self, driver: &str) -> Result<()> {
        if self.driver().as_deref() == Some(driver) {
            return Ok(());
        }
        self.unbind().with_context(|| format!("unbind of {self}"))?;
        self.set_driver_override(driver)?;
        self.bind(driver)
            .with_context(|| format!("bind of {self} to {driver}"))
    }
}

/// Makes the kernel scan for new PCI functions.
pub fn rescan() -> io::Result<()> {
    write_attribute(Path::new("/sys/bus/pci/rescan"), "1")
}

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
        crate::sys::insert_module(file).with_context(|| format!("insertion of {}", path.display()))
    }

    /// Removes the module; fails immediately if it is in use.
    pub fn remove(&self) -> io::Result<()> {
        crate::sys::remove_module(&CString::new(self.0)?)
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
