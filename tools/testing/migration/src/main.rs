// SPDX-License-Identifier: GPL-2.0

//! Migrates a virtual machine with a VIFA interface, and believes only what it verifies.
//!
//! Runs as root on the SR-IOV host. It makes virtual functions, passes one to a virtual machine
//! under the distribution's unmodified QEMU and moves the machine, its workload running, to another
//! QEMU that has another virtual function. The workload in the guest verifies every byte that the
//! device moves, and that each command completes exactly once.

mod console;
mod migration;
mod processor;
mod qmp;
mod sriov;
mod style;
mod tap;
mod vmm;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context, Result};
use clap::{Args, Parser, Subcommand};

use crate::migration::{Guest, Outcome, Plan};
use crate::sriov::Host;
use crate::style::{mebibytes, seconds, Clock};
use crate::tap::Tap;
use crate::vmm::Machine;

/// Migrate a virtual machine with a VIFA interface and check that nothing was lost.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Action,

    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Action {
    /// Migrate once, and tell how it goes.
    Demo,
    /// Migrate back and forth; the results are TAP.
    Test {
        /// How often to migrate.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
}

#[derive(Args)]
struct Options {
    /// The guest's kernel: a bzImage, or a vmlinux with the PVH entry point.
    #[arg(long, global = true, env = "VIFA_GUEST_KERNEL", value_name = "FILE")]
    kernel: Option<PathBuf>,

    /// The guest's initramfs, as build-guest packs it.
    #[arg(long, global = true, env = "VIFA_GUEST_INITRAMFS", value_name = "FILE")]
    initramfs: Option<PathBuf>,

    /// The driver's module, for when no driver is there; else modprobe finds it.
    #[arg(long, global = true, env = "VIFA_MODULE", value_name = "FILE")]
    module: Option<PathBuf>,

    /// The physical function, as in 0000:01:00.0; not needed where there is one.
    #[arg(long, global = true, value_name = "ADDRESS")]
    device: Option<String>,

    /// The QEMU that the virtual machine runs under.
    #[arg(
        long,
        global = true,
        default_value = "qemu-system-x86_64",
        value_name = "PROGRAM"
    )]
    qemu: PathBuf,

    /// Memory of the virtual machine, in MiB.
    #[arg(long, global = true, default_value_t = 128, value_name = "MIB")]
    memory: u32,

    /// Arguments for the guest's kernel.
    #[arg(long, global = true, value_name = "ARGUMENTS")]
    append: Option<String>,

    /// How long the machine runs on while it is sent, in seconds.
    #[arg(long, global = true, default_value_t = 4, value_name = "SECONDS")]
    live: u64,

    /// The most that is sent in a second, in MiB.
    #[arg(long, global = true, default_value_t = 64, value_name = "MIB")]
    bandwidth: u64,

    /// Operations that the workload must complete before and after each migration.
    #[arg(long, global = true, default_value_t = 200, value_name = "NUMBER")]
    operations: u64,
}

impl Options {
    fn machine(&self) -> Result<Machine> {
        let machine = Machine {
            qemu: self.qemu.clone(),
            kernel: self
                .kernel
                .clone()
                .context("no guest: name its kernel by --kernel or VIFA_GUEST_KERNEL")?,
            initramfs: self
                .initramfs
                .clone()
                .context("no guest: name its initramfs by --initramfs or VIFA_GUEST_INITRAMFS")?,
            memory: self.memory,
            append: self.append.clone(),
        };
        machine.check()?;
        Ok(machine)
    }

    fn plan(&self) -> Plan {
        Plan {
            live: Duration::from_secs(self.live),
            bandwidth: self.bandwidth * 1024 * 1024,
            operations: self.operations,
        }
    }

    fn host(&self) -> Result<Host> {
        // SAFETY: The call has no arguments and cannot fail.
        let root = unsafe { libc::geteuid() } == 0;
        ensure!(root, "virtual functions take root to make");
        Host::prepare(self.module.as_deref(), self.device.as_deref(), 2)
    }
}

