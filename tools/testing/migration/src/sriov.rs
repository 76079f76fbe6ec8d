// SPDX-License-Identifier: GPL-2.0

//! The SR-IOV host: finds the physical function, makes virtual functions and binds them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};

/// PCI ids of the reference device's physical function.
const PHYSICAL_FUNCTION: (&str, &str) = ("0x1234", "0x5650");

/// The names that the module's two PCI drivers have.
const PHYSICAL_DRIVER: &str = "vifa-vfio-pci-pf";
const VIRTUAL_DRIVER: &str = "vifa-vfio-pci";

/// A PCI function of this machine, with its directory in sysfs.
#[derive(Clone, Debug, PartialEq)]
pub struct Function(PathBuf);

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address())
    }
}

impl Function {
    /// Its address, as in `0000:01:00.1`.
    pub fn address(&self) -> String {
        name_of(&self.0)
    }

    fn read(&self, attribute: &str) -> Result<String> {
        let path = self.0.join(attribute);
        fs::read_to_string(&path)
            .map(|text| text.trim().to_owned())
            .with_context(|| format!("reading {}", path.display()))
    }

    fn write(&self, attribute: &str, value: &str) -> Result<()> {
        write(&self.0.join(attribute), value)
    }

    fn driver(&self) -> Option<String> {
        fs::read_link(self.0.join("driver"))
            .ok()
            .map(|link| name_of(&link))
    }
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("writing {value} to {}", path.display()))
}

/// The host's side of an SR-IOV device, with virtual functions that are ours.
pub struct Host {
    pci: PathBuf,
    physical: Function,
    /// The virtual functions, bound to the driver.
    pub virtuals: Vec<Function>,
}

impl Host {
    /// Loads `module` unless the driver is there, and makes `count` virtual functions of the
    /// physical function at `address`, or of the only one there is.
    pub fn prepare(module: Option<&Path>, address: Option<&str>, count: usize) -> Result<Self> {
        let pci = PathBuf::from("/sys/bus/pci");
        if !pci.join("drivers").join(VIRTUAL_DRIVER).exists() {
            load(module)?;
        }
        let physical = find(&pci.join("devices"), address)?;
        match physical.driver().as_deref() {
            Some(PHYSICAL_DRIVER) => (),
            driver => bail!(
                "the physical function {physical} is bound to {}, not to {PHYSICAL_DRIVER}",
                driver.unwrap_or("no driver")
            ),
        }
        let mut host = Self {
            pci,
            physical,
            virtuals: Vec::new(),
        };
        host.make(count)?;
        Ok(host)
    }

    fn make(&mut self, count: usize) -> Result<()> {
        let total: usize = self.physical.read("sriov_totalvfs")?.parse()?;
        ensure!(
            count <= total,
            "{} has {total} virtual functions, not {count}",
            self.physical
        );
        self.physical.write("sriov_numvfs", "0")?;
        self.physical.write("sriov_numvfs", &count.to_string())?;
        for index in 0..count {
            let link = self.physical.0.join(format!("virtfn{index}"));
            let target =
                fs::canonicalize(&link).with_context(|| format!("following {}", link.display()))?;
            let function = Function(target);
            function.write("driver_override", VIRTUAL_DRIVER)?;
            if function.driver().is_none() {
                write(&self.pci.join("drivers_probe"), &function.address())?;
            }
            match function.driver().as_deref() {
                Some(VIRTUAL_DRIVER) => self.virtuals.push(function),
                driver => bail!(
                    "the virtual function {function} is bound to {}, not to {VIRTUAL_DRIVER}; \
                     the kernel's log says why",
                    driver.unwrap_or("no driver")
                ),
            }
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

fn load(module: Option<&Path>) -> Result<()> {
    let mut command = match module {
        Some(module) => {
            // What the module needs is found by its name alone.
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

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("running {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} fails: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// The physical function at `address` among `devices`, or the only one there is.
fn find(devices: &Path, address: Option<&str>) -> Result<Function> {
    if let Some(address) = address {
        let path = devices.join(address);
        ensure!(path.exists(), "there is no PCI function {address}");
        return Ok(Function(path));
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(devices).with_context(|| format!("{}", devices.display()))? {
        let function = Function(entry?.path());
        let ids = (function.read("vendor")?, function.read("device")?);
        if (ids.0.as_str(), ids.1.as_str()) == PHYSICAL_FUNCTION {
            found.push(function);
        }
    }
    match found.len() {
        0 => bail!("this machine has no reference device: run it under QEMU with -device vifa-pf"),
        1 => Ok(found.remove(0)),
        _ => bail!("this machine has several reference devices: choose one with --device"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory like /sys/bus/pci/devices, removed at the end.
    struct Devices(PathBuf);

    impl Devices {
        fn new(test: &str, functions: &[(&str, &str, &str)]) -> Self {
            let path =
                std::env::temp_dir().join(format!("vifa-migrate-{}-{test}", std::process::id()));
            for (address, vendor, device) in functions {
                fs::create_dir_all(path.join(address)).unwrap();
                fs::write(path.join(address).join("vendor"), format!("{vendor}\n")).unwrap();
                fs::write(path.join(address).join("device"), format!("{device}\n")).unwrap();
            }
            Self(path)
        }
    }

    impl Drop for Devices {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const BRIDGE: (&str, &str, &str) = ("0000:00:00.0", "0x8086", "0x29c0");

    #[test]
    fn finds_the_only_device() {
        let devices = Devices::new("only", &[BRIDGE, ("0000:01:00.0", "0x1234", "0x5650")]);
        let function = find(&devices.0, None).unwrap();
        assert_eq!(function.address(), "0000:01:00.0");
    }

    #[test]
    fn says_that_there_is_none() {
        let devices = Devices::new("none", &[BRIDGE, ("0000:01:00.1", "0x1234", "0x5656")]);
        assert!(find(&devices.0, None).is_err());
        assert!(find(&devices.0, Some("0000:09:00.0")).is_err());
    }

    #[test]
    fn does_not_choose_among_several() {
        let devices = Devices::new(
            "several",
            &[
                ("0000:01:00.0", "0x1234", "0x5650"),
                ("0000:02:00.0", "0x1234", "0x5650"),
            ],
        );
        assert!(find(&devices.0, None).is_err());
        let function = find(&devices.0, Some("0000:02:00.0")).unwrap();
        assert_eq!(function.address(), "0000:02:00.0");
    }
}
