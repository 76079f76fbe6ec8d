// SPDX-License-Identifier: GPL-2.0

//! The driver of a VF's DMA engine, as in a guest: rings in memory, submission, completion.
//!
//! The state known to the guest (the rings and its own indices) is separate from the VF, so that
//! the guest can continue with another VF after a migration.

use std::{
    fs::File,
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{bail, Context, Result};
use vifa_vfio::{pci::Function, Mapping};

use crate::{
    expect,
    hw::{self, vifa_reference_completion, vifa_reference_submission},
    process::wait_for_event,
    vfio::{AddressSpace, Device, DmaMemory, Interrupt, IovaRange},
};

/// Maximum time for a command of the engine at full speed.
pub const COMPLETION_TIMEOUT: Duration = Duration::from_secs(10);
/// Default number of entries per ring.
const ENTRIES: u32 = 16;

const COMMAND_REGISTER: u64 = 0x04;
const COMMAND_MEMORY: u16 = 0x0002;
const COMMAND_MASTER: u16 = 0x0004;

/// An open VF, ready for DMA, with mapped registers.
#[derive(Debug)]
pub struct Vf {
    /// The VFIO device.
    pub device: Device,
    registers: Mapping,
}

impl Vf {
    /// Opens `function` for DMA in `space`.
    pub fn open(function: &Function, space: &Arc<AddressSpace>) -> Result<Self> {
        let device = Device::open(function, space)?;
        let registers = device
            .map(hw::VIFA_REFERENCE_BAR)
            .with_context(|| format!("mmap of {function}'s registers"))?;
        let vf = Self { device, registers };
        vf.allow_dma().context("bus mastering")?;
        Ok(vf)
    }

    /// Sets memory decoding and bus mastering.
    pub fn allow_dma(&self) -> io::Result<()> {
        let command = self.device.read_config(COMMAND_REGISTER)?;
        self.device
            .write_config(COMMAND_REGISTER, command | COMMAND_MEMORY | COMMAND_MASTER)
    }

    /// Reads the register at `offset`.
    pub fn register(&self, offset: u32) -> u32 {
        self.registers.read(offset as usize)
    }

    /// Writes the register at `offset`.
    pub fn set_register(&self, offset: u32, value: u32) {
        self.registers.write(offset as usize, value);
    }

    /// Writes a 64-bit quantity to the pair of registers at `offset`.
    fn set_register_pair(&self, offset: u32, value: u64) {
        self.set_register(offset, value as u32);
        self.set_register(offset + 4, (value >> 32) as u32);
    }

    /// Returns the size of local memory in bytes.
    pub fn local_memory(&self) -> u64 {
        let [low, high] = [hw::VIFA_REFERENCE_LOCAL_LOW, hw::VIFA_REFERENCE_LOCAL_HIGH]
            .map(|register| u64::from(self.register(register)));
        (high << 32) | low
    }

    /// Returns the number of bytes that the engine moves per millisecond; 0 for no limit.
    pub fn set_speed(&self, speed: u32) {
        self.set_register(hw::VIFA_REFERENCE_SPEED, speed);
    }

    /// Returns an event counter that vector 0 signals.
    pub fn interrupt(&self) -> Result<File> {
        self.device
            .signal(Interrupt::Msix)
            .context("MSI-X vector 0")
    }

    /// Issues a function level reset like a guest, through the PCI Express capability.
    pub fn function_level_reset(&self) -> Result<()> {
        const CAPABILITIES_POINTER: u64 = 0x34;
        const PCI_EXPRESS: u16 = 0x10;
        const DEVICE_CONTROL: u64 = 8;
        const INITIATE: u16 = 0x8000;
        let mut at = u64::from(self.device.read_config(CAPABILITIES_POINTER)? & 0xfc);
        while at != 0 {
            let header = self.device.read_config(at)?;
            if header & 0xff == PCI_EXPRESS {
                let control = self.device.read_config(at + DEVICE_CONTROL)?;
                self.device
                    .write_config(at + DEVICE_CONTROL, control | INITIATE)?;
                return Ok(());
            }
            at = u64::from((header >> 8) & 0xfc);
        }
        bail!("the VF has no PCI Express capability");
    }

    /// Issues `VFIO_DEVICE_RESET`.
    pub fn reset(&self) -> Result<()> {
        self.device.reset().context("VFIO_DEVICE_RESET")
    }
}

/// A command of the engine. Guest memory is addressed by IOVA, local memory by offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Nop,
    Fill {
        destination: u64,
        length: u64,
        pattern: u64,
    },
    Copy {
        source: u64,
        destination: u64,
        length: u64,
    },
    Checksum {
        source: u64,
        length: u64,
    },
    LocalWrite {
        source: u64,
        local: u64,
        length: u64,
    },
    LocalRead {
        local: u64,
        destination: u64,
        length: u64,
    },
    LocalDiscard {
        local: u64,
        length: u64,
    },
    /// Writes `length` bytes of words, beginning with `first`, each at the offset that
    /// [`scattered`] returns for the `window` bytes at `destination`.
    Scatter {
        destination: u64,
        window: u64,
        length: u64,
        first: u64,
    },
}

