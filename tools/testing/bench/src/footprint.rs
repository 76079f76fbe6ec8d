// SPDX-License-Identifier: GPL-2.0

//! Kernel memory of a virtual function: bound, open, while its writes are logged, while it is
//! saved, while it is restored, and after all of that.
//!
//! Each value is the difference between two moments, divided by the number of virtual functions
//! that do the same at the same time, so that other activity of the system has little effect. The
//! value includes the memory of VFIO and the IOMMU. So does the floor, which is the same with
//! `vfio-pci`, the kernel's driver for any device, which does not support migration.

mod kernel_memory;

use std::fmt;

use anyhow::{Context, Result};
use serde::Serialize;
use vifa_selftests::{
    bed::VF_DRIVER,
    migration::{Session, State},
    module::Module,
    vfio::IovaRange,
};
use vifa_vfio::pci::Function;

use self::kernel_memory::KernelMemory;
use crate::{
    machine::PhysicalFunction,
    measurement::{Figure, Measurement},
    plot::{Group, Plot},
    series::{self, Summary},
    subject::Subject,
    table::Table,
    throughput::save_whole,
};

/// Number of virtual functions that do the same at the same time.
const FUNCTIONS: u32 = 8;

/// The logged range.
const LOGGED: IovaRange = IovaRange::new(1 << 40, 1 << 40);

/// Number of bytes that a session has moved when it is measured: the transfer of local memory has
/// begun.
const HALF_WAY: usize = 2 << 20;

const STOCK_DRIVER: &str = "vfio-pci";

/// The activity of a virtual function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    /// Bound to `vfio-pci`.
    StockBound,
    /// Open, bound to `vfio-pci`.
    StockOpen,
    Bound,
    Open,
    /// Open, with 1 TiB logged at 4 KiB.
    Logging,
    /// Open, halfway through a save while it runs.
    PreCopy,
    /// Open, halfway through a save.
    Saving,
    /// Open, halfway through a restore.
    Restoring,
    /// Closed and unbound.
    Over,
}

/// The results of a stage, in bytes per virtual function.
#[derive(Debug, Serialize)]
struct Footprint {
    stage: Stage,
    slab: Summary,
    vmalloc: Summary,
    dma: Summary,
}

/// The results.
#[derive(Debug, Serialize)]
pub struct Footprints {
    virtual_functions: u32,
    /// Number of rounds, without the first one.
    rounds: usize,
    stages: Vec<Footprint>,
}

/// The values of each stage in a round, relative to the state before all of them.
type Round = Vec<(Stage, KernelMemory)>;

impl Footprints {
    /// Runs `rounds` rounds with virtual functions of `physical`.
    pub fn measure(physical: &PhysicalFunction, rounds: usize) -> Result<Self> {
        let stock = Module("vfio_pci");
        if !stock.is_loaded() {
            stock.probe()?;
        }
        let functions = physical.virtual_functions(FUNCTIONS)?;
        let rounds = series::rounds(rounds, || round(&functions))?;
        let stages = rounds[0].iter().enumerate().map(|(at, &(stage, _))| {
            let over = |bytes: fn(&KernelMemory) -> i64| {
                Summary::over(&rounds, |round| {
                    bytes(&round[at].1) as f64 / f64::from(FUNCTIONS)
                })
            };
            Footprint {
                stage,
                slab: over(|memory| memory.slab),
                vmalloc: over(|memory| memory.vmalloc),
                dma: over(|memory| memory.dma),
            }
        });
        Ok(Self {
            virtual_functions: FUNCTIONS,
            rounds: rounds.len(),
            stages: stages.collect(),
        })
    }
}

fn unbind(functions: &[Function]) -> Result<()> {
    functions
        .iter()
        .try_for_each(|function| function.unbind().context("failed to unbind"))
}

fn bind(functions: &[Function], driver: &str) -> Result<()> {
    functions
        .iter()
        .try_for_each(|function| Ok(function.ensure_bound(driver)?))
}

fn open(functions: &[Function]) -> Result<Vec<Subject>> {
    functions.iter().map(Subject::open).collect()
}

