// SPDX-License-Identifier: GPL-2.0

//! A running QEMU.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail, ensure, Context, Result};
use serde_json::json;

use crate::{Output, Qmp};

/// Maximum time until QEMU quits.
const QUIT_TIMEOUT: Duration = Duration::from_secs(300);

/// Messages of QEMU after which it does not run the machine again, but continues itself.
const KVM_FAILURES: [&str; 2] = ["KVM internal error", "KVM: entry failed"];

/// A running QEMU. It ends when this is dropped, or when this process dies.
pub struct Qemu {
    child: Child,
    keyboard: ChildStdin,
    socket: PathBuf,
    errors: PathBuf,
    output: Option<Output>,
    qmp: Option<Qmp>,
}

impl Qemu {
    /// Starts `program` with `arguments`. Adds a serial port of the machine and a QMP socket. Its
    /// files in `directory` begin with `name`.
    pub fn start(
        program: &Path,
        arguments: &[String],
        directory: &Path,
        name: &str,
    ) -> Result<Self> {
        let socket = directory.join(format!("{name}.qmp"));
        let errors = directory.join(format!("{name}.stderr"));
        let error_file = File::create(&errors).with_context(|| format!("{}", errors.display()))?;
        let parent = std::process::id();
        let mut command = Command::new(program);
        command
            .args(["-serial", "stdio", "-qmp"])
            .arg(format!("unix:{},server=on,wait=off", socket.display()))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(error_file)
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
            .with_context(|| format!("starting {}", program.display()))?;
        let (Some(keyboard), Some(screen)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("QEMU has no standard input and output");
        };
        Ok(Self {
            child,
            keyboard,
            socket,
            errors,
            output: Some(Output::new(screen)),
            qmp: None,
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
            let errors = &self.errors;
            let qmp = Qmp::connect(&self.socket, || alive(child, errors))?;
            self.qmp = Some(qmp);
        }
        self.qmp.as_mut().context("no connection to QEMU")
    }

    /// Returns an error if QEMU has ended.
    pub fn alive(&mut self) -> Result<()> {
        alive(&mut self.child, &self.errors)
    }

    /// Returns the number of events so far.
    pub fn reported(&self) -> u64 {
        self.qmp.as_ref().map_or(0, Qmp::reported)
    }

    /// Returns its process id.
    pub fn process(&self) -> u32 {
        self.child.id()
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
        let deadline = Instant::now() + QUIT_TIMEOUT;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(
                Instant::now() < deadline,
                "quit of QEMU timed out after {} s",
                QUIT_TIMEOUT.as_secs()
            );
            thread::sleep(Duration::from_millis(20));
        };
        match status.success() {
            true => Ok(()),
            false => Err(ended(status, &self.errors)),
        }
    }

    /// Returns QEMU's standard error output.
    pub fn errors(&self) -> String {
        read_errors(&self.errors)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail only if QEMU has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn alive(child: &mut Child, errors: &Path) -> Result<()> {
    if let Some(status) = child.try_wait()? {
        return Err(ended(status, errors));
    }
    let text = read_errors(errors);
    ensure!(
        !is_kvm_failure(&text),
        "KVM failed to run the machine: {text}"
    );
    Ok(())
}

/// Returns whether QEMU's error output contains a failure of KVM.
fn is_kvm_failure(errors: &str) -> bool {
    errors
        .lines()
        .any(|line| KVM_FAILURES.iter().any(|failure| line.starts_with(failure)))
}

fn ended(status: ExitStatus, errors: &Path) -> anyhow::Error {
    anyhow!("QEMU ended with {status}: {}", read_errors(errors))
}

fn read_errors(errors: &Path) -> String {
    match fs::read_to_string(errors) {
        Ok(text) if text.trim().is_empty() => "no error output".to_owned(),
        Ok(text) => text.trim().to_owned(),
        Err(error) => format!("failed to read its error output: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_failures_are_found_among_warnings() {
        let warning = "qemu-system-x86_64: warning: host does not support KVM internal features";

        assert!(is_kvm_failure(&format!(
            "{warning}\nKVM internal error. Suberror: 3\nextra data[0]: 0x1"
        )));
        assert!(is_kvm_failure(
            "KVM: entry failed, hardware error 0xffffffff"
        ));
        assert!(!is_kvm_failure(warning));
        assert!(!is_kvm_failure("no error output"));
    }
}
