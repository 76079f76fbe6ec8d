// SPDX-License-Identifier: GPL-2.0

//! The distribution's unmodified QEMU, with virtual functions passed through.
//!
//! The devices are passed with QEMU's default settings, as a user would pass them. Unless the
//! devices have no dirty log, no option enables or configures their migration. QEMU's trace shows
//! its actions on the devices ([`crate::trace`]).

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use serde_json::json;
use vifa_vfio::pci::Function;
use vifa_vfio::wait_for;

use crate::console::Output;
use crate::processor::{self, Accelerator};
use crate::qmp::Qmp;
use crate::trace::{self, Trace};

/// The distribution's QEMU.
pub const QEMU: &str = "qemu-system-x86_64";

/// Default memory of a virtual machine, in MiB.
pub const MEMORY: u32 = 64;

/// Maximum time until QEMU quits.
const QUIT_TIMEOUT: Duration = Duration::from_secs(300);

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

    fn arguments(&self, passthrough: &Passthrough, files: &Files) -> Vec<String> {
        let mut kernel = format!(
            "console=ttyS0 loglevel=5 {WITHOUT_CLOCKS} VIFA_DEVICES={} {}",
            passthrough.functions.len(),
            processor::clock()
        );
        if let Some(append) = &self.append {
            kernel += " ";
            kernel += append;
        }
        let qmp = format!("unix:{},server=on,wait=off", files.socket.display());
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
            "-serial",
            "stdio",
            "-qmp",
            &qmp,
            "-D",
            &files.trace.to_string_lossy(),
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

/// The private files of a QEMU.
#[derive(Debug)]
struct Files {
    socket: PathBuf,
    errors: PathBuf,
    trace: PathBuf,
}

/// A running QEMU. It ends when this is dropped, or when this process dies.
pub struct Vmm {
    child: Child,
    keyboard: ChildStdin,
    files: Files,
    output: Option<Output>,
    qmp: Option<Qmp>,
    trace_start: u64,
    /// Number of transferred bytes at the last query.
    pub(crate) transferred: u64,
    /// The devices that are passed through.
    pub passthrough: Passthrough,
    /// Its purpose.
    pub role: Role,
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
        let file = |suffix| directory.join(format!("{name}.{suffix}"));
        let files = Files {
            socket: file("qmp"),
            errors: file("stderr"),
            trace: file("trace"),
        };
        let errors =
            File::create(&files.errors).with_context(|| format!("{}", files.errors.display()))?;
        let parent = std::process::id();
        let mut command = Command::new(&machine.qemu);
        command
            .args(machine.arguments(passthrough, &files))
            .args(role.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .process_group(0);
        // SAFETY: The closure makes system calls only, which are safe between fork and exec.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                // The parent may have died before the call took effect.
                if libc::getppid() as u32 != parent {
                    libc::_exit(1);
                }
                Ok(())
            });
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {}", machine.qemu.display()))?;
        let (Some(keyboard), Some(screen)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("QEMU has no standard input and output");
        };
        Ok(Self {
            child,
            keyboard,
            files,
            output: Some(Output::new(screen)),
            qmp: None,
            trace_start: 0,
            transferred: 0,
            passthrough: passthrough.clone(),
            role,
        })
    }

    /// Returns the guest's console of this QEMU, once.
    pub fn take_output(&mut self) -> Result<Output> {
        self.output.take().context("the console is already in use")
    }

    /// Returns the connection to QEMU, which is made on first use.
    pub fn qmp(&mut self) -> Result<&mut Qmp> {
        if self.qmp.is_none() {
            let child = &mut self.child;
            let errors = &self.files.errors;
            let qmp = Qmp::connect(&self.files.socket, || alive(child, errors))?;
            self.qmp = Some(qmp);
        }
        self.qmp.as_mut().context("no connection to QEMU")
    }

    /// Returns an error if QEMU has ended.
    pub fn alive(&mut self) -> Result<()> {
        alive(&mut self.child, &self.files.errors)
    }

    /// Returns a number that changes when QEMU reports an event or transfers more of its machine.
    pub fn progress(&self) -> u64 {
        self.transferred + self.qmp.as_ref().map_or(0, Qmp::reported)
    }

    /// Returns its process id.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Sets the start of [`Self::trace`].
    pub fn begin_trace(&mut self) {
        // QEMU creates the file on its first write.
        self.trace_start = fs::metadata(&self.files.trace).map_or(0, |file| file.len());
    }

    /// Returns the actions on the devices since [`Self::begin_trace`].
    pub fn trace(&self) -> Result<Trace> {
        Trace::read(&self.files.trace, self.trace_start)
    }

    /// Kills QEMU immediately.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().context("killing QEMU")?;
        self.child.wait().context("failed to wait for QEMU")?;
        Ok(())
    }

    /// Types a line on the guest's console.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        writeln!(self.keyboard, "{line}").context("failed to write to the guest's console")
    }

    /// Ends QEMU in an orderly way.
    pub fn quit(mut self) -> Result<()> {
        self.qmp()?.execute("quit", json!({}))?;
        let status = wait_for(QUIT_TIMEOUT, || self.child.try_wait())?.with_context(|| {
            format!("quit of QEMU timed out after {} s", QUIT_TIMEOUT.as_secs())
        })?;
        ensure!(
            status.success(),
            "QEMU ended with {status}: {}",
            read_errors(&self.files.errors)
        );
        Ok(())
    }

    /// Returns QEMU's standard error output.
    pub fn errors(&self) -> String {
        read_errors(&self.files.errors)
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        // Both fail only if QEMU has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn alive(child: &mut Child, errors: &Path) -> Result<()> {
    match child.try_wait()? {
        None => Ok(()),
        Some(status) => Err(ended(status, errors)),
    }
}

fn ended(status: ExitStatus, errors: &Path) -> anyhow::Error {
    anyhow::anyhow!("QEMU ended with {status}: {}", read_errors(errors))
}

fn read_errors(errors: &Path) -> String {
    match fs::read_to_string(errors) {
        Ok(text) if text.trim().is_empty() => "no error output".to_owned(),
        Ok(text) => text.trim().to_owned(),
        Err(error) => format!("failed to read its error output: {error}"),
    }
}
