// SPDX-License-Identifier: GPL-2.0

//! VFIO PCI devices and their lifetime.
//!
//! A [`Device`] is one allocation that holds a `struct vfio_pci_core_device` and the driver's data.
//! The VFIO core counts references to the allocation. Once `vfio_pci_core_unregister_device()` has
//! returned, no callback runs and the device is not open. The driver's data is initialised
//! immediately before the registration, and dropped immediately after the end of the registration.

use super::{
    bar::Registers,
    driver::{
        Driver,
        Kind, //
    },
    file::PreCopyVersion,
    logging,
    migration,
    pci::as_raw,
    sleep, //
};
use crate::bindings;
use core::{
    ops::Deref,
    pin::Pin,
    ptr::NonNull, //
};
use kernel::{
    device::{
        self,
        CoreInternal, //
    },
    error::{
        from_err_ptr,
        from_result,
        to_result, //
    },
    ffi,
    pci,
    prelude::*,
    str::as_char_ptr_in_const_context,
    sync::aref::ARef,
    types::Opaque, //
};

/// A VFIO PCI device with the driver's data `T`.
///
/// # Invariants
///
/// `head.core` is an initialised `struct vfio_pci_core_device` at the start of an allocation made
/// by `_vfio_alloc_device()`, and registered for as long as a reference to the `Device` exists.
/// `data` is initialised and pinned for as long, and `registers` is initialised. `head.kind` is
/// [`Kind`] of `T`, and `operations` is initialised.
#[repr(C)]
pub(crate) struct Device<T: Driver> {
    head: Head,
    /// Set while the device is open, by the callbacks that open and close it.
    registers: Opaque<Option<Registers>>,
    data: Opaque<T>,
    /// A copy in the allocation: the VFIO core accesses the operations when it frees the
    /// allocation, and the module may be unloaded by then.
    operations: bindings::vfio_device_ops,
}

/// The common first part of all devices, independent of the driver.
#[repr(C)]
pub(super) struct Head {
    core: Opaque<bindings::vfio_pci_core_device>,
    kind: &'static Kind,
}

impl Head {
    /// Returns the kind of a device.
    ///
    /// # Safety
    ///
    /// The PCI device is bound to a driver registered with [`Adapter`](super::Adapter), and its
    /// driver data does not change during the call.
    pub(super) unsafe fn kind(pdev: *mut kernel::bindings::pci_dev) -> Option<&'static Kind> {
        // SAFETY: `pdev` is valid. Its driver data is null or was set by `Device::register` to a
        // `Device`, which begins with a `Head`.
        unsafe {
            kernel::bindings::dev_get_drvdata(&raw mut (*pdev).dev)
                .cast::<Self>()
                .as_ref()
                .map(|head| head.kind)
        }
    }
}

/// A reference to a device that does not keep it registered.
///
/// # Invariants
///
/// The pointer refers to the `struct vfio_device` whose `device` member is counted by this
/// reference. It is valid for as long as the reference exists: the VFIO core frees the allocation
/// with the last such reference.
pub(crate) struct Reference {
    vfio_device: NonNull<bindings::vfio_device>,
    _count: ARef<device::Device>,
}

// SAFETY: The pointer is only passed to the VFIO core, which accepts it from any task.
unsafe impl Send for Reference {}

// SAFETY: As above.
unsafe impl Sync for Reference {}

impl Reference {
    /// Returns the version of `VFIO_MIG_GET_PRECOPY_INFO` that the device's user supports.
    pub(super) fn pre_copy_version(&self) -> PreCopyVersion {
        // SAFETY: The reference keeps the memory valid. The VFIO core writes the byte on request of
        // user space, possibly concurrently. Either value is acceptable.
        match unsafe { (&raw const (*self.as_raw()).precopy_info_v2).read_volatile() } {
            0 => PreCopyVersion::V1,
            _ => PreCopyVersion::V2,
        }
    }

    pub(super) fn as_raw(&self) -> *mut bindings::vfio_device {
        self.vfio_device.as_ptr()
    }
}

