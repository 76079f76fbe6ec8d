// SPDX-License-Identifier: GPL-2.0

//! The virtual functions of all devices of this machine, and what they are made to be.
//!
//! What the PCI core sees of a function, and what it works by, is as the device has it: for each of
//! these fields there has to be a device that differs in it. The rest a device may claim: its answer
//! is patched, and its driver probes it anew.

use std::path::Path;

use anyhow::{ensure, Context, Result};

use crate::identity::{fields, Field, Identity, Origin, Rule};
use crate::region::Region;
use crate::register_file::RegisterFile;
use crate::sriov::{Function, Host};

/// Virtual functions of each device: for a source and for a destination that fits.
const FUNCTIONS: u32 = 2;

/// A virtual function.
pub struct Device {
    pub function: Function,
    /// Which of its physical function's it is.
    index: u32,
    /// What it is when it claims nothing.
    truth: Identity,
    /// Where to patch its answers, if that is possible.
    registers: Option<usize>,
}

impl Device {
    /// Whether it is `wanted`, or can claim to be.
    fn can_be(&self, wanted: &Identity) -> bool {
        let differences = self.truth.differences(wanted);
        differences.is_empty()
            || self.registers.is_some()
                && differences
                    .iter()
                    .all(|field| self.can_claim(wanted, field))
    }

    /// Whether it works as before when it claims what `wanted` has. It may deny features that it
    /// has, but not invent others.
    fn can_claim(&self, wanted: &Identity, field: &Field) -> bool {
        let invented = wanted.get(field) & !self.truth.get(field);
        field.origin == Origin::Claim && (field.rule != Rule::Subset || invented == 0)
    }
}

/// All virtual functions.
pub struct Devices {
    devices: Vec<Device>,
    /// Gone before the physical functions' drivers may be.
    registers: Vec<RegisterFile>,
    /// The virtual functions go with these.
    _hosts: Vec<Host>,
}

impl Devices {
    /// Makes virtual functions of every device that there is; loads `module` unless the driver is
    /// there.
    pub fn prepare(module: Option<&Path>) -> Result<Self> {
        let mut hosts = Host::all(module)?;
        let mut registers = Vec::new();
        let mut devices = Vec::new();
        for host in &mut hosts {
            let file = RegisterFile::map(&host.physical)?;
            if let Some(file) = &file {
                // A run before this one may have been killed.
                (0..FUNCTIONS).try_for_each(|index| file.patch_identity(index, &[]))?;
            }
            host.make(FUNCTIONS as usize)?;
            for (index, function) in (0..).zip(&host.virtuals) {
                devices.push(Device {
                    function: function.clone(),
                    index,
                    truth: Region::read(function)?.identity,
                    registers: file.is_some().then_some(registers.len()),
                });
            }
            registers.extend(file);
        }
        Ok(Self {
            devices,
            registers,
            _hosts: hosts,
        })
    }

    /// What the first virtual function is.
    pub fn first(&self) -> &Identity {
        &self.devices[0].truth
    }

    /// What a function can be that differs from `identity` in `field` alone: by another value where
    /// the rule is that they are equal, else by more.
    pub fn counterpart(&self, identity: &Identity, field: &Field) -> Result<Identity> {
        let value = identity.get(field);
        let others: Vec<u64> = match (field.origin, field.rule) {
            (Origin::Device, _) => self
                .devices
                .iter()
                .map(|device| device.truth.get(field))
                .collect(),
            (Origin::Claim, Rule::Equal) => vec![value + 1],
            (Origin::Claim, Rule::AtLeast) => vec![(2 * value).max(1)],
            // One bit more; which bits have a meaning, the truth tells.
            (Origin::Claim, Rule::Subset) => {
                let missing = self.first().get(field) & !value;
                vec![value | missing & missing.wrapping_neg()]
            }
        };
        others
            .into_iter()
            .filter(|other| match field.rule {
                Rule::Equal => *other != value,
                Rule::AtLeast | Rule::Subset => *other > value,
            })
            .filter_map(|other| identity.with(field, other).ok())
            .find(|wanted| self.devices.iter().any(|device| device.can_be(wanted)))
            .with_context(|| format!("no device here can differ in {field} alone"))
    }

