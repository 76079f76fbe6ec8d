// SPDX-License-Identifier: GPL-2.0

//! The edge to the kernel: mappings, ioctls and the few system calls that the standard library
//! lacks. All of the crate's unsafe code stands here, so that everything above it is checked by the
//! compiler.

use std::{
    ffi::{c_int, c_ulong, CStr},
    fs::File,
    io,
    marker::PhantomData,
    mem,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    ptr::{self, NonNull},
    time::Duration,
};

use crate::hw::Plain;

/// Memory that somebody else may change at any time: a device's registers, or memory for its DMA.
///
/// All access is volatile and checked against the mapping's length; no reference into it exists.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is only accessed as volatile
// memory through methods that keep no reference to it.
unsafe impl Send for Mapping {}
// SAFETY: as above; concurrent access is what the type is for.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes of fresh, zeroed memory.
    pub fn anonymous(length: usize) -> io::Result<Self> {
        Self::map(length, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)
    }

    /// Maps `length` bytes of `file` from `offset` on, for reading and writing.
    pub fn of_file(file: impl AsFd, offset: u64, length: usize) -> io::Result<Self> {
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        Self::map(length, libc::MAP_SHARED, file.as_fd().as_raw_fd(), offset)
    }

    fn map(length: usize, flags: c_int, fd: c_int, offset: i64) -> io::Result<Self> {
        // SAFETY: without MAP_FIXED the kernel picks addresses that nothing uses.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                fd,
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, length })
    }

    /// The address of the first byte.
    pub fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// Bytes that are mapped.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Takes all access to the memory from `offset`, a multiple of the page size, on: for calls that
    /// are to fail. The process itself dies by touching it.
    pub fn forbid_from(&self, offset: usize) -> io::Result<()> {
        let length = self
            .length
            .checked_sub(offset)
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the range is inside the mapping, into which nothing refers; less access breaks no
        // invariant of a type that is only read and written as volatile memory.
        result(unsafe {
            libc::mprotect(
                self.start.as_ptr().add(offset).cast(),
                length,
                libc::PROT_NONE,
            )
        })
        .map(drop)
    }

    /// One `read(2)` of `file` into the whole mapping; returns the bytes read.
    pub fn fill_from(&self, file: impl AsFd) -> io::Result<usize> {
        // SAFETY: the mapping has so many bytes, and nothing refers into it.
        let got = unsafe {
            libc::read(
                file.as_fd().as_raw_fd(),
                self.start.as_ptr().cast(),
                self.length,
            )
        };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    /// One `write(2)` of the whole mapping to `file`; returns the bytes taken.
    pub fn drain_to(&self, file: impl AsFd) -> io::Result<usize> {
        // SAFETY: the mapping has so many bytes.
        let taken = unsafe {
            libc::write(
                file.as_fd().as_raw_fd(),
                self.start.as_ptr().cast(),
                self.length,
            )
        };
        usize::try_from(taken).map_err(|_| io::Error::last_os_error())
    }

    /// Does `request` on `file` with the argument at `offset`.
    ///
    /// # Panics
    ///
    /// If the argument would reach outside the mapping or not be aligned.
    pub fn ioctl<T>(
        &self,
        file: impl AsFd,
        request: &Request<T>,
        offset: usize,
    ) -> io::Result<c_int> {
        // SAFETY: the kernel accesses a `T` in the mapping, or meets the end of what is accessible.
        result(unsafe {
            libc::ioctl(
                file.as_fd().as_raw_fd(),
                request.number,
                self.pointer::<T>(offset),
            )
        })
    }

    /// Does the request `number` on `file` with whatever stands at `offset` as its argument.
    ///
    /// # Safety
    ///
    /// The kernel's handler writes nothing but the argument, which it does not take for longer than
    /// the mapping, and what that names, which nothing else refers to.
    pub unsafe fn any_ioctl(
        &self,
        file: impl AsFd,
        number: c_ulong,
        offset: usize,
    ) -> io::Result<c_int> {
        // SAFETY: as the caller promises.
        result(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), number, self.pointer::<u8>(offset)) })
    }

    /// A pointer to a `T` at `offset`.
    ///
    /// # Panics
    ///
    /// If it would reach outside the mapping or not be aligned.
    fn pointer<T>(&self, offset: usize) -> *mut T {
        let end = offset.checked_add(mem::size_of::<T>());
        assert!(
            end.is_some_and(|end| end <= self.length) && offset % mem::align_of::<T>() == 0,
            "{} at {offset:#x} of a mapping of {:#x} bytes",
            std::any::type_name::<T>(),
            self.length
        );
        // SAFETY: the offset was just checked against the mapping's length.
        unsafe { self.start.as_ptr().add(offset).cast() }
    }

    /// Reads the `T` at `offset`.
    ///
    /// # Panics
    ///
    /// If it reaches outside the mapping or is not aligned.
    pub fn read<T: Plain>(&self, offset: usize) -> T {
        // SAFETY: `pointer` checked the bounds and the alignment (mappings start at a page), and
        // `T: Plain` makes whatever stands there a value.
        unsafe { self.pointer::<T>(offset).read_volatile() }
    }

    /// Writes `value` at `offset`.
    ///
    /// # Panics
    ///
    /// If it reaches outside the mapping or is not aligned.
    pub fn write<T: Plain>(&self, offset: usize, value: T) {
        // SAFETY: as for `read`.
        unsafe { self.pointer::<T>(offset).write_volatile(value) }
    }

    /// Copies `length` bytes from `offset` on; of memory, not of registers.
    pub fn copy_out(&self, offset: usize, length: usize) -> Vec<u8> {
        (offset..offset + length).map(|at| self.read(at)).collect()
    }

    /// Copies `bytes` to `offset`; to memory, not to registers.
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) {
        for (at, byte) in bytes.iter().enumerate() {
            self.write(offset + at, *byte);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers into it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// What an ioctl's argument says of its own size.
pub trait Argument {
    /// Bytes that the kernel may access, as the argument itself tells it.
    fn stated_size(&self) -> usize;
}

/// An ioctl request whose argument is a `T`.
pub struct Request<T> {
    number: c_ulong,
    argument: PhantomData<fn(&mut T)>,
}

impl<T> Request<T> {
    /// # Safety
    ///
    /// The kernel's handler of `number` accesses the argument as a `T`, or no further than the
    /// argument's own size field says.
    pub const unsafe fn new(number: c_ulong) -> Self {
        Self {
            number,
            argument: PhantomData,
        }
    }
}

/// Does `request` on `file` with `argument`.
///
/// # Panics
///
/// If the argument says that it is larger than it is.
pub fn ioctl<T: Argument>(
    file: impl AsFd,
    request: &Request<T>,
    argument: &mut T,
) -> io::Result<c_int> {
    assert!(argument.stated_size() <= mem::size_of::<T>());
    // SAFETY: the argument is a `T` as the request demands, and lives during the call; its stated
    // size was just checked.
    result(unsafe {
        libc::ioctl(
            file.as_fd().as_raw_fd(),
            request.number,
            ptr::from_mut(argument),
        )
    })
}

/// Does a request whose argument is a number, or none.
///
/// # Safety
///
/// The kernel's handler of `number` does not take the argument for an address.
pub unsafe fn ioctl_value(
    file: impl AsFd,
    number: c_ulong,
    argument: c_ulong,
) -> io::Result<c_int> {
    // SAFETY: as the caller promises, no memory is passed.
    result(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), number, argument) })
}

