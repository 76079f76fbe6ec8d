// SPDX-License-Identifier: GPL-2.0

//! A guest on a VF: memory, rings, and verified work.

use std::{sync::Arc, thread, time::Duration};

use anyhow::{Context, Result};
use vifa_device::{opcode::LOAD, Fault, RegisterFile};
use vifa_vfio::pci::Function;

use crate::{
    bed::{Bed, VFS},
    engine::{Command, Engine, Vf, COMPLETION_TIMEOUT},
    expect, hw,
    migration::{Segments, State},
    region,
    stream::Stream,
    vfio::{AddressSpace, DmaMemory},
};

/// Bytes of the guest's working memory.
pub const MEMORY: u64 = 64 << 10;
/// Bytes moved by one step of the guest's work.
pub const CHUNK: u64 = 4096;

const RINGS_AT: u64 = 0x1000_0000;
const MEMORY_AT: u64 = 0x2000_0000;

/// A guest: a VF, its engine and its memory.
pub struct Guest {
    pub vf: Vf,
    pub engine: Engine,
    pub memory: DmaMemory,
    pub space: Arc<AddressSpace>,
}

/// Returns the words that the engine's FILL with `pattern` writes to `length` bytes.
pub fn filled(pattern: u64, length: u64) -> Vec<u8> {
    (0..length / 8)
        .flat_map(|word| pattern.wrapping_add(word).to_le_bytes())
        .collect()
}

/// Returns the ids of `function`'s control interface and data interface.
pub fn interfaces(function: &Function) -> [u64; 2] {
    let address = function.address();
    let devfn = (address.device << 3) | address.function;
    let place = (u64::from(address.domain) << 32)
        | (u64::from(address.bus) << 16)
        | (u64::from(devfn) << 8);
    [hw::VIFA_PLANE_CONTROL, hw::VIFA_PLANE_DATA].map(|plane| place | u64::from(plane))
}

/// Checks that both VFs are bound and work.
pub fn both_work(bed: &Bed) -> Result<()> {
    for index in 0..VFS {
        Guest::new(bed, index)?
            .work(index.into())
            .with_context(|| format!("VF {index}"))?;
    }
    Ok(())
}

impl Guest {
    /// Creates a guest on the VF `index`, with its own iommufd.
    pub fn new(bed: &Bed, index: u32) -> Result<Self> {
        Self::within(bed, index, &AddressSpace::iommufd()?)
    }

    /// Creates a guest on the VF `index` in the address space `space`.
    pub fn within(bed: &Bed, index: u32, space: &Arc<AddressSpace>) -> Result<Self> {
        let vf = Vf::open(&bed.vf(index)?, space)?;
        Ok(Self {
            engine: Engine::new(&vf, space, RINGS_AT)?,
            memory: DmaMemory::new(space, MEMORY_AT, MEMORY as usize)?,
            vf,
            space: space.clone(),
        })
    }

    /// Executes `command` and returns its result.
    pub fn run(&mut self, command: Command) -> Result<u64> {
        self.engine.run(&self.vf, command)
    }

    /// Returns the IOVA of the guest's memory at `offset`.
    pub fn at(&self, offset: u64) -> u64 {
        self.memory.iova + offset
    }

    /// Returns `length` bytes of the guest's memory at `offset`.
    pub fn bytes(&self, offset: u64, length: u64) -> Vec<u8> {
        self.memory
            .memory
            .copy_out(offset as usize, length as usize)
    }

    /// Executes each of the engine's commands and checks every byte. `seed` generates the data.
    pub fn work(&mut self, seed: u64) -> Result<()> {
        let expected = filled(seed, CHUNK);
        let [fill, copy, read] = [0, CHUNK, 2 * CHUNK];
        self.run(Command::Fill {
            destination: self.at(fill),
            length: CHUNK,
            pattern: seed,
        })?;
        expect::same_bytes("memory after FILL", &self.bytes(fill, CHUNK), &expected)?;
        self.run(Command::Copy {
            source: self.at(fill),
            destination: self.at(copy),
            length: CHUNK,
        })?;
        expect::same_bytes("memory after COPY", &self.bytes(copy, CHUNK), &expected)?;
        let checksum = self.run(Command::Checksum {
            source: self.at(copy),
            length: CHUNK,
        })?;
        expect::equal(
            "result of CHECKSUM",
            checksum,
            crc32c::crc32c(&expected).into(),
        )?;
        self.write_local(0, seed)?;
        expect::same_bytes(
            "memory after LOCAL_READ",
            &self.read_local(0, read)?,
            &expected,
        )?;
        self.run(Command::Nop)?;
        self.engine.verify_idle(&self.vf)
    }

    /// Writes [`CHUNK`] bytes generated from `seed` to local memory at `local`, through the first
    /// bytes of the guest's memory.
    pub fn write_local(&mut self, local: u64, seed: u64) -> Result<()> {
        self.memory.memory.copy_in(0, &filled(seed, CHUNK));
        self.run(Command::LocalWrite {
            source: self.at(0),
            local,
            length: CHUNK,
        })?;
        Ok(())
    }