    /// A function other than `taken` that is `wanted`, or claims to be from now on.
    pub fn obtain(&self, wanted: &Identity, taken: Option<&Function>) -> Result<&Function> {
        let device = self
            .devices
            .iter()
            .find(|device| taken != Some(&device.function) && device.can_be(wanted))
            .context("no other device here can be what is wanted")?;
        let function = &device.function;
        if Region::read(function)?.identity != *wanted {
            let registers = device.registers.context("the device takes no patches")?;
            let patches = wanted.patches(&device.truth);
            self.registers[registers].patch_identity(device.index, &patches)?;
            function.rebind()?;
            let identity = Region::read(function)?.identity;
            ensure!(
                identity == *wanted,
                "{function} is not what it was made to claim, but differs in {:?}",
                names(&identity.differences(wanted))
            );
        }
        Ok(function)
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        for device in &self.devices {
            if let Some(registers) = device.registers {
                if let Err(error) = self.registers[registers].patch_identity(device.index, &[]) {
                    eprintln!("vifa-migrate: {error:#}");
                }
            }
        }
    }
}

/// The properties of a reference device that differs from one without properties in `field` alone;
/// `None` for a field that any device can claim to differ in.
fn properties(field: &Field) -> Option<&'static str> {
    Some(match field.name.as_str() {
        "vendor" => "vendor-id=0x4321",
        "device" => "vf-device-id=0x6565",
        "subsystem_vendor" => "vf-subsystem-vendor-id=0x4321",
        "subsystem" => "vf-subsystem-id=0x2200",
        "revision_id" => "vf-revision-id=2",
        "bar_size[0]" => "vf-bar0-size=8K",
        "bar_size[1]" => "vf-bar-bits=32,vf-bar1-size=4K",
        "bar_size[2]" => "vf-bar2-size=4K",
        "bar_size[3]" => "vf-bar-bits=32,vf-bar3-size=4K",
        "bar_size[4]" => "vf-bar4-size=8K",
        "bar_size[5]" => "vf-bar-bits=32,vf-bar5-size=4K",
        "granule" => "granule=32K",
        "local_memory" => "local-memory=32M",
        _ => return None,
    })
}

/// The devices that `fields` take beside one without properties of its own, as QEMU's `-device` has
/// them.
pub fn arguments(fields: &[Field]) -> Vec<String> {
    fields
        .iter()
        .filter_map(properties)
        .map(|properties| format!("vifa-pf,vfs={FUNCTIONS},fault-injection=on,{properties}"))
        .collect()
}

/// The names of `fields`.
fn names(fields: &[Field]) -> Vec<&str> {
    fields.iter().map(|field| field.name.as_str()).collect()
}

/// The fields with these names, in the order of the structure; all of them where no name is given.
pub fn select(names: &[String]) -> Result<Vec<Field>> {
    let mut selected = fields();
    for name in names {
        ensure!(
            selected.iter().any(|field| field.name == *name),
            "there is no field {name}; the fields are {}",
            self::names(&selected).join(", ")
        );
    }
    selected.retain(|field| names.is_empty() || names.contains(&field.name));
    Ok(selected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_device_for_each_field_that_takes_one() {
        for field in fields() {
            let takes_device = field.origin == Origin::Device;
            assert_eq!(properties(&field).is_some(), takes_device, "{field}");
        }
    }

    #[test]
    fn selects_fields_by_name() {
        assert_eq!(select(&[]).unwrap(), fields());
        let some = select(&["queues".to_owned(), "bar_size[1]".to_owned()]).unwrap();
        assert_eq!(names(&some), ["bar_size[1]", "queues"]);
        assert!(select(&["bar_size".to_owned()]).is_err());
    }
}
