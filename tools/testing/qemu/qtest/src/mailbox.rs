// SPDX-License-Identifier: GPL-2.0

//! Commands of the register file.

use std::cell::Cell;

use crate::{bed::Bed, hw};

/// Clock step between two polls of a mailbox, and maximum number of polls.
const LOOK_NS: u64 = 100_000;
const LOOKS: usize = 20_000;

/// A VF's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The control frame of the VF with this index.
    Control(u16),
    /// The data frame of this VF.
    Data(u16),
}

impl Frame {
    fn number(self) -> u32 {
        match self {
            Self::Control(n) => hw::frame_control(n.into()),
            Self::Data(n) => hw::frame_data(n.into()),
        }
    }
}

/// Memory for a command's data, in scattered pieces.
#[derive(Clone, Debug)]
pub struct Buffer {
    pieces: Vec<(u64, u32)>,
    list: u64,
}

impl Buffer {
    /// Allocates a buffer of `length` bytes, scattered over pieces of at most `piece` bytes.
    pub fn new(bed: &Bed, length: u64, piece: u64) -> Self {
        let pieces = (0..length)
            .step_by(piece as usize)
            .map(|offset| {
                let length = piece.min(length - offset);
                (bed.allocate(length), length as u32)
            })
            .collect();
        Self::from_pieces(bed, pieces)
    }

    /// Creates a buffer of these addresses and lengths.
    pub fn from_pieces(bed: &Bed, pieces: Vec<(u64, u32)>) -> Self {
        let mut list = Vec::new();
        for (address, length) in &pieces {
            list.extend(address.to_le_bytes());
            list.extend(length.to_le_bytes());
            list.extend([0; 4]);
        }
        let list = bed.place(&list);
        Self { pieces, list }
    }

    /// Allocates a buffer that contains `bytes`.
    pub fn with(bed: &Bed, bytes: &[u8], piece: u64) -> Self {
        let buffer = Self::new(bed, bytes.len() as u64, piece);
        let mut rest = bytes;
        for (address, length) in &buffer.pieces {
            let (part, after) = rest.split_at(*length as usize);
            bed.write(*address, part);
            rest = after;
        }
        buffer
    }

    /// Returns the address of the byte at `offset`.
    pub fn address(&self, mut offset: u64) -> u64 {
        for (address, length) in &self.pieces {
            if offset < u64::from(*length) {
                return address + offset;
            }
            offset -= u64::from(*length);
        }
        panic!("the offset is outside the buffer");
    }

    /// Reads the first `length` bytes.
    pub fn read(&self, bed: &Bed, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = Vec::new();
        for (address, piece) in &self.pieces {
            let rest = length - bytes.len();
            bytes.extend(bed.read(*address, rest.min(*piece as usize)));
        }
        bytes
    }

    /// Returns the numbers of the set bits in a bitmap of `bits` bits. The remaining bits of the
    /// last byte must be clear.
    pub fn bits(&self, bed: &Bed, bits: u64) -> Vec<u64> {
        let bytes = self.read(bed, bits.div_ceil(8) as usize);
        let set: Vec<u64> = (0..)
            .zip(&bytes)
            .flat_map(|(n, byte)| {
                (0..8)
                    .filter(move |i| byte & (1 << i) != 0)
                    .map(move |i| 8 * n + i)
            })
            .collect();
        assert!(
            set.last().is_none_or(|last| *last < bits),
            "set bits after the last of {bits}"
        );
        set
    }
}

/// The result of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `VIFA_STATUS_*`.
    pub status: u32,
    /// The result registers.
    pub result: [u64; 2],
}

thread_local! {
    static TAG: Cell<u16> = const { Cell::new(0xfff0) };
}

impl Bed {
    /// Reads a register of a frame.
    pub fn frame_read(&self, frame: Frame, register: u32) -> u32 {
        self.read32(self.frame_register(frame.number(), register))
    }

    /// Writes a register of a frame.
    pub fn frame_write(&self, frame: Frame, register: u32, value: u32) {
        self.write32(self.frame_register(frame.number(), register), value);
    }

    fn frame_read64(&self, frame: Frame, low: u32) -> u64 {
        u64::from(self.frame_read(frame, low)) | (u64::from(self.frame_read(frame, low + 4)) << 32)
    }

    fn frame_write64(&self, frame: Frame, low: u32, value: u64) {
        self.frame_write(frame, low, value as u32);
        self.frame_write(frame, low + 4, (value >> 32) as u32);
    }

