// SPDX-License-Identifier: GPL-2.0

//! The measured device: an open virtual function of the reference device, with the guest's side of
//! it.

use std::sync::Arc;

use anyhow::{ensure, Context, Result};
use vifa_selftests::{
    engine::{Command, Engine, Vf},
    vfio::{AddressSpace, DmaMemory},
};
use vifa_vfio::pci::Function;

const RINGS_AT: u64 = 0x1000_0000;
const MEMORY_AT: u64 = 0x2000_0000;

/// Number of bytes that the guest's side writes to local memory at a time.
const STEP: u64 = 1 << 20;

/// A virtual function, and the guest's side of it.
pub struct Subject {
    /// The virtual function.
    pub vf: Vf,
    /// Number of bytes of local memory, all of them mapped.
    pub local_memory: u64,
    _engine: Engine,
    _space: Arc<AddressSpace>,
}

impl Subject {
    /// Opens `function` and fills its local memory.
    pub fn open(function: &Function) -> Result<Self> {
        let space = AddressSpace::iommufd()?;
        let vf = Vf::open(function, &space)?;
        let mut engine = Engine::new(&vf, &space, RINGS_AT)?;
        let local_memory = vf.local_memory();
        ensure!(
            local_memory != 0,
            "{function} has no local memory: set the property local-memory"
        );
        fill(&vf, &mut engine, &space, local_memory)
            .with_context(|| format!("failed to fill {function}'s local memory"))?;
        Ok(Self {
            vf,
            local_memory,
            _engine: engine,
            _space: space,
        })
    }
}

/// Writes different bytes to each step of local memory.
fn fill(vf: &Vf, engine: &mut Engine, space: &Arc<AddressSpace>, local_memory: u64) -> Result<()> {
    let memory = DmaMemory::new(space, MEMORY_AT, STEP as usize)?;
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
