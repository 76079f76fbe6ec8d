// SPDX-License-Identifier: GPL-2.0

//! The SR-IOV host: finds the physical function, and creates and binds virtual functions.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};

use vifa_vfio::Capability;

const PCI: &str = "/sys/bus/pci";

/// The names of the module's two PCI drivers.
const PHYSICAL_DRIVER: &str = "vifa_vfio_pci_pf";
const VIRTUAL_DRIVER: &str = "vifa_vfio_pci";

/// A PCI function of this machine, with its directory in sysfs.
#[derive(Clone, Debug, PartialEq)]
pub struct Function(PathBuf);

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address())
    }
}

impl Function {
    /// Returns the function with this directory in sysfs.
    pub fn at(path: &str) -> Self {
        Self(PathBuf::from(path))
    }

    /// Returns the address, as in `0000:01:00.1`.
    pub fn address(&self) -> String {
        name_of(&self.0)
    }

    /// Returns the directory in sysfs.
    pub(crate) fn directory(&self) -> &Path {
        &self.0
    }

    /// Returns the path of a file in sysfs.
    pub fn attribute(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn read(&self, attribute: &str) -> Result<String> {
        let path = self.attribute(attribute);
        fs::read_to_string(&path)
            .map(|text| text.trim().to_owned())
            .with_context(|| format!("failed to read {}", path.display()))
    }

    pub(crate) fn write(&self, attribute: &str, value: &str) -> Result<()> {
        write(&self.attribute(attribute), value)
    }

    pub(crate) fn driver(&self) -> Option<String> {
        fs::read_link(self.0.join("driver"))
            .ok()
            .map(|link| name_of(&link))
    }

    /// Binds `driver`, independent of the function's ids, unless it is already bound.
    pub(crate) fn bind(&self, driver: &str) -> Result<()> {
        if self.driver().is_none() {
            self.write("driver_override", driver)?;
            write(&Path::new(PCI).join("drivers_probe"), &self.address())?;
        }
        match self.driver() {
            Some(bound) if bound == driver => Ok(()),
            bound => bail!(
                "failed to bind {self} to {driver}: it has {}; see the kernel's log",
                bound.as_deref().unwrap_or("no driver")
            ),
        }
    }

    /// Binds our driver to a virtual function.
    pub fn bind_ours(&self) -> Result<()> {
        self.bind(VIRTUAL_DRIVER)
    }

    /// Unbinds and binds the driver of a virtual function, so that it probes the function again.
    pub fn rebind(&self) -> Result<()> {
        self.write("driver/unbind", &self.address())?;
        self.bind(VIRTUAL_DRIVER)
    }
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("failed to write {value} to {}", path.display()))
}

/// The host's side of an SR-IOV device, with virtual functions bound to our driver.
pub struct Host {
    /// The physical function.
    pub physical: Function,
    /// The virtual functions, bound to the driver.
    pub virtuals: Vec<Function>,
}

impl Host {
    /// Returns whether this kernel supports DMA logging by the driver, which requires iommufd.
    pub fn kernel_can_log() -> bool {
        Path::new("/dev/iommu").exists()
    }

    /// Loads `module` unless the driver is loaded, and creates `count` virtual functions of the
    /// physical function at `address`, or of the only one.
    pub fn prepare(module: Option<&Path>, address: Option<&str>, count: usize) -> Result<Self> {
        load(module)?;
        let mut host = Self::new(find(&devices(), address)?)?;
        host.make(count)?;
        Ok(host)
    }

    /// Returns the hosts' sides of all devices of this machine, in the order of their addresses,
    /// without virtual functions.
    pub fn all(module: Option<&Path>) -> Result<Vec<Self>> {
        load(module)?;
        find_all(&devices())?.into_iter().map(Self::new).collect()
    }

    fn new(physical: Function) -> Result<Self> {
        physical.bind(PHYSICAL_DRIVER)?;
        Ok(Self {
            physical,
            virtuals: Vec::new(),
        })
    }

    /// Replaces the virtual functions with `count` new ones.
    pub fn make(&mut self, count: usize) -> Result<()> {
        self.virtuals.clear();
        let total: usize = self.physical.read("sriov_totalvfs")?.parse()?;
        ensure!(
            count <= total,
            "{} supports {total} virtual functions, expected at least {count}",
            self.physical
        );
        self.physical.write("sriov_numvfs", "0")?;
        self.physical.write("sriov_numvfs", &count.to_string())?;
        for index in 0..count {
            let link = self.physical.0.join(format!("virtfn{index}"));
            let target = fs::canonicalize(&link)
                .with_context(|| format!("failed to resolve {}", link.display()))?;
            let function = Function(target);
            function.bind(VIRTUAL_DRIVER)?;
            self.virtuals.push(function);
        }
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = self.physical.write("sriov_numvfs", "0") {
            eprintln!("vifa-migrate: {error:#}");
        }
    }
}