/// Returns the offset at which the engine's SCATTER writes the word `word` in a window of `window`
/// bytes.
pub fn scattered(word: u64, window: u64) -> u64 {
    let mut x = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) % (window / 8) * 8
}

impl Command {
    fn submission(self, id: u32) -> vifa_reference_submission {
        let (opcode, source, destination, length, pattern) = match self {
            Self::Nop => (hw::VIFA_REFERENCE_NOP, 0, 0, 0, 0),
            Self::Fill {
                destination,
                length,
                pattern,
            } => (hw::VIFA_REFERENCE_FILL, 0, destination, length, pattern),
            Self::Copy {
                source,
                destination,
                length,
            } => (hw::VIFA_REFERENCE_COPY, source, destination, length, 0),
            Self::Checksum { source, length } => {
                (hw::VIFA_REFERENCE_CHECKSUM, source, 0, length, 0)
            }
            Self::LocalWrite {
                source,
                local,
                length,
            } => (hw::VIFA_REFERENCE_LOCAL_WRITE, source, local, length, 0),
            Self::LocalRead {
                local,
                destination,
                length,
            } => (hw::VIFA_REFERENCE_LOCAL_READ, local, destination, length, 0),
            Self::LocalDiscard { local, length } => {
                (hw::VIFA_REFERENCE_LOCAL_DISCARD, 0, local, length, 0)
            }
            Self::Scatter {
                destination,
                window,
                length,
                first,
            } => (
                hw::VIFA_REFERENCE_SCATTER,
                window,
                destination,
                length,
                first,
            ),
        };
        vifa_reference_submission {
            opcode: opcode as u16,
            id,
            source,
            destination,
            length,
            pattern,
            ..Default::default()
        }
    }
}

/// The guest's state of the engine.
#[derive(Debug)]
pub struct Engine {
    rings: DmaMemory,
    /// Number of entries per ring, a power of two.
    entries: u32,
    submitted: u32,
    completed: u32,
}

impl Engine {
    /// Places rings at `iova` and enables `vf`'s engine with them.
    pub fn new(vf: &Vf, space: &Arc<AddressSpace>, iova: u64) -> Result<Self> {
        Self::with_entries(vf, space, iova, ENTRIES)
    }

    /// Like [`Self::new`], with rings of `entries`, a power of two up to `VIFA_REFERENCE_RING_MAX`.
    pub fn with_entries(
        vf: &Vf,
        space: &Arc<AddressSpace>,
        iova: u64,
        entries: u32,
    ) -> Result<Self> {
        let entry = size_of::<vifa_reference_submission>() + size_of::<vifa_reference_completion>();
        let length = (entries as usize * entry).next_multiple_of(4096);
        let mut engine = Self {
            rings: DmaMemory::new(space, iova, length)?,
            entries,
            submitted: 0,
            completed: 0,
        };
        engine.enable(vf)?;
        Ok(engine)
    }

    /// Returns the offset of the completion ring in the rings' memory.
    fn completions(&self) -> usize {
        self.entries as usize * size_of::<vifa_reference_submission>()
    }

    /// Returns the IOVAs to which the device writes completions.
    pub fn completion_ring(&self) -> IovaRange {
        let length = self.entries as usize * size_of::<vifa_reference_completion>();
        IovaRange::new(self.rings.iova + self.completions() as u64, length as u64)
    }

    /// Enables `vf`'s engine with empty rings, as after a reset.
    pub fn enable(&mut self, vf: &Vf) -> Result<()> {
        self.submitted = 0;
        self.completed = 0;
        for at in (0..self.rings.memory.length()).step_by(size_of::<u64>()) {
            self.rings.memory.write(at, 0u64);
        }
        vf.set_register(hw::VIFA_REFERENCE_CONTROL, 0);
        vf.set_register(hw::VIFA_REFERENCE_RING_ENTRIES, self.entries);
        vf.set_register_pair(hw::VIFA_REFERENCE_SUBMISSION_LOW, self.rings.iova);
        vf.set_register_pair(
            hw::VIFA_REFERENCE_COMPLETION_LOW,
            self.completion_ring().iova,
        );
        vf.set_register(
            hw::VIFA_REFERENCE_CONTROL,
            hw::VIFA_REFERENCE_CONTROL_ENABLE | hw::VIFA_REFERENCE_CONTROL_INTERRUPT,
        );
        expect::equal(
            "status of an engine that was enabled",
            vf.register(hw::VIFA_REFERENCE_STATUS),
            hw::VIFA_REFERENCE_STATUS_ENABLED,
        )
    }

    /// Returns the number of submitted commands without a consumed completion.
    pub fn outstanding(&self) -> u32 {
        self.submitted.wrapping_sub(self.completed)
    }

    /// Returns the offset of the next completion in the rings' memory.
    fn completion_slot(&self) -> usize {
        let entry = (self.completed % self.entries) as usize;
        self.completions() + entry * size_of::<vifa_reference_completion>()
    }

