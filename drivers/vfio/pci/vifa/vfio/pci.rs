// SPDX-License-Identifier: GPL-2.0

//! Functions of the PCI core that variant drivers need and [`kernel::pci`] lacks.
//!
//! C header: [`include/linux/pci.h`](srctree/include/linux/pci.h)

use core::num::NonZero;
use kernel::{
    bindings,
    device::{
        Bound,
        Core,
        DeviceContext, //
    },
    pci::{
        Device,
        DeviceId, //
    },
    prelude::*, //
};

/// Returns the C representation of a PCI device.
pub(super) fn as_raw<Ctx: DeviceContext>(device: &Device<Ctx>) -> *mut bindings::pci_dev {
    // CAST: `Device` is a transparent wrapper of `Opaque<struct pci_dev>`.
    core::ptr::from_ref(device).cast_mut().cast()
}

/// Returns an id that matches by vendor and device: C's `PCI_DEVICE()`.
pub(crate) const fn id(vendor: u32, device: u32) -> DeviceId {
    raw_id(vendor, device, 0)
}

/// Returns an id that matches only a device whose `driver_override` names the driver: C's
/// `PCI_DRIVER_OVERRIDE_DEVICE_VFIO()`.
///
/// The id appears in the module's aliases as `vfio_pci:…`, which user space uses to find the driver
/// of a device.
pub(crate) const fn override_only_id(vendor: u32, device: u32) -> DeviceId {
    raw_id(vendor, device, bindings::PCI_ID_F_VFIO_DRIVER_OVERRIDE)
}

const fn raw_id(vendor: u32, device: u32, override_only: u32) -> DeviceId {
    // CAST: C's `PCI_ANY_ID` is `(~0)`, assigned to an unsigned field.
    const ANY: u32 = bindings::PCI_ANY_ID as u32;

    let id = bindings::pci_device_id {
        vendor,
        device,
        subvendor: ANY,
        subdevice: ANY,
        class: 0,
        class_mask: 0,
        driver_data: 0,
        override_only,
    };
    // SAFETY: `DeviceId` is a transparent wrapper of `struct pci_device_id` without additional
    // invariants.
    unsafe { core::mem::transmute::<bindings::pci_device_id, DeviceId>(id) }
}

/// Finds the designated vendor-specific extended capability `id` of `vendor`. Returns its offset
/// in the configuration space.
pub(crate) fn find_dvsec(device: &Device<Bound>, vendor: u16, id: u16) -> Option<NonZero<usize>> {
    // SAFETY: The device is valid.
    let position = unsafe { bindings::pci_find_dvsec_capability(as_raw(device), vendor, id) };
    NonZero::new(usize::from(position))
}

/// Returns the number of MSI-X vectors of a device, or `None` if it has no MSI-X.
pub(crate) fn msix_vectors(device: &Device<Bound>) -> Option<u16> {
    // SAFETY: The device is valid.
    let count = unsafe { bindings::pci_msix_vec_count(as_raw(device)) };
    u16::try_from(count).ok()
}

/// Disables DMA of a device, by clearing the bus master bit.
pub(crate) fn clear_master(device: &Device<Bound>) {
    // SAFETY: The device is valid.
    unsafe { bindings::pci_clear_master(as_raw(device)) };
}

/// A guard that keeps a device's memory decoding enabled, and its DMA disabled.
///
/// # Invariants
///
/// The device was enabled once for this guard.
pub(crate) struct MemoryEnabled<'a>(&'a Device<Bound>);

impl<'a> MemoryEnabled<'a> {
    /// Enables the memory of `device`.
    pub(crate) fn new(device: &'a Device<Core<'_>>) -> Result<Self> {
        clear_master(device);
        device.enable_device_mem()?;
        // INVARIANT: The device has just been enabled.
        Ok(Self(device))
    }
}

impl Drop for MemoryEnabled<'_> {
    fn drop(&mut self) {
        // SAFETY: The device is valid, and by the type invariant this undoes `enable_device_mem`.
        unsafe { bindings::pci_disable_device(as_raw(self.0)) };
    }
}

/// The address of a function in the PCI Express hierarchy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    /// Segment group number of the host.
    pub(crate) domain: u32,
    /// Bus number.
    pub(crate) bus: u8,
    /// Device (5 bits) and function (3 bits) number.
    pub(crate) devfn: u8,
}

impl Address {
    /// Returns the address of `device`.
    pub(crate) fn of<Ctx: DeviceContext>(device: &Device<Ctx>) -> Self {
        let device = as_raw(device);
        // SAFETY: The device and its bus are valid.
        let (domain, id) = unsafe {
            (
                crate::bindings::rust_helper_pci_domain_nr((*device).bus),
                bindings::pci_dev_id(device),
            )
        };
        let [bus, devfn] = id.to_be_bytes();
        Self {
            // CAST: Domain numbers are not negative.
            domain: domain as u32,
            bus,
            devfn,
        }
    }
}
