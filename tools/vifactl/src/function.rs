// SPDX-License-Identifier: GPL-2.0

//! PCI functions in sysfs.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{exit::Exit, host::Host};

/// The address of a PCI function, as in `0000:01:00.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// PCI segment group.
    pub domain: u32,
    /// Bus number.
    pub bus: u8,
    /// Device number, up to 31.
    pub device: u8,
    /// Function number, up to 7.
    pub function: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{}",
            self.domain, self.bus, self.device, self.function
        )
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

/// A text that is not an address of a PCI function.
#[derive(Debug, PartialEq, Eq)]
pub struct NoAddress(String);

impl fmt::Display for NoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not a PCI address (domain:bus:device.function, as in 0000:01:00.1)",
            self.0
        )
    }
}

impl std::error::Error for NoAddress {}

impl FromStr for Address {
    type Err = NoAddress;

    /// Parses an address in the format of lspci and sysfs; the domain defaults to 0.
    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let hexadecimal = |digits: &str, most: usize, limit: u32| {
            let plain = (1..=most).contains(&digits.len())
                && digits.bytes().all(|digit| digit.is_ascii_hexdigit());

            u32::from_str_radix(digits, 16)
                .ok()
                .filter(|&value| plain && value <= limit)
        };
        let parse = || {
            let (rest, function) = text.rsplit_once('.')?;
            let (rest, device) = rest.rsplit_once(':')?;
            let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));

            Some(Self {
                domain: hexadecimal(domain, 8, u32::MAX)?,
                bus: u8::try_from(hexadecimal(bus, 2, 0xff)?).ok()?,
                device: u8::try_from(hexadecimal(device, 2, 0x1f)?).ok()?,
                function: u8::try_from(hexadecimal(function, 1, 7)?).ok()?,
            })
        };

        parse().ok_or_else(|| NoAddress(text.to_owned()))
    }
}

impl TryFrom<String> for Address {
    type Error = NoAddress;

    fn try_from(text: String) -> Result<Self, NoAddress> {
        text.parse()
    }
}

/// A PCI function of a host.
#[derive(Clone, Debug)]
pub struct Function {
    address: Address,
    directory: PathBuf,
    drivers: PathBuf,
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Function {
    fn at(address: Address, host: &Host) -> Self {
        Self {
            address,
            directory: host.pci_devices().join(address.to_string()),
            drivers: host.pci_drivers(),
        }
    }

    /// Returns the function with this address.
    ///
    /// # Errors
    ///
    /// No such function exists.
    pub fn find(address: Address, host: &Host) -> Result<Self> {
        let function = Self::at(address, host);

        if !function.directory.is_dir() {
            return Err(Exit::Failed
                .because(format!("{address}: no such PCI function"))
                .into());
        }
        Ok(function)
    }

    /// Returns all functions of `host`, in order of address.
    ///
    /// # Errors
    ///
    /// sysfs cannot be read.
    pub fn all(host: &Host) -> Result<Vec<Self>> {
        let directory = host.pci_devices();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| directory.display().to_string())?,
        };
        let mut addresses = Vec::new();

