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
    /// Returns the number of bytes that the kernel may access, as stated in the argument.
    fn stated_size(&self) -> usize;
}

/// An ioctl request with an argument of the type `T`.
pub struct Request<T> {
    number: c_ulong,
    argument: PhantomData<fn(&mut T)>,
}

impl<T> Request<T> {
    /// Creates the request with this number.
    ///
    /// # Safety
    ///
    /// The kernel's handler of `number` must access the argument as a `T`, or at most as far as the
    /// argument's own size field states, and must write only bytes of a valid `T`.
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

/// Executes `request` on `file` with `argument`.
///
/// # Errors
///
/// Returns the error of the request, or `EINVAL` if the argument states a size that exceeds its
/// own.
pub fn ioctl<T: Argument>(
    file: impl AsFd,
    request: &Request<T>,
    argument: &mut T,
) -> io::Result<c_int> {
    if argument.stated_size() > size_of::<T>() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: The argument is a `T`, as required by the contract of `Request::new`. It is valid
    // during the call, and its stated size was checked above.
    checked(unsafe {
        libc::ioctl(
            file.as_fd().as_raw_fd(),
            request.number as _,
            ptr::from_mut(argument),
        )
    })
}

/// An ioctl request with a number as its argument, or without an argument.
pub struct NumberRequest(c_ulong);

impl NumberRequest {
    /// Creates the request with this number.
    ///
    /// # Safety
    ///
    /// The kernel's handler of `number` must not use the argument as an address.
    pub const unsafe fn new(number: c_ulong) -> Self {
        Self(number)
    }
}

/// Executes `request` on `file` with `argument`.
///
/// # Errors
///
/// Returns the error of the request.
pub fn ioctl_number(
    file: impl AsFd,
    request: &NumberRequest,
    argument: c_ulong,
) -> io::Result<c_int> {
    // SAFETY: By the contract of `NumberRequest::new`, the call accesses no memory.
    checked(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), request.0 as _, argument) })
}

/// An ioctl request with a string as its argument, which returns a descriptor.
pub struct OpenRequest(c_ulong);

impl OpenRequest {
    /// Creates the request with this number.
    ///
    /// # Safety
    ///
    /// The kernel's handler of `number` must read a string, write nothing, and return a new
    /// descriptor.
    pub const unsafe fn new(number: c_ulong) -> Self {
        Self(number)
    }
}

/// Opens the object `name` with `request` on `file`.
///
/// # Errors
///
/// Returns the error of the request.
pub fn ioctl_open(file: impl AsFd, request: &OpenRequest, name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: The string is terminated and valid during the call. By the contract of
    // `OpenRequest::new`, the call writes nothing.
    let result = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), request.0 as _, name.as_ptr()) };

    // SAFETY: By the same contract, the descriptor is new and has no other owner.
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

/// Takes ownership of a descriptor that the kernel returned.
///
/// # Safety
///
/// The descriptor must be new and must not have another owner.
pub unsafe fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: Guaranteed by the caller.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Converts the result of a system call to a value or an error.
pub(crate) fn checked(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Repeats `call` while it fails with `EAGAIN`, which VFIO returns during a reset of the device,
/// for at most two seconds.
///
/// # Errors
///
/// Returns the error of `call`.
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
