// SPDX-License-Identifier: GPL-2.0

//! The distribution's unmodified QEMU, with virtual functions passed through.
//!
//! The devices are passed with QEMU's default settings, as a user would pass them. Unless the
//! devices have no dirty log, no option enables or configures their migration. QEMU's trace shows
//! its actions on the devices ([`crate::trace`]).

use std::{
    env, fmt, fs,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{ensure, Context, Result};
use vifa_qmp::Qemu;
use vifa_vfio::pci::Function;

use crate::{
    processor::{self, Accelerator},
    trace::{self, Trace},
};

/// The distribution's QEMU.
pub const QEMU: &str = "qemu-system-x86_64";

/// Default memory of a virtual machine, in MiB.
pub const MEMORY: u32 = 64;

/// QEMU's machine, without devices that the firmware would probe and the guest does not use.
const MACHINE: &str = "q35,sata=off,smbus=off,i8042=off,vmport=off";

/// The VFIO interface that passes a device to QEMU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// A group, in a container.
    #[default]
    Container,
    /// A character device, with an iommufd.
    Iommufd,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Container => "container",
            Self::Iommufd => "iommufd",
        })
    }
}

/// The devices of this machine that are passed to a QEMU: virtual functions, in the order of the
/// guest's devices.
#[derive(Clone, Debug, Default)]
pub struct Passthrough {
    /// The functions.
    pub functions: Vec<Function>,
    /// The interface that passes them.
    pub backend: Backend,
    /// Whether the functions have no dirty log, but QEMU shall migrate them anyway.
    pub unlogged: bool,
}

impl Passthrough {
    /// Passes these functions in a container.
    pub fn new(functions: &[Function]) -> Self {
        Self {
            functions: functions.to_vec(),
            ..Self::default()
        }
    }

    /// Returns QEMU's name of the device with this number.
    pub fn id(number: usize) -> String {
        format!("vf{number}")
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if self.backend == Backend::Iommufd {
            arguments.extend(["-object", "iommufd,id=iommufd0"].map(str::to_owned));
        }
        // By default, QEMU does not migrate devices without a dirty log. If forced to, it assumes
        // that all memory is dirty in each round until the machine has stopped: let it query dirty
        // pages only then.
        let log = match self.unlogged {
            true => ",enable-migration=on,x-pre-copy-dirty-page-tracking=off",
            false => "",
        };
        for (number, function) in self.functions.iter().enumerate() {
            let backend = match self.backend {
                Backend::Container => "",
                Backend::Iommufd => ",iommufd=iommufd0",
            };
            arguments.push("-device".to_owned());
            // migration-events enables QEMU's events about the device's migration states. The
            // functions have no ROM.
            arguments.push(format!(
                "vfio-pci,id={},host={function}{backend}{log},migration-events=on,rombar=0",
                Self::id(number)
            ));
        }
        arguments
    }
}

impl fmt::Display for Passthrough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let functions: Vec<_> = self.functions.iter().map(Function::to_string).collect();
        write!(f, "{} ({})", functions.join(" "), self.backend)
    }
}

/// The purpose of a QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// To boot a guest.
    Boot,
    /// To receive a guest and run it.
    Receive,
    /// To receive a guest and keep it paused until it is resumed.
    ReceivePaused,
}

impl Role {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Boot => &[],
            Self::Receive => &["-incoming", "defer"],
            Self::ReceivePaused => &["-incoming", "defer", "-S"],
        }
    }
}

/// Disables KVM's clocks in the guest's kernel: KVM writes them to the guest's memory at the
/// destination before the guest runs, and a comparison would find the difference.
const WITHOUT_CLOCKS: &str = "no-kvmclock no-steal-acc";

/// The common configuration of all virtual machines; source and destination must match.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The QEMU program.
    pub qemu: PathBuf,
    /// The guest's kernel: a bzImage, or a vmlinux with the PVH entry point.
    pub kernel: PathBuf,
    /// The guest's initramfs, as build-guest packs it.
    pub initramfs: PathBuf,
    /// Size of the memory in MiB.
    pub memory: u32,
    /// Additional parameters of the guest's kernel.
    pub append: Option<String>,
    /// The accelerator that runs its processor.
    pub accelerator: Accelerator,
}

