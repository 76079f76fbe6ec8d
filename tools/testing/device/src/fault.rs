// SPDX-License-Identifier: GPL-2.0

//! Faults, and their registers.

use std::time::Duration;

use vifa_vfio::IovaRange;

use crate::{hw, Opcode};

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

impl Fault {
    /// Returns the registers that inject the fault into the next `times` commands `opcode` of the
    /// VF `vf`.
    pub fn slot(self, vf: u32, opcode: Opcode, times: u32) -> Slot {
        let (kind, value, offset, width) = match self {
            Self::Status(status) => (hw::VIFA_FAULT_STATUS, status.into(), 0, 0),
            Self::Hang => (hw::VIFA_FAULT_HANG, 0, 0, 0),
            Self::BusyWithTag(flipped) => (hw::VIFA_FAULT_HANG, flipped, 0, 0),
            Self::Flood => (hw::VIFA_FAULT_FLOOD, 0, 0, 0),
            Self::HangAbort => (hw::VIFA_FAULT_HANG_ABORT, 0, 0, 0),
            Self::Delay(delay) => (hw::VIFA_FAULT_DELAY, delay.as_millis() as u64, 0, 0),
            Self::ShortResult(by) => (hw::VIFA_FAULT_SHORT_RESULT, by, 0, 0),
            Self::ShortData(by) => (hw::VIFA_FAULT_SHORT_DATA, by, 0, 0),
            Self::Result(result) => (hw::VIFA_FAULT_RESULT, result, 0, 0),
            Self::Patch {
                offset,
                width,
                value,
            } => (hw::VIFA_FAULT_PATCH, value, offset, width),
            Self::Tag(flipped) => (hw::VIFA_FAULT_TAG, flipped, 0, 0),
            Self::NoInterrupt => (hw::VIFA_FAULT_NO_INTERRUPT, 0, 0, 0),
            Self::LogLost => (hw::VIFA_FAULT_LOG_LOST, 0, 0, 0),
        };
        Slot {
            kind,
            vf,
            frame: opcode.frame,
            opcode: opcode.number,
            value,
            offset,
            width,
            count: times,
        }
    }
}

/// The registers of a fault slot, as defined by `vifa_fault.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
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

impl Slot {
    /// Returns the value of each register by its offset in the slot. The count, which arms the
    /// fault, is the last.
    pub(crate) fn registers(&self) -> [(u32, u32); 9] {
        [
            (hw::VIFA_FAULT_KIND, self.kind),
            (hw::VIFA_FAULT_VF, self.vf),
            (hw::VIFA_FAULT_FRAME, self.frame),
            (hw::VIFA_FAULT_OPCODE, self.opcode),
            (hw::VIFA_FAULT_VALUE_LOW, self.value as u32),
            (hw::VIFA_FAULT_VALUE_HIGH, (self.value >> 32) as u32),
            (hw::VIFA_FAULT_OFFSET, self.offset),
            (hw::VIFA_FAULT_WIDTH, self.width),
            (hw::VIFA_FAULT_COUNT, self.count),
        ]
    }
}
