// SPDX-License-Identifier: GPL-2.0

//! The DMA engine of a VF, driven like a guest does.

use crate::{bed::Bed, hw};

const SUBMISSION: u64 = size_of::<hw::vifa_reference_submission>() as u64;
const COMPLETION: u64 = size_of::<hw::vifa_reference_completion>() as u64;

/// Clock step between two polls of the ring, and maximum number of polls.
const LOOK_NS: u64 = 100_000;
const LOOKS: usize = 20_000;

/// A command of the guest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Command {
    /// `VIFA_REFERENCE_*`.
    pub opcode: u32,
    /// Address in memory or local memory.
    pub source: u64,
    /// Address in memory or local memory.
    pub destination: u64,
    /// Length in bytes.
    pub length: u64,
    /// The first word of a fill.
    pub pattern: u64,
}

impl Command {
    /// Returns a command that scatters `words` words of `pattern` over `window` bytes at
    /// `destination`.
    pub fn scatter(destination: u64, window: u64, words: u64, pattern: u64) -> Self {
        Self {
            opcode: hw::VIFA_REFERENCE_SCATTER,
            source: window,
            destination,
            length: 8 * words,
            pattern,
        }
    }
}

/// Returns number `x` of the generator splitmix64, as defined by `vifa_reference.h`.
fn splitmix64(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Returns the words that such a command writes, with their offsets, in order.
pub fn scattered(window: u64, words: u64, pattern: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..words).map(move |i| {
        let word = pattern.wrapping_add(i);
        (8 * (splitmix64(word) % (window / 8)), word)
    })
}

/// A completion that the engine wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The id of the command.
    pub id: u32,
    /// `VIFA_REFERENCE_COMPLETION_*`.
    pub status: u32,
    /// The checksum, or 0.
    pub result: u64,
}

/// The guest's side of the rings. It is not bound to one VF: a guest keeps it during a migration.
#[derive(Clone, Debug)]
pub struct Engine {
    /// The VF that uses the rings now.
    pub vf: u16,
    entries: u32,
    submission: u64,
    completion: u64,
    submitted: u32,
    consumed: u32,
}

impl Engine {
    /// Creates rings of `entries` on VF `vf`, and enables the VF with interrupts.
    pub fn new(bed: &Bed, vf: u16, entries: u32) -> Self {
        let engine = Self {
            vf,
            entries,
            submission: bed.allocate(u64::from(entries) * SUBMISSION),
            completion: bed.allocate(u64::from(entries) * COMPLETION),
            submitted: 0,
            consumed: 0,
        };
        engine.enable(bed);
        assert_eq!(
            engine.read(bed, hw::VIFA_REFERENCE_STATUS),
            hw::VIFA_REFERENCE_STATUS_ENABLED
        );
        engine
    }

    /// Sets the addresses of the rings in the VF, and enables the VF.
    pub fn enable(&self, bed: &Bed) {
        for (register, value) in [
            (hw::VIFA_REFERENCE_RING_ENTRIES, self.entries),
            (hw::VIFA_REFERENCE_SUBMISSION_LOW, self.submission as u32),
            (hw::VIFA_REFERENCE_SUBMISSION_HIGH, 0),
            (hw::VIFA_REFERENCE_COMPLETION_LOW, self.completion as u32),
            (hw::VIFA_REFERENCE_COMPLETION_HIGH, 0),
            (
                hw::VIFA_REFERENCE_CONTROL,
                hw::VIFA_REFERENCE_CONTROL_ENABLE | hw::VIFA_REFERENCE_CONTROL_INTERRUPT,
            ),
        ] {
            self.write(bed, register, value);
        }
    }

    /// Reads a register.
    pub fn read(&self, bed: &Bed, register: u32) -> u32 {
        bed.read32(bed.vf_register(self.vf, register))
    }

    /// Writes a register.
    pub fn write(&self, bed: &Bed, register: u32, value: u32) {
        bed.write32(bed.vf_register(self.vf, register), value);
    }

    /// Adds a command to the ring. Returns its id, which counts from 0.
    pub fn queue(&mut self, bed: &Bed, command: Command) -> u32 {
        let id = self.submitted;
        let mut entry = Vec::new();
        entry.extend(command.opcode.to_le_bytes());
        entry.extend(id.to_le_bytes());
        entry.extend(command.source.to_le_bytes());
        entry.extend(command.destination.to_le_bytes());
        entry.extend(command.length.to_le_bytes());
        entry.extend(command.pattern.to_le_bytes());
        entry.resize(SUBMISSION as usize, 0);
        let index = u64::from(id % self.entries);
        bed.write(self.submission + index * SUBMISSION, &entry);
        self.submitted += 1;
        id
    }

    /// Rings the doorbell.
    pub fn ring(&self, bed: &Bed) {
        self.write(bed, hw::VIFA_REFERENCE_SUBMISSION_TAIL, self.submitted);
    }

    /// Adds a command to the ring and rings the doorbell.
    pub fn submit(&mut self, bed: &Bed, command: Command) -> u32 {
        let id = self.queue(bed, command);
        self.ring(bed);
        id
    }

    /// Returns the next completion, if it is available. `consume` frees its ring entry.
    pub fn poll(&mut self, bed: &Bed) -> Option<Completion> {
        let index = u64::from(self.consumed % self.entries);
        let entry = bed.read(self.completion + index * COMPLETION, COMPLETION as usize);
        let field = |from: usize, to: usize| {
            let mut bytes = [0; 8];
            bytes[..to - from].copy_from_slice(&entry[from..to]);
            u64::from_le_bytes(bytes)
        };
        let expected = u64::from(self.consumed / self.entries % 2 == 0);
        if field(14, 16) != expected {
            return None;
        }
        self.consumed += 1;
        Some(Completion {
            result: field(0, 8),
            id: field(8, 12) as u32,
            status: field(12, 14) as u32,
        })
    }

    /// Returns the ring entries of the polled completions to the engine.
    pub fn consume(&self, bed: &Bed) {
        self.write(bed, hw::VIFA_REFERENCE_COMPLETION_HEAD, self.consumed);
    }

    /// Waits for the next completion.
    pub fn wait(&mut self, bed: &Bed) -> Completion {
        for _ in 0..LOOKS {
            if let Some(completion) = self.poll(bed) {
                self.consume(bed);
                return completion;
            }
            bed.step(LOOK_NS);
        }
        panic!("VF {}: the command timed out", self.vf);
    }

    /// Executes a command.
    pub fn execute(&mut self, bed: &Bed, command: Command) -> Completion {
        let id = self.submit(bed, command);
        let completion = self.wait(bed);
        assert_eq!(completion.id, id, "id of the completion");
        completion
    }

    /// Executes a command that must succeed. Returns its result.
    pub fn succeed(&mut self, bed: &Bed, command: Command) -> u64 {
        let completion = self.execute(bed, command);
        assert_eq!(
            completion.status,
            hw::VIFA_REFERENCE_COMPLETION_SUCCESS,
            "{command:x?}"
        );
        completion.result
    }
}
