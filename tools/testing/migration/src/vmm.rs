// SPDX-License-Identifier: GPL-2.0

//! The distribution's unmodified QEMU, with one virtual function passed through.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use serde_json::json;

use crate::console::Output;
use crate::processor;
use crate::qmp::Qmp;
use crate::sriov::Function;

/// How long QEMU may take to end when it is told to.
const QUIT_TIMEOUT: Duration = Duration::from_secs(30);

/// QEMU's machine, without what the firmware would look for and the guest has no use for.
const MACHINE: &str = "q35,sata=off,smbus=off,i8042=off,vmport=off";

/// What every virtual machine here is like; source and destination must be the same.
#[derive(Clone, Debug)]
pub struct Machine {
    pub qemu: PathBuf,
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    /// Memory in MiB.
    pub memory: u32,
    /// What the guest's kernel is told beside what it needs.
    pub append: Option<String>,
}

impl Machine {
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

    /// What QEMU says it is.
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
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    fn arguments(&self, function: &Function, socket: &Path) -> Vec<String> {
        let mut kernel = format!("console=ttyS0 loglevel=5 {}", processor::clock());
        if let Some(append) = &self.append {
            kernel += " ";
            kernel += append;
        }
        let device = format!(
            "vfio-pci,id=vf,host={function},enable-migration=on,migration-events=on,rombar=0"
        );
        let qmp = format!("unix:{},server=on,wait=off", socket.display());
        let memory = self.memory.to_string();
        [
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-machine",
            MACHINE,
            "-accel",
            processor::accelerator(),
            "-m",
            &memory,
            "-kernel",
            &self.kernel.to_string_lossy(),
            "-initrd",
            &self.initramfs.to_string_lossy(),
            "-append",
            &kernel,
            "-device",
            &device,
            "-serial",
            "stdio",
            "-qmp",
            &qmp,
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

/// A running QEMU. It ends when this is dropped, or when this process dies.
pub struct Vmm {
    child: Child,
    keyboard: ChildStdin,
    errors: PathBuf,
    socket: PathBuf,
    output: Option<Output>,
    qmp: Option<Qmp>,
    /// The virtual function that its guest has.
    pub function: Function,
}

impl Vmm {
    /// Starts QEMU with a guest that boots, or that is to come from elsewhere. `name` tells its
    /// files in `directory` from another's.
    pub fn start(
        machine: &Machine,
        function: &Function,
        directory: &Path,
        name: &str,
        incoming: bool,
    ) -> Result<Self> {
        let socket = directory.join(format!("{name}.qmp"));
        let errors = directory.join(format!("{name}.stderr"));
        let mut arguments = machine.arguments(function, &socket);
        if incoming {
            arguments.extend(["-incoming", "defer"].map(str::to_owned));
        }
        let parent = std::process::id();
        let mut command = Command::new(&machine.qemu);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).with_context(|| format!("{}", errors.display()))?)
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
            errors,
            socket,
            output: Some(Output::new(screen)),
            qmp: None,
            function: function.clone(),
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
            let errors = &self.errors;
            let qmp = Qmp::connect(&self.socket, || alive(child, errors))?;
            self.qmp = Some(qmp);
        }
        self.qmp.as_mut().context("no connection to QEMU")
    }

    /// Says why QEMU has ended, if it has.
    pub fn alive(&mut self) -> Result<()> {
        alive(&mut self.child, &self.errors)
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
                    said(&self.errors)
                );
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!(
            "QEMU does not end within {} s of being told to",
            QUIT_TIMEOUT.as_secs()
        )
    }

    /// What QEMU wrote to its standard error.
    pub fn errors(&self) -> String {
        said(&self.errors)
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
    match std::fs::read_to_string(errors) {
        Ok(text) if text.trim().is_empty() => "it said nothing".to_owned(),
        Ok(text) => text.trim().to_owned(),
        Err(error) => format!("what it said cannot be read: {error}"),
    }
}