    /// Returns the phase of the next completion.
    fn phase(&self) -> u16 {
        1 - (self.completed / self.entries) as u16 % 2
    }

    /// Returns the number of commands that can be submitted now.
    pub fn room(&self) -> u32 {
        self.entries - self.outstanding()
    }

    /// Submits `command`, with the number of previous commands as its id.
    pub fn submit(&mut self, vf: &Vf, command: Command) -> Result<()> {
        self.submit_all(vf, [command])
    }

    /// Submits `commands` with one doorbell write.
    pub fn submit_all(
        &mut self,
        vf: &Vf,
        commands: impl IntoIterator<Item = Command>,
    ) -> Result<()> {
        for command in commands {
            if self.room() == 0 {
                bail!(
                    "the test submits more than the {} commands that the ring holds",
                    self.entries
                );
            }
            let entry = (self.submitted % self.entries) as usize;
            self.rings.memory.write(
                entry * size_of::<vifa_reference_submission>(),
                command.submission(self.submitted),
            );
            self.submitted = self.submitted.wrapping_add(1);
        }
        vf.set_register(hw::VIFA_REFERENCE_SUBMISSION_TAIL, self.submitted);
        Ok(())
    }

    /// Consumes the next completion, if there is one; it must be that of the next command.
    pub fn take_completion(&mut self, vf: &Vf) -> Result<Option<vifa_reference_completion>> {
        let completion = self.next_completion()?;
        if completion.is_some() {
            vf.set_register(hw::VIFA_REFERENCE_COMPLETION_HEAD, self.completed);
        }
        Ok(completion)
    }

    /// Consumes all available completions, which must report success; returns their number.
    pub fn take_completions(&mut self, vf: &Vf) -> Result<u32> {
        let before = self.completed;
        while let Some(completion) = self.next_completion()? {
            expect::equal(
                "status of a completion",
                u32::from(completion.status),
                hw::VIFA_REFERENCE_COMPLETION_SUCCESS,
            )?;
        }
        let taken = self.completed.wrapping_sub(before);
        if taken > 0 {
            vf.set_register(hw::VIFA_REFERENCE_COMPLETION_HEAD, self.completed);
        }
        Ok(taken)
    }

    /// Like [`Self::take_completion`], without a doorbell write.
    fn next_completion(&mut self) -> Result<Option<vifa_reference_completion>> {
        let slot = self.completion_slot();
        let there: u16 = self
            .rings
            .memory
            .read(slot + std::mem::offset_of!(vifa_reference_completion, phase));
        if self.outstanding() == 0 || there != self.phase() {
            return Ok(None);
        }
        let completion: vifa_reference_completion = self.rings.memory.read(slot);
        expect::equal("id of a completion", completion.id, self.completed)?;
        self.completed = self.completed.wrapping_add(1);
        Ok(Some(completion))
    }

    /// Waits for the next completion by polling.
    pub fn wait(&mut self, vf: &Vf, timeout: Duration) -> Result<vifa_reference_completion> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(completion) = self.take_completion(vf)? {
                return Ok(completion);
            }
            if Instant::now() > deadline {
                bail!(
                    "expected the completion of command {}, got none in {timeout:?} (engine's status {:#x})",
                    self.completed,
                    vf.register(hw::VIFA_REFERENCE_STATUS)
                );
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for the next completion by its interrupt, which signals `event`.
    pub fn wait_for_interrupt(
        &mut self,
        vf: &Vf,
        event: &File,
    ) -> Result<vifa_reference_completion> {
        wait_for_event(event, COMPLETION_TIMEOUT).context("interrupt of a completion")?;
        self.wait(vf, COMPLETION_TIMEOUT)
    }

    /// Executes `command`, which must succeed, and returns its result.
    pub fn run(&mut self, vf: &Vf, command: Command) -> Result<u64> {
        self.submit(vf, command)?;
        let completion = self
            .wait(vf, COMPLETION_TIMEOUT)
            .with_context(|| format!("{command:?}"))?;
        succeeded(command, &completion)?;
        Ok(completion.result)
    }

    /// Checks that every submitted command completed exactly once: the engine's counts agree, and
    /// the ring has no completion beyond the last.
    pub fn verify_idle(&mut self, vf: &Vf) -> Result<()> {
        expect::equal("commands without completion", self.outstanding(), 0)?;
        for (register, what) in [
            (hw::VIFA_REFERENCE_SUBMISSION_HEAD, "consumed commands"),
            (hw::VIFA_REFERENCE_COMPLETION_TAIL, "completions written"),
        ] {
            expect::equal(what, vf.register(register), self.submitted)?;
        }
        let slot = self.completion_slot();
        let next: vifa_reference_completion = self.rings.memory.read(slot);
        expect::claim(
            "no completion beyond the last command's",
            next.phase != self.phase(),
        )
    }
}

/// Checks that `command` completed with success.
pub fn succeeded(command: Command, completion: &vifa_reference_completion) -> Result<()> {
    expect::equal(
        &format!("status of {command:?}"),
        u32::from(completion.status),
        hw::VIFA_REFERENCE_COMPLETION_SUCCESS,
    )
}