fn round(functions: &[Function]) -> Result<Round> {
    unbind(functions)?;
    let before = KernelMemory::now()?;
    let mut round = Round::new();
    let mut at = |stage| -> Result<()> {
        round.push((stage, KernelMemory::now()?.since(&before)));
        Ok(())
    };

    bind(functions, STOCK_DRIVER)?;
    at(Stage::StockBound)?;
    let subjects = open(functions)?;
    at(Stage::StockOpen)?;
    drop(subjects);
    unbind(functions)?;

    bind(functions, VF_DRIVER)?;
    at(Stage::Bound)?;
    let subjects = open(functions)?;
    at(Stage::Open)?;
    for subject in &subjects {
        let device = &subject.vf.device;
        device
            .start_logging(&[LOGGED], 4096)
            .context("failed to start logging")?;
    }
    at(Stage::Logging)?;
    for subject in &subjects {
        let device = &subject.vf.device;
        device.stop_logging().context("failed to stop logging")?;
    }
    half_saved(&subjects, State::PreCopy, || at(Stage::PreCopy))?;
    half_saved(&subjects, State::StopCopy, || at(Stage::Saving))?;
    half_restored(&subjects, || at(Stage::Restoring))?;
    drop(subjects);
    unbind(functions)?;
    at(Stage::Over)?;
    Ok(round)
}

/// Enters the state `saving` with all of `subjects`, reads a part of their streams, calls `work`,
/// and restores the previous state.
fn half_saved(
    subjects: &[Subject],
    saving: State,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let begin = |subject: &Subject| {
        let session = subject.vf.device.start(saving)?;
        session
            .read(HALF_WAY)
            .context("failed to read the stream")?;
        Ok(session)
    };
    let sessions: Vec<Session> = subjects.iter().map(begin).collect::<Result<_>>()?;
    work()?;
    drop(sessions);
    subjects
        .iter()
        .try_for_each(|subject| subject.vf.device.change_state(State::Running))
}

/// Enters RESUMING with all of `subjects`, writes a part of their streams, calls `work`, and resets
/// them.
fn half_restored(subjects: &[Subject], work: impl FnOnce() -> Result<()>) -> Result<()> {
    let first = subjects.first().context("no virtual function")?;
    first.vf.device.change_state(State::Stop)?;
    let stream = save_whole(&first.vf.device, first.local_memory)?;
    let begin = |subject: &Subject| {
        let session = subject.vf.device.start(State::Resuming)?;
        session
            .write(&stream[..HALF_WAY])
            .context("failed to write the stream")?;
        Ok(session)
    };
    let sessions: Vec<Session> = subjects.iter().map(begin).collect::<Result<_>>()?;
    drop(stream);
    work()?;
    drop(sessions);
    subjects.iter().try_for_each(|subject| subject.vf.reset())
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StockBound => "floor: bound to vfio-pci",
            Self::StockOpen => "floor: open, vfio-pci",
            Self::Bound => "bound",
            Self::Open => "open",
            Self::Logging => "logging 1 TiB",
            Self::PreCopy => "saving, PRE_COPY",
            Self::Saving => "saving, STOP_COPY",
            Self::Restoring => "restoring",
            Self::Over => "over",
        })
    }
}

impl fmt::Display for Footprints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Memory of a virtual function: the mean of {}, {} rounds\n",
            self.virtual_functions, self.rounds
        )?;
        for (unit, bytes) in [
            (
                "KiB of slab",
                (|stage| stage.slab) as fn(&Footprint) -> Summary,
            ),
            ("KiB of vmalloc", |stage| stage.vmalloc),
            ("KiB of DMA memory", |stage| stage.dma),
        ] {
            let mut table = Table::new(unit, 1);
            table.extend(self.stages.iter().map(|stage| {
                let name = stage.stage.to_string();
                (name, bytes(stage).scaled(1.0 / 1024.0))
            }));
            table.fmt(f)?;
        }
        Ok(())
    }
}

impl Measurement for Footprints {
    const NAME: &'static str = "memory";

    fn figures(&self) -> Vec<Figure> {
        Vec::new()
    }

    fn plots(&self) -> Vec<Plot> {
        let groups = self.stages.iter().map(|stage| {
            let bars = [
                ("slab", stage.slab),
                ("vmalloc", stage.vmalloc),
                ("DMA", stage.dma),
            ];
            let kibibytes = |(series, bytes): (_, Summary)| (series, bytes.scaled(1.0 / 1024.0));
            Group::new(stage.stage.to_string(), bars.map(kibibytes))
        });
        vec![Plot::bars(
            Self::NAME,
            "Memory of a virtual function",
            "KiB",
            groups.collect(),
        )]
    }
}
