// SPDX-License-Identifier: GPL-2.0

//! `vifactl`, the administrator's command, run as a program: arguments, exit codes and output.

use std::{
    ffi::OsStr,
    io::Read,
    process::{Child, Command, Output, Stdio},
};

use anyhow::{bail, Context, Result};
use serde_json::Value;

use crate::{expect, sys};

/// Exit codes, as documented by the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Incompatible = 3,
    Damaged = 4,
    Busy = 5,
}

/// The result of a run of the command.
#[derive(Debug)]
pub struct Answer {
    code: Option<i32>,
    /// Standard output.
    pub output: Vec<u8>,
    /// Standard error.
    pub errors: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            output: output.stdout,
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Answer {
    /// Checks that the exit code is `exit`.
    pub fn ends(self, exit: Exit) -> Result<Self> {
        expect::equal(
            &format!("exit code ({})", self.errors.trim_end()),
            self.code,
            Some(exit as i32),
        )?;
        Ok(self)
    }

    /// Checks that standard error contains all of `words`.
    pub fn reports<S: AsRef<str>>(self, words: &[S]) -> Result<Self> {
        for word in words.iter().map(AsRef::as_ref) {
            expect::claim(
                &format!("a message with {word:?}, not {:?}", self.errors),
                self.errors.contains(word),
            )?;
        }
        Ok(self)
    }

    /// Returns standard output as text.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.output).context("output that is not UTF-8")
    }

    /// Parses standard output as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.output)
            .with_context(|| format!("JSON: {}", String::from_utf8_lossy(&self.output)))
    }
}

fn command<S: AsRef<OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new("vifactl");
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs `vifactl` with `arguments` to its end.
pub fn run<S: AsRef<OsStr>>(arguments: &[S]) -> Result<Answer> {
    let output = command(arguments).output().context("vifactl")?;
    Ok(output.into())
}

/// Runs `vifactl`, which must succeed.
pub fn succeed(arguments: &[&str]) -> Result<Answer> {
    run(arguments)?
        .ends(Exit::Done)
        .with_context(|| format!("vifactl {}", arguments.join(" ")))
}

/// A running command. Killed when dropped.
pub struct Running(Option<Child>);

impl Running {
    /// Starts `vifactl` with `arguments`.
    pub fn start<S: AsRef<OsStr>>(arguments: &[S]) -> Result<Self> {
        let child = command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("vifactl")?;
        Ok(Self(Some(child)))
    }

    /// Sends the signal `signal` to the command.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let child = self.0.as_ref().context("a process that was waited for")?;
        sys::signal(child.id(), signal).context("signal to vifactl")
    }

    /// Waits for a line of standard output, without consuming data after it.
    pub fn line(&mut self) -> Result<String> {
        let child = self.0.as_mut().context("a process that was waited for")?;
        let output = child.stdout.as_mut().context("standard output")?;
        let mut line = Vec::new();
        for byte in output.bytes() {
            match byte.context("a line of vifactl")? {
                b'\n' => return Ok(String::from_utf8(line)?),
                byte => line.push(byte),
            }
        }
        bail!("vifactl ended within a line, or before one");
    }

    /// Waits for the command's exit.
    pub fn wait(mut self) -> Result<Answer> {
        let child = self.0.take().context("a process that was waited for")?;
        Ok(child.wait_with_output().context("end of vifactl")?.into())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
