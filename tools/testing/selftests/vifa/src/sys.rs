// SPDX-License-Identifier: GPL-2.0

//! System calls that the standard library lacks.

use std::{
    ffi::{c_int, CStr},
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{self, EventfdFlags, PollFd, PollFlags},
    fs::OFlags,
    mount::MountFlags,
    pipe::PipeFlags,
    process::{self, Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions},
    system,
};

/// Creates a non-blocking event counter.
pub fn eventfd() -> io::Result<File> {
    Ok(event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?.into())
}

/// Creates a pipe with a capacity of `bytes`: data written to the second end is read from the
/// first.
pub fn pipe(bytes: usize) -> io::Result<[File; 2]> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::pipe::fcntl_setpipe_size(&writer, bytes)?;
    Ok([reader.into(), writer.into()])
}

/// Waits for one of `events` of `file`, at most for `timeout`; returns the current events, none
/// after a timeout.
pub fn poll(file: impl AsFd, events: i16, timeout: Duration) -> io::Result<i16> {
    let mut requests = [PollFd::new(
        &file,
        PollFlags::from_bits_retain(events as u16),
    )];
    let timeout = timeout
        .try_into()
        .map_err(|_| io::ErrorKind::InvalidInput)?;
    event::poll(&mut requests, Some(&timeout))?;
    Ok(requests[0].revents().bits() as i16)
}

/// Makes calls on `file` fail with `EAGAIN` instead of blocking.
pub fn set_nonblocking(file: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fcntl_setfl(file, OFlags::NONBLOCK)?)
}

/// Sets the limit of open descriptors to `limit`; returns the previous limit.
pub fn limit_descriptors(limit: u64) -> io::Result<u64> {
    let before = process::getrlimit(Resource::Nofile);
    let new = Rlimit {
        current: Some(limit),
        maximum: before.maximum,
    };
    process::setrlimit(Resource::Nofile, new)?;
    Ok(before.current.unwrap_or(u64::MAX))
}

/// Inserts the kernel module in `file`.
pub fn insert_module(file: impl AsFd) -> io::Result<()> {
    Ok(system::finit_module(file, c"", 0)?)
}

/// Removes the kernel module `name` if it is unused.
pub fn remove_module(name: &CStr) -> io::Result<()> {
    Ok(system::delete_module(name, libc::O_NONBLOCK)?)
}

/// Mounts the file system of type `kind` on the directory `target`.
pub fn mount(kind: &CStr, target: &CStr) -> io::Result<()> {
    Ok(rustix::mount::mount(
        kind,
        target,
        kind,
        MountFlags::empty(),
        None,
    )?)
}

/// The side of a fork.
pub enum Fork {
    /// The parent, with a descriptor and the process id of its child.
    Parent(OwnedFd, Pid),
    /// The child.
    Child,
}

/// Forks the process. The child is killed when its parent exits, and leads its own process group.
///
/// # Panics
///
/// If the process has more than one thread, since the child would inherit their locks.
pub fn fork() -> io::Result<Fork> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    assert_eq!(threads, 1, "only a process with one thread may fork");
    let parent = process::getpid();
    // SAFETY: The process has one thread, as checked above, so no lock is held in the child.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    let Some(child) = Pid::from_raw(child) else {
        // After a failure, a failed run may leave processes running.
        let _ = process::setpgid(None, None);
        let _ = process::set_parent_process_death_signal(Some(Signal::KILL));
        if process::getppid() != Some(parent) {
            exit_child(1);
        }
        return Ok(Fork::Child);
    };
    // The child makes the same call, and the second one has no effect. A failure means that the
    // child has exited.
    let _ = process::setpgid(Some(child), Some(child));
    // The child was not reaped, so its id is still valid.
    let descriptor = process::pidfd_open(child, PidfdFlags::empty())?;
    Ok(Fork::Parent(descriptor, child))
}

/// Exits immediately, without running destructors or exit handlers.
pub fn exit_child(code: c_int) -> ! {
    // SAFETY: Passes no memory.
    unsafe { libc::_exit(code) }
}

/// Kills the process group that `child` leads.
pub fn kill_group(child: Pid) -> io::Result<()> {
    Ok(process::kill_process_group(child, Signal::KILL)?)
}

/// Sends `signal` to `process`, a child that was not waited for.
pub fn signal(process: u32, signal: c_int) -> io::Result<()> {
    let pid = process.try_into().ok().and_then(Pid::from_raw);
    let signal = Signal::from_named_raw(signal);
    match (pid, signal) {
        (Some(pid), Some(signal)) => Ok(process::kill_process(pid, signal)?),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// The way in which a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Exited with this status.
    Exited(c_int),
    /// Killed by this signal.
    Killed(c_int),
}

/// Reaps the child `child`, which has ended.
pub fn reap(child: Pid) -> io::Result<Ending> {
    let waited = process::waitpid(Some(child), WaitOptions::empty())?;
    let (_, status) = waited.ok_or(io::ErrorKind::WouldBlock)?;
    let exited = status.exit_status().map(Ending::Exited);
    exited
        .or_else(|| status.terminating_signal().map(Ending::Killed))
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Returns whether the process is root.
pub fn is_root() -> bool {
    process::geteuid().is_root()
}
