// SPDX-License-Identifier: GPL-2.0

//! What is measured: a virtual function of the reference device, all of whose local memory holds
//! data.

use std::{path::PathBuf, sync::Arc};

use anyhow::{ensure, Context, Result};
use vifa_selftests::{
    bed::{Bed, Settings},
    engine::{Command, Engine, Vf},
    vfio::{AddressSpace, DmaMemory},
};

const RINGS_AT: u64 = 0x1000_0000;
const MEMORY_AT: u64 = 0x2000_0000;

/// Bytes that the guest's side has the device write to its local memory at a time.
const STEP: u64 = 1 << 20;

/// A virtual function, and the guest's side of it.
pub struct Subject {
    /// The virtual function.
    pub vf: Vf,
    /// Bytes of local memory, all of them mapped.
    pub local_memory: u64,
    _engine: Engine,
    _memory: DmaMemory,
    _space: Arc<AddressSpace>,
}

impl Subject {
    /// Binds the virtual function, opens it, and fills its local memory.
    pub fn set_up(module: Option<PathBuf>) -> Result<Self> {
        let bed = Bed::set_up(&Settings { module })?;
        let space = AddressSpace::iommufd()?;
        let vf = Vf::open(&bed.vf(0)?, &space)?;
        let mut engine = Engine::new(&vf, &space, RINGS_AT)?;
        let memory = DmaMemory::new(&space, MEMORY_AT, STEP as usize)?;
        let local_memory = vf.local_memory();
        ensure!(
            local_memory != 0,
            "the device has no local memory: give it some with the property local-memory"
        );
        fill(&vf, &mut engine, &memory, local_memory).context("filling of local memory")?;
        Ok(Self {
            vf,
            local_memory,
            _engine: engine,
            _memory: memory,
            _space: space,
        })
    }
}

/// Writes other bytes to each step of local memory.
fn fill(vf: &Vf, engine: &mut Engine, memory: &DmaMemory, local_memory: u64) -> Result<()> {
    for local in (0..local_memory).step_by(STEP as usize) {
        let length = STEP.min(local_memory - local);
        engine.run(
            vf,
            Command::Fill {
                destination: memory.iova,
                length,
                pattern: local.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            },
        )?;
        engine.run(
            vf,
            Command::LocalWrite {
                source: memory.iova,
                local,
                length,
            },
        )?;
    }
    Ok(())
}