/// A device that is being opened: it is enabled, but not yet accessible to its user.
pub(crate) struct Opening<'a, T: Driver>(&'a Device<T>);

impl<T: Driver> Opening<'_, T> {
    /// Returns the device's registers, which the driver may access until the device is closed.
    pub(crate) fn registers(&self) -> Result<Registers> {
        // SAFETY: Only `open_callback` and `close_callback` write the field. They do not run
        // concurrently, and do not write it while an `Opening` exists.
        unsafe { (*self.0.registers.get()).clone() }.ok_or(EIO)
    }
}

impl<T: Driver> Deref for Opening<'_, T> {
    type Target = Device<T>;

    fn deref(&self) -> &Device<T> {
        self.0
    }
}

impl<T: Driver> Device<T> {
    const OPERATIONS: bindings::vfio_device_ops = bindings::vfio_device_ops {
        name: as_char_ptr_in_const_context(T::NAME).cast_mut(),
        init: Some(bindings::vfio_pci_core_init_dev),
        release: Some(bindings::vfio_pci_core_release_dev),
        open_device: Some(Self::open_callback),
        close_device: Some(Self::close_callback),
        ioctl: Some(Self::ioctl_callback),
        get_region_info_caps: Some(Self::get_region_info_callback),
        device_feature: Some(bindings::vfio_pci_core_ioctl_feature),
        read: Some(Self::read_callback),
        write: Some(Self::write_callback),
        mmap: Some(Self::mmap_callback),
        request: Some(bindings::vfio_pci_core_request),
        match_: Some(bindings::vfio_pci_core_match),
        match_token_uuid: Some(bindings::vfio_pci_core_match_token_uuid),
        #[cfg(CONFIG_IOMMUFD)]
        bind_iommufd: Some(bindings::vfio_iommufd_physical_bind),
        #[cfg(CONFIG_IOMMUFD)]
        unbind_iommufd: Some(bindings::vfio_iommufd_physical_unbind),
        #[cfg(CONFIG_IOMMUFD)]
        attach_ioas: Some(bindings::vfio_iommufd_physical_attach_ioas),
        #[cfg(CONFIG_IOMMUFD)]
        detach_ioas: Some(bindings::vfio_iommufd_physical_detach_ioas),
        ..pin_init::zeroed()
    };

