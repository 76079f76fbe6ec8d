// SPDX-License-Identifier: GPL-2.0

//! Abstractions for VFIO PCI variant drivers.
//!
//! A variant driver provides the same interface as `vfio-pci` and adds functions of specific
//! devices, such as live migration. These modules wrap `vfio-pci-core` and the parts of the PCI
//! core that such a driver needs and the `kernel` crate lacks. They are independent of any device.
//!
//! C headers: [`include/linux/vfio.h`](srctree/include/linux/vfio.h),
//! [`include/linux/vfio_pci_core.h`](srctree/include/linux/vfio_pci_core.h)

pub(crate) mod bar;
pub(crate) mod debugfs;
mod device;
mod driver;
pub(crate) mod file;
pub(crate) mod logging;
mod mediation;
pub(crate) mod migration;
pub(crate) mod pci;
pub(crate) mod region;
pub(crate) mod sleep;
pub(crate) mod sriov;

pub(crate) use self::{
    device::{
        Device,
        Opening,
        Reference, //
    },
    driver::{
        Adapter,
        Driver,
        Kind,
        Kinds, //
    }, //
};
