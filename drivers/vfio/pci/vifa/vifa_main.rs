// SPDX-License-Identifier: GPL-2.0

//! VIFA: live migration of SR-IOV virtual functions.
//!
//! The module registers two PCI drivers. The driver of physical functions sets up the resources
//! that their virtual functions share. The VFIO variant driver of virtual functions lets user space
//! assign them to virtual machines and migrate them.
//!
//! [`layer`] is independent of devices and of the kernel. [`backend`] drives the hardware. [`vfio`]
//! wraps the kernel's interfaces. [`migration`] and [`virtual_function`] connect the three.

#![crate_name = "vifa_vfio_pci"]

mod backend;
mod bindings;
mod checksum;
mod errno;
mod layer;
mod migration;
mod seam;
mod vfio;
mod virtual_function;

use crate::{
    backend::capability,
    vfio::{
        debugfs,
        sleep,
        sriov, //
    },
    virtual_function::VirtualFunctions, //
};
use kernel::{
    driver,
    prelude::*, //
};

/// The module: its two drivers and their directory in debugfs.
///
/// The driver of virtual functions is unregistered first.
#[pin_data]
struct VifaModule {
    #[pin]
    _virtual: driver::Registration<vfio::Adapter<VirtualFunctions>>,
    #[pin]
    _sleep: sleep::Notifier,
    #[pin]
    _physical: driver::Registration<sriov::Adapter<capability::Driver>>,
    _debugfs: debugfs::Root,
}

impl kernel::InPlaceModule for VifaModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // SAFETY: The module is loaded once, and has not yet registered its drivers.
            _debugfs: unsafe { debugfs::Root::new(c"vifa") },
            _sleep <- sleep::Notifier::new(),
            _physical <- driver::Registration::new(c"vifa_vfio_pci_pf", module),
            _virtual <- driver::Registration::new(c"vifa_vfio_pci", module),
        })
    }
}

module! {
    type: VifaModule,
    name: "vifa_vfio_pci",
    authors: ["VIFA developers"],
    description: "VFIO live migration of SR-IOV virtual functions",
    license: "GPL",
    imports_ns: ["IOMMUFD"],
}

#[cfg(CONFIG_KUNIT = "y")]
layer::tests::suite!(kunit_tests(vifa_layer));