pub(crate) fn devices() -> PathBuf {
    Path::new(PCI).join("devices")
}

/// Returns whether this kernel supports DMA logging by the driver, which requires iommufd.
pub fn kernel_can_log() -> bool {
    Path::new("/dev/iommu").exists()
}

/// Loads `module` unless the driver is loaded.
pub(crate) fn load(module: Option<&Path>) -> Result<()> {
    if Path::new(PCI).join("drivers").join(VIRTUAL_DRIVER).exists() {
        return Ok(());
    }
    let mut command = match module {
        Some(module) => {
            // modprobe finds the dependency of the module by its name.
            run(Command::new("modprobe").arg("vfio_pci_core"))?;
            let mut command = Command::new("insmod");
            command.arg(module);
            command
        }
        None => {
            let mut command = Command::new("modprobe");
            command.arg(VIRTUAL_DRIVER);
            command
        }
    };
    run(&mut command)
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("failed to run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Returns the physical function at `address` among `devices`, or the only one.
fn find(devices: &Path, address: Option<&str>) -> Result<Function> {
    if let Some(address) = address {
        let path = devices.join(address);
        ensure!(path.exists(), "no such PCI function: {address}");
        return Ok(Function(path));
    }
    let mut found = find_all(devices)?;
    ensure!(
        found.len() == 1,
        "this machine has several devices: select one with --device"
    );
    Ok(found.remove(0))
}

/// Returns all functions among `devices` with the VIFA capability, independent of their ids.
fn find_all(devices: &Path) -> Result<Vec<Function>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(devices).with_context(|| format!("{}", devices.display()))? {
        let function = Function(entry?.path());
        let capability = Capability::of(&function.0)
            .with_context(|| format!("failed to read the configuration space of {function}"))?;
        if capability.is_some() {
            found.push(function);
        }
    }
    ensure!(
        !found.is_empty(),
        "this machine has no device with the VIFA capability: run it under QEMU with \
         -device vifa-pf"
    );
    found.sort_by_key(Function::address);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory like /sys/bus/pci/devices, which is removed on drop.
    struct Devices(PathBuf);

    impl Devices {
        /// Creates functions with these addresses, some with the VIFA capability.
        fn new(test: &str, functions: &[(&str, bool)]) -> Self {
            let path =
                std::env::temp_dir().join(format!("vifa-migrate-{}-{test}", std::process::id()));
            for (address, capable) in functions {
                let mut config = vec![0; 4096];
                if *capable {
                    let header = [0x0001_0023u32, 0x01c1_1234, 0x0001_5649];
                    for (word, value) in config[0x100..].chunks_exact_mut(4).zip(header) {
                        word.copy_from_slice(&value.to_le_bytes());
                    }
                }
                fs::create_dir_all(path.join(address)).unwrap();
                fs::write(path.join(address).join("config"), config).unwrap();
            }
            Self(path)
        }
    }

    impl Drop for Devices {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const BRIDGE: (&str, bool) = ("0000:00:00.0", false);

    #[test]
    fn finds_the_only_device() {
        let devices = Devices::new("only", &[BRIDGE, ("0000:01:00.0", true)]);
        let function = find(&devices.0, None).unwrap();
        assert_eq!(function.address(), "0000:01:00.0");
    }

    #[test]
    fn reports_a_missing_device() {
        let devices = Devices::new("none", &[BRIDGE, ("0000:01:00.1", false)]);
        assert!(find(&devices.0, None).is_err());
        assert!(find_all(&devices.0).is_err());
        assert!(find(&devices.0, Some("0000:09:00.0")).is_err());
    }

    #[test]
    fn rejects_several_devices() {
        let devices = Devices::new(
            "several",
            &[("0000:02:00.0", true), BRIDGE, ("0000:01:00.0", true)],
        );
        assert!(find(&devices.0, None).is_err());
        let function = find(&devices.0, Some("0000:02:00.0")).unwrap();
        assert_eq!(function.address(), "0000:02:00.0");

        let all = find_all(&devices.0).unwrap();
        let addresses: Vec<_> = all.iter().map(Function::address).collect();
        assert_eq!(addresses, ["0000:01:00.0", "0000:02:00.0"]);
    }
}
