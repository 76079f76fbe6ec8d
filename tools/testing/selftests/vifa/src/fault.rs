// SPDX-License-Identifier: GPL-2.0

//! Direct access to the physical function's register file, bypassing the driver: fault injection,
//! and the timeout stated in the capability.

use std::{fs, time::Duration};

use anyhow::{bail, ensure, Context, Result};

use vifa_vfio::{pci::Function, Capability, Mapping};

use crate::{hw, vfio::IovaRange};

/// A mailbox command of a control or data frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opcode {
    /// The command's name in `vifa_hw.h`, without its prefix.
    pub name: &'static str,
    frame: u32,
    number: u32,
}

impl Opcode {
    const fn control(name: &'static str, number: u32) -> Self {
        Self {
            name,
            frame: hw::VIFA_MAILBOX_ID_CONTROL,
            number,
        }
    }

    const fn data(name: &'static str, number: u32) -> Self {
        Self {
            name,
            frame: hw::VIFA_MAILBOX_ID_DATA,
            number,
        }
    }
}

/// Any command of either frame.
pub const ANY: Opcode = Opcode {
    name: "any command",
    frame: 0,
    number: 0,
};
pub const IDENTIFY: Opcode = Opcode::control("IDENTIFY", hw::VIFA_CONTROL_IDENTIFY);
pub const SET_RUN_STATE: Opcode = Opcode::control("SET_RUN_STATE", hw::VIFA_CONTROL_SET_RUN_STATE);
pub const SAVE: Opcode = Opcode::control("SAVE", hw::VIFA_CONTROL_SAVE);
pub const LOAD: Opcode = Opcode::control("LOAD", hw::VIFA_CONTROL_LOAD);
pub const LOG_START: Opcode = Opcode::data("LOG_START", hw::VIFA_DATA_LOG_START);
pub const LOG_STOP: Opcode = Opcode::data("LOG_STOP", hw::VIFA_DATA_LOG_STOP);
pub const LOG_READ_AND_CLEAR: Opcode =
    Opcode::data("LOG_READ_AND_CLEAR", hw::VIFA_DATA_LOG_READ_AND_CLEAR);
pub const LOG_SUMMARY: Opcode = Opcode::data("LOG_SUMMARY", hw::VIFA_DATA_LOG_SUMMARY);
pub const LOCAL_BITMAP: Opcode = Opcode::data("LOCAL_BITMAP", hw::VIFA_DATA_LOCAL_BITMAP);
pub const LOCAL_LIST: Opcode = Opcode::data("LOCAL_LIST", hw::VIFA_DATA_LOCAL_LIST);
pub const LOCAL_READ: Opcode = Opcode::data("LOCAL_READ", hw::VIFA_DATA_LOCAL_READ);
pub const LOCAL_WRITE: Opcode = Opcode::data("LOCAL_WRITE", hw::VIFA_DATA_LOCAL_WRITE);
pub const LOCAL_CLEAR: Opcode = Opcode::data("LOCAL_CLEAR", hw::VIFA_DATA_LOCAL_CLEAR);

/// An injected fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The command completes with this `VIFA_STATUS_*` without effect.
    Status(u32),
    /// The command never completes, unless it is aborted.
    Hang,
    /// Like [`Fault::Hang`], with another tag in the status.
    BusyWithTag(u64),
    /// Like [`Fault::Hang`], and each read of the status raises an interrupt.
    Flood,
    /// Neither the command nor its abort completes.
    HangAbort,
    /// The command starts late.
    Delay(Duration),
    /// Result 0 is reduced by this value.
    ShortResult(u64),
    /// This number of bytes at the end of the buffer is not written.
    ShortData(u64),
    /// Result 0 is this value.
    Result(u64),
    /// The `width` bytes at `offset` of the buffer are `value`.
    Patch { offset: u32, width: u32, value: u64 },
    /// The status has another tag.
    Tag(u64),
    /// No interrupt reports the completion.
    NoInterrupt,
    /// The VF's log is lost before the command.
    LogLost,
}

/// Pages to mark in a VF's log as if the VF had written them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// The marked range.
    pub range: IovaRange,
    /// Length of a period, in bytes.
    pub stride: u64,
    /// Number of marked bytes per period.
    pub run: u64,
    /// Seed of the random position in each period; 0 marks the start of the period.
    pub seed: u32,
}

