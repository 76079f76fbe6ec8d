// SPDX-License-Identifier: GPL-2.0

//! System calls that the standard library lacks.

use std::{
    ffi::{c_int, CStr},
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    ptr,
    time::Duration,
};

use vifa_vfio::adopt;

fn result(value: c_int) -> io::Result<c_int> {
    if value < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(value)
    }
}

/// Creates a non-blocking event counter.
pub fn eventfd() -> io::Result<File> {
    // SAFETY: passes no memory.
    let fd = result(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: The descriptor is new.
    Ok(unsafe { adopt(fd) }.into())
}

/// Creates a pipe with a capacity of `bytes`: data written to the second end is read from the
/// first.
pub fn pipe(bytes: c_int) -> io::Result<[File; 2]> {
    let mut ends = [0; 2];
    // SAFETY: two descriptors, which live during the call.
    result(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: Both descriptors are new.
    let ends = ends.map(|fd| File::from(unsafe { adopt(fd) }));
    // SAFETY: passes no memory.
    result(unsafe { libc::fcntl(ends[1].as_raw_fd(), libc::F_SETPIPE_SZ, bytes) })?;
    Ok(ends)
}

/// Waits for one of `events` of `file`, at most for `timeout`; returns the current events, none
/// after a timeout.
pub fn poll(file: impl AsFd, events: i16, timeout: Duration) -> io::Result<i16> {
    let mut request = libc::pollfd {
        fd: file.as_fd().as_raw_fd(),
        events,
        revents: 0,
    };
    let milliseconds = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: one structure, which lives during the call.
    result(unsafe { libc::poll(&mut request, 1, milliseconds) })?;
    Ok(request.revents)
}

/// Makes calls on `file` fail with `EAGAIN` instead of blocking.
pub fn set_nonblocking(file: impl AsFd) -> io::Result<()> {
    // SAFETY: passes no memory.
    result(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })
        .map(drop)
}

/// Sets the limit of open descriptors to `limit`; returns the previous limit.
pub fn limit_descriptors(limit: u64) -> io::Result<u64> {
    let mut value = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure lives during the call.
    result(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut value) })?;
    let before = value.rlim_cur;
    value.rlim_cur = limit;
    // SAFETY: as above.
    result(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &value) })?;
    Ok(before)
}

/// Inserts the kernel module in `file`.
pub fn insert_module(file: impl AsFd) -> io::Result<()> {
    // SAFETY: the parameters are an empty string, the rest are numbers.
    let value = unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            0,
        )
    };
    result(value as c_int).map(drop)
}

/// Removes the kernel module `name` if it is unused.
pub fn remove_module(name: &CStr) -> io::Result<()> {
    // SAFETY: the name is a terminated string.
    let value = unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) };
    result(value as c_int).map(drop)
}

/// Mounts the file system of type `kind` on the directory `target`.
pub fn mount(kind: &CStr, target: &CStr) -> io::Result<()> {
    // SAFETY: all are terminated strings, and there are no options.
    result(unsafe {
        libc::mount(
            kind.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            0,
            ptr::null(),
        )
    })
    .map(drop)
}

/// The side of a fork.
pub enum Fork {
    /// The parent, with a descriptor and the process id of its child.
    Parent(OwnedFd, libc::pid_t),
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
    // SAFETY: passes no memory.
    let parent = unsafe { libc::getpid() };
    // SAFETY: the process has one thread, as checked above, so no lock is held in the child.
    match result(unsafe { libc::fork() })? {
        0 => {
            // SAFETY: These pass no memory. Their results are ignored: after a failure, a failed
            // run may leave processes running, which does not affect memory safety.
            unsafe {
                libc::setpgid(0, 0);
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if libc::getppid() != parent {
                    libc::_exit(1);
                }
            }
            Ok(Fork::Child)
        }
        child => {
            // SAFETY: passes no memory. The child makes the same call, and the second one has no
            // effect. A failure means that the child has exited.
            unsafe { libc::setpgid(child, child) };
            // SAFETY: passes no memory; the child was not reaped, so its id is still valid.
            let fd = result(unsafe { libc::syscall(libc::SYS_pidfd_open, child, 0) } as c_int)?;
            // SAFETY: The descriptor is new.
            Ok(Fork::Parent(unsafe { adopt(fd) }, child))
        }
    }
}

/// Exits immediately, without running destructors or exit handlers.
pub fn exit_child(code: c_int) -> ! {
    // SAFETY: passes no memory.
    unsafe { libc::_exit(code) }
}

/// Kills the process group that `child` leads.
pub fn kill_group(child: libc::pid_t) -> io::Result<()> {
    // SAFETY: passes no memory.
    result(unsafe { libc::kill(-child, libc::SIGKILL) }).map(drop)
}

/// Sends `signal` to `process`, a child that was not waited for.
pub fn signal(process: u32, signal: c_int) -> io::Result<()> {
    let process = libc::pid_t::try_from(process).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: passes no memory.
    result(unsafe { libc::kill(process, signal) }).map(drop)
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
pub fn reap(child: libc::pid_t) -> io::Result<Ending> {
    let mut status = 0;
    // SAFETY: the status lives during the call.
    result(unsafe { libc::waitpid(child, &mut status, 0) })?;
    Ok(if libc::WIFEXITED(status) {
        Ending::Exited(libc::WEXITSTATUS(status))
    } else {
        Ending::Killed(libc::WTERMSIG(status))
    })
}

/// Returns whether the process is root.
pub fn is_root() -> bool {
    // SAFETY: passes no memory.
    unsafe { libc::geteuid() == 0 }
}
