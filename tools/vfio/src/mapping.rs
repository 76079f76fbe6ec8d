// SPDX-License-Identifier: GPL-2.0

//! Memory that a device, or another process, may change at any time.

use std::{
    ffi::{c_int, c_ulong, c_void},
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd},
    path::Path,
    ptr::{self, NonNull},
};

use rustix::mm::{self, MapFlags, MprotectFlags, ProtFlags};
use vifa_headers::Plain;

use crate::ioctl::{checked, Request};

/// Memory that a device or another process may change at any time: a device's registers, or memory
/// for its DMA.
///
/// All accesses are volatile and checked against the mapping's length. There are no references to
/// it.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: The mapping belongs to the process, not to a thread, and is accessed only as volatile
// memory, by methods that keep no reference to it.
unsafe impl Send for Mapping {}
// SAFETY: As above. All accesses are volatile, so concurrent access is permitted.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes of new, zeroed memory.
    ///
    /// # Errors
    ///
    /// Returns the error of mmap().
    pub fn anonymous(length: usize) -> io::Result<Self> {
        // SAFETY: The kernel selects unused addresses.
        let start =
            unsafe { mm::mmap_anonymous(ptr::null_mut(), length, Self::ACCESS, MapFlags::SHARED) }?;

        Self::at(start, length)
    }

    /// Maps `length` bytes of `file` at `offset`, for reading and writing.
    ///
    /// # Errors
    ///
    /// Returns the error of mmap().
    pub fn of_file(file: impl AsFd, offset: u64, length: usize) -> io::Result<Self> {
        // SAFETY: The kernel selects unused addresses.
        let start = unsafe {
            mm::mmap(
                ptr::null_mut(),
                length,
                Self::ACCESS,
                MapFlags::SHARED,
                file,
                offset,
            )
        }?;

        Self::at(start, length)
    }

    /// Maps `length` bytes of the file `path` from `offset` on, for reading and writing.
    ///
    /// # Errors
    ///
    /// Those of open() and mmap().
    pub fn of_path(path: &Path, offset: u64, length: usize) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;

        Self::of_file(file, offset, length)
    }

    const ACCESS: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

    fn at(start: *mut c_void, length: usize) -> io::Result<Self> {
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;

        Ok(Self { start, length })
    }

    /// Returns the address of the first byte.
    pub fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// Returns the length in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Forbids all accesses to the memory from `offset` on, a multiple of the page size. System
    /// calls that access it then fail, and an access by the process itself kills it.
    pub fn forbid_from(&self, offset: usize) -> io::Result<()> {
        let length = self
            .length
            .checked_sub(offset)
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: The range is inside the mapping, and there are no references to it. Removing
        // access breaks no invariant, because the memory is accessed only as volatile memory.
        unsafe {
            mm::mprotect(
                self.start.as_ptr().add(offset).cast(),
                length,
                MprotectFlags::empty(),
            )
        }?;
        Ok(())
    }

    /// Calls `read(2)` of `file` into the whole mapping once. Returns the number of bytes read.
    pub fn fill_from(&self, file: impl AsFd) -> io::Result<usize> {
        // SAFETY: The mapping has this length, and there are no references to it.
        let got = unsafe {
            libc::read(
                file.as_fd().as_raw_fd(),
                self.start.as_ptr().cast(),
                self.length,
            )
        };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    /// Calls `write(2)` of the whole mapping to `file` once. Returns the number of bytes written.
    pub fn drain_to(&self, file: impl AsFd) -> io::Result<usize> {
        // SAFETY: The mapping has this length.
        let written = unsafe {
            libc::write(
                file.as_fd().as_raw_fd(),
                self.start.as_ptr().cast(),
                self.length,
            )
        };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }

    /// Executes `request` on `file` with the argument at `offset`.
    ///
    /// # Panics
    ///
    /// Panics if the argument exceeds the mapping or is not aligned.
    pub fn ioctl<T>(
        &self,
        file: impl AsFd,
        request: &Request<T>,
        offset: usize,
    ) -> io::Result<c_int> {
        // SAFETY: The kernel accesses a `T` in the mapping, or fails at the end of accessible
        // memory.
        checked(unsafe {
            libc::ioctl(
                file.as_fd().as_raw_fd(),
                request.number() as _,
                self.pointer::<T>(offset),
            )
        })
    }

    /// Executes the request `number` on `file` with the bytes at `offset` as its argument.
    ///
    /// # Safety
    ///
    /// The kernel's handler must write only the argument, which it must not assume to exceed the
    /// mapping, and memory that the argument names, to which there must be no other references.
    pub unsafe fn any_ioctl(
        &self,
        file: impl AsFd,
        number: c_ulong,
        offset: usize,
    ) -> io::Result<c_int> {
        // SAFETY: Guaranteed by the caller.
        checked(unsafe {
            libc::ioctl(
                file.as_fd().as_raw_fd(),
                number as _,
                self.pointer::<u8>(offset),
            )
        })
    }

    /// Returns a pointer to the `T` at `offset`.
    ///
    /// # Panics
    ///
    /// Panics if the `T` exceeds the mapping or is not aligned.
    fn pointer<T>(&self, offset: usize) -> *mut T {
        let end = offset.checked_add(size_of::<T>());
        assert!(
            end.is_some_and(|end| end <= self.length) && offset % align_of::<T>() == 0,
            "{} at {offset:#x} of a mapping of {:#x} bytes",
            std::any::type_name::<T>(),
            self.length
        );
        // SAFETY: The offset was checked against the mapping's length above.
        unsafe { self.start.as_ptr().add(offset).cast() }
    }

    /// Reads the `T` at `offset`.
    ///
    /// # Panics
    ///
    /// Panics if the `T` exceeds the mapping or is not aligned.
    pub fn read<T: Plain>(&self, offset: usize) -> T {
        // SAFETY: `pointer` checks the bounds and the alignment (mappings start at a page), and
        // every bit pattern is a valid `T: Plain`.
        unsafe { self.pointer::<T>(offset).read_volatile() }
    }

    /// Writes `value` at `offset`.
    ///
    /// # Panics
    ///
    /// Panics if the `T` exceeds the mapping or is not aligned.
    pub fn write<T: Plain>(&self, offset: usize, value: T) {
        // SAFETY: As for `read`.
        unsafe { self.pointer::<T>(offset).write_volatile(value) }
    }

    /// Returns a copy of `length` bytes at `offset`. For memory, not for registers.
    pub fn copy_out(&self, offset: usize, length: usize) -> Vec<u8> {
        (offset..offset + length).map(|at| self.read(at)).collect()
    }

    /// Copies `bytes` to `offset`. For memory, not for registers.
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) {
        for (at, byte) in bytes.iter().enumerate() {
            self.write(offset + at, *byte);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The mapping is owned by `self`, and there are no references to it.
        let _ = unsafe { mm::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
