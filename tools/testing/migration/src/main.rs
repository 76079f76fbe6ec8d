// SPDX-License-Identifier: GPL-2.0

//! Migrates a virtual machine with a VIFA interface, and believes only what it verifies.
//!
//! Runs as root on the SR-IOV host. It makes virtual functions, passes one to a virtual machine
//! under the distribution's unmodified QEMU and moves the machine, its workload running, to another
//! QEMU that has another virtual function. The workload in the guest verifies every byte that the
//! device moves, and that each command completes exactly once.

mod compatibility;
mod console;
mod demo;
mod devices;
#[path = "../../selftests/vifa/src/hw.rs"]
mod hw;
mod identity;
mod kernel_log;
mod migration;
mod processor;
mod qmp;
mod region;
mod register_file;
mod rounds;
mod sriov;
mod style;
mod tap;
mod vmm;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, ensure, Context, Result};
use clap::{Args, Parser, Subcommand};

use crate::migration::Plan;
use crate::sriov::Host;
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
    /// Migrate between devices that differ in one field each; the results are TAP. Every device of
    /// this machine takes part.
    Compatibility {
        /// The fields of struct vifa_identity to go through, as in "vendor,bar_size[0]"; all of
        /// them by default.
        #[arg(long, value_delimiter = ',', value_name = "FIELDS")]
        fields: Vec<String>,
    },
    /// List the devices that the SR-IOV host needs for the tests of compatibility, beside a reference
    /// device with no property but fault-injection, as options of scripts/host-vm: one word a line.
    Devices {
        /// As for the tests.
        #[arg(long, value_delimiter = ',', value_name = "FIELDS")]
        fields: Vec<String>,
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

    fn check_root(&self) -> Result<()> {
        // SAFETY: The call has no arguments and cannot fail.
        let root = unsafe { libc::geteuid() } == 0;
        ensure!(root, "virtual functions take root to make");
        Ok(())
    }

    fn host(&self) -> Result<Host> {
        self.check_root()?;
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
        Action::Demo => demo::run(&arguments.options),
        Action::Test { rounds } => rounds::run(&arguments.options, rounds),
        Action::Compatibility { fields } => compatibility::run(&arguments.options, &fields),
        Action::Devices { fields } => list_devices(&fields),
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

fn list_devices(fields: &[String]) -> Result<bool> {
    for argument in devices::arguments(&devices::select(fields)?) {
        println!("--device\n{argument}");
    }
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
