// SPDX-License-Identifier: GPL-2.0

//! The register file of a physical function.

use std::{fs, time::Duration};

use anyhow::{ensure, Context, Result};
use vifa_vfio::{pci::Function, Capability, Mapping};

use crate::{hw, Fault, Marks, Opcode, Slot};

/// Status register of configuration space.
const STATUS: usize = 0x06;
/// `PCI_STATUS_IMM_READY`
const IMMEDIATE_READINESS: u16 = 1;

/// Reads the VIFA capability of `pf`.
pub fn capability(pf: &Function) -> Result<Capability> {
    Capability::of(pf.directory())
        .context("configuration space of the PF")?
        .context("the PF has no VIFA capability")
}

/// Returns whether `pf` and its virtual functions are ready immediately after a reset.
pub fn is_ready_at_once(pf: &Function) -> Result<bool> {
    let config = fs::read(pf.attribute("config")).context("configuration space of the PF")?;
    let status = config
        .get(STATUS..)
        .and_then(|bytes| bytes.first_chunk())
        .context("configuration space ends before the status")?;
    Ok(u16::from_le_bytes(*status) & IMMEDIATE_READINESS != 0)
}

/// The register file of a physical function.
pub struct RegisterFile {
    registers: Mapping,
    /// Maximum duration of a command.
    pub timeout: Duration,
}

impl RegisterFile {
    /// Maps the register file of `pf`, which its driver continues to use.
    pub fn map(pf: &Function) -> Result<Self> {
        let capability = capability(pf)?;
        let length = (capability.frames * hw::VIFA_HW_FRAME_SIZE) as usize;
        let registers = capability
            .map(pf.directory(), length)
            .with_context(|| format!("mmap of {pf}'s register file"))?;
        Ok(Self {
            registers,
            timeout: Duration::from_millis(capability.timeout.into()),
        })
    }

    fn read(&self, register: u32) -> u32 {
        self.registers.read(register as usize)
    }

    fn write(&self, register: u32, value: u32) {
        self.registers.write(register as usize, value);
    }

    /// Disarms all faults.
    pub fn disarm(&self) {
        (0..self.slots()).for_each(|slot| self.disarm_slot(slot));
    }

    /// Returns the number of fault slots, 0 if the device's property fault-injection is off.
    pub fn slots(&self) -> u32 {
        self.read(hw::VIFA_FAULT_SLOTS)
    }

