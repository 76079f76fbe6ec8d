// SPDX-License-Identifier: GPL-2.0

//! The registers of a device that user space has open.
//!
//! A driver can access the registers in addition to the VFIO core, under the same rules: not during
//! a reset of the device, not while its memory is disabled or its power is off, and not after it is
//! closed.
//!
//! A reset holds the VFIO core's `memory_lock` and calls the driver under it. An access therefore
//! never waits for that lock, and fails with `EBUSY` instead.

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    bindings as kernel_bindings,
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi,
    pci,
    prelude::*,
    revocable::Revocable,
    sync::Arc, //
};

/// A part of a BAR that consists of whole pages.
pub(crate) struct Window {
    /// Index of the BAR: 0 to 5.
    pub(crate) bar: u8,
    /// Offset of the first byte in the BAR.
    pub(crate) start: u64,
    /// Length in bytes.
    pub(crate) length: u64,
}

impl Window {
    /// Returns the offset of the end of the window, which is exclusive.
    pub(super) const fn end(&self) -> u64 {
        self.start + self.length
    }
}

/// An enabled device.
///
/// # Invariants
///
/// The device is enabled (`vfio_pci_core_enable()`).
struct Enabled(NonNull<bindings::vfio_pci_core_device>);

// SAFETY: The operations on the device may be called from any task.
unsafe impl Send for Enabled {}

// SAFETY: As above, and from several tasks concurrently.
unsafe impl Sync for Enabled {}

/// Checks an entry of `barmap`. The entry is an error pointer if the VFIO core failed to map the
/// BAR, and null before it tried.
///
/// # Errors
///
/// `ENXIO` for any invalid entry. The error of the entry can be `EBUSY`, which means a reset here.
fn mapped(map: *mut ffi::c_void) -> Result<*mut ffi::c_void> {
    match from_err_ptr(map) {
        Ok(map) if !map.is_null() => Ok(map),
        _ => Err(ENXIO),
    }
}

/// The registers of a device, from open to close.
#[derive(Clone)]
pub(crate) struct Registers(Arc<Revocable<Enabled>>);

impl Registers {
    /// # Safety
    ///
    /// `core` is enabled, and remains enabled until [`Self::revoke`] has returned.
    pub(super) unsafe fn new(core: NonNull<bindings::vfio_pci_core_device>) -> Result<Self> {
        // INVARIANT: By the safety requirements. `revoke` ends the access.
        Arc::pin_init(Revocable::new(Enabled(core)), GFP_KERNEL).map(Self)
    }

    /// Revokes the registers from all holders. Waits for accesses in progress.
    pub(super) fn revoke(&self) {
        self.0.revoke();
    }

    /// Reads the 32-bit register at `offset` in BAR `bar`.
    ///
    /// # Errors
    ///
    /// - `EBUSY` while the device is being reset.
    /// - `EIO` if the device is closed or its memory is disabled.
    /// - `EINVAL` if the BAR has no such register.
    /// - `ENXIO` if the BAR is not mapped, because the device lacks it or another driver has
    ///   claimed it.
    /// - `ENODEV` if the device is gone.
    pub(crate) fn read32(&self, bar: u8, offset: u64) -> Result<u32> {
        let mut value = 0;
        self.access(bar, offset, |core, register| {
            // SAFETY: `access` guarantees that its arguments are valid.
            let result =
                unsafe { bindings::vfio_pci_core_ioread32(core, false, &mut value, register) };
            // SAFETY: As above. For a VF, the function checks the PF.
            if value == u32::MAX && !unsafe { kernel_bindings::pci_device_is_present((*core).pdev) }
            {
                return ENODEV.to_errno();
            }
            result
        })?;
        Ok(value)
    }

    /// Writes the 32-bit register at `offset` in BAR `bar`.
    ///
    /// # Errors
    ///
    /// The same as for [`Self::read32`].
    pub(crate) fn write32(&self, bar: u8, offset: u64, value: u32) -> Result {
        self.access(bar, offset, |core, register| {
            // SAFETY: `access` guarantees that its arguments are valid.
            unsafe { bindings::vfio_pci_core_iowrite32(core, false, value, register) }
        })
    }

