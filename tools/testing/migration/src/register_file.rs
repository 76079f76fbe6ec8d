// SPDX-License-Identifier: GPL-2.0

//! The physical function's register file, as far as a test makes the device fail, or claim what is
//! not so.

use anyhow::{ensure, Context, Result};
use vifa_vfio::{Capability, Mapping};

use crate::hw;
use crate::identity::Patch;
use crate::sriov::Function;

/// Fault slots that each virtual function may use; the registers are those of `vifa_fault.h`.
const SLOTS_EACH: u32 = 8;

/// A fault, as `vifa_fault.h` has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// `VIFA_FAULT_*`: what happens.
    pub kind: u32,
    /// The virtual function's index, or `VIFA_FAULT_ANY_VF`.
    pub vf: u32,
    /// `VIFA_MAILBOX_ID_CONTROL` or `_DATA`; 0: both.
    pub frame: u32,
    /// Of which command; 0: of each.
    pub opcode: u32,
    /// What this means depends on the kind.
    pub value: u64,
    /// Bytes of a patch.
    pub offset: u32,
    /// How many they are.
    pub width: u32,
    /// How often, or `VIFA_FAULT_ALWAYS`.
    pub count: u32,
}

/// The layer frame, in which the fault slots are.
pub struct RegisterFile {
    frame: Mapping,
}

impl RegisterFile {
    /// Maps the layer frame of `physical`, whose driver goes on using the others; `None` where the
    /// device has no fault slots.
    pub fn map(physical: &Function) -> Result<Option<Self>> {
        let capability = Capability::of(physical.directory())?
            .with_context(|| format!("{physical} has no VIFA capability"))?;
        let frame = capability
            .map(physical.directory(), hw::VIFA_HW_FRAME_SIZE as usize)
            .with_context(|| format!("mapping {physical}'s register file"))?;
        let registers = Self { frame };
        Ok((registers.read(hw::VIFA_FAULT_SLOTS) > 0).then_some(registers))
    }

    fn read(&self, offset: u32) -> u32 {
        self.frame.read(offset as usize)
    }

    fn write(&self, offset: u32, value: u32) {
        self.frame.write(offset as usize, value);
    }

    /// From now on VF `vf` answers IDENTIFY with these patches, and with no others.
    pub fn patch_identity(&self, vf: u32, patches: &[Patch]) -> Result<()> {
        let slots = vf * SLOTS_EACH..(vf + 1) * SLOTS_EACH;
        ensure!(
            slots.end <= self.read(hw::VIFA_FAULT_SLOTS),
            "there are no fault slots for VF {vf}"
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

    /// Has `fault` happen from now on, which takes the `slot`.
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
            "the device does not take {fault:?}"
        );
        Ok(())
    }

    /// Has the fault in `slot` happen no more.
    pub fn disarm(&self, slot: u32) {
        self.write(slot_register(slot, hw::VIFA_FAULT_COUNT), 0);
    }

    /// How often the fault in `slot` has happened since it was armed.
    pub fn fired(&self, slot: u32) -> u32 {
        self.read(slot_register(slot, hw::VIFA_FAULT_FIRED))
    }
}

/// `VIFA_FAULT_SLOT()`, and a register in the slot.
fn slot_register(slot: u32, register: u32) -> u32 {
    0x840 + 0x40 * slot + register
}