    fn operations() -> &'static bindings::vfio_device_ops {
        // The allocation is kvzalloc()ed.
        const { assert!(align_of::<Self>() <= kernel::bindings::ARCH_KMALLOC_MINALIGN) };
        &Self::OPERATIONS
    }

    /// Returns the driver's data.
    pub(crate) fn data(&self) -> Pin<&T> {
        // SAFETY: `data` is initialised and pinned by the type invariant.
        unsafe { Pin::new_unchecked(&*self.data.get()) }
    }

    /// Returns a reference that outlives the registration.
    pub(crate) fn reference(&self) -> Reference {
        let vfio_device = self.vfio_device();
        // INVARIANT: The reference counts the `device` member of this `struct vfio_device`.
        Reference {
            // SAFETY: `self` is a registered `struct vfio_device` by its type invariant.
            vfio_device: unsafe { NonNull::new_unchecked(vfio_device) },
            // SAFETY: As above. Its `device` member is initialised.
            _count: unsafe { device::Device::get_device(&raw mut (*vfio_device).device) },
        }
    }

    pub(super) fn core(&self) -> *mut bindings::vfio_pci_core_device {
        self.head.core.get()
    }

    pub(super) fn vfio_device(&self) -> *mut bindings::vfio_device {
        // SAFETY: `core` is a valid `struct vfio_pci_core_device` by the type invariant.
        unsafe { &raw mut (*self.core()).vdev }
    }

    /// # Safety
    ///
    /// `vfio_device` belongs to a [`Device<T>`], which remains registered while the reference is
    /// used.
    pub(super) unsafe fn from_vfio<'a>(vfio_device: *mut bindings::vfio_device) -> &'a Self {
        // SAFETY: `vdev` is the first member of `struct vfio_pci_core_device` (as
        // `_vfio_alloc_device()` requires), which is the first member of a `Device`.
        unsafe { &*vfio_device.cast() }
    }

    /// # Safety
    ///
    /// [`Self::register`] has succeeded for the PCI device, and [`Self::unregister`] is not called
    /// while the reference is used.
    pub(super) unsafe fn from_pci<'a>(pdev: *mut kernel::bindings::pci_dev) -> &'a Self {
        // SAFETY: `pdev` is valid, and its driver data was set by `register`.
        unsafe { &*kernel::bindings::dev_get_drvdata(&raw mut (*pdev).dev).cast() }
    }

    /// Creates a device with `data` and registers it for user space.
    pub(super) fn register(
        pdev: &pci::Device<CoreInternal<'_>>,
        data: impl PinInit<T, Error>,
    ) -> Result {
        let pdev = as_raw(pdev);

        // SAFETY: `pdev` is a valid device. The operations are static.
        let vfio_device = from_err_ptr(unsafe {
            bindings::_vfio_alloc_device(
                core::mem::size_of::<Self>(),
                &raw mut (*pdev).dev,
                Self::operations(),
            )
        })?;
        let device = vfio_device.cast::<Self>();

        // SAFETY: The allocation has the size of a `Device`, and is not yet shared.
        unsafe {
            (&raw mut (*device).head.kind).write(&T::KIND);
            Opaque::cast_into(&raw const (*device).registers).write(None);
            (&raw mut (*device).operations).write(Self::OPERATIONS);
            (*vfio_device).ops = &raw const (*device).operations;
        }
        // SAFETY: The allocation has the size of a `Device`. The data is not yet initialised, and
        // does not move.
        let result = unsafe { pin_init::raw_try_init(Opaque::cast_into(&(*device).data), data) };
        if let Err(error) = result {
            // SAFETY: This drops the only reference to the device.
            unsafe { bindings::rust_helper_vfio_put_device(vfio_device) };
            return Err(error);
        }

        // SAFETY: The data has just been initialised, and the device is not yet shared.
        let data = unsafe { &*Opaque::cast_into(&(*device).data) };
        let support = data.migration_support();
        let logs = support.is_some() && data.logs_dma() && logging::IS_AVAILABLE;
        // SAFETY: The fields may be set before the registration.
        unsafe {
            if let Some(support) = support {
                (*vfio_device).migration_flags = support.into();
                (*vfio_device).mig_ops = migration::Operations::<T>::table();
            }
            if logs {
                (*vfio_device).log_ops = logging::Operations::<T>::table();
            }
            kernel::bindings::dev_set_drvdata(&raw mut (*pdev).dev, vfio_device.cast());
        }

        // INVARIANT: Callbacks, and with them references, exist only from here on.
        // SAFETY: The device is complete.
        let result = unsafe { bindings::vfio_pci_core_register_device(vfio_device.cast()) };
        let result = to_result(result);
        if result.is_err() {
            // SAFETY: The registration failed: no other reference to the device exists.
            unsafe { Self::release(pdev, device) };
        }
        result
    }

    /// Unregisters the device, and waits until it is no longer in use.
    ///
    /// # Safety
    ///
    /// [`Self::register`] has succeeded for `pdev`, and this function has not been called since.
    pub(super) unsafe fn unregister(pdev: &pci::Device<CoreInternal<'_>>) {
        let pdev = as_raw(pdev);
        // SAFETY: `register` has set the driver data.
        let device = unsafe { kernel::bindings::dev_get_drvdata(&raw mut (*pdev).dev) };
        // SAFETY: The device is registered.
        unsafe { bindings::vfio_pci_core_unregister_device(device.cast()) };
        // SAFETY: No callback runs after the end of the registration.
        unsafe { Self::release(pdev, device.cast()) };
    }

    /// # Safety
    ///
    /// `device` is the driver data of `pdev`, not registered, and its data is initialised.
    unsafe fn release(pdev: *mut kernel::bindings::pci_dev, device: *mut Self) {
        // SAFETY: By the safety requirements, the device is not in use. The VFIO core may hold the
        // allocation for longer, but does not access the data.
        unsafe {
            kernel::bindings::dev_set_drvdata(&raw mut (*pdev).dev, core::ptr::null_mut());
            core::ptr::drop_in_place(Opaque::cast_into(&(*device).data));
            bindings::rust_helper_vfio_put_device(device.cast());
        }
    }

    /// Reports the information about a region to user space, without the capability to map the
    /// MSI-X table.
    ///
    /// A virtual machine monitor emulates the table. If it also maps the table's page, the rest of
    /// that page becomes memory of the virtual machine whose size is not a multiple of a page.
    /// Writes to such memory cannot be tracked, and QEMU refuses to migrate. Without
    /// `VFIO_REGION_INFO_CAP_MSIX_MAPPABLE`, QEMU maps only the areas around the table's pages.
    extern "C" fn get_region_info_callback(
        vfio_device: *mut bindings::vfio_device,
        info: *mut bindings::vfio_region_info,
        capabilities: *mut bindings::vfio_info_cap,
    ) -> ffi::c_int {
        let core = vfio_device.cast::<bindings::vfio_pci_core_device>();
        // SAFETY: The VFIO core passes an open device, whose `msix_bar` was set when the device was
        // enabled, and valid information. Without MSI-X, `msix_bar` is none of the six BARs.
        let table = unsafe { (*info).index == (*core).msix_bar.into() };
        let mut dropped = bindings::vfio_info_cap {
            buf: core::ptr::null_mut(),
            size: 0,
        };
        let list = if table {
            &raw mut dropped
        } else {
            capabilities
        };
        // SAFETY: The arguments are those of the VFIO core, or an empty list. The buffer of that
        // list is null or was allocated by `krealloc()`, and is not shared.
        let result = unsafe {
            let result = bindings::vfio_pci_ioctl_get_region_info(vfio_device, info, list);
            kernel::bindings::kfree(dropped.buf.cast());
            to_result(result)
        };
        from_result(|| {
            result?;
            // SAFETY: The arguments are those of the VFIO core.
            unsafe { Self::add_mappable_areas(&mut *info, capabilities)? };
            Ok(0)
        })
    }

    extern "C" fn open_callback(vfio_device: *mut bindings::vfio_device) -> ffi::c_int {
        // SAFETY: The VFIO core passes a registered device.
        let device = unsafe { Self::from_vfio(vfio_device) };
        from_result(|| {
            sleep::prevent()?;
            // SAFETY: The device is registered and not open.
            to_result(unsafe { bindings::vfio_pci_core_enable(device.core()) })
                .inspect_err(|_| sleep::allow())?;
            let opened = device
                .lend_registers()
                .and_then(|()| T::open(&Opening(device)));
            if let Err(error) = opened {
                device.revoke_registers();
                // SAFETY: The device has just been enabled.
                unsafe { bindings::vfio_pci_core_disable(device.core()) };
                sleep::allow();
                return Err(error);
            }
            // SAFETY: The device has just been enabled.
            unsafe { bindings::vfio_pci_core_finish_enable(device.core()) };
            Ok(0)
        })
    }

    /// Makes the registers of a device that has just been enabled available to the driver.
    fn lend_registers(&self) -> Result {
        let core = NonNull::new(self.core()).ok_or(EINVAL)?;
        // SAFETY: The device has been enabled. It is disabled only after `revoke_registers`.
        let registers = unsafe { Registers::new(core) }?;
        // SAFETY: The VFIO core does not open and close a device concurrently. Neither callback
        // uses the field after it has returned.
        unsafe { *self.registers.get() = Some(registers) };
        Ok(())
    }

    fn revoke_registers(&self) {
        // SAFETY: As in `lend_registers`.
        if let Some(registers) = unsafe { (*self.registers.get()).take() } {
            registers.revoke();
        }
    }

    extern "C" fn close_callback(vfio_device: *mut bindings::vfio_device) {
        // SAFETY: The VFIO core passes a registered device.
        let device = unsafe { Self::from_vfio(vfio_device) };
        T::close(device);
        device.revoke_registers();
        // SAFETY: The device is open.
        unsafe { bindings::vfio_pci_core_close_device(vfio_device) };
        sleep::allow();
    }
}
