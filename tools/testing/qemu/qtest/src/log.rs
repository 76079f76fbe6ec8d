// SPDX-License-Identifier: GPL-2.0

//! The log of writes to guest memory, as the host uses it.

use crate::{
    bed::Bed,
    hw,
    mailbox::{Answer, Buffer, Frame},
};

/// Pages that are to be marked in a log, as the registers of `vifa_fault.h` have it.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// The VF.
    pub vf: u32,
    /// The generator's first state, or 0.
    pub seed: u32,
    /// IOVA.
    pub start: u64,
    /// Bytes in all.
    pub length: u64,
    /// Bytes from one run to the next.
    pub stride: u64,
    /// Bytes in a run.
    pub run: u64,
}

impl Mark {
    /// Everything from `start` on, in the log of VF 0.
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

    /// The numbers of the bits that a command of VF `n` reports for a range, of `bits` in all, and
    /// whether the log was lost.
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

    /// Marks pages without DMA; what the register says then.
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
