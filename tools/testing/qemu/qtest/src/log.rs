// SPDX-License-Identifier: GPL-2.0

//! The log of writes to guest memory, used like a host does.

use crate::{
    bed::Bed,
    hw,
    mailbox::{Answer, Buffer, Frame},
};

/// Pages to mark in a log, with the fields of the registers in `vifa_fault.h`.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// The index of the VF.
    pub vf: u32,
    /// The initial state of the generator, or 0.
    pub seed: u32,
    /// The IOVA.
    pub start: u64,
    /// Total number of bytes.
    pub length: u64,
    /// Number of bytes from one run to the next.
    pub stride: u64,
    /// Number of bytes in a run.
    pub run: u64,
}

impl Mark {
    /// Marks everything from `start`, in the log of VF 0.
    pub fn all(start: u64, length: u64) -> Self {
        Self {
            vf: 0,
            seed: 0,
            start,
            length,
            stride: length,
            run: length,
        }
    }
}

impl Bed {
    /// Starts the log of VF `n` over `ranges`.
    pub fn log_start(&self, n: u16, page_size: u64, ranges: &[(u64, u64)]) -> Answer {
        let bytes: Vec<u8> = ranges
            .iter()
            .flat_map(|(start, length)| [start.to_le_bytes(), length.to_le_bytes()].concat())
            .collect();
        self.execute(
            Frame::Data(n),
            hw::VIFA_DATA_LOG_START,
            [page_size, ranges.len() as u64],
            Some(&Buffer::with(self, &bytes, 1000)),
        )
    }

    /// Executes a log command of VF `n` that reports `bits` bits for a range. Returns the numbers
    /// of the set bits, and whether the log was lost.
    pub fn log_bits(
        &self,
        n: u16,
        opcode: u32,
        start: u64,
        length: u64,
        bits: u64,
    ) -> (Vec<u64>, bool) {
        let buffer = Buffer::new(self, bits.div_ceil(8), 700);
        let [_, lost] = self.succeed(Frame::Data(n), opcode, [start, length], Some(&buffer));
        (buffer.bits(self, bits), lost != 0)
    }

    /// Marks pages without DMA. Returns the resulting status of the register.
    pub fn mark(&self, mark: Mark) -> bool {
        let write = |register, value| {
            self.write32(
                self.frame_register(hw::VIFA_HW_FRAME_LAYER, register),
                value,
            );
        };
        write(hw::VIFA_FAULT_MARK_VF, mark.vf);
        write(hw::VIFA_FAULT_MARK_SEED, mark.seed);
        for (low, value) in [
            (hw::VIFA_FAULT_MARK_START_LOW, mark.start),
            (hw::VIFA_FAULT_MARK_LENGTH_LOW, mark.length),
            (hw::VIFA_FAULT_MARK_STRIDE_LOW, mark.stride),
            (hw::VIFA_FAULT_MARK_RUN_LOW, mark.run),
        ] {
            write(low, value as u32);
            write(low + 4, (value >> 32) as u32);
        }
        write(hw::VIFA_FAULT_MARK, 1);
        self.read32(self.frame_register(hw::VIFA_HW_FRAME_LAYER, hw::VIFA_FAULT_MARK)) != 0
    }
}
