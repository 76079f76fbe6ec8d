// SPDX-License-Identifier: GPL-2.0

//! What a variant driver needs of the PCI core and [`kernel::pci`] lacks.
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

/// An id that matches by vendor and device, of any vendor: C's `PCI_DEVICE()`.
pub(crate) const fn id(vendor: u32, device: u32) -> DeviceId {
    raw_id(vendor, device, 0)
}

/// An id that matches only a device whose `driver_override` names the driver.
///
/// It appears in the module's aliases as `vfio_pci:…`, from which user space finds the driver that
/// fits a device: C's `PCI_DRIVER_OVERRIDE_DEVICE_VFIO()`.
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
    // SAFETY: `DeviceId` is a transparent wrapper of `struct pci_device_id` without invariants of
    // its own.
    unsafe { core::mem::transmute::<bindings::pci_device_id, DeviceId>(id) }
}

/// Finds the designated vendor-specific extended capability `id` of `vendor`; returns its offset
/// in the configuration space.
pub(crate) fn find_dvsec(device: &Device<Bound>, vendor: u16, id: u16) -> Option<NonZero<usize>> {
    // SAFETY: The device is valid.
    let position = unsafe { bindings::pci_find_dvsec_capability(as_raw(device), vendor, id) };
    NonZero::new(usize::from(position))
}

/// Returns how many MSI-X vectors a device has; `None` where it has no MSI-X.
pub(crate) fn msix_vectors(device: &Device<Bound>) -> Option<u16> {
    // SAFETY: The device is valid.
    let count = unsafe { bindings::pci_msix_vec_count(as_raw(device)) };
    u16::try_from(count).ok()
}

/// Takes the right to do DMA from a device.
pub(crate) fn clear_master(device: &Device<Bound>) {
    // SAFETY: The device is valid.
    unsafe { bindings::pci_clear_master(as_raw(device)) };
}

/// A device that decodes accesses to its memory, and does no DMA, until this is dropped.
///
/// # Invariants
///
/// The device was enabled once for this.
pub(crate) struct MemoryEnabled<'a>(&'a Device<Bound>);

impl<'a> MemoryEnabled<'a> {
    /// Enables the memory of `device`.
    pub(crate) fn new(device: &'a Device<Core<'_>>) -> Result<Self> {
        clear_master(device);
        device.enable_device_mem()?;
        // INVARIANT: It has just been enabled.
        Ok(Self(device))
    }
}

impl Drop for MemoryEnabled<'_> {
    fn drop(&mut self) {
        // SAFETY: The device is valid, and by the type invariant this undoes `enable_device_mem`.
        unsafe { bindings::pci_disable_device(as_raw(self.0)) };
    }
}

/// Where a function stands in the PCI Express hierarchy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    /// Segment group, as the host numbers it.
    pub(crate) domain: u32,
    /// Bus number.
    pub(crate) bus: u8,
    /// Device (5 bits) and function (3 bits) number.
    pub(crate) devfn: u8,
}

impl Address {
    /// The address of `device`.
    pub(crate) fn of<Ctx: DeviceContext>(device: &Device<Ctx>) -> Self {
        let device = as_raw(device);
        // SAFETY: The device is valid, and so is the bus that it is on.
        let (domain, id) = unsafe {
            (
                crate::bindings::rust_helper_pci_domain_nr((*device).bus),
                bindings::pci_dev_id(device),
            )
        };
        let [bus, devfn] = id.to_be_bytes();
        Self {
            // CAST: domain numbers are not negative.
            domain: domain as u32,
            bus,
            devfn,
        }
    }
}
