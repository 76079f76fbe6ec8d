// SPDX-License-Identifier: GPL-2.0

//! Mediation: the driver emulates some of the registers of a device.
//!
//! The driver defines windows: parts of the BARs that consist of whole pages. User space cannot map
//! a window, and accesses it only by `read()` and `write()` on the device's file. These are divided
//! into 32-bit accesses, which the driver implements. The VFIO core handles the rest of the BARs.
//!
//! `VFIO_REGION_INFO_CAP_SPARSE_MMAP` reports the mappable areas to user space. An ioeventfd would
//! write to the device without the driver. A device with windows therefore does not support
//! ioeventfds.

use super::{
    bar::Window,
    device::Device,
    driver::Driver, //
};
use crate::bindings;
use kernel::{
    bindings as kernel_bindings,
    error::to_result,
    ffi,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    uaccess::UserSlice, //
};

/// Maximum number of windows of a device.
const WINDOWS_MAX: usize = 7;

/// Size in bytes of an emulated register.
const REGISTER: u64 = size_of::<u32>() as u64;

/// `struct vfio_region_info_cap_sparse_mmap`, with space for the areas between all windows.
#[derive(Default)]
#[repr(C)]
struct SparseMmap {
    head: bindings::vfio_region_info_cap_sparse_mmap,
    areas: [bindings::vfio_region_sparse_mmap_area; WINDOWS_MAX + 1],
}

/// Returns the region that `position` of a device's file is in, and the offset in that region.
fn place(position: u64) -> (u64, u64) {
    const SHIFT: u32 = bindings::VFIO_PCI_OFFSET_SHIFT;

    (position >> SHIFT, position & ((1 << SHIFT) - 1))
}

/// The kind of an access to the device's file.
#[derive(Clone, Copy)]
enum AccessKind {
    Read,
    Write,
}

/// Returns the windows of `T` in a region, with their indices.
fn windows<T: Driver>(region: u64) -> impl Iterator<Item = (usize, &'static Window)> {
    let windows = T::WINDOWS.iter().enumerate();
    windows.filter(move |(_, window)| u64::from(window.bar) == region)
}

impl<T: Driver> Device<T> {
    const WINDOWS_ARE_VALID: () = {
        let mut index = 0;
        while index < T::WINDOWS.len() {
            let window = &T::WINDOWS[index];
            assert!(window.bar < 6 && window.length != 0);
            assert!(window.start % PAGE_SIZE as u64 == 0 && window.length % PAGE_SIZE as u64 == 0);
            if index > 0 && T::WINDOWS[index - 1].bar == window.bar {
                assert!(T::WINDOWS[index - 1].end() <= window.start);
            }
            index += 1;
        }
        assert!(T::WINDOWS.len() <= WINDOWS_MAX);
    };

    pub(super) extern "C" fn read_callback(
        vfio_device: *mut bindings::vfio_device,
        user: *mut ffi::c_char,
        count: usize,
        position: *mut kernel_bindings::loff_t,
    ) -> isize {
        Self::access(vfio_device, user, count, position, AccessKind::Read)
    }

    pub(super) extern "C" fn write_callback(
        vfio_device: *mut bindings::vfio_device,
        user: *const ffi::c_char,
        count: usize,
        position: *mut kernel_bindings::loff_t,
    ) -> isize {
        let user = user.cast_mut();
        Self::access(vfio_device, user, count, position, AccessKind::Write)
    }

    /// Performs an access to the device's file, divided into parts inside and outside of windows.
    fn access(
        vfio_device: *mut bindings::vfio_device,
        user: *mut ffi::c_char,
        count: usize,
        position: *mut kernel_bindings::loff_t,
        kind: AccessKind,
    ) -> isize {
        let mut done = 0;
        while done < count {
            // SAFETY: The VFIO core passes a valid pointer.
            let (region, offset) = place(unsafe { *position } as u64);
            let window = windows::<T>(region).find(|(_, window)| offset < window.end());
            let user = user.wrapping_byte_add(done);
            let rest = count - done;
            let part = match window {
                Some((index, window)) if window.start <= offset => {
                    // SAFETY: The VFIO core passes an open device.
                    let device = unsafe { Self::from_vfio(vfio_device) };
                    let within = offset - window.start;
                    let part = device.access_register(index, within, user, rest, kind);
                    match part {
                        Ok(part) => {
                            // SAFETY: As above.
                            unsafe { *position += part as kernel_bindings::loff_t };
                            part as isize
                        }
                        Err(error) => error.to_errno() as isize,
                    }
                }
                other => {
                    let room = other.map(|(_, window)| window.start - offset);
                    let part = room.map_or(rest, |room| rest.min(room as usize));
                    // SAFETY: The arguments are those of the VFIO core, or a part of them.
                    unsafe {
                        match kind {
                            AccessKind::Read => {
                                bindings::vfio_pci_core_read(vfio_device, user, part, position)
                            }
                            AccessKind::Write => {
                                bindings::vfio_pci_core_write(vfio_device, user, part, position)
                            }
                        }
                    }
                }
            };
            match usize::try_from(part) {
                Ok(part) if part > 0 => done += part,
                _ if done == 0 => return part,
                _ => break,
            }
        }
        done as isize
    }

