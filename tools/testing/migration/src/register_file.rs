// SPDX-License-Identifier: GPL-2.0

//! The physical function's register file: the part that injects faults and false identities.

use anyhow::{ensure, Context, Result};
use vifa_vfio::pci::Function;
use vifa_vfio::{Capability, Mapping};

use crate::hw;
use crate::identity::Patch;

/// Number of fault slots per virtual function. `vifa_fault.h` defines the registers.
const SLOTS_EACH: u32 = 8;

/// A fault, as defined by `vifa_fault.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// `VIFA_FAULT_*`: the kind of the fault.
    pub kind: u32,
    /// The virtual function's index, or `VIFA_FAULT_ANY_VF`.
    pub vf: u32,
    /// `VIFA_MAILBOX_ID_CONTROL` or `_DATA`; 0: both.
    pub frame: u32,
    /// The command that the fault affects; 0: any command.
    pub opcode: u32,
    /// A value whose meaning depends on the kind.
    pub value: u64,
    /// Offset of a patch, in bytes.
    pub offset: u32,
    /// Length of a patch, in bytes.
    pub width: u32,
    /// Number of times that the fault occurs, or `VIFA_FAULT_ALWAYS`.
    pub count: u32,
}

/// The layer frame, which contains the fault slots.
pub struct RegisterFile {
    frame: Mapping,
}

impl RegisterFile {
    /// Maps the layer frame of `physical`, whose driver continues to use the other frames. Returns
    /// `None` if the device has no fault slots.
    pub fn map(physical: &Function) -> Result<Option<Self>> {
        let capability = Capability::of(physical.directory())?
            .with_context(|| format!("{physical} has no VIFA capability"))?;
        let frame = capability
            .map(physical.directory(), hw::VIFA_HW_FRAME_SIZE as usize)
            .with_context(|| format!("failed to map {physical}'s register file"))?;
        let registers = Self { frame };
        Ok((registers.read(hw::VIFA_FAULT_SLOTS) > 0).then_some(registers))
    }

    fn read(&self, offset: u32) -> u32 {
        self.frame.read(offset as usize)
    }

    fn write(&self, offset: u32, value: u32) {
        self.frame.write(offset as usize, value);
    }

    /// Patches the reply of VF `vf` to IDENTIFY with `patches`, replacing earlier patches.
    pub fn patch_identity(&self, vf: u32, patches: &[Patch]) -> Result<()> {
        let slots = vf * SLOTS_EACH..(vf + 1) * SLOTS_EACH;
        ensure!(
            slots.end <= self.read(hw::VIFA_FAULT_SLOTS),
            "no fault slots for VF {vf}"
        );
        ensure!(
            patches.len() <= slots.len(),
            "{} patches do not fit in {SLOTS_EACH} fault slots",
            patches.len()
        );
        slots.clone().for_each(|slot| self.disarm(slot));
        for (slot, patch) in slots.zip(patches) {
            self.arm(
                slot,
                &Fault {
                    kind: hw::VIFA_FAULT_PATCH,
                    vf,
                    frame: hw::VIFA_MAILBOX_ID_CONTROL,
                    opcode: hw::VIFA_CONTROL_IDENTIFY,
                    value: patch.value,
                    offset: patch.offset as u32,
                    width: size_of_val(&patch.value) as u32,
                    count: hw::VIFA_FAULT_ALWAYS,
                },
            )?;
        }
        Ok(())
    }

    /// Arms `fault` in `slot`.
    pub fn arm(&self, slot: u32, fault: &Fault) -> Result<()> {
        for (register, value) in [
            (hw::VIFA_FAULT_KIND, fault.kind),
            (hw::VIFA_FAULT_VF, fault.vf),
            (hw::VIFA_FAULT_FRAME, fault.frame),
            (hw::VIFA_FAULT_OPCODE, fault.opcode),
            (hw::VIFA_FAULT_VALUE_LOW, fault.value as u32),
            (hw::VIFA_FAULT_VALUE_HIGH, (fault.value >> 32) as u32),
            (hw::VIFA_FAULT_OFFSET, fault.offset),
            (hw::VIFA_FAULT_WIDTH, fault.width),
            (hw::VIFA_FAULT_COUNT, fault.count),
        ] {
            self.write(slot_register(slot, register), value);
        }
        ensure!(
            self.read(slot_register(slot, hw::VIFA_FAULT_COUNT)) == fault.count,
            "the device rejected {fault:?}"
        );
        Ok(())
    }

    /// Disarms the fault in `slot`.
    pub fn disarm(&self, slot: u32) {
        self.write(slot_register(slot, hw::VIFA_FAULT_COUNT), 0);
    }

    /// Returns how often the fault in `slot` has occurred since it was armed.
    pub fn fired(&self, slot: u32) -> u32 {
        self.read(slot_register(slot, hw::VIFA_FAULT_FIRED))
    }
}

/// Returns `VIFA_FAULT_SLOT()` plus the offset of a register in the slot.
fn slot_register(slot: u32, register: u32) -> u32 {
    0x840 + 0x40 * slot + register
}