    /// Reads [`CHUNK`] bytes of local memory at `local`, through the guest's memory at `offset`.
    pub fn read_local(&mut self, local: u64, offset: u64) -> Result<Vec<u8>> {
        self.run(Command::LocalRead {
            local,
            destination: self.at(offset),
            length: CHUNK,
        })?;
        Ok(self.bytes(offset, CHUNK))
    }

    /// Sets up a state with all kinds of content: scratch registers, and local memory with data at
    /// its start and in its middle only.
    pub fn furnish(&mut self, seed: u64) -> Result<()> {
        self.write_local(0, seed)?;
        self.write_local(self.vf.local_memory() / 2, !seed)?;
        for scratch in 0..hw::VIFA_REFERENCE_SCRATCHES {
            self.vf.set_register(
                hw::VIFA_REFERENCE_SCRATCH + 4 * scratch,
                seed as u32 ^ (scratch * 0x0101_0101),
            );
        }
        Ok(())
    }

    /// Checks that a command submitted now waits until the VF is in `state`, and then completes.
    pub fn doorbell_is_kept_until(&mut self, state: State) -> Result<()> {
        let present = self.vf.device.state()?;
        self.engine.submit(&self.vf, Command::Nop)?;
        thread::sleep(Duration::from_millis(100));
        expect::claim(
            &format!("no completion in {}", present.name()),
            self.engine.take_completion(&self.vf)?.is_none(),
        )?;
        self.vf.device.change_state(state)?;
        self.engine.wait(&self.vf, COMPLETION_TIMEOUT)?;
        self.engine.verify_idle(&self.vf)
    }

    /// Checks that the VF, which has the index 0, has these run states in these states.
    pub fn follows(&self, registers: &RegisterFile, states: &[(State, u32)]) -> Result<()> {
        for &(state, expected) in states {
            let _session = self.vf.device.enter(state)?;
            expect::equal(
                &format!("run state in {}", state.name()),
                registers.run_state(0),
                expected,
            )?;
        }
        Ok(())
    }

    /// Resets the VF and checks that it is in its initial state and works.
    pub fn recover(&mut self) -> Result<()> {
        self.vf.reset()?;
        self.works_after_a_reset()
    }

    /// Checks that the VF is in its initial state after a reset, and works.
    pub fn works_after_a_reset(&mut self) -> Result<()> {
        expect::equal(
            "state after a reset",
            self.vf.device.state()?,
            State::Running,
        )?;
        self.engine.enable(&self.vf).context("after a reset")?;
        self.work(0x1234_5678_9abc_def0).context("after a reset")
    }

    /// Checks that the VF rejects `stream` at a write or at the end of RESUMING, and that a reset
    /// recovers the VF. Returns the text of the error.
    pub fn refuses(&self, what: &str, stream: &[u8]) -> Result<String> {
        let device = &self.vf.device;
        let result = device.try_load(stream, Segments::Whole)?;
        expect::refused(what, result, &[libc::EINVAL])?;
        let state = device.state()?;
        expect::claim(
            &format!("{what}: RESUMING or ERROR rather than {}", state.name()),
            matches!(state, State::Resuming | State::Error),
        )?;
        let text = region::error_text(&region::read(device)?)?.to_owned();
        self.vf.reset()?;
        expect::equal("state after a reset", device.state()?, State::Running)?;
        Ok(text)
    }

    /// Checks that the VF rejects all `streams` and works afterwards.
    pub fn refuses_each<S: AsRef<[u8]>>(
        &mut self,
        streams: impl IntoIterator<Item = (String, S)>,
    ) -> Result<()> {
        for (what, stream) in streams {
            self.refuses(&what, stream.as_ref())?;
        }
        self.recover()
    }

    /// Checks that the VF rejects `stream` with an error that names `field`.
    pub fn refuses_naming(&self, field: &str, what: &str, stream: &Stream) -> Result<()> {
        let text = self.refuses(what, &stream.seal())?;
        expect::claim(
            &format!("{what}: an error that names {field}, not {text:?}"),
            text.contains(field),
        )
    }

    /// Returns a saved VF in STOP, and its stream.
    pub fn saved(bed: &Bed, index: u32) -> Result<(Self, Vec<u8>)> {
        let mut guest = Self::new(bed, index)?;
        guest.furnish(0xfeed)?;
        let stream = guest.vf.device.save()?;
        Ok((guest, stream))
    }

    /// Brings the VF `index` to ERROR: part of a stream makes it reject a valid one.
    pub fn fail(&self, bed: &Bed, index: u32) -> Result<()> {
        let device = &self.vf.device;
        let stream = device.save()?;
        let registers = RegisterFile::map(&bed.pf)?;
        let _armed = registers.arm(
            index,
            LOAD,
            Fault::Status(hw::VIFA_STATUS_DEVICE_FAILURE),
            1,
        )?;
        expect::refused(
            "load by a device that fails",
            device.try_load(&stream, Segments::Whole)?,
            &[libc::EIO],
        )?;
        expect::equal(
            "state after a device failure",
            device.state()?,
            State::Error,
        )
    }
}