    /// Performs the part of an access that is in one register of a window. Returns the number of
    /// bytes accessed.
    ///
    /// # Errors
    ///
    /// - `EINVAL` for a write to a part of a register.
    /// - `EFAULT` or `EINTR`.
    /// - The error of the driver.
    fn access_register(
        &self,
        window: usize,
        offset: u64,
        user: *mut ffi::c_char,
        count: usize,
        kind: AccessKind,
    ) -> Result<usize> {
        let register = offset - offset % REGISTER;
        let skipped = (offset - register) as usize;
        let part = count.min(REGISTER as usize - skipped);
        let user = UserSlice::new(UserPtr::from_ptr(user.cast()), part);
        match kind {
            AccessKind::Read => {
                let value = self.retry_after_reset(|| T::read_window(self, window, register))?;
                let bytes = value.to_le_bytes();
                user.writer().write_slice(&bytes[skipped..skipped + part])?;
            }
            AccessKind::Write => {
                let mut bytes = [0; REGISTER as usize];
                if part != bytes.len() {
                    return Err(EINVAL);
                }
                user.reader().read_slice(&mut bytes)?;
                let value = u32::from_le_bytes(bytes);
                self.retry_after_reset(|| T::write_window(self, window, register, value))?;
            }
        }
        Ok(part)
    }

    /// Calls `act`, and repeats it after a reset for as long as it fails with `EBUSY`.
    fn retry_after_reset<R>(&self, act: impl Fn() -> Result<R>) -> Result<R> {
        loop {
            match act() {
                Err(EBUSY) => self.wait_for_reset()?,
                result => return result,
            }
        }
    }

    /// Waits for the end of a reset that is in progress.
    fn wait_for_reset(&self) -> Result {
        // SAFETY: The device is initialised by its type invariant, and no lock is held.
        unsafe {
            let lock = &raw mut (*self.core()).memory_lock;
            to_result(kernel_bindings::down_read_killable(lock))?;
            kernel_bindings::up_read(lock);
        }
        Ok(())
    }

    pub(super) extern "C" fn mmap_callback(
        vfio_device: *mut bindings::vfio_device,
        area: *mut kernel_bindings::vm_area_struct,
    ) -> ffi::c_int {
        // SAFETY: The VFIO core passes an area that is being mapped and is locked.
        let (first_page, bytes) = unsafe {
            let area = &*area;
            let ends = &area.__bindgen_anon_1.__bindgen_anon_1;
            (area.vm_pgoff as u64, ends.vm_end - ends.vm_start)
        };
        let (region, start) = place(first_page << PAGE_SHIFT);
        let end = start.saturating_add(bytes as u64);
        if windows::<T>(region).any(|(_, window)| start < window.end() && window.start < end) {
            return EINVAL.to_errno();
        }
        // SAFETY: The arguments are those of the VFIO core.
        unsafe { bindings::vfio_pci_core_mmap(vfio_device, area) }
    }

    pub(super) extern "C" fn ioctl_callback(
        vfio_device: *mut bindings::vfio_device,
        command: ffi::c_uint,
        argument: ffi::c_ulong,
    ) -> ffi::c_long {
        const IOEVENTFD: u32 =
            kernel::ioctl::_IO(bindings::VFIO_TYPE as u32, bindings::VFIO_BASE + 16);

        if command == IOEVENTFD && !T::WINDOWS.is_empty() {
            return ENOTTY.to_errno() as ffi::c_long;
        }
        // SAFETY: The arguments are those of the VFIO core.
        unsafe { bindings::vfio_pci_core_ioctl(vfio_device, command, argument) }
    }

    /// Adds to the information about a region the areas outside of the windows, which user space
    /// may map.
    ///
    /// # Safety
    ///
    /// `info` describes a region of the device, and `capabilities` is a list of the VFIO core.
    pub(super) unsafe fn add_mappable_areas(
        info: &mut bindings::vfio_region_info,
        capabilities: *mut bindings::vfio_info_cap,
    ) -> Result {
        let () = Self::WINDOWS_ARE_VALID;

        let region = u64::from(info.index);
        if windows::<T>(region).next().is_none()
            || info.flags & bindings::VFIO_REGION_INFO_FLAG_MMAP == 0
        {
            return Ok(());
        }

        let mut sparse = SparseMmap::default();
        let mut count = 0;
        let mut start = 0;
        let ends = windows::<T>(region).map(|(_, window)| (window.start, window.end()));
        for (end, next) in Iterator::chain(ends, [(info.size, info.size)]) {
            if start < end {
                let area = sparse.areas.get_mut(count).ok_or(EINVAL)?;
                area.offset = start;
                area.size = end - start;
                count += 1;
            }
            start = next;
        }
        if count == 0 {
            info.flags &= !bindings::VFIO_REGION_INFO_FLAG_MMAP;
            return Ok(());
        }
        sparse.head.nr_areas = count as u32;
        sparse.head.header.id = bindings::VFIO_REGION_INFO_CAP_SPARSE_MMAP as u16;
        sparse.head.header.version = 1;
        // SAFETY: The list is valid by the safety requirements. The call copies the capability,
        // which has at least the size that is passed.
        to_result(unsafe {
            bindings::vfio_info_add_capability(
                capabilities,
                (&raw mut sparse).cast(),
                size_of_val(&sparse.head) + count * size_of_val(&sparse.areas[0]),
            )
        })
    }
}