    /// Injects `fault` into the next `times` commands `opcode` of the VF `vf`.
    pub fn arm(&self, vf: u32, opcode: Opcode, fault: Fault, times: u32) -> Result<Armed<'_>> {
        self.arm_free_slot(&fault.slot(vf, opcode, times))
            .with_context(|| format!("{fault:?}"))
    }

    fn arm_free_slot(&self, fault: &Slot) -> Result<Armed<'_>> {
        ensure!(
            self.slots() > 0,
            "the device's property fault-injection is off"
        );
        let slot = (0..self.slots())
            .find(|slot| self.slot(*slot, hw::VIFA_FAULT_COUNT) == 0)
            .context("all fault slots are in use")?;
        self.arm_slot(slot, fault)?;
        Ok(Armed { file: self, slot })
    }

    /// Arms `fault` in the slot `slot`, until it is disarmed.
    pub fn arm_slot(&self, slot: u32, fault: &Slot) -> Result<()> {
        for (register, value) in fault.registers() {
            self.write(hw::fault_slot(slot) + register, value);
        }
        ensure!(
            self.slot(slot, hw::VIFA_FAULT_COUNT) != 0,
            "the device rejects the fault"
        );
        Ok(())
    }

    /// Disarms the fault in the slot `slot`.
    pub fn disarm_slot(&self, slot: u32) {
        self.write(hw::fault_slot(slot) + hw::VIFA_FAULT_COUNT, 0);
    }

    /// Sabotages the log of the VF `vf`: one of `pages` written pages is not logged.
    pub fn sabotage_log(&self, vf: u32, pages: u64) -> Result<Armed<'_>> {
        self.arm_free_slot(&Slot {
            kind: hw::VIFA_FAULT_LOG_DROP,
            vf,
            value: pages,
            count: hw::VIFA_FAULT_ALWAYS,
            ..Slot::default()
        })
    }

    /// Makes the next reset of the VF `vf` leave it in `run_state`, a `VIFA_RUN_STATE_*`.
    pub fn spoil_reset(&self, vf: u32, run_state: u32) -> Result<Armed<'_>> {
        self.arm_free_slot(&Slot {
            kind: hw::VIFA_FAULT_RESET,
            vf,
            value: run_state.into(),
            count: 1,
            ..Slot::default()
        })
    }

    /// Sets the `width` bytes at `field` of the PF's capability in configuration space, a
    /// `VIFA_DVSEC_*`, until the result is dropped.
    pub fn change_capability(&self, field: u32, width: usize, value: u32) -> ChangedCapability<'_> {
        let register = hw::VIFA_FAULT_DVSEC + field / 4 * 4;
        let shift = 8 * (field % 4);
        let mask = (u32::MAX >> (32 - 8 * width)) << shift;
        let before = self.read(register);
        let after = (before & !mask) | ((value << shift) & mask);
        self.write(register, after);
        ChangedCapability {
            file: self,
            register,
            before,
        }
    }

    /// Removes the device until the result is dropped or the PF is reset.
    pub fn pull_out(&self) -> Gone<'_> {
        self.write(hw::VIFA_FAULT_GONE, 1);
        Gone(self)
    }

    /// Makes a function report an error.
    pub fn report_error(&self, reporter: Reporter, error: UncorrectableError) {
        let vf = match reporter {
            Reporter::Physical => hw::VIFA_FAULT_ANY_VF,
            Reporter::Virtual(index) => index,
        };
        let UncorrectableError(status) = error;
        self.write(hw::VIFA_FAULT_ERROR_VF, vf);
        self.write(hw::VIFA_FAULT_ERROR, status);
    }

    /// Marks pages in the log of the VF `vf`, without writes of the VF.
    pub fn mark(&self, vf: u32, marks: Marks) -> Result<()> {
        let pairs = [
            (hw::VIFA_FAULT_MARK_START_LOW, marks.range.iova),
            (hw::VIFA_FAULT_MARK_LENGTH_LOW, marks.range.length),
            (hw::VIFA_FAULT_MARK_STRIDE_LOW, marks.stride),
            (hw::VIFA_FAULT_MARK_RUN_LOW, marks.run),
        ];
        self.write(hw::VIFA_FAULT_MARK_VF, vf);
        self.write(hw::VIFA_FAULT_MARK_SEED, marks.seed);
        for (register, value) in pairs {
            self.write(register, value as u32);
            self.write(register + 4, (value >> 32) as u32);
        }
        self.write(hw::VIFA_FAULT_MARK, 1);
        ensure!(
            self.read(hw::VIFA_FAULT_MARK) == 1,
            "the device rejects {marks:?}"
        );
        Ok(())
    }

    /// Limits the device to scatter lists of `scatter_max` entries and logs of `log_ranges` ranges.
    /// The driver reads these limits when it is bound.
    pub fn set_limits(&self, scatter_max: u32, log_ranges: u32) -> Result<()> {
        for (register, limit) in [
            (hw::VIFA_FAULT_SCATTER_MAX, scatter_max),
            (hw::VIFA_FAULT_LOG_RANGES, log_ranges),
        ] {
            self.write(register, limit);
            ensure!(
                self.read(register) == limit,
                "the device rejects the limit {limit}"
            );
        }
        Ok(())
    }

    /// Counts the commands `opcode` of the VF `vf`, with a fault that changes nothing.
    pub fn count(&self, vf: u32, opcode: Opcode) -> Result<Armed<'_>> {
        self.arm(
            vf,
            opcode,
            Fault::Delay(Duration::ZERO),
            hw::VIFA_FAULT_ALWAYS,
        )
    }

    fn slot(&self, slot: u32, register: u32) -> u32 {
        self.read(hw::fault_slot(slot) + register)
    }

    /// Returns the run state of the VF `vf` from its control frame.
    pub fn run_state(&self, vf: u32) -> u32 {
        self.control_register(vf, hw::VIFA_CONTROL_RUN_STATE)
    }

    /// Returns how often the guest has configured the VF `vf` since its last reset.
    pub fn configurations(&self, vf: u32) -> u32 {
        self.control_register(vf, hw::VIFA_CONTROL_CONFIGURATIONS)
    }

    /// Returns whether the data frame of the VF `vf` is executing a command.
    pub fn data_frame_is_busy(&self, vf: u32) -> bool {
        let frame = hw::frame_data(vf) * hw::VIFA_HW_FRAME_SIZE;
        let status = self.read(frame + hw::VIFA_MAILBOX_STATUS);
        status & hw::VIFA_MAILBOX_STATUS_CODE == hw::VIFA_STATUS_BUSY
    }

    fn control_register(&self, vf: u32, register: u32) -> u32 {
        self.read(hw::frame_control(vf) * hw::VIFA_HW_FRAME_SIZE + register)
    }
}

/// A removed device, which returns when this is dropped.
pub struct Gone<'a>(&'a RegisterFile);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.write(hw::VIFA_FAULT_GONE, 0);
    }
}

/// The function that reports an error.
#[derive(Clone, Copy)]
pub enum Reporter {
    /// The PF.
    Physical,
    /// The VF with this index.
    Virtual(u32),
}

/// An uncorrectable error, by its bit in the Uncorrectable Error Status Register of PCI Express.
#[derive(Clone, Copy)]
pub struct UncorrectableError(u32);

/// A completion timeout, which is not fatal.
pub const NON_FATAL: UncorrectableError = UncorrectableError(1 << 14);
/// A data link protocol error, which is fatal.
pub const FATAL: UncorrectableError = UncorrectableError(1 << 4);

/// A fault, armed until this is dropped.
pub struct Armed<'a> {
    file: &'a RegisterFile,
    slot: u32,
}

impl Armed<'_> {
    /// Returns how often the fault occurred.
    pub fn fired(&self) -> u32 {
        self.file.slot(self.slot, hw::VIFA_FAULT_FIRED)
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.file.disarm_slot(self.slot);
    }
}

/// A changed capability, restored when this is dropped.
pub struct ChangedCapability<'a> {
    file: &'a RegisterFile,
    register: u32,
    before: u32,
}

impl Drop for ChangedCapability<'_> {
    fn drop(&mut self) {
        self.file.write(self.register, self.before);
    }
}
