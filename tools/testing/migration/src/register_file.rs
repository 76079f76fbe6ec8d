// SPDX-License-Identifier: GPL-2.0

//! The physical function's register file, as far as a test makes the device fail, or claim what is
//! not so.

use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use anyhow::{ensure, Context, Result};

use crate::hw;
use crate::identity::Patch;
use crate::sriov::Function;

/// Fault slots that each virtual function may use; the registers are those of `vifa_fault.h`.
const SLOTS_EACH: u32 = 8;

/// Where the VIFA capability says that the register file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    bar: u32,
    offset: u32,
}

impl Location {
    /// Looks for the VIFA capability in configuration space.
    pub fn find(config: &[u8]) -> Option<Self> {
        const EXTENDED_CAPABILITIES: usize = 0x100;
        const DVSEC: u32 = 0x23;

        let word = |offset: usize| {
            let bytes = config.get(offset..offset + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let mut offset = EXTENDED_CAPABILITIES;
        // No more capabilities fit than there are words.
        for _ in 0..config.len() / 4 {
            let header = word(offset)?;
            if header & 0xffff == DVSEC
                && word(offset + 4)? & 0xffff == hw::VIFA_DVSEC_VENDOR
                && word(offset + 8)? & 0xffff == hw::VIFA_DVSEC_ID
            {
                let location = word(offset + hw::VIFA_DVSEC_LOCATION as usize)?;
                return Some(Self {
                    bar: location & hw::VIFA_DVSEC_LOCATION_BAR,
                    offset: location & hw::VIFA_DVSEC_LOCATION_OFFSET,
                });
            }
            offset = (header >> 20) as usize;
            if offset < EXTENDED_CAPABILITIES {
                return None;
            }
        }
        None
    }
}

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
    frame: NonNull<u32>,
}

const FRAME_SIZE: usize = hw::VIFA_HW_FRAME_SIZE as usize;

impl RegisterFile {
    /// Maps the layer frame of `physical`, whose driver goes on using the others; `None` where the
    /// device has no fault slots.
    pub fn map(physical: &Function) -> Result<Option<Self>> {
        let config = fs::read(physical.attribute("config"))?;
        let location = Location::find(&config)
            .with_context(|| format!("{physical} has no VIFA capability"))?;
        let path = physical.attribute(&format!("resource{}", location.bar));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        // SAFETY: The mapping is new and goes where the kernel likes; nothing else is touched.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                FRAME_SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                location.offset.into(),
            )
        };
        ensure!(
            address != libc::MAP_FAILED,
            "mapping {}: {}",
            path.display(),
            std::io::Error::last_os_error()
        );
        let frame = NonNull::new(address.cast()).context("mapped at address 0")?;
        let registers = Self { frame };
        Ok((registers.read(hw::VIFA_FAULT_SLOTS) > 0).then_some(registers))
    }

    fn register(&self, offset: u32) -> *mut u32 {
        let index = offset as usize / size_of::<u32>();
        assert!(index < FRAME_SIZE / size_of::<u32>());
        // SAFETY: The index is inside the frame, all of which is mapped.
        unsafe { self.frame.as_ptr().add(index) }
    }

    fn read(&self, offset: u32) -> u32 {
        // SAFETY: The pointer is to a register, which is mapped as long as `self` lives.
        unsafe { self.register(offset).read_volatile() }
    }

    fn write(&self, offset: u32, value: u32) {
        // SAFETY: As in `read`; no memory of this program changes.
        unsafe { self.register(offset).write_volatile(value) }
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

impl Drop for RegisterFile {
    fn drop(&mut self) {
        // SAFETY: The frame was mapped with this size, and nobody has a pointer to it any more.
        unsafe { libc::munmap(self.frame.as_ptr().cast(), FRAME_SIZE) };
    }
}

/// `VIFA_FAULT_SLOT()`, and a register in the slot.
fn slot_register(slot: u32, register: u32) -> u32 {
    0x840 + 0x40 * slot + register
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(capabilities: &[(usize, [u32; 5])]) -> Vec<u8> {
        let mut config = vec![0; 4096];
        for (offset, words) in capabilities {
            for (index, word) in words.iter().enumerate() {
                let start = offset + 4 * index;
                config[start..start + 4].copy_from_slice(&word.to_le_bytes());
            }
        }
        config
    }

    const ADVANCED_ERRORS: [u32; 5] = [0x1502_0001, 0, 0, 0, 0];
    const VIFA: [u32; 5] = [0x0001_0023, 0x01c1_1234, 0x0001_5649, 7, 0x3002];

    #[test]
    fn finds_the_capability_behind_others() {
        let found = Location::find(&config(&[(0x100, ADVANCED_ERRORS), (0x150, VIFA)]));
        assert_eq!(
            found,
            Some(Location {
                bar: 2,
                offset: 0x3000
            })
        );
    }

    #[test]
    fn finds_none_where_there_is_none() {
        let foreign = [VIFA[0], 0x01c1_4321, VIFA[2], VIFA[3], VIFA[4]];
        assert_eq!(Location::find(&config(&[(0x100, foreign)])), None);
        assert_eq!(Location::find(&[0; 256]), None);
        // A list that leads back to its own start.
        let circle = [0x1000_0001, 0, 0, 0, 0];
        assert_eq!(Location::find(&config(&[(0x100, circle)])), None);
        assert_eq!(Location::find(&config(&[(0x100, ADVANCED_ERRORS)])), None);
    }
}