/// A directory of this process's own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("vifa-migrate-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left in a temporary directory harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Action::Demo => demo(&arguments.options),
        Action::Test { rounds } => test(&arguments.options, rounds),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vifa-migrate: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(options: &Options) -> Result<bool> {
    let machine = options.machine()?;
    let plan = options.plan();
    let scratch = Scratch::new()?;
    let clock = Clock::start();

    let (host, version) = prepare(options, &machine)?;
    let [source, destination] = &host.virtuals[..] else {
        unreachable!("two virtual functions were asked for");
    };
    clock.tell(&version);
    clock.tell(&format!("virtual functions {source} and {destination}"));
    clock.tell(&format!("source:      QEMU starts, its guest has {source}"));
    let mut guest = Guest::start(&machine, source, scratch.path())?;
    clock.tell(&format!(
        "destination: QEMU starts with {destination} and waits"
    ));
    let vmm = guest.destination(destination)?;
    guest.boot()?;
    clock.tell("source:      the guest is up, its workload runs");
    let outcome = guest.migrate(vmm, &plan, &mut |text| clock.tell(text))?;
    let workload = guest.finish()?;
    clock.tell("destination: the workload has ended, everything is verified");
    guest.quit()?;

    println!("{}", report(&outcome));
    println!(
        "  in all           {} operations, {} verified, longest gap {} ms of the guest's time",
        workload.operations,
        mebibytes(workload.bytes),
        workload.longest_gap_ms
    );
    println!(
        "  commands         {} submitted, {} completed, {} verified",
        workload.submitted, workload.completed, workload.operations
    );
    println!(
        "  errors           {}, lost interrupts {}",
        workload.errors, workload.lost_interrupts
    );
    Ok(true)
}

/// Makes the virtual functions and asks QEMU who it is, both at once: QEMU takes long to start for
/// the first time.
fn prepare(options: &Options, machine: &Machine) -> Result<(Host, String)> {
    thread::scope(|scope| {
        let version = scope.spawn(|| machine.version());
        let host = options.host()?;
        let version = version
            .join()
            .map_err(|_| anyhow!("asking for QEMU's version"))??;
        Ok((host, version))
    })
}

/// What a migration came to, for people.
fn report(outcome: &Outcome) -> String {
    format!(
        "
  source states    {}
  dest. states     {}
  device state     {} bytes
  memory           {}
  total time       {}
  downtime         {}
  silence          {} between two reports of the workload
  before           {} operations, {} verified
  during           {} operations, {} verified
  after            {} operations, {} verified",
        outcome.source_states.join(" -> "),
        outcome.destination_states.join(" -> "),
        outcome.device_bytes,
        mebibytes(outcome.memory_bytes),
        seconds(outcome.total),
        seconds(outcome.downtime),
        seconds(outcome.silence),
        outcome.before.operations,
        mebibytes(outcome.before.bytes),
        outcome.during.operations,
        mebibytes(outcome.during.bytes),
        outcome.after.operations,
        mebibytes(outcome.after.bytes),
    )
}

fn test(options: &Options, rounds: u32) -> Result<bool> {
    // Beside the rounds: the guest's start, the workload's end, and a test of the workload.
    let mut tap = Tap::plan(rounds + 3);
    let begin = Instant::now();
    let result = run_rounds(options, rounds, &mut tap);
    if let Err(error) = &result {
        tap.fail(&format!("{error:#}"));
    }
    tap.note(&format!("{} in all", seconds(begin.elapsed())));
    Ok(tap.finish())
}

fn run_rounds(options: &Options, rounds: u32, tap: &mut Tap) -> Result<()> {
    let machine = options.machine()?;
    let plan = options.plan();
    let scratch = Scratch::new()?;
    let (host, version) = prepare(options, &machine)?;
    tap.note(&version);

    let mut guest = Guest::start(&machine, &host.virtuals[0], scratch.path())?;
    guest.boot()?;
    tap.pass(&format!("guest runs with {}", guest.function()));
    for round in 1..=rounds {
        let from = guest.function().clone();
        let to = &host.virtuals[round as usize % host.virtuals.len()];
        let vmm = guest.destination(to)?;
        let outcome = guest.migrate(vmm, &plan, &mut |_| ())?;
        tap.pass(&format!("round {round}: {from} to {to}"));
        tap.note(report(&outcome).trim());
    }
    let workload = guest.finish()?;
    tap.pass("every command completed once, every byte is right");
    tap.note(&format!(
        "{} operations, {} verified, {} interrupts, longest gap {} ms of the guest's time",
        workload.operations,
        mebibytes(workload.bytes),
        workload.interrupts,
        workload.longest_gap_ms
    ));
    guest.tamper()?;
    tap.pass("the workload notices a single wrong bit");
    guest.quit()
}
