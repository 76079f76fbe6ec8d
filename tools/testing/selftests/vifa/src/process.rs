// SPDX-License-Identifier: GPL-2.0

//! Child processes with deadlines. Each test runs in one, so that a test that hangs or crashes
//! affects no other. Some tests create child processes to kill them.

use std::{
    fs::File,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    panic::{catch_unwind, AssertUnwindSafe},
    thread,
    time::Duration,
};

use anyhow::{anyhow, bail, Context, Result};
use rustix::process::Pid;
use vifa_vfio::wait_for;

use crate::sys::{self, Ending, Fork};

/// Default deadline of a test, for tests that hang. The longest tests take some seconds on an idle
/// machine, and twenty times that on a debug kernel on a busy one.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// Maximum time for a killed process to exit, with the release of its resources by the kernel.
const TEARDOWN: Duration = Duration::from_secs(20);

/// A child process in its own process group. Killed when dropped.
pub struct Child {
    pidfd: OwnedFd,
    pid: Pid,
    collected: bool,
}

impl Child {
    /// Runs `body` in a child process, which exits with status 0, or with 1 if `body` failed or
    /// panicked, after writing the reason to `report`.
    fn run(
        mut report: UnixStream,
        body: impl FnOnce(&mut UnixStream) -> Result<()>,
    ) -> Result<Self> {
        match sys::fork().context("fork")? {
            Fork::Parent(pidfd, pid) => Ok(Self {
                pidfd,
                pid,
                collected: false,
            }),
            Fork::Child => {
                let outcome = catch_unwind(AssertUnwindSafe(|| body(&mut report)));
                let message = match outcome {
                    Ok(Ok(())) => sys::exit_child(0),
                    Ok(Err(error)) => format!("{error:#}"),
                    Err(panic) => format!("panicked: {}", panic_message(panic.as_ref())),
                };
                // This much fits into the socket, so that a child never waits for its reader.
                let bytes = message.as_bytes();
                let _ = report.write_all(&bytes[..bytes.len().min(32 << 10)]);
                sys::exit_child(1)
            }
        }
    }

    /// Kills the child and all processes that it started.
    pub fn kill(&self) -> Result<()> {
        sys::kill_group(self.pid).with_context(|| format!("kill {}", self.pid))
    }

    /// Waits for the child's exit; returns `None` after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<Ending>> {
        let ended = sys::poll(&self.pidfd, libc::POLLIN, timeout).context("poll of a process")?;
        if ended == 0 {
            return Ok(None);
        }
        self.collected = true;
        Ok(Some(sys::reap(self.pid).context("waitpid")?))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.collected {
            let _ = self.kill();
            let _ = self.wait(TEARDOWN);
        }
    }
}

/// The result of a test's process.
#[derive(Debug)]
pub enum Outcome {
    Passed,
    Failed(String),
    /// The test failed, and its process cannot be killed.
    Stuck(String),
}

/// Runs `body` in its own process, at most for `deadline`.
pub fn run_with_deadline(deadline: Duration, body: impl FnOnce() -> Result<()>) -> Outcome {
    run(deadline, body).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")))
}

fn run(deadline: Duration, body: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    let (reader, writer) = UnixStream::pair().context("socket pair")?;
    let mut child = Child::run(writer, |_| body())?;
    let Some(ending) = child.wait(deadline)? else {
        child.kill()?;
        let reason = format!("timed out after {} s", deadline.as_secs());
        let gone = child.wait(TEARDOWN)?;
        // A failed test with a thread that is stuck in the kernel has already written its reason.
        let report = read_report(reader)?;
        return Ok(match gone {
            Some(_) => Outcome::Failed(format!("{reason}\n{report}")),
            None => Outcome::Stuck(format!("{reason}, and it could not be killed\n{report}")),
        });
    };
    // Processes that the test started and did not end.
    let _ = child.kill();
    Ok(match ending {
        Ending::Exited(0) => Outcome::Passed,
        Ending::Exited(_) => Outcome::Failed(read_report(reader)?),
        Ending::Killed(signal) => Outcome::Failed(format!("killed by signal {signal}")),
    })
}

/// Reads the output of a child that exited, without waiting for other holders of the other end.
fn read_report(mut reader: UnixStream) -> Result<String> {
    let mut report = Vec::new();
    let mut chunk = [0; 4096];
    while sys::poll(&reader, libc::POLLIN, Duration::ZERO)? & libc::POLLIN != 0 {
        match reader.read(&mut chunk)? {
            0 => break,
            length => report.extend_from_slice(&chunk[..length]),
        }
    }
    Ok(String::from_utf8_lossy(&report).into_owned())
}

/// A child process that sets something up and then waits to be killed.
pub struct Victim(Child);

impl Victim {
    /// Runs `set_up` in a child process and returns when it is done; the result of `set_up` stays
    /// alive there.
    pub fn holding<T>(timeout: Duration, set_up: impl FnOnce() -> Result<T>) -> Result<Self> {
        let (reader, writer) = UnixStream::pair().context("socket pair")?;
        let child = Child::run(writer, |report| {
            let _held = set_up()?;
            report.write_all(b"\n").context("report")?;
            loop {
                thread::park();
            }
        })?;
        if sys::poll(&reader, libc::POLLIN, timeout)? & libc::POLLIN == 0 {
            bail!("the process that is to be killed was not ready after {timeout:?}");
        }
        let report = read_report(reader)?;
        if report != "\n" {
            bail!("the process that is to be killed failed before: {report}");
        }
        Ok(Self(child))
    }

    /// Kills the process and waits for its exit.
    pub fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        match self.0.wait(TEARDOWN)? {
            Some(Ending::Killed(libc::SIGKILL)) => Ok(()),
            Some(ending) => bail!("expected SIGKILL, got {ending:?}"),
            None => bail!("a killed process still existed after {TEARDOWN:?}"),
        }
    }
}

/// Runs `job` in a thread and waits for it at most for `timeout`; runs `during` meanwhile.
///
/// After a timeout the thread continues, until the test's process exits.
pub fn alongside<T: Send + 'static>(
    timeout: Duration,
    job: impl FnOnce() -> Result<T> + Send + 'static,
    during: impl FnOnce() -> Result<()>,
) -> Result<T> {
    let handle = thread::spawn(job);
    during()?;
    wait_for(timeout, || anyhow::Ok(handle.is_finished().then_some(())))?
        .with_context(|| format!("timed out after {timeout:?}"))?;
    handle
        .join()
        .map_err(|panic| anyhow!("panicked: {}", panic_message(panic.as_ref())))?
}

/// Runs all `jobs` concurrently; returns when the last has ended.
pub fn all_at_once<'a>(jobs: Vec<Box<dyn FnOnce() -> Result<()> + Send + 'a>>) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = jobs.into_iter().map(|job| scope.spawn(job)).collect();
        threads.into_iter().try_for_each(|thread| {
            let result = thread.join();
            result.map_err(|panic| anyhow!("panicked: {}", panic_message(panic.as_ref())))?
        })
    })
}

/// Waits until `file`'s event counter is signalled, and resets it.
pub fn wait_for_event(file: &File, timeout: Duration) -> Result<u64> {
    if sys::poll(file, libc::POLLIN, timeout)? & libc::POLLIN == 0 {
        bail!("expected an event, got none in {timeout:?}");
    }
    let mut count = [0; 8];
    let mut file = file;
    file.read_exact(&mut count)
        .context("read of an event counter")?;
    Ok(u64::from_ne_bytes(count))
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("with no message")
}