impl Machine {
    /// Returns the machine that the environment of the SR-IOV host defines: 64 MiB of memory, and
    /// the guest of `VIFA_GUEST_KERNEL` and `VIFA_GUEST_INITRAMFS`.
    pub fn from_environment() -> Result<Self> {
        let path = |name| {
            let path = env::var_os(name).with_context(|| format!("{name} is not set"))?;
            Ok::<_, anyhow::Error>(PathBuf::from(path))
        };
        let machine = Self {
            qemu: PathBuf::from(QEMU),
            kernel: path("VIFA_GUEST_KERNEL")?,
            initramfs: path("VIFA_GUEST_INITRAMFS")?,
            memory: MEMORY,
            append: None,
            accelerator: Accelerator::best(),
        };
        machine.check()?;
        Ok(machine)
    }

    /// Checks that all files exist before QEMU is started.
    pub fn check(&self) -> Result<()> {
        for (what, path) in [("kernel", &self.kernel), ("initramfs", &self.initramfs)] {
            ensure!(
                path.is_file(),
                "no such file for the guest's {what}: {}",
                path.display()
            );
        }
        Ok(())
    }

    /// Returns QEMU's version and the accelerator.
    pub fn version(&self) -> Result<String> {
        let output = Command::new(&self.qemu)
            .arg("--version")
            .output()
            .with_context(|| format!("starting {}", self.qemu.display()))?;
        ensure!(
            output.status.success(),
            "{} --version ended with {}",
            self.qemu.display(),
            output.status
        );
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.lines().next().unwrap_or_default();
        Ok(format!("{version}, {}", self.accelerator))
    }

    fn arguments(&self, passthrough: &Passthrough, trace: &Path) -> Vec<String> {
        let mut kernel = format!(
            "console=ttyS0 loglevel=5 {WITHOUT_CLOCKS} VIFA_DEVICES={} {}",
            passthrough.functions.len(),
            processor::clock()
        );
        if let Some(append) = &self.append {
            kernel += " ";
            kernel += append;
        }
        let memory = self.memory.to_string();
        let mut arguments = [
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-machine",
            MACHINE,
            "-accel",
            self.accelerator.option(),
            "-m",
            &memory,
            "-kernel",
            &self.kernel.to_string_lossy(),
            "-initrd",
            &self.initramfs.to_string_lossy(),
            "-append",
            &kernel,
            "-D",
            &trace.to_string_lossy(),
        ]
        .map(str::to_owned)
        .to_vec();
        for event in trace::EVENTS {
            arguments.extend(["-trace".to_owned(), event.to_owned()]);
        }
        arguments.extend(passthrough.arguments());
        arguments
    }
}

/// A running QEMU with devices that are passed through.
pub struct Vmm {
    qemu: Qemu,
    trace: PathBuf,
    trace_start: u64,
    /// Number of transferred bytes at the last query.
    pub(crate) transferred: u64,
    /// The devices that are passed through.
    pub passthrough: Passthrough,
    /// Its purpose.
    pub role: Role,
}

impl Deref for Vmm {
    type Target = Qemu;

    fn deref(&self) -> &Qemu {
        &self.qemu
    }
}

impl DerefMut for Vmm {
    fn deref_mut(&mut self) -> &mut Qemu {
        &mut self.qemu
    }
}

impl Vmm {
    /// Starts QEMU. Its files in `directory` begin with `name`.
    pub fn start(
        machine: &Machine,
        passthrough: &Passthrough,
        directory: &Path,
        name: &str,
        role: Role,
    ) -> Result<Self> {
        let trace = directory.join(format!("{name}.trace"));
        let mut arguments = machine.arguments(passthrough, &trace);
        arguments.extend(role.arguments().iter().map(|word| (*word).to_owned()));
        Ok(Self {
            qemu: Qemu::start(&machine.qemu, &arguments, directory, name)?,
            trace,
            trace_start: 0,
            transferred: 0,
            passthrough: passthrough.clone(),
            role,
        })
    }

    /// Returns a number that changes when QEMU reports an event or transfers more of its machine.
    pub fn progress(&self) -> u64 {
        self.transferred + self.reported()
    }

    /// Sets the start of [`Self::trace`].
    pub fn begin_trace(&mut self) {
        // QEMU creates the file on its first write.
        self.trace_start = fs::metadata(&self.trace).map_or(0, |file| file.len());
    }

    /// Returns the actions on the devices since [`Self::begin_trace`].
    pub fn trace(&self) -> Result<Trace> {
        Trace::read(&self.trace, self.trace_start)
    }

    /// Kills QEMU immediately.
    pub fn kill(self) -> Result<()> {
        self.qemu.kill()
    }

    /// Ends QEMU in an orderly way.
    pub fn quit(self) -> Result<()> {
        self.qemu.quit()
    }
}
