// SPDX-License-Identifier: GPL-2.0

//! The registers of a device that user space has open.
//!
//! A driver that takes part in what a guest does to its device reads and writes registers beside
//! the VFIO core, and by its rules: not while the device is being reset, nor while its memory is
//! disabled or it has no power, nor once it is closed.
//!
//! A reset holds the VFIO core's `memory_lock` and tells the driver of itself under it. An access
//! therefore never waits for that lock; whoever can wait calls [`Registers::settle`], and holds
//! nothing then that a reset needs.

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

/// A part of a BAR, in whole pages.
pub(crate) struct Window {
    /// Index of the BAR: 0 to 5.
    pub(crate) bar: u8,
    /// Offset of its first byte in the BAR.
    pub(crate) start: u64,
    /// Bytes that it has.
    pub(crate) length: u64,
}

impl Window {
    /// The offset behind its last byte.
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

// SAFETY: What is done through the pointer may be done from any task.
unsafe impl Send for Enabled {}

// SAFETY: As above, and from several at once.
unsafe impl Sync for Enabled {}

/// Checks an entry of `barmap`, which is an error pointer where the VFIO core has not mapped the
/// BAR, and null before it tried.
///
/// # Errors
///
/// `ENXIO` whatever the reason: `EBUSY`, which is one, means a reset here.
fn mapped(map: *mut ffi::c_void) -> Result<*mut ffi::c_void> {
    match from_err_ptr(map) {
        Ok(map) if !map.is_null() => Ok(map),
        _ => Err(ENXIO),
    }
}

/// The registers of a device, from its opening until it is closed.
#[derive(Clone)]
pub(crate) struct Registers(Arc<Revocable<Enabled>>);

impl Registers {
    /// # Safety
    ///
    /// `core` is enabled, and stays so until [`Self::revoke`] has returned.
    pub(super) unsafe fn new(core: NonNull<bindings::vfio_pci_core_device>) -> Result<Self> {
        // INVARIANT: By the safety requirements; `revoke` takes it back.
        Arc::pin_init(Revocable::new(Enabled(core)), GFP_KERNEL).map(Self)
    }

    /// Takes the registers from all who have them; waits for accesses that have begun.
    pub(super) fn revoke(&self) {
        self.0.revoke();
    }

    /// Reads a register of 32 bits, at `offset` in BAR `bar`.
    ///
    /// # Errors
    ///
    /// `EBUSY` while the device is being reset, `EIO` where it is closed or its memory is disabled,
    /// `EINVAL` where the BAR has no such register, `ENXIO` where the BAR is not mapped: the device
    /// has none, or somebody else has claimed it. `ENODEV` where the device is gone.
    pub(crate) fn read32(&self, bar: u8, offset: u64) -> Result<u32> {
        let mut value = 0;
        self.access(bar, offset, |core, register| {
            // SAFETY: By what `access` says of its arguments.
            let result =
                unsafe { bindings::vfio_pci_core_ioread32(core, false, &mut value, register) };
            // SAFETY: As above; a VF's PF is looked at in its place.
            if value == u32::MAX && !unsafe { kernel_bindings::pci_device_is_present((*core).pdev) }
            {
                return ENODEV.to_errno();
            }
            result
        })?;
        Ok(value)
    }

    /// Writes a register of 32 bits, at `offset` in BAR `bar`.
    ///
    /// # Errors
    ///
    /// As for [`Self::read32`].
    pub(crate) fn write32(&self, bar: u8, offset: u64, value: u32) -> Result {
        self.access(bar, offset, |core, register| {
            // SAFETY: By what `access` says of its arguments.
            unsafe { bindings::vfio_pci_core_iowrite32(core, false, value, register) }
        })
    }