impl Marks {
    /// Marks all pages of `range`.
    pub const fn all_of(range: IovaRange) -> Self {
        Self {
            range,
            stride: range.length,
            run: range.length,
            seed: 0,
        }
    }
}

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

    /// Disarms all faults.
    pub fn disarm(&self) {
        for slot in 0..self.slots() {
            self.registers
                .write(slot_register(slot, hw::VIFA_FAULT_COUNT), 0u32);
        }
    }

    fn slots(&self) -> u32 {
        self.registers.read(hw::VIFA_FAULT_SLOTS as usize)
    }

    /// Injects `fault` into the next `times` commands `opcode` of the VF `vf`.
    pub fn arm(&self, vf: u32, opcode: Opcode, fault: Fault, times: u32) -> Result<Armed<'_>> {
        let (kind, value, offset, width) = match fault {
            Fault::Status(status) => (hw::VIFA_FAULT_STATUS, status.into(), 0, 0),
            Fault::Hang => (hw::VIFA_FAULT_HANG, 0, 0, 0),
            Fault::BusyWithTag(flipped) => (hw::VIFA_FAULT_HANG, flipped, 0, 0),
            Fault::Flood => (hw::VIFA_FAULT_FLOOD, 0, 0, 0),
            Fault::HangAbort => (hw::VIFA_FAULT_HANG_ABORT, 0, 0, 0),
            Fault::Delay(delay) => (hw::VIFA_FAULT_DELAY, delay.as_millis() as u64, 0, 0),
            Fault::ShortResult(by) => (hw::VIFA_FAULT_SHORT_RESULT, by, 0, 0),
            Fault::ShortData(by) => (hw::VIFA_FAULT_SHORT_DATA, by, 0, 0),
            Fault::Result(result) => (hw::VIFA_FAULT_RESULT, result, 0, 0),
            Fault::Patch {
                offset,
                width,
                value,
            } => (hw::VIFA_FAULT_PATCH, value, offset, width),
            Fault::Tag(flipped) => (hw::VIFA_FAULT_TAG, flipped, 0, 0),
            Fault::NoInterrupt => (hw::VIFA_FAULT_NO_INTERRUPT, 0, 0, 0),
            Fault::LogLost => (hw::VIFA_FAULT_LOG_LOST, 0, 0, 0),
        };
        self.arm_slot(&[
            (hw::VIFA_FAULT_KIND, kind),
            (hw::VIFA_FAULT_VF, vf),
            (hw::VIFA_FAULT_FRAME, opcode.frame),
            (hw::VIFA_FAULT_OPCODE, opcode.number),
            (hw::VIFA_FAULT_VALUE_LOW, value as u32),
            (hw::VIFA_FAULT_VALUE_HIGH, (value >> 32) as u32),
            (hw::VIFA_FAULT_OFFSET, offset),
            (hw::VIFA_FAULT_WIDTH, width),
            (hw::VIFA_FAULT_COUNT, times),
        ])
        .with_context(|| format!("{fault:?}"))
    }

    /// Writes `values` to the registers of a free slot; the last value is the count.
    fn arm_slot(&self, values: &[(u32, u32)]) -> Result<Armed<'_>> {
        ensure!(
            self.slots() > 0,
            "the device's property fault-injection is off"
        );
        let slot = (0..self.slots())
            .find(|slot| self.slot(*slot, hw::VIFA_FAULT_COUNT) == 0)
            .context("all fault slots are in use")?;
        for (register, value) in values {
            self.registers.write(slot_register(slot, *register), *value);
        }
        if self.slot(slot, hw::VIFA_FAULT_COUNT) == 0 {
            bail!("the device rejects the fault");
        }
        Ok(Armed { file: self, slot })
    }

    /// Sabotages the log of the VF `vf`: one of `pages` written pages is not logged.
    pub fn sabotage_log(&self, vf: u32, pages: u64) -> Result<Armed<'_>> {
        self.arm_slot(&[
            (hw::VIFA_FAULT_KIND, hw::VIFA_FAULT_LOG_DROP),
            (hw::VIFA_FAULT_VF, vf),
            (hw::VIFA_FAULT_VALUE_LOW, pages as u32),
            (hw::VIFA_FAULT_VALUE_HIGH, (pages >> 32) as u32),
            (hw::VIFA_FAULT_COUNT, hw::VIFA_FAULT_ALWAYS),
        ])
    }

    /// Makes the next reset of the VF `vf` leave it in `run_state`, a `VIFA_RUN_STATE_*`.
    pub fn spoil_reset(&self, vf: u32, run_state: u32) -> Result<Armed<'_>> {
        self.arm_slot(&[
            (hw::VIFA_FAULT_KIND, hw::VIFA_FAULT_RESET),
            (hw::VIFA_FAULT_VF, vf),
            (hw::VIFA_FAULT_VALUE_LOW, run_state),
            (hw::VIFA_FAULT_VALUE_HIGH, 0),
            (hw::VIFA_FAULT_COUNT, 1),
        ])
    }

    /// Sets the `width` bytes at `field` of the PF's capability in configuration space, a
    /// `VIFA_DVSEC_*`, until the result is dropped.
    pub fn change_capability(&self, field: u32, width: usize, value: u32) -> ChangedCapability<'_> {
        let register = (hw::VIFA_FAULT_DVSEC + field / 4 * 4) as usize;
        let shift = 8 * (field % 4);
        let mask = (u32::MAX >> (32 - 8 * width)) << shift;
        let before = self.registers.read(register);
        let after = (before & !mask) | ((value << shift) & mask);
        self.registers.write(register, after);
        ChangedCapability {
            file: self,
            register,
            before,
        }
    }

    /// Removes the device until the result is dropped or the PF is reset.
    pub fn pull_out(&self) -> Gone<'_> {
        self.registers.write(hw::VIFA_FAULT_GONE as usize, 1u32);
        Gone(self)
    }

    /// Makes a function report an error.
    pub fn report_error(&self, reporter: Reporter, error: UncorrectableError) {
        let vf = match reporter {
            Reporter::Physical => hw::VIFA_FAULT_ANY_VF,
            Reporter::Virtual(index) => index,
        };
        let UncorrectableError(status) = error;
        self.registers.write(hw::VIFA_FAULT_ERROR_VF as usize, vf);
        self.registers.write(hw::VIFA_FAULT_ERROR as usize, status);
    }

    /// Marks pages in the log of the VF `vf`, without writes of the VF.
    pub fn mark(&self, vf: u32, marks: Marks) -> Result<()> {
        let pairs = [
            (hw::VIFA_FAULT_MARK_START_LOW, marks.range.iova),
            (hw::VIFA_FAULT_MARK_LENGTH_LOW, marks.range.length),
            (hw::VIFA_FAULT_MARK_STRIDE_LOW, marks.stride),
            (hw::VIFA_FAULT_MARK_RUN_LOW, marks.run),
        ];
        let write = |register: u32, value: u32| self.registers.write(register as usize, value);
        write(hw::VIFA_FAULT_MARK_VF, vf);
        write(hw::VIFA_FAULT_MARK_SEED, marks.seed);
        for (register, value) in pairs {
            write(register, value as u32);
            write(register + 4, (value >> 32) as u32);
        }
        write(hw::VIFA_FAULT_MARK, 1);
        if self.registers.read::<u32>(hw::VIFA_FAULT_MARK as usize) != 1 {
            bail!("the device rejects {marks:?}");
        }
        Ok(())
    }

    /// Limits the device to scatter lists of `scatter_max` entries and logs of `log_ranges` ranges.
    /// The driver reads these limits when it is bound.
    pub fn set_limits(&self, scatter_max: u32, log_ranges: u32) -> Result<()> {
        for (register, limit) in [
            (hw::VIFA_FAULT_SCATTER_MAX, scatter_max),
            (hw::VIFA_FAULT_LOG_RANGES, log_ranges),
        ] {
            self.registers.write(register as usize, limit);
            let taken: u32 = self.registers.read(register as usize);
            ensure!(taken == limit, "the device rejects the limit {limit}");
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
        self.registers.read(slot_register(slot, register))
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
        let frame = 2 + 2 * vf;
        let register = frame * hw::VIFA_HW_FRAME_SIZE + hw::VIFA_MAILBOX_STATUS;
        let status: u32 = self.registers.read(register as usize);
        status & hw::VIFA_MAILBOX_STATUS_CODE == hw::VIFA_STATUS_BUSY
    }

    fn control_register(&self, vf: u32, register: u32) -> u32 {
        let frame = 1 + 2 * vf;
        self.registers
            .read((frame * hw::VIFA_HW_FRAME_SIZE + register) as usize)
    }
}

/// A removed device, which returns when this is dropped.
pub struct Gone<'a>(&'a RegisterFile);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.registers.write(hw::VIFA_FAULT_GONE as usize, 0u32);
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
        self.file
            .registers
            .write(slot_register(self.slot, hw::VIFA_FAULT_COUNT), 0u32);
    }
}

/// Returns the offset of a register in a slot, from `VIFA_FAULT_SLOT()`.
fn slot_register(slot: u32, register: u32) -> usize {
    (0x840 + 0x40 * slot + register) as usize
}

/// A changed capability, restored when this is dropped.
pub struct ChangedCapability<'a> {
    file: &'a RegisterFile,
    register: usize,
    before: u32,
}

impl Drop for ChangedCapability<'_> {
    fn drop(&mut self) {
        self.file.registers.write(self.register, self.before);
    }
}
