// SPDX-License-Identifier: GPL-2.0

//! Migrates a virtual machine with VIFA interfaces, and verifies every result: the command line of
//! the library.

mod compatibility;
mod demo;
mod downtimes;
mod interruptions;
mod matrix;
mod network;
mod rounds;

use std::{path::PathBuf, process::ExitCode, thread, time::Duration};

use anyhow::{anyhow, ensure, Context, Result};
use clap::{Args, Parser, Subcommand};
use vifa_migrate::{
    devices,
    migration::Plan,
    processor::Accelerator,
    sriov::Host,
    vmm::{Machine, MEMORY, QEMU},
};

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
    /// Migrate once, and log the steps.
    Demo {
        /// Number of virtual functions of the machine.
        #[arg(long, default_value_t = 1)]
        devices: usize,
    },
    /// Migrate back and forth in all ways, interrupt some migrations, and check that a log that
    /// loses pages is detected. Prints TAP.
    Test {
        /// Number of migrations.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Number of virtual functions of the machine.
        #[arg(long, default_value_t = 2)]
        devices: usize,
    },
    /// Migrate machines with each number of virtual functions in each way between all VFIO
    /// backends, and several machines at the same time. Prints TAP.
    Matrix {
        /// Numbers of virtual functions of a machine.
        #[arg(
            long,
            value_delimiter = ',',
            default_value = "1,2,4",
            value_name = "NUMBERS"
        )]
        devices: Vec<usize>,
        /// Number of machines that migrate at the same time at the end.
        #[arg(long, default_value_t = 2)]
        machines: usize,
    },
    /// Cancel migrations and kill their destinations, in each phase and at random moments, and
    /// migrate afterwards. Prints TAP.
    Interrupt {
        /// Number of random moments.
        #[arg(long, default_value_t = 20)]
        times: u32,
        /// Seed of the random moments.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Number of virtual functions of the machine.
        #[arg(long, default_value_t = 2)]
        devices: usize,
        /// Skip the phases.
        #[arg(long)]
        random_alone: bool,
    },
    /// Measure the downtime of the machine: with local memory moved while it runs, with local
    /// memory moved after it has stopped, and without a device.
    Downtime {
        /// The physical function whose devices report changes of local memory.
        #[arg(long, value_name = "ADDRESS")]
        pre_copy: String,
        /// The physical function whose devices do not.
        #[arg(long, value_name = "ADDRESS")]
        stop_copy: String,
        /// Number of migrations of each kind.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
    /// Migrate between devices that differ in one field each. Uses all devices of this machine.
    /// Prints TAP.
    Compatibility {
        /// The fields of struct vifa_identity to test, as in "vendor,bar_size[0]" (default: all).
        #[arg(long, value_delimiter = ',', value_name = "FIELDS")]
        fields: Vec<String>,
    },
    /// Migrate a machine with a virtual function of a network card under traffic, interrupt a
    /// migration, and offer the machine to an incompatible host. Requires two cards that the
    /// kernel's igb drives. Prints TAP.
    Network {
        /// Number of migrations.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Test all interruptions and refusals instead of one of each, and measure with iperf3.
        #[arg(long)]
        full: bool,
    },
    /// Run the same migrations, and log the steps.
    NetworkDemo {
        /// Number of migrations.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
    /// List the devices that the SR-IOV host needs for the compatibility tests, in addition to a
    /// reference device with only the property fault-injection, as options of scripts/host-vm, one
    /// word per line.
    Devices {
        /// The fields, as for the tests.
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

    /// The driver's module, if the driver is not loaded; otherwise modprobe finds it.
    #[arg(long, global = true, env = "VIFA_MODULE", value_name = "FILE")]
    module: Option<PathBuf>,

    /// The physical function, as in 0000:01:00.0. Optional if there is only one.
    #[arg(long, global = true, value_name = "ADDRESS")]
    device: Option<String>,

    /// The QEMU that runs the virtual machine.
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

    /// The accelerator of the virtual machine; by default KVM, if it works.
    #[arg(long, global = true, value_enum, value_name = "NAME")]
    accelerator: Option<Accelerator>,

    /// Minimum time for which the machine keeps running during the migration, in seconds.
    #[arg(long, global = true, default_value_t = 0, value_name = "SECONDS")]
    live: u64,

    /// Maximum bandwidth of the migration, in MiB per second; by default QEMU's limit.
    #[arg(long, global = true, value_name = "MIB")]
    bandwidth: Option<u64>,

    /// Maximum downtime of the machine, in milliseconds; by default QEMU's limit.
    #[arg(long, global = true, value_name = "MILLISECONDS")]
    downtime_limit: Option<u64>,

    /// Number of operations that the workload must complete before and after each migration.
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
                .context("no guest kernel: set --kernel or VIFA_GUEST_KERNEL")?,
            initramfs: self
                .initramfs
                .clone()
                .context("no guest initramfs: set --initramfs or VIFA_GUEST_INITRAMFS")?,
            memory: self.memory,
            append: self.append.clone(),
            accelerator: self.accelerator(),
        };
        machine.check()?;
        Ok(machine)
    }

    /// Returns the selected accelerator, or the best one that works. Reports a fallback.
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
        ensure!(root, "root is required to create virtual functions");
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

/// Creates `functions` virtual functions and queries QEMU's version in parallel, because QEMU's
/// first start takes a long time.
fn prepare(options: &Options, machine: &Machine, functions: usize) -> Result<(Host, String)> {
    thread::scope(|scope| {
        let version = scope.spawn(|| machine.version());
        let host = options.host(functions)?;
        let version = version
            .join()
            .map_err(|_| anyhow!("failed to query QEMU's version"))??;
        Ok((host, version))
    })
}
