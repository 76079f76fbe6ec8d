// SPDX-License-Identifier: GPL-2.0

//! The distribution's unmodified QEMU, with virtual functions passed through.
//!
//! The devices are given to it as anybody would give them, with QEMU's own defaults: unless they have
//! no log of what they write, nothing tells it that they can be migrated, nor how. What it does with them it tells in its trace ([`crate::trace`]).

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use serde_json::json;

use crate::console::Output;
use crate::processor::{self, Accelerator};
use crate::qmp::Qmp;
use crate::sriov::Function;
use crate::trace::{self, Trace};

/// The distribution's QEMU.
pub const QEMU: &str = "qemu-system-x86_64";

/// Memory of a virtual machine, in MiB, unless somebody wants another.
pub const MEMORY: u32 = 64;

/// How long QEMU may take to quit.
const QUIT_TIMEOUT: Duration = Duration::from_secs(300);

/// QEMU's machine, without what the firmware would look for and the guest has no use for.
const MACHINE: &str = "q35,sata=off,smbus=off,i8042=off,vmport=off";

/// By which of VFIO's ways a device reaches QEMU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// By its group, in a container.
    #[default]
    Container,
    /// By its own file, with an iommufd.
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

/// What a QEMU is given of this machine's: virtual functions, in the order of the guest's devices.
#[derive(Clone, Debug, Default)]
pub struct Passthrough {
    /// The functions.
    pub functions: Vec<Function>,
    /// How QEMU gets them.
    pub backend: Backend,
    /// Whether they cannot log what they write, and QEMU is to migrate them nevertheless.
    pub unlogged: bool,
}

impl Passthrough {
    /// These functions, by way of the container.
    pub fn new(functions: &[Function]) -> Self {
        Self {
            functions: functions.to_vec(),
            ..Self::default()
        }
    }

    /// What QEMU calls the device with this number.
    pub fn id(number: usize) -> String {
        format!("vf{number}")
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if self.backend == Backend::Iommufd {
            arguments.extend(["-object", "iommufd,id=iommufd0"].map(str::to_owned));
        }
        // By itself, QEMU does not migrate what nobody tracks; told to, it takes all memory for dirty,
        // again and again, until the machine has stopped: it is told to look only then.
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
            // What it says of migrations it says to a tool that asks, and the functions have no ROM.
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
        let functions: Vec<_> = self.functions.iter().map(Function::address).collect();
        write!(f, "{} ({})", functions.join(" "), self.backend)
    }
}

/// What a QEMU is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// To boot a guest.
    Boot,
    /// To take a guest from elsewhere and run it.
    Receive,
    /// To take a guest from elsewhere and let it stand until it is told to run.
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

/// Keeps the guest's kernel from KVM's clocks: KVM writes them to the guest's memory by itself where a
/// machine arrives, before it runs, and a comparison would find that.
const WITHOUT_CLOCKS: &str = "no-kvmclock no-steal-acc";

/// What every virtual machine here is like; source and destination must be the same.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The program.
    pub qemu: PathBuf,
    /// The guest's kernel: a bzImage, or a vmlinux with the PVH entry point.
    pub kernel: PathBuf,
    /// The guest's initramfs, as build-guest packs it.
    pub initramfs: PathBuf,
    /// Memory in MiB.
    pub memory: u32,
    /// What the guest's kernel is told beside what it needs.
    pub append: Option<String>,
    /// What runs its processor.
    pub accelerator: Accelerator,
}

impl Machine {
    /// The machine that the environment of the SR-IOV host names: 64 MiB of memory, and the guest
    /// of `VIFA_GUEST_KERNEL` and `VIFA_GUEST_INITRAMFS`.
    pub fn from_environment() -> Result<Self> {
        let path = |name| {
            let path = env::var_os(name).with_context(|| format!("{name} names no guest"))?;
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

    /// Checks that everything is there before anything is started.
    pub fn check(&self) -> Result<()> {
        for (what, path) in [("kernel", &self.kernel), ("initramfs", &self.initramfs)] {
            ensure!(
                path.is_file(),
                "the guest's {what} is not there: {}",
                path.display()
            );
        }
        Ok(())
    }

    /// What QEMU says it is, and what runs the processor.
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

/// The files that a QEMU has to itself.
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
    /// What was transferred when QEMU was last asked.
    pub(crate) transferred: u64,
    /// What its guest has of this machine's.
    pub passthrough: Passthrough,
    /// What it was started for.
    pub role: Role,
}

impl Vmm {
    /// Starts QEMU. `name` tells its files in `directory` from another's.
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
                // The parent may have died before that took effect.
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

    /// The guest's console as this QEMU shows it, once.
    pub fn take_output(&mut self) -> Result<Output> {
        self.output.take().context("the console is read already")
    }

    /// The connection to QEMU, which is made when it is first asked for.
    pub fn qmp(&mut self) -> Result<&mut Qmp> {
        if self.qmp.is_none() {
            let child = &mut self.child;
            let errors = &self.files.errors;
            let qmp = Qmp::connect(&self.files.socket, || alive(child, errors))?;
            self.qmp = Some(qmp);
        }
        self.qmp.as_mut().context("no connection to QEMU")
    }

    /// Says why QEMU has ended, if it has.
    pub fn alive(&mut self) -> Result<()> {
        alive(&mut self.child, &self.files.errors)
    }

    /// Returns a number that changes when QEMU reports something or transfers more of its machine.
    pub fn progress(&self) -> u64 {
        self.transferred + self.qmp.as_ref().map_or(0, Qmp::reported)
    }

    /// The number of its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Has [`Self::trace`] begin here.
    pub fn begin_trace(&mut self) {
        // QEMU makes the file when it has something to write.
        self.trace_start = fs::metadata(&self.files.trace).map_or(0, |file| file.len());
    }

    /// What it has done with its devices since [`Self::begin_trace`].
    pub fn trace(&self) -> Result<Trace> {
        Trace::read(&self.files.trace, self.trace_start)
    }

    /// Kills QEMU where it stands.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().context("killing QEMU")?;
        self.child.wait().context("waiting for QEMU")?;
        Ok(())
    }

    /// Types a line on the guest's console.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        writeln!(self.keyboard, "{line}").context("writing to the guest's console")
    }

    /// Ends QEMU in an orderly way.
    pub fn quit(mut self) -> Result<()> {
        self.qmp()?.execute("quit", json!({}))?;
        let deadline = Instant::now() + QUIT_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                ensure!(
                    status.success(),
                    "QEMU ended with {status}: {}",
                    said(&self.files.errors)
                );
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("QEMU did not quit within {} s", QUIT_TIMEOUT.as_secs())
    }

    /// What QEMU wrote to its standard error.
    pub fn errors(&self) -> String {
        said(&self.files.errors)
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        // Either fails only when QEMU has ended before.
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
    anyhow::anyhow!("QEMU ended with {status}: {}", said(errors))
}

fn said(errors: &Path) -> String {
    match fs::read_to_string(errors) {
        Ok(text) if text.trim().is_empty() => "it said nothing".to_owned(),
        Ok(text) => text.trim().to_owned(),
        Err(error) => format!("what it said cannot be read: {error}"),
    }
}
