// SPDX-License-Identifier: GPL-2.0

//! The system calls that the standard library lacks. All of the crate's unsafe code stands here and
//! in [`device::request`](crate::device), which says what each ioctl takes.

use std::{
    ffi::{c_int, c_long, c_ulong, CStr},
    io,
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

/// An ioctl's argument.
pub(crate) trait Argument {
    /// Bytes that the kernel may access, as the argument itself tells it.
    fn stated_size(&self) -> usize;
}

/// An ioctl request whose argument is a `T`.
pub(crate) struct Request<T> {
    number: c_ulong,
    argument: PhantomData<fn(&mut T)>,
}

impl<T> Request<T> {
    /// The request with this number.
    ///
    /// # Safety
    ///
    /// The kernel's handler of `number` accesses the argument as a `T`, or no further than the
    /// argument's own size field says, and any bytes that it writes there are a `T`.
    pub(crate) const unsafe fn new(number: c_ulong) -> Self {
        Self {
            number,
            argument: PhantomData,
        }
    }
}

/// Does `request` on `file` with `argument`.
///
/// # Errors
///
/// Those of the request; `EINVAL` where the argument says that it is larger than it is.
pub(crate) fn ioctl<T: Argument>(
    file: impl AsFd,
    request: &Request<T>,
    argument: &mut T,
) -> io::Result<c_int> {
    if argument.stated_size() > size_of::<T>() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: The argument is a `T`, as whoever made the request promised that it has to be; it
    // lives during the call, and its stated size was just checked.
    let result = unsafe {
        libc::ioctl(
            file.as_fd().as_raw_fd(),
            request.number as _,
            ptr::from_mut(argument),
        )
    };

    checked(result)
}

/// An ioctl request whose argument is a number.
pub(crate) struct NumberRequest(c_ulong);

impl NumberRequest {
    /// The request with this number.
    ///
    /// # Safety
    ///
    /// The kernel's handler of `number` does not take the argument for an address.
    pub(crate) const unsafe fn new(number: c_ulong) -> Self {
        Self(number)
    }
}

/// Does `request` on `file` with `argument`.
///
/// # Errors
///
/// Those of the request.
pub(crate) fn ioctl_number(
    file: impl AsFd,
    request: &NumberRequest,
    argument: c_ulong,
) -> io::Result<c_int> {
    // SAFETY: As whoever made the request promised, no memory is passed.
    checked(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), request.0 as _, argument) })
}

/// An ioctl request whose argument is a string, and that returns a descriptor.
pub(crate) struct OpenRequest(c_ulong);

impl OpenRequest {
    /// The request with this number.
    ///
    /// # Safety
    ///
    /// The kernel's handler of `number` reads a string, writes nothing, and returns a new
    /// descriptor.
    pub(crate) const unsafe fn new(number: c_ulong) -> Self {
        Self(number)
    }
}

/// Has `request` on `file` open what is called `name`.
///
/// # Errors
///
/// Those of the request.
pub(crate) fn ioctl_open(
    file: impl AsFd,
    request: &OpenRequest,
    name: &CStr,
) -> io::Result<OwnedFd> {
    // SAFETY: The string is terminated and lives during the call, which writes nothing, as whoever
    // made the request promised.
    let result = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), request.0 as _, name.as_ptr()) };

    // SAFETY: As promised likewise, the descriptor is a new one, which nobody else knows.
    checked(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes over a descriptor that the kernel wrote into a structure.
///
/// # Safety
///
/// The descriptor is a new one, which nobody else knows.
pub(crate) unsafe fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: As the caller promises.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Duplicates the descriptor `fd` of the process `pid`.
///
/// # Errors
///
/// `ESRCH`: there is no such process; `EBADF`: it has no such descriptor; `EPERM`: the caller may
/// not trace it.
pub(crate) fn duplicate_descriptor(pid: u32, fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: Passes no memory.
    let process = descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;

    // SAFETY: Passes no memory.
    descriptor(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) })
}

/// What a system call returned that opens a descriptor.
fn descriptor(result: c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(result).map_err(|_| io::ErrorKind::InvalidData)?;

    // SAFETY: The calls above return a new descriptor, or a negative number, which does not get
    // here.
    checked(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn checked(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::File,
        io::{Read, Seek, Write},
    };

    #[test]
    fn a_duplicated_descriptor_is_the_same_open_file() {
        let mut file = tempfile::tempfile().unwrap();
        let copy = duplicate_descriptor(std::process::id(), file.as_raw_fd()).unwrap();
        let mut text = String::new();

        file.write_all(b"abc").unwrap();
        file.rewind().unwrap();
        File::from(copy).read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
    }

    #[test]
    fn a_descriptor_that_is_not_there_is_an_error() {
        let error = duplicate_descriptor(std::process::id(), RawFd::MAX).unwrap_err();

        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }
}
