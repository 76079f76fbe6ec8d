// SPDX-License-Identifier: GPL-2.0

//! Abstractions for VFIO PCI variant drivers.
//!
//! A variant driver gives user space everything that `vfio-pci` gives and adds what its kind of
//! device can do beyond, such as live migration. These modules wrap `vfio-pci-core` and the parts
//! of the PCI core that such a driver needs and the `kernel` crate lacks. They know nothing of any
//! device.
//!
//! C headers: [`include/linux/vfio.h`](srctree/include/linux/vfio.h),
//! [`include/linux/vfio_pci_core.h`](srctree/include/linux/vfio_pci_core.h)

mod device;
mod driver;
pub(crate) mod file;
pub(crate) mod migration;
pub(crate) mod sriov;

pub(crate) use self::{
    device::Device,
    driver::{
        override_only,
        Adapter,
        Driver, //
    },
};

use kernel::{
    bindings,
    device::DeviceContext,
    pci, //
};

/// Returns the C representation of a PCI device.
fn pci_dev<Ctx: DeviceContext>(device: &pci::Device<Ctx>) -> *mut bindings::pci_dev {
    // CAST: `pci::Device` is a transparent wrapper of `Opaque<struct pci_dev>`.
    core::ptr::from_ref(device).cast_mut().cast()
}