    /// Starts a command with a new tag. Returns the tag.
    pub fn start(
        &self,
        frame: Frame,
        opcode: u32,
        arguments: [u64; 2],
        buffer: Option<&Buffer>,
    ) -> u16 {
        let tag = TAG.with(|tag| tag.replace(tag.get().wrapping_add(1)));
        self.frame_write64(
            frame,
            hw::VIFA_MAILBOX_SCATTER_LOW,
            buffer.map_or(0, |buffer| buffer.list),
        );
        self.frame_write(
            frame,
            hw::VIFA_MAILBOX_SCATTER_COUNT,
            buffer.map_or(0, |buffer| buffer.pieces.len() as u32),
        );
        self.frame_write64(frame, hw::VIFA_MAILBOX_ARGUMENT0_LOW, arguments[0]);
        self.frame_write64(frame, hw::VIFA_MAILBOX_ARGUMENT1_LOW, arguments[1]);
        self.frame_write(
            frame,
            hw::VIFA_MAILBOX_COMMAND,
            opcode | (u32::from(tag) << 16),
        );
        tag
    }

    /// Returns whether a command is in progress.
    pub fn busy(&self, frame: Frame) -> bool {
        let status = self.frame_read(frame, hw::VIFA_MAILBOX_STATUS);
        status & hw::VIFA_MAILBOX_STATUS_CODE == hw::VIFA_STATUS_BUSY
    }

    /// Returns the answer to the command with this tag, which must be complete.
    pub fn answer(&self, frame: Frame, tag: u16) -> Answer {
        let status = self.frame_read(frame, hw::VIFA_MAILBOX_STATUS);
        assert_eq!((status >> 16) as u16, tag, "tag of the status");
        Answer {
            status: status & hw::VIFA_MAILBOX_STATUS_CODE,
            result: [
                self.frame_read64(frame, hw::VIFA_MAILBOX_RESULT0_LOW),
                self.frame_read64(frame, hw::VIFA_MAILBOX_RESULT1_LOW),
            ],
        }
    }

    /// Waits for the command with this tag.
    pub fn wait(&self, frame: Frame, tag: u16) -> Answer {
        for _ in 0..LOOKS {
            if !self.busy(frame) {
                return self.answer(frame, tag);
            }
            self.step(LOOK_NS);
        }
        panic!("{frame:?}: the command timed out");
    }

    /// Executes a command.
    pub fn execute(
        &self,
        frame: Frame,
        opcode: u32,
        arguments: [u64; 2],
        buffer: Option<&Buffer>,
    ) -> Answer {
        let tag = self.start(frame, opcode, arguments, buffer);
        self.wait(frame, tag)
    }

    /// Executes a command that must succeed.
    pub fn succeed(
        &self,
        frame: Frame,
        opcode: u32,
        arguments: [u64; 2],
        buffer: Option<&Buffer>,
    ) -> [u64; 2] {
        let answer = self.execute(frame, opcode, arguments, buffer);
        assert_eq!(
            answer.status,
            hw::VIFA_STATUS_SUCCESS,
            "{frame:?}: opcode {opcode:#x}, arguments {arguments:x?}: {answer:x?}"
        );
        answer.result
    }

    /// Sets the run state of VF `n`.
    pub fn set_run_state(&self, n: u16, state: u32) {
        let frame = Frame::Control(n);
        self.succeed(
            frame,
            hw::VIFA_CONTROL_SET_RUN_STATE,
            [state.into(), 0],
            None,
        );
        assert_eq!(self.frame_read(frame, hw::VIFA_CONTROL_RUN_STATE), state);
    }

    /// Saves the control plane of VF `n`, which is stopped.
    pub fn save(&self, n: u16) -> Vec<u8> {
        let buffer = Buffer::new(self, 4096, 4096);
        let [length, _] = self.succeed(
            Frame::Control(n),
            hw::VIFA_CONTROL_SAVE,
            [0, 0],
            Some(&buffer),
        );
        buffer.read(self, length as usize)
    }

    /// Attempts to replace the control plane of VF `n`.
    pub fn load(&self, n: u16, records: &[u8]) -> Answer {
        // An empty plane still requires a buffer.
        let mut bytes = records.to_vec();
        bytes.resize(bytes.len().max(16), 0);
        let buffer = Buffer::with(self, &bytes, 64);
        self.execute(
            Frame::Control(n),
            hw::VIFA_CONTROL_LOAD,
            [records.len() as u64, 0],
            Some(&buffer),
        )
    }
}
