// SPDX-License-Identifier: GPL-2.0

//! PCI functions in sysfs.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

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
pub struct InvalidAddress(String);

impl fmt::Display for InvalidAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not a PCI address (domain:bus:device.function, as in 0000:01:00.1)",
            self.0
        )
    }
}

impl std::error::Error for InvalidAddress {}

impl FromStr for Address {
    type Err = InvalidAddress;

    /// Parses an address in the format of lspci and sysfs; the domain defaults to 0.
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
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

        parse().ok_or_else(|| InvalidAddress(text.to_owned()))
    }
}

impl TryFrom<String> for Address {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

/// The PCI bus in sysfs, identified by its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bus(PathBuf);

impl Default for Bus {
    /// Returns the bus of this machine.
    fn default() -> Self {
        Self::at("/sys/bus/pci")
    }
}

impl Bus {
    /// Returns the bus with the directory `directory`.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// Returns the directory of the driver `name`.
    pub fn driver(&self, name: &str) -> PathBuf {
        self.0.join("drivers").join(name)
    }

    /// Returns the directory of functions.
    pub fn devices(&self) -> PathBuf {
        self.0.join("devices")
    }

    /// Returns the function at `address`, which may not exist.
    pub fn function(&self, address: Address) -> Function {
        Function {
            directory: self.devices().join(address.to_string()),
            address,
            bus: self.clone(),
        }
    }

    /// Returns all functions, in order of address.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn functions(&self) -> io::Result<Vec<Function>> {
        let mut addresses = addresses(&self.devices())?;

        addresses.sort();
        Ok(addresses
            .into_iter()
            .map(|address| self.function(address))
            .collect())
    }

    /// Returns all functions with these PCI ids, in order of address.
    ///
    /// # Errors
    ///
    /// Those of [`Self::functions`].
    pub fn functions_with_ids(&self, vendor: u32, device: u32) -> io::Result<Vec<Function>> {
        let mut functions = self.functions()?;

        functions.retain(|function| {
            let id = |name| function.number(name).ok();

            id("vendor") == Some(vendor.into()) && id("device") == Some(device.into())
        });
        Ok(functions)
    }

    /// Makes the kernel scan for new functions.
    ///
    /// # Errors
    ///
    /// Errors of the attribute.
    pub fn rescan(&self) -> io::Result<()> {
        write_attribute(&self.0.join("rescan"), "1")
    }
}

/// A PCI function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    address: Address,
    directory: PathBuf,
    bus: Bus,
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Function {
    /// Returns the function's address.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Returns the function's directory in sysfs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns whether the function exists.
    pub fn exists(&self) -> bool {
        self.directory.is_dir()
    }

    /// Returns the path of the attribute `name`.
    pub fn attribute(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Returns the value of the attribute `name`.
    ///
    /// # Errors
    ///
    /// Returns an error with the path if the attribute does not exist or cannot be read.
    pub fn read(&self, name: &str) -> io::Result<String> {
        let path = self.attribute(name);

        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim_end().to_owned()),
            Err(error) => Err(io::Error::new(
                error.kind(),
                format!("failed to read {}: {error}", path.display()),
            )),
        }
    }

    /// Returns the number in the attribute `name`, decimal or with `0x`.
    ///
    /// # Errors
    ///
    /// Those of [`Self::read`], or `InvalidData` if the value is no number.
    pub fn number(&self, name: &str) -> io::Result<u64> {
        let text = self.read(name)?;
        let number = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };

        number.map_err(|_| {
            let path = self.attribute(name);

            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: invalid number {text:?}", path.display()),
            )
        })
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
            .ok()
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
            &self.bus.driver(driver).join("bind"),
            &self.address.to_string(),
        )
    }

    /// Unbinds the function from its driver, if it has one.
    ///
    /// # Errors
    ///
    /// Errors of the attribute.
    pub fn unbind(&self) -> io::Result<()> {
        match self.write("driver/unbind", &self.address.to_string()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.driver().is_none() => {
                Ok(())
            }
            result => result,
        }
    }

    /// Binds the function to `driver` by driver_override, after unbinding it from any other driver.
    ///
    /// # Errors
    ///
    /// Returns an error that names function and driver.
    pub fn ensure_bound(&self, driver: &str) -> io::Result<()> {
        if self.driver().as_deref() == Some(driver) {
            return Ok(());
        }
        self.unbind()
            .and_then(|()| self.set_driver_override(Some(driver)))
            .and_then(|()| self.bind(driver))
            .map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("failed to bind {self} to {driver}: {error}"),
                )
            })
    }

    /// Resets the function through its attribute, even if it is in use.
    ///
    /// # Errors
    ///
    /// Errors of the attribute.
    pub fn reset(&self) -> io::Result<()> {
        self.write("reset", "1")
    }

    /// Removes the function and all functions below it, like an orderly hot-unplug.
    ///
    /// # Errors
    ///
    /// Errors of the attribute.
    pub fn remove(&self) -> io::Result<()> {
        self.write("remove", "1")
    }

    /// Returns the port above the function, if there is one.
    pub fn port(&self) -> Option<Self> {
        let directory = fs::canonicalize(&self.directory).ok()?;
        let name = directory.parent()?.file_name()?;

        Some(self.bus.function(name.to_str()?.parse().ok()?))
    }

    /// Returns the number of the IOMMU group.
    pub fn iommu_group(&self) -> Option<String> {
        link_name(&self.attribute("iommu_group"))
    }

    /// Returns the addresses of all functions of the IOMMU group, with this function.
    pub fn iommu_group_members(&self) -> Vec<Address> {
        let mut members = addresses(&self.attribute("iommu_group/devices")).unwrap_or_default();

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

    /// Returns the physical function's virtual function `index`.
    pub fn virtual_function(&self, index: u32) -> Option<Self> {
        let name = link_name(&self.attribute(&format!("virtfn{index}")))?;

        Some(self.bus.function(name.parse().ok()?))
    }

    /// Returns a physical function's virtual functions, in order of index.
    pub fn virtual_functions(&self) -> impl Iterator<Item = Self> + '_ {
        (0..).map_while(|index| self.virtual_function(index))
    }

    /// Creates `count` virtual functions, or removes them if `count` is 0.
    ///
    /// # Errors
    ///
    /// Errors of the attribute.
    pub fn set_virtual_functions(&self, count: u32) -> io::Result<()> {
        self.write("sriov_numvfs", &count.to_string())
    }
}

/// Returns the addresses in a directory of functions, in any order.
fn addresses(directory: &Path) -> io::Result<Vec<Address>> {
    let mut addresses = Vec::new();

    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();

        addresses.extend(name.to_str().and_then(|name| name.parse::<Address>().ok()));
    }
    Ok(addresses)
}

/// Writes `value` to the attribute `path` in one write.
fn write_attribute(path: &Path, value: &str) -> io::Result<()> {
    File::options()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
}

/// Returns the last component of the target of the link `path`.
fn link_name(path: &Path) -> Option<String> {
    let target = fs::read_link(path).ok()?;

    Some(target.file_name()?.to_string_lossy().into_owned())
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
