// SPDX-License-Identifier: GPL-2.0

//! Typed ioctl requests.

use std::{
    ffi::{c_int, c_ulong, CStr},
    io,
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr, thread,
    time::{Duration, Instant},
};

/// An ioctl's argument.
pub trait Argument {
    /// Returns how many bytes the kernel may access, as the argument itself states.
    fn stated_size(&self) -> usize;
}

/// An ioctl request whose argument is a `T`.
pub struct Request<T> {
    number: c_ulong,
    argument: PhantomData<fn(&mut T)>,
}

impl<T> Request<T> {
    /// Makes the request with this number.
    ///
    /// # Safety
    ///
    /// The kernel's handler of `number` accesses the argument as a `T`, or no further than the
    /// argument's own size field says, and any bytes that it writes there are a `T`.
    pub const unsafe fn new(number: c_ulong) -> Self {
        Self {
            number,
            argument: PhantomData,
        }
    }

    /// Returns the request's number.
    pub(crate) const fn number(&self) -> c_ulong {
        self.number
    }
}

/// Does `request` on `file` with `argument`.
///
/// # Errors
///
/// Those of the request; `EINVAL` where the argument states that it is larger than it is.
pub fn ioctl<T: Argument>(
    file: impl AsFd,
    request: &Request<T>,
    argument: &mut T,
) -> io::Result<c_int> {
    if argument.stated_size() > size_of::<T>() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: The argument is a `T`, as whoever made the request promised that it has to be; it
    // lives during the call, and its stated size was just checked.
    checked(unsafe {
        libc::ioctl(
            file.as_fd().as_raw_fd(),
            request.number as _,
            ptr::from_mut(argument),
        )
    })
}

/// An ioctl request whose argument is a number, or that has none.
pub struct NumberRequest(c_ulong);

impl NumberRequest {
    /// Makes the request with this number.
    ///
    /// # Safety
    ///
    /// The kernel's handler of `number` does not take the argument for an address.
    pub const unsafe fn new(number: c_ulong) -> Self {
        Self(number)
    }
}

/// Does `request` on `file` with `argument`.
///
/// # Errors
///
/// Those of the request.
pub fn ioctl_number(
    file: impl AsFd,
    request: &NumberRequest,
    argument: c_ulong,
) -> io::Result<c_int> {
    // SAFETY: As whoever made the request promised, no memory is passed.
    checked(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), request.0 as _, argument) })
}

/// An ioctl request whose argument is a string, and that returns a descriptor.
pub struct OpenRequest(c_ulong);

impl OpenRequest {
    /// Makes the request with this number.
    ///
    /// # Safety
    ///
    /// The kernel's handler of `number` reads a string, writes nothing, and returns a new
    /// descriptor.
    pub const unsafe fn new(number: c_ulong) -> Self {
        Self(number)
    }
}

/// Opens what is called `name` with `request` on `file`.
///
/// # Errors
///
/// Those of the request.
pub fn ioctl_open(file: impl AsFd, request: &OpenRequest, name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: The string is terminated and lives during the call, which writes nothing, as whoever
    // made the request promised.
    let result = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), request.0 as _, name.as_ptr()) };

    // SAFETY: As promised likewise, the descriptor is a new one, which nothing else owns.
    checked(result).map(|fd| unsafe { adopt(fd) })
}

/// A descriptor as an argument.
#[repr(C)]
pub struct Descriptor(pub i32);

impl Argument for Descriptor {
    fn stated_size(&self) -> usize {
        size_of::<Self>()
    }
}

/// Takes over a descriptor that the kernel returned.
///
/// # Safety
///
/// The descriptor is a new one, which nothing else owns.
pub unsafe fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: As the caller promises.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Returns what a system call returned, or its error.
pub(crate) fn checked(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Repeats `call` while it fails with `EAGAIN`, as VFIO does while a device is reset; at most for two
/// seconds.
///
/// # Errors
///
/// Those of `call`.
pub fn while_resetting<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    const RESET: Duration = Duration::from_secs(2);
    const PAUSE: Duration = Duration::from_millis(10);
    let deadline = Instant::now() + RESET;

    loop {
        match call() {
            Err(error)
                if error.raw_os_error() == Some(libc::EAGAIN) && Instant::now() < deadline =>
            {
                thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
}
