// SPDX-License-Identifier: GPL-2.0

//! The virtual functions of all devices of this machine, and the identities that they can claim.
//!
//! Fields that the PCI core uses, or that the device works by, have fixed values: for each of these
//! fields there must be a device that differs in it. A device may claim any value of the other
//! fields: its answer is patched, and its driver probes it again.

use std::path::Path;

use anyhow::{ensure, Context, Result};
use vifa_device::{opcode::IDENTIFY, Fault, RegisterFile};
use vifa_vfio::pci::Function;

use crate::{
    hw,
    identity::{fields, Field, Identity, Origin, Patch, Rule},
    region::Region,
    sriov::{self, Host},
};

/// Number of virtual functions of each device: a source and a compatible destination.
const FUNCTIONS: u32 = 2;

/// Number of fault slots per virtual function.
const SLOTS_EACH: u32 = 8;

/// A virtual function.
pub struct Device {
    pub function: Function,
    /// Index among the functions of its physical function.
    index: u32,
    /// The identity without patches.
    truth: Identity,
    /// The register file that patches the function's answers, if there is one.
    registers: Option<usize>,
}

impl Device {
    /// Returns whether the function has the identity `wanted`, or can claim it.
    fn can_be(&self, wanted: &Identity) -> bool {
        let differences = self.truth.differences(wanted);
        differences.is_empty()
            || self.registers.is_some()
                && differences
                    .iter()
                    .all(|field| self.can_claim(wanted, field))
    }

    /// Returns whether the function still works if it claims the value of `wanted`. It may hide
    /// features that it has, but not claim others.
    fn can_claim(&self, wanted: &Identity, field: &Field) -> bool {
        let invented = wanted.get(field) & !self.truth.get(field);
        field.origin == Origin::Claim && (field.rule != Rule::Subset || invented == 0)
    }
}

/// All virtual functions.
pub struct Devices {
    devices: Vec<Device>,
    /// Dropped before the physical functions' drivers may be unbound.
    registers: Vec<RegisterFile>,
    /// The virtual functions are removed with these.
    _hosts: Vec<Host>,
}

impl Devices {
    /// Creates virtual functions of all devices. Loads `module` unless the driver is loaded.
    pub fn prepare(module: Option<&Path>) -> Result<Self> {
        let mut hosts = Host::all(module)?;
        let mut registers = Vec::new();
        let mut devices = Vec::new();
        for host in &mut hosts {
            let file = RegisterFile::map(&host.physical)?;
            let file = (file.slots() > 0).then_some(file);
            if let Some(file) = &file {
                // An earlier run may have been killed: remove its patches.
                (0..FUNCTIONS).try_for_each(|index| patch_identity(file, index, &[]))?;
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

    /// Returns the identity of the first virtual function.
    pub fn first(&self) -> &Identity {
        &self.devices[0].truth
    }

    /// Returns an available identity that differs from `identity` only in `field`: by a different
    /// value if the rule is equality, otherwise by a larger value.
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
            // One more bit. The unpatched identity defines which bits have a meaning.
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
            .with_context(|| format!("no device can differ in {field} alone"))
    }

    /// Returns a function except `taken` that has the identity `wanted`, or that claims it from now
    /// on.
    pub fn obtain(&self, wanted: &Identity, taken: Option<&Function>) -> Result<&Function> {
        let device = self
            .devices
            .iter()
            .find(|device| taken != Some(&device.function) && device.can_be(wanted))
            .context("no other device can have this identity")?;
        let function = &device.function;
        if Region::read(function)?.identity != *wanted {
            let registers = device
                .registers
                .context("the device does not accept patches")?;
            let patches = wanted.patches(&device.truth);
            patch_identity(&self.registers[registers], device.index, &patches)?;
            sriov::rebind(function)?;
            let identity = Region::read(function)?.identity;
            ensure!(
                identity == *wanted,
                "{function} does not have the claimed identity; it differs in {:?}",
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
                if let Err(error) = patch_identity(&self.registers[registers], device.index, &[]) {
                    eprintln!("vifa-migrate: {error:#}");
                }
            }
        }
    }
}

/// Patches the reply of VF `vf` to IDENTIFY with `patches`, replacing earlier patches.
fn patch_identity(registers: &RegisterFile, vf: u32, patches: &[Patch]) -> Result<()> {
    let slots = vf * SLOTS_EACH..(vf + 1) * SLOTS_EACH;
    ensure!(slots.end <= registers.slots(), "no fault slots for VF {vf}");
    ensure!(
        patches.len() <= slots.len(),
        "{} patches do not fit in {SLOTS_EACH} fault slots",
        patches.len()
    );
    slots.clone().for_each(|slot| registers.disarm_slot(slot));
    for (slot, patch) in slots.zip(patches) {
        let fault = Fault::Patch {
            offset: patch.offset as u32,
            width: size_of_val(&patch.value) as u32,
            value: patch.value,
        };
        registers
            .arm_slot(slot, &fault.slot(vf, IDENTIFY, hw::VIFA_FAULT_ALWAYS))
            .with_context(|| format!("{fault:?}"))?;
    }
    Ok(())
}

/// Returns the properties of a reference device that differs from one without properties only in
/// `field`; `None` if any device can claim a different value.
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

/// Returns the devices that `fields` require in addition to one without properties, in the syntax
/// of QEMU's `-device`.
pub fn arguments(fields: &[Field]) -> Vec<String> {
    fields
        .iter()
        .filter_map(properties)
        .map(|properties| format!("vifa-pf,vfs={FUNCTIONS},fault-injection=on,{properties}"))
        .collect()
}

/// Returns the names of `fields`.
fn names(fields: &[Field]) -> Vec<&str> {
    fields.iter().map(|field| field.name.as_str()).collect()
}

/// Returns the fields with these names, in the order of the structure, or all fields if `names` is
/// empty.
pub fn select(names: &[String]) -> Result<Vec<Field>> {
    let mut selected = fields();
    for name in names {
        ensure!(
            selected.iter().any(|field| field.name == *name),
            "no such field: {name}; the fields are {}",
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
    fn each_field_that_requires_a_device_has_one() {
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
