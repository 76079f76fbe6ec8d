// SPDX-License-Identifier: GPL-2.0

//! The SR-IOV host: finds the physical function, and creates and binds virtual functions.

use std::{path::Path, process::Command};

use anyhow::{bail, ensure, Context, Result};
use vifa_vfio::{
    pci::{Bus, Function},
    Capability,
};

/// The names of the module's two PCI drivers.
const PHYSICAL_DRIVER: &str = "vifa_vfio_pci_pf";
const VIRTUAL_DRIVER: &str = "vifa_vfio_pci";

/// Binds `driver` to `function`, independent of its ids, unless it is already bound.
pub(crate) fn bind(function: &Function, driver: &str) -> Result<()> {
    match function.driver() {
        Some(bound) if bound != driver => {
            bail!("failed to bind {function} to {driver}: it has {bound}; see the kernel's log")
        }
        _ => Ok(function.ensure_bound(driver)?),
    }
}

/// Binds our driver to a virtual function.
pub fn bind_ours(function: &Function) -> Result<()> {
    bind(function, VIRTUAL_DRIVER)
}

/// Unbinds and binds the driver of a virtual function, so that it probes the function again.
pub fn rebind(function: &Function) -> Result<()> {
    function
        .unbind()
        .with_context(|| format!("failed to unbind {function}"))?;
    bind_ours(function)
}

pub(crate) fn write(function: &Function, attribute: &str, value: &str) -> Result<()> {
    function.write(attribute, value).with_context(|| {
        let path = function.attribute(attribute);
        format!("failed to write {value} to {}", path.display())
    })
}

/// Replaces the virtual functions of `physical` with `count` new ones. Calls `prepare` while there
/// are none.
pub(crate) fn replace_virtual_functions(
    physical: &Function,
    count: usize,
    prepare: impl FnOnce() -> Result<()>,
) -> Result<Vec<Function>> {
    write(physical, "sriov_numvfs", "0")?;
    prepare()?;
    write(physical, "sriov_numvfs", &count.to_string())?;
    let functions: Vec<_> = physical.virtual_functions().collect();
    ensure!(
        functions.len() == count,
        "{physical} has {} virtual functions, expected {count}",
        functions.len()
    );
    Ok(functions)
}

/// The host's side of an SR-IOV device, with virtual functions bound to our driver.
pub struct Host {
    /// The physical function.
    pub physical: Function,
    /// The virtual functions, bound to the driver.
    pub virtuals: Vec<Function>,
}

impl Host {
    /// Loads `module` unless the driver is loaded, and creates `count` virtual functions of the
    /// physical function at `address`, or of the only one.
    pub fn prepare(module: Option<&Path>, address: Option<&str>, count: usize) -> Result<Self> {
        load(module)?;
        let mut host = Self::new(find(&Bus::default(), address)?)?;
        host.make(count)?;
        Ok(host)
    }

    /// Returns the hosts' sides of all devices of this machine, in the order of their addresses,
    /// without virtual functions.
    pub fn all(module: Option<&Path>) -> Result<Vec<Self>> {
        load(module)?;
        find_all(&Bus::default())?
            .into_iter()
            .map(Self::new)
            .collect()
    }

    fn new(physical: Function) -> Result<Self> {
        bind(&physical, PHYSICAL_DRIVER)?;
        Ok(Self {
            physical,
            virtuals: Vec::new(),
        })
    }

    /// Replaces the virtual functions with `count` new ones.
    pub fn make(&mut self, count: usize) -> Result<()> {
        self.virtuals.clear();
        let total = self.physical.number("sriov_totalvfs")?;
        ensure!(
            count as u64 <= total,
            "{} supports {total} virtual functions, expected at least {count}",
            self.physical
        );
        self.virtuals = replace_virtual_functions(&self.physical, count, || Ok(()))?;
        self.virtuals.iter().try_for_each(bind_ours)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = write(&self.physical, "sriov_numvfs", "0") {
            eprintln!("vifa-migrate: {error:#}");
        }
    }
}

/// Returns whether this kernel supports DMA logging by the driver, which requires iommufd.
pub fn kernel_can_log() -> bool {
    Path::new("/dev/iommu").exists()
}

/// Loads `module` unless the driver is loaded.
pub(crate) fn load(module: Option<&Path>) -> Result<()> {
    if Bus::default().driver(VIRTUAL_DRIVER).exists() {
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

/// Returns the physical function at `address` of `bus`, or the only one.
fn find(bus: &Bus, address: Option<&str>) -> Result<Function> {
    if let Some(address) = address {
        let function = bus.function(address.parse()?);
        ensure!(function.exists(), "no such PCI function: {address}");
        return Ok(function);
    }
    let mut found = find_all(bus)?;
    ensure!(
        found.len() == 1,
        "this machine has several devices: select one with --device"
    );
    Ok(found.remove(0))
}

/// Returns all functions of `bus` with the VIFA capability, independent of their ids.
fn find_all(bus: &Bus) -> Result<Vec<Function>> {
    let mut found = Vec::new();
    let functions = bus
        .functions()
        .with_context(|| bus.devices().display().to_string())?;
    for function in functions {
        let capability = Capability::of(function.directory())
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
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    /// A directory like /sys/bus/pci, which is removed on drop.
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
                let function = path.join("devices").join(address);
                fs::create_dir_all(&function).unwrap();
                fs::write(function.join("config"), config).unwrap();
            }
            Self(path)
        }

        fn bus(&self) -> Bus {
            Bus::at(&self.0)
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
        let function = find(&devices.bus(), None).unwrap();
        assert_eq!(function.to_string(), "0000:01:00.0");
    }

    #[test]
    fn reports_a_missing_device() {
        let devices = Devices::new("none", &[BRIDGE, ("0000:01:00.1", false)]);
        assert!(find(&devices.bus(), None).is_err());
        assert!(find_all(&devices.bus()).is_err());
        assert!(find(&devices.bus(), Some("0000:09:00.0")).is_err());
    }

    #[test]
    fn rejects_several_devices() {
        let devices = Devices::new(
            "several",
            &[("0000:02:00.0", true), BRIDGE, ("0000:01:00.0", true)],
        );
        assert!(find(&devices.bus(), None).is_err());
        let function = find(&devices.bus(), Some("0000:02:00.0")).unwrap();
        assert_eq!(function.to_string(), "0000:02:00.0");

        let all = find_all(&devices.bus()).unwrap();
        let addresses: Vec<_> = all.iter().map(Function::to_string).collect();
        assert_eq!(addresses, ["0000:01:00.0", "0000:02:00.0"]);
    }
}
