// SPDX-License-Identifier: GPL-2.0

//! Measures the VIFA driver against what the kernel does by itself, in the same machine and the same
//! run.
//!
//! Runs as root on the SR-IOV host. `Documentation/vifa/performance.rst` says what is measured and how
//! to read it. Each measurement is a module of its own, which takes the device and returns what is to
//! be reported: a table for people, and an entry in the JSON file.

mod environment;
mod memfd;
mod report;
mod series;
mod subject;
mod throughput;

use std::{fs::File, io::BufWriter, path::PathBuf, process::ExitCode};

use anyhow::{ensure, Context, Result};
use clap::{builder::RangedU64ValueParser, Parser};
use vifa_selftests::sys;

use environment::Environment;
use report::Report;
use subject::Subject;
use throughput::Throughput;

/// Measures the VIFA driver against what the kernel does by itself.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How often to measure; a round before these warms up
    #[arg(long, default_value_t = 7, value_name = "N",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    rounds: usize,

    /// Bytes of the buffer that each read and write uses
    #[arg(long, default_value_t = 1 << 20, value_name = "BYTES",
        value_parser = RangedU64ValueParser::<usize>::new().range(4096..=1 << 30))]
    buffer: usize,

    /// Write the results to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// The processor that everything runs on, where a virtual machine shows another
    #[arg(long, value_name = "NAME")]
    processor: Option<String>,

    /// The driver's file, which is loaded if it is not yet
    #[arg(long, value_name = "PATH", env = "VIFA_MODULE")]
    module: Option<PathBuf>,
}

fn run(arguments: Arguments) -> Result<()> {
    ensure!(sys::is_root(), "VFIO needs root");
    // Before the work, whose results would be lost.
    let json = match &arguments.json {
        Some(path) => {
            let file = File::create(path).with_context(|| path.display().to_string())?;
            Some((path, file))
        }
        None => None,
    };

    let environment = Environment::look(arguments.processor)?;
    println!("{environment}");
    let mut subject = Subject::set_up(arguments.module)?;
    let throughput = Throughput::measure(&mut subject, arguments.rounds, arguments.buffer)?;
    println!("{throughput}");

    if let Some((path, file)) = json {
        let report = Report::new(&environment, &throughput);
        serde_json::to_writer_pretty(BufWriter::new(file), &report)
            .with_context(|| path.display().to_string())?;
    }
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