        for entry in entries {
            let name = entry
                .with_context(|| directory.display().to_string())?
                .file_name();

            addresses.extend(name.to_str().and_then(|name| name.parse::<Address>().ok()));
        }
        addresses.sort();
        Ok(addresses
            .into_iter()
            .map(|address| Self::at(address, host))
            .collect())
    }

    /// Returns the function's address.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Returns the function's directory in sysfs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the path of the attribute `name`.
    pub fn attribute(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Returns the value of the attribute `name`; `None` if it does not exist or cannot be read.
    pub fn read(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.attribute(name)).ok()?;

        Some(text.trim_end().to_owned())
    }

    /// Returns the number in the attribute `name`, decimal or with `0x`.
    pub fn number(&self, name: &str) -> Option<u64> {
        let text = self.read(name)?;

        match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        }
    }

    /// Writes `value` to the attribute `name` in one write, as sysfs requires.
    ///
    /// # Errors
    ///
    /// Errors of the attribute.
    pub fn write(&self, name: &str, value: &str) -> io::Result<()> {
        write_attribute(&self.attribute(name), value)
    }

    /// Returns the driver bound to the function.
    pub fn driver(&self) -> Option<String> {
        link_name(&self.attribute("driver"))
    }

    /// Returns the only driver that may bind to the function, if one is set.
    pub fn driver_override(&self) -> Option<String> {
        self.read("driver_override")
            .filter(|name| !name.is_empty() && name != "(null)")
    }

    /// Sets driver_override to `driver`, or clears it.
    ///
    /// # Errors
    ///
    /// Errors of the attribute.
    pub fn set_driver_override(&self, driver: Option<&str>) -> io::Result<()> {
        self.write(
            "driver_override",
            &format!("{}\n", driver.unwrap_or_default()),
        )
    }

    /// Binds the function to `driver`.
    ///
    /// # Errors
    ///
    /// Errors of the driver's probe.
    pub fn bind(&self, driver: &str) -> io::Result<()> {
        write_attribute(
            &self.drivers.join(driver).join("bind"),
            &self.address.to_string(),
        )
    }

    /// Unbinds the function from its driver, if it has one.
    ///
    /// # Errors
    ///
    /// Errors of the attribute.
    pub fn unbind(&self) -> io::Result<()> {
        if self.driver().is_none() {
            return Ok(());
        }
        self.write("driver/unbind", &self.address.to_string())
    }

    /// Returns the number of the IOMMU group.
    pub fn iommu_group(&self) -> Option<String> {
        link_name(&self.attribute("iommu_group"))
    }

    /// Returns the addresses of all functions of the IOMMU group, with this function.
    pub fn iommu_group_members(&self) -> Vec<Address> {
        let Ok(entries) = fs::read_dir(self.attribute("iommu_group/devices")) else {
            return Vec::new();
        };
        let mut members: Vec<Address> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();

        members.sort();
        members
    }

    /// Returns the name of the function's VFIO character device, as in `vfio0`.
    pub fn vfio_device(&self) -> Option<String> {
        let mut entries = fs::read_dir(self.attribute("vfio-dev")).ok()?;

        Some(entries.next()?.ok()?.file_name().to_str()?.to_owned())
    }

    /// Returns the address of a virtual function's physical function; `None` for other functions.
    pub fn physical_function(&self) -> Option<Address> {
        link_name(&self.attribute("physfn"))?.parse().ok()
    }

    /// Returns the addresses of a physical function's virtual functions, in order of index.
    pub fn virtual_functions(&self) -> Vec<Address> {
        (0..)
            .map_while(|index| {
                link_name(&self.attribute(&format!("virtfn{index}")))?
                    .parse()
                    .ok()
            })
            .collect()
    }
}

/// Writes `value` to the attribute `path` in one write.
fn write_attribute(path: &Path, value: &str) -> io::Result<()> {
    use std::io::Write;

    fs::OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
}

/// Returns the last component of the target of the link `path`.
fn link_name(path: &Path) -> Option<String> {
    Some(
        fs::read_link(path)
            .ok()?
            .file_name()?
            .to_string_lossy()
            .into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_without_a_domain_is_in_domain_0() {
        assert_eq!("01:1f.7".parse(), "0000:01:1f.7".parse::<Address>());
    }

    #[test]
    fn an_invalid_address_is_rejected() {
        for text in [
            "",
            "0000:01:00",
            "0000:01:20.0",
            "0000:01:00.8",
            "0000:100:00.0",
            "0000:01:00.",
            "+0:01:00.0",
            "0000:01:00.0\n",
            "1:0000:01:00.0",
            "/0000:01:00.0",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn an_address_reads_back(domain: u32, bus: u8, device in 0..32_u8, function in 0..8_u8) {
            let address = Address { domain, bus, device, function };

            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = text.parse::<Address>();
        }
    }
}