    /// Has `act` access a register: it gets the device, whose `memory_lock` is held, and the
    /// register's address.
    fn access(
        &self,
        bar: u8,
        offset: u64,
        act: impl FnOnce(*mut bindings::vfio_pci_core_device, *mut ffi::c_void) -> ffi::c_int,
    ) -> Result {
        let offset_end = offset.checked_add(size_of::<u32>() as u64).ok_or(EINVAL)?;
        self.locked(|core| {
            // SAFETY: `locked` says that `core` is enabled, so that its BARs are mapped; the PCI
            // device is valid as long as it is.
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
            // The offset is in the BAR, which is mapped whole.
            to_result(act(core, map.wrapping_byte_add(offset as usize)))
        })
    }

    /// Has `act` do something with the device, which is enabled, and whose `memory_lock` is held:
    /// it must not sleep.
    fn locked<R>(
        &self,
        act: impl FnOnce(*mut bindings::vfio_pci_core_device) -> Result<R>,
    ) -> Result<R> {
        let enabled = self.0.try_access().ok_or(EIO)?;
        let core = enabled.0.as_ptr();

        // SAFETY: `core` is enabled by the type invariant. Taking the lock this way does not sleep.
        if unsafe { kernel_bindings::down_read_trylock(&raw mut (*core).memory_lock) } == 0 {
            return Err(EBUSY);
        }
        let result = act(core);
        // SAFETY: It was taken above.
        unsafe { kernel_bindings::up_read(&raw mut (*core).memory_lock) };
        result
    }

    /// Has the device decode accesses to its memory, even if its guest has disabled that, until
    /// what is returned is dropped.
    ///
    /// The bit for that has no meaning in a virtual function (PCI Express 6.0, 9.3.4.1.3), but
    /// QEMU's heed it.
    ///
    /// # Errors
    ///
    /// `EBUSY` while the device is being reset, `EIO` where it is closed.
    pub(crate) fn decode(&self) -> Result<Decoding<'_>> {
        self.set_decode(true)?;
        Ok(Decoding(self))
    }

    /// Has the device decode accesses to its memory, or do as its guest has said.
    fn set_decode(&self, is_forced: bool) -> Result {
        const COMMAND: usize = kernel_bindings::PCI_COMMAND as usize;
        // CAST: It is a bit of a register of 16.
        const MEMORY: u16 = kernel_bindings::PCI_COMMAND_MEMORY as u16;

        self.locked(|core| {
            let mut command = 0;
            // SAFETY: `locked` says that `core` is enabled, so that it has a virtual configuration
            // space, of 256 bytes at least; the PCI device is valid as long as it is.
            let (device, [low, high]) = unsafe {
                let command = (*core).vconfig.add(COMMAND).cast::<[u8; 2]>();
                ((*core).pdev, command.read_volatile())
            };
            // SAFETY: The device is valid. Whoever writes this register holds `memory_lock` alone.
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

/// A device that decodes accesses to its memory, whatever its guest says.
pub(crate) struct Decoding<'a>(&'a Registers);

impl Drop for Decoding<'_> {
    fn drop(&mut self) {
        // A reset, which alone can fail this, has its own way with the register.
        let _ = self.0.set_decode(false);
    }
}

#[cfg(CONFIG_KUNIT = "y")]
#[kunit_tests(vifa_bar)]
mod tests {
    use super::*;

    #[test]
    fn bar_that_is_not_mapped_is_refused() {
        for errno in [ENODEV, EBUSY, ENOMEM] {
            // What `ERR_PTR()` makes of it.
            let map = core::ptr::without_provenance_mut(errno.to_errno() as isize as usize);
            assert_eq!(mapped(map).err(), Some(ENXIO));
        }
        assert_eq!(mapped(core::ptr::null_mut()).err(), Some(ENXIO));
    }

    #[test]
    fn bar_that_is_mapped_is_taken() {
        let mut register = 0u32;
        let map = core::ptr::from_mut(&mut register).cast();
        assert_eq!(mapped(map).ok(), Some(map));
    }
}