    /// Calls `act` with the device, whose `memory_lock` is held, and with the address of a
    /// register.
    fn access(
        &self,
        bar: u8,
        offset: u64,
        act: impl FnOnce(*mut bindings::vfio_pci_core_device, *mut ffi::c_void) -> ffi::c_int,
    ) -> Result {
        let offset_end = offset.checked_add(size_of::<u32>() as u64).ok_or(EINVAL)?;
        self.locked(|core| {
            // SAFETY: `locked` guarantees that `core` is enabled, so that its BARs are mapped. The
            // PCI device is valid for as long.
            let (device, maps) = unsafe { (&*(*core).pdev.cast::<pci::Device>(), (*core).barmap) };
            let map = mapped(*maps.get(usize::from(bar)).ok_or(EINVAL)?)?;
            if offset % size_of::<u32>() as u64 != 0
                || offset_end > device.resource_len(bar.into())?
            {
                return Err(EINVAL);
            }
            // SAFETY: `memory_lock` is held.
            if !unsafe { bindings::__vfio_pci_memory_enabled(core) } {
                return Err(EIO);
            }
            // The offset is inside the BAR, which is mapped completely.
            to_result(act(core, map.wrapping_byte_add(offset as usize)))
        })
    }

    /// Calls `act` with the device, which is enabled, while its `memory_lock` is held. `act` must
    /// not sleep.
    fn locked<R>(
        &self,
        act: impl FnOnce(*mut bindings::vfio_pci_core_device) -> Result<R>,
    ) -> Result<R> {
        let enabled = self.0.try_access().ok_or(EIO)?;
        let core = enabled.0.as_ptr();

        // SAFETY: `core` is enabled by the type invariant. The call does not sleep.
        if unsafe { kernel_bindings::down_read_trylock(&raw mut (*core).memory_lock) } == 0 {
            return Err(EBUSY);
        }
        let result = act(core);
        // SAFETY: The lock was taken above.
        unsafe { kernel_bindings::up_read(&raw mut (*core).memory_lock) };
        result
    }

    /// Enables memory decoding of the device, even if the guest has disabled it, until the returned
    /// value is dropped.
    ///
    /// The command register's bit has no meaning in a virtual function (PCI Express 6.0,
    /// 9.3.4.1.3), but QEMU's virtual functions honour it.
    ///
    /// # Errors
    ///
    /// `EBUSY` while the device is being reset, `EIO` if it is closed.
    pub(crate) fn decode(&self) -> Result<Decoding<'_>> {
        self.set_decode(true)?;
        Ok(Decoding(self))
    }

    /// Enables memory decoding of the device, or restores the setting of the guest.
    fn set_decode(&self, is_forced: bool) -> Result {
        const COMMAND: usize = kernel_bindings::PCI_COMMAND as usize;
        // CAST: The register has 16 bits.
        const MEMORY: u16 = kernel_bindings::PCI_COMMAND_MEMORY as u16;

        self.locked(|core| {
            let mut command = 0;
            // SAFETY: `locked` guarantees that `core` is enabled, so that it has a virtual
            // configuration space of at least 256 bytes. The PCI device is valid for as long.
            let (device, [low, high]) = unsafe {
                let command = (*core).vconfig.add(COMMAND).cast::<[u8; 2]>();
                ((*core).pdev, command.read_volatile())
            };
            // SAFETY: The device is valid. Other writers of the register hold `memory_lock` for
            // writing.
            to_result(unsafe {
                kernel_bindings::pci_read_config_word(device, COMMAND as i32, &mut command)
            })?;
            let is_wanted = is_forced || u16::from_le_bytes([low, high]) & MEMORY != 0;
            let wanted = if is_wanted {
                command | MEMORY
            } else {
                command & !MEMORY
            };
            if wanted == command {
                return Ok(());
            }
            // SAFETY: As above.
            to_result(unsafe {
                kernel_bindings::pci_write_config_word(device, COMMAND as i32, wanted)
            })
        })
    }
}

/// A guard that keeps memory decoding of a device enabled, regardless of the guest's setting.
pub(crate) struct Decoding<'a>(&'a Registers);

impl Drop for Decoding<'_> {
    fn drop(&mut self) {
        // Only a reset makes this fail, and it restores the register itself.
        let _ = self.0.set_decode(false);
    }
}

#[cfg(CONFIG_KUNIT = "y")]
#[kunit_tests(vifa_bar)]
mod tests {
    use super::*;

    #[test]
    fn rejects_a_bar_that_is_not_mapped() {
        for errno in [ENODEV, EBUSY, ENOMEM] {
            // The equivalent of `ERR_PTR()`.
            let map = core::ptr::without_provenance_mut(errno.to_errno() as isize as usize);
            assert_eq!(mapped(map).err(), Some(ENXIO));
        }
        assert_eq!(mapped(core::ptr::null_mut()).err(), Some(ENXIO));
    }

    #[test]
    fn accepts_a_mapped_bar() {
        let mut register = 0u32;
        let map = core::ptr::from_mut(&mut register).cast();
        assert_eq!(mapped(map).ok(), Some(map));
    }
}