/// Does a request whose argument is a string.
///
/// # Safety
///
/// The kernel's handler of `number` reads a string and writes nothing.
pub unsafe fn ioctl_string(file: impl AsFd, number: c_ulong, argument: &CStr) -> io::Result<c_int> {
    // SAFETY: the string is terminated and lives during the call; the caller promises the rest.
    result(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), number, argument.as_ptr()) })
}

/// Takes over the descriptor that a call returned.
pub fn adopt(fd: c_int) -> OwnedFd {
    assert!(fd >= 0, "descriptor {fd}");
    // SAFETY: only used on what the kernel just returned as a fresh descriptor.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn result(value: c_int) -> io::Result<c_int> {
    if value < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(value)
    }
}

/// Makes an event counter that does not block.
pub fn eventfd() -> io::Result<File> {
    // SAFETY: passes no memory.
    let fd = result(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    Ok(adopt(fd).into())
}

/// Makes a pipe that holds `bytes`: what is written to the second end is read from the first.
pub fn pipe(bytes: c_int) -> io::Result<[File; 2]> {
    let mut ends = [0; 2];
    // SAFETY: two descriptors, which live during the call.
    result(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    let ends = ends.map(|fd| File::from(adopt(fd)));
    // SAFETY: passes no memory.
    result(unsafe { libc::fcntl(ends[1].as_raw_fd(), libc::F_SETPIPE_SZ, bytes) })?;
    Ok(ends)
}

/// Waits until `file` shows one of `events`, at most for `timeout`; returns what it shows, nothing
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

/// Has calls on `file` fail with `EAGAIN` rather than wait.
pub fn set_nonblocking(file: impl AsFd) -> io::Result<()> {
    // SAFETY: passes no memory.
    result(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })
        .map(drop)
}

/// Lets the process open descriptors below `limit`; returns the limit before.
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

/// Removes the kernel module `name` if nothing uses it.
pub fn remove_module(name: &CStr) -> io::Result<()> {
    // SAFETY: the name is a terminated string.
    let value = unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) };
    result(value as c_int).map(drop)
}

/// Mounts the file system of the type `kind` on the directory `target`.
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

/// Which side of a fork this is.
pub enum Fork {
    /// The parent, with a descriptor and the number of its child.
    Parent(OwnedFd, libc::pid_t),
    /// The child.
    Child,
}

/// Splits the process in two. The child is killed when its parent ends, and leads a process group
/// of its own.
///
/// # Panics
///
/// If the process has more than one thread, since the child would inherit their locks.
pub fn fork() -> io::Result<Fork> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    assert_eq!(threads, 1, "only a process with one thread may fork");
    // SAFETY: passes no memory.
    let parent = unsafe { libc::getpid() };
    // SAFETY: the process has one thread, as just checked, so that the child is whole.
    match result(unsafe { libc::fork() })? {
        0 => {
            // SAFETY: these pass no memory. Without them a failed run leaves processes behind, which
            // is no matter of memory safety, so that their results are not needed.
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
            // SAFETY: passes no memory. The child does the same; whoever comes second changes
            // nothing, and a failure here means that the child has ended.
            unsafe { libc::setpgid(child, child) };
            // SAFETY: passes no memory; the child has not been waited for, so that the number is its.
            let fd = result(unsafe { libc::syscall(libc::SYS_pidfd_open, child, 0) } as c_int)?;
            Ok(Fork::Parent(adopt(fd), child))
        }
    }
}

/// Ends the process at once, without running what the parent's copy of it will run.
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

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this status.
    Exited(c_int),
    /// By this signal.
    Killed(c_int),
}

/// Collects the child `child`, which has ended.
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

/// Whether the process is root.
pub fn is_root() -> bool {
    // SAFETY: passes no memory.
    unsafe { libc::geteuid() == 0 }
}
