// SPDX-License-Identifier: GPL-2.0

//! Compares the VIFA driver with the kernel's own facilities, in the same machine and the same run.
//!
//! Runs as root on the SR-IOV host. `Documentation/vifa/performance.rst` describes the measurements
//! and their interpretation. Each measurement is a separate module, which returns a report: a
//! table, an entry in the JSON file, and plots.

mod downtime;
mod environment;
mod footprint;
mod logging;
mod machine;
mod measurement;
mod memfd;
mod parallel;
mod plot;
mod report;
mod series;
mod subject;
mod table;
mod throughput;
mod transition;

use std::{fs::File, io::BufWriter, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{ensure, Context, Result};
use clap::{builder::RangedU64ValueParser, Parser, ValueEnum};
use downtime::Downtimes;
use environment::Environment;
use footprint::Footprints;
use logging::{Logging, Target};
use machine::Machine;
use measurement::Measurement;
use parallel::Parallel;
use report::Report;
use subject::Subject;
use throughput::Throughput;
use transition::Transitions;
use vifa_device::RegisterFile;
use vifa_migrate::{downtime::Setup, vmm};
use vifa_selftests::sys;

/// A kind of measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Transitions,
    Throughput,
    Logging,
    Memory,
    Parallel,
    Downtime,
}

/// Compares the VIFA driver with the kernel's own facilities.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Run only this measurement; may be repeated
    #[arg(long, value_name = "MEASUREMENT")]
    only: Vec<Kind>,

    /// Number of rounds; an additional first round warms up
    #[arg(long, default_value_t = 7, value_name = "N",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    rounds: usize,

    /// Buffer size of each read and write of the throughput, in bytes
    #[arg(long, default_value_t = 1 << 20, value_name = "BYTES",
        value_parser = RangedU64ValueParser::<usize>::new().range(4096..=1 << 30))]
    buffer: usize,

    /// Also write the results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the plots into this directory
    #[arg(long, value_name = "DIRECTORY")]
    plots: Option<PathBuf>,

    /// The name of the physical processor, if a virtual machine reports another
    #[arg(long, value_name = "NAME")]
    processor: Option<String>,

    /// The driver's module, which is loaded if it is not yet loaded
    #[arg(long, value_name = "PATH", env = "VIFA_MODULE")]
    module: Option<PathBuf>,
}

/// The state of a run.
struct Run {
    arguments: Arguments,
    machine: Machine,
    report: Report,
    /// The measurements that failed.
    failed: Vec<&'static str>,
}

impl Run {
    /// Runs the measurement `kind` with `measure`, if it was selected. A failure does not prevent
    /// the other measurements and their reports.
    fn measure<M: Measurement>(
        &mut self,
        kind: Kind,
        measure: impl FnOnce(&Machine, &Arguments) -> Result<M>,
    ) {
        let only = &self.arguments.only;
        if !only.is_empty() && !only.contains(&kind) {
            return;
        }
        let start = Instant::now();
        let added = measure(&self.machine, &self.arguments).and_then(|measurement| {
            println!("{measurement}");
            self.report.add(&measurement)
        });
        if let Err(error) = added {
            eprintln!("{} FAILED: {error:#}", M::NAME);
            self.failed.push(M::NAME);
        }
        eprintln!("({}: {:.0?})\n", M::NAME, start.elapsed());
    }
}

fn throughput(machine: &Machine, arguments: &Arguments) -> Result<Throughput> {
    let mut throughput = Throughput::new(arguments.rounds, arguments.buffer);
    // Devices that do not report changes are saved in the same way.
    for physical in machine.physical().iter().filter(|one| one.reports_dirty()) {
        let functions = physical.virtual_functions(1)?;
        throughput.measure(&Subject::open(&functions[0])?)?;
    }
    Ok(throughput)
}

fn transitions(machine: &Machine, arguments: &Arguments) -> Result<Transitions> {
    let functions = machine.fleet()?.virtual_functions(1)?;
    Transitions::measure(&Subject::open(&functions[0])?, arguments.rounds)
}

fn parallel(machine: &Machine, arguments: &Arguments) -> Result<Parallel> {
    let functions = machine.fleet()?.virtual_functions(Parallel::MOST as u32)?;
    let subjects = functions.iter().map(Subject::open);
    Parallel::measure(&subjects.collect::<Result<Vec<_>>>()?, arguments.rounds)
}

fn logging(machine: &Machine, arguments: &Arguments) -> Result<Logging> {
    let fleet = machine.fleet()?;
    let functions = fleet.virtual_functions(1)?;
    let subject = Subject::open(&functions[0])?;
    let target = Target {
        device: &subject.vf.device,
        vf: 0,
        registers: &RegisterFile::map(&fleet.function)?,
    };
    Logging::measure(&target, arguments.rounds)
}

/// Returns a smaller number of rounds, for memory, which varies little, and for migrations, which
/// take a long time.
fn fewer(rounds: usize) -> usize {
    rounds.div_ceil(3)
}

fn memory(machine: &Machine, arguments: &Arguments) -> Result<Footprints> {
    Footprints::measure(machine.fleet()?, fewer(arguments.rounds))
}

fn downtime(machine: &Machine, arguments: &Arguments) -> Result<Downtimes> {
    let [pre_copy, stop_copy] = machine.twins()?.map(|twin| twin.function.to_string());
    let setup = Setup {
        machine: vmm::Machine::from_environment()?,
        module: arguments.module.clone(),
        pre_copy,
        stop_copy,
        rounds: fewer(arguments.rounds) as u32,
    };
    Downtimes::measure(&setup, &mut |text| eprintln!("{text}"))
}

fn run(mut arguments: Arguments) -> Result<()> {
    ensure!(sys::is_root(), "VFIO requires root");
    // Check the files before the work, whose results would be lost.
    let json = match arguments.json.take() {
        Some(path) => {
            let file = File::create(&path).with_context(|| path.display().to_string())?;
            Some((path, file))
        }
        None => None,
    };
    if let Some(directory) = &arguments.plots {
        ensure!(
            directory.is_dir(),
            "{} is not a directory",
            directory.display()
        );
    }

    let environment = Environment::look(arguments.processor.take())?;
    println!("{environment}");
    let mut run = Run {
        machine: Machine::set_up(arguments.module.clone())?,
        report: Report::new(&environment)?,
        arguments,
        failed: Vec::new(),
    };
    run.measure(Kind::Transitions, transitions);
    run.measure(Kind::Throughput, throughput);
    run.measure(Kind::Logging, logging);
    run.measure(Kind::Memory, memory);
    run.measure(Kind::Parallel, parallel);
    run.measure(Kind::Downtime, downtime);

    let missing = run.report.missing();
    if let Some(directory) = &run.arguments.plots {
        run.report.write_plots(directory)?;
    }
    if let Some((path, file)) = json {
        serde_json::to_writer_pretty(BufWriter::new(file), &run.report.into_json())
            .with_context(|| path.display().to_string())?;
    }
    ensure!(run.failed.is_empty(), "failed: {}", run.failed.join(", "));
    ensure!(
        !run.arguments.only.is_empty() || missing.is_empty(),
        "missing figures: {missing:?}"
    );
    Ok(())
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vifa-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
