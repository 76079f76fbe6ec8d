// SPDX-License-Identifier: GPL-2.0

//! Migrates a virtual machine with VIFA interfaces, and believes only what it verifies: the command
//! line of what the library does.

mod compatibility;
mod demo;
mod downtimes;
mod interruptions;
mod matrix;
mod network;
mod rounds;

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, ensure, Context, Result};
use clap::{Args, Parser, Subcommand};
use vifa_migrate::devices;
use vifa_migrate::migration::Plan;
use vifa_migrate::processor::Accelerator;
use vifa_migrate::sriov::Host;
use vifa_migrate::vmm::{Machine, MEMORY, QEMU};

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
    Demo {
        /// Virtual functions of the machine.
        #[arg(long, default_value_t = 1)]
        devices: usize,
    },
    /// Migrate back and forth by every way, break some migrations off, and see that a log that loses
    /// pages is found out; the results are TAP.
    Test {
        /// How often to migrate.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Virtual functions of the machine.
        #[arg(long, default_value_t = 2)]
        devices: usize,
    },
    /// Migrate machines with each number of virtual functions by each way from each backend of
    /// VFIO's to each, and several machines at once; the results are TAP.
    Matrix {
        /// Virtual functions of a machine.
        #[arg(
            long,
            value_delimiter = ',',
            default_value = "1,2,4",
            value_name = "NUMBERS"
        )]
        devices: Vec<usize>,
        /// Machines that migrate at once at the end.
        #[arg(long, default_value_t = 2)]
        machines: usize,
    },
    /// Cancel migrations and kill their destinations, in each phase and at random moments, and
    /// migrate then; the results are TAP.
    Interrupt {
        /// How many random moments.
        #[arg(long, default_value_t = 20)]
        times: u32,
        /// What the random moments come from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Virtual functions of the machine.
        #[arg(long, default_value_t = 2)]
        devices: usize,
        /// Leave out the phases.
        #[arg(long)]
        random_alone: bool,
    },
    /// Measure how long the machine stands: with local memory moved while it runs, with local memory
    /// moved when it has stopped, and without a device.
    Downtime {
        /// The physical function whose devices know which of their local memory has changed.
        #[arg(long, value_name = "ADDRESS")]
        pre_copy: String,
        /// The physical function whose devices do not.
        #[arg(long, value_name = "ADDRESS")]
        stop_copy: String,
        /// Migrations of each kind.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
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
    /// Migrate a machine with a virtual function of a network card under traffic, break a migration
    /// off, and offer it to a host that lacks something; the results are TAP. Takes two cards that
    /// the kernel's igb drives.
    Network {
        /// How often to migrate.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Break off and be refused in all ways, not in one of each; and have iperf3 measure.
        #[arg(long)]
        full: bool,
    },
    /// The same migrations, told as they happen.
    NetworkDemo {
        /// How often to migrate.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
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
        default_value = QEMU,
        value_name = "PROGRAM"
    )]
    qemu: PathBuf,

    /// Memory of the virtual machine, in MiB.
    #[arg(long, global = true, default_value_t = MEMORY, value_name = "MIB")]
    memory: u32,

    /// Arguments for the guest's kernel.
    #[arg(long, global = true, value_name = "ARGUMENTS")]
    append: Option<String>,

    /// What runs the virtual machine's processor; by default KVM where it works.
    #[arg(long, global = true, value_enum, value_name = "NAME")]
    accelerator: Option<Accelerator>,

    /// How long the machine runs on while it is sent, at least, in seconds.
    #[arg(long, global = true, default_value_t = 0, value_name = "SECONDS")]
    live: u64,

    /// The most that is sent in a second, in MiB; by default QEMU's own limit.
    #[arg(long, global = true, value_name = "MIB")]
    bandwidth: Option<u64>,

    /// How long the machine may stand, in milliseconds; by default QEMU's own limit.
    #[arg(long, global = true, value_name = "MILLISECONDS")]
    downtime_limit: Option<u64>,

    /// Operations that the workload must complete before and after each migration.
    #[arg(long, global = true, default_value_t = 100, value_name = "NUMBER")]
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
            accelerator: self.accelerator(),
        };
        machine.check()?;
        Ok(machine)
    }

    /// The accelerator that was named, or the best that works. A fallback is reported.
    fn accelerator(&self) -> Accelerator {
        if let Some(named) = self.accelerator {
            return named;
        }
        let (accelerator, missing) = Accelerator::choose();
        if let Some(error) = missing {
            eprintln!("# no KVM, {accelerator} instead: {error:#}");
        }
        accelerator
    }

    fn plan(&self) -> Plan {
        let default = Plan::default();
        Plan {
            live: Duration::from_secs(self.live),
            bandwidth: self.bandwidth.map_or(default.bandwidth, |mib| mib << 20),
            downtime: self
                .downtime_limit
                .map_or(default.downtime, Duration::from_millis),
            operations: self.operations,
            ..default
        }
    }

    fn check_root(&self) -> Result<()> {
        // SAFETY: The call has no arguments and cannot fail.
        let root = unsafe { libc::geteuid() } == 0;
        ensure!(root, "virtual functions take root to make");
        Ok(())
    }

    fn host(&self, functions: usize) -> Result<Host> {
        self.check_root()?;
        Host::prepare(self.module.as_deref(), self.device.as_deref(), functions)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = &arguments.options;
    let result = match arguments.command {
        Action::Demo { devices } => demo::run(options, devices),
        Action::Test { rounds, devices } => rounds::run(options, rounds, devices),
        Action::Matrix { devices, machines } => matrix::run(options, &devices, machines),
        Action::Interrupt {
            times,
            seed,
            devices,
            random_alone,
        } => interruptions::run(options, times, seed, devices, random_alone),
        Action::Downtime {
            pre_copy,
            stop_copy,
            rounds,
        } => downtimes::run(options, pre_copy, stop_copy, rounds),
        Action::Network { rounds, full } => network::run(options, rounds, full),
        Action::NetworkDemo { rounds } => network::demo(options, rounds),
        Action::Compatibility { fields } => compatibility::run(options, &fields),
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

/// Makes `functions` virtual functions and asks QEMU who it is, both at once: QEMU takes long to
/// start for the first time.
fn prepare(options: &Options, machine: &Machine, functions: usize) -> Result<(Host, String)> {
    thread::scope(|scope| {
        let version = scope.spawn(|| machine.version());
        let host = options.host(functions)?;
        let version = version
            .join()
            .map_err(|_| anyhow!("asking for QEMU's version"))??;
        Ok((host, version))
    })
}
