// SPDX-License-Identifier: GPL-2.0

//! Memory that a device, or another process, may change at any time.

use crate::ioctl::{checked, Request};
use rustix::mm::{self, MapFlags, MprotectFlags, ProtFlags};
use std::{
    ffi::{c_int, c_ulong, c_void},
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd},
    path::Path,
    ptr::{self, NonNull},
};
use vifa_headers::Plain;

/// Memory that somebody else may change at any time: a device's registers, or memory for its DMA.
///
/// All access is volatile and checked against the mapping's length; no reference into it exists.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: The mapping belongs to the process, not to a thread, and is only accessed as volatile
// memory through methods that keep no reference to it.
unsafe impl Send for Mapping {}
// SAFETY: As above; concurrent access is what the type is for.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes of fresh, zeroed memory.
    ///
    /// # Errors
    ///
    /// Those of mmap().
    pub fn anonymous(length: usize) -> io::Result<Self> {
        // SAFETY: The kernel picks addresses that nothing uses.
        let start =
            unsafe { mm::mmap_anonymous(ptr::null_mut(), length, Self::ACCESS, MapFlags::SHARED) }?;

        Self::at(start, length)
    }

    /// Maps `length` bytes of `file` from `offset` on, for reading and writing.
    ///
    /// # Errors
    ///
    /// Those of mmap().
    pub fn of_file(file: impl AsFd, offset: u64, length: usize) -> io::Result<Self> {
        // SAFETY: The kernel picks addresses that nothing uses.
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
        // SAFETY: The range is inside the mapping, into which nothing refers; less access breaks no
        // invariant of a type that is only read and written as volatile memory.
        unsafe {
            mm::mprotect(
                self.start.as_ptr().add(offset).cast(),
                length,
                MprotectFlags::empty(),
            )
        }?;
        Ok(())
    }

    /// One `read(2)` of `file` into the whole mapping; returns the bytes read.
    pub fn fill_from(&self, file: impl AsFd) -> io::Result<usize> {
        // SAFETY: The mapping has so many bytes, and nothing refers into it.
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
        // SAFETY: The mapping has so many bytes.
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
        // SAFETY: The kernel accesses a `T` in the mapping, or meets the end of what is accessible.
        checked(unsafe {
            libc::ioctl(
                file.as_fd().as_raw_fd(),
                request.number() as _,
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
        // SAFETY: As the caller promises.
        checked(unsafe {
            libc::ioctl(
                file.as_fd().as_raw_fd(),
                number as _,
                self.pointer::<u8>(offset),
            )
        })
    }

    /// A pointer to a `T` at `offset`.
    ///
    /// # Panics
    ///
    /// If it would reach outside the mapping or not be aligned.
    fn pointer<T>(&self, offset: usize) -> *mut T {
        let end = offset.checked_add(size_of::<T>());
        assert!(
            end.is_some_and(|end| end <= self.length) && offset % align_of::<T>() == 0,
            "{} at {offset:#x} of a mapping of {:#x} bytes",
            std::any::type_name::<T>(),
            self.length
        );
        // SAFETY: The offset was just checked against the mapping's length.
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
        // SAFETY: As for `read`.
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
        // SAFETY: The mapping is ours, and nothing refers into it.
        let _ = unsafe { mm::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
