// SPDX-License-Identifier: GPL-2.0

//! VIFA: live migration of SR-IOV virtual functions.
//!
//! Two PCI drivers: one for physical functions, which brings up what their virtual functions
//! share, and a VFIO variant driver for virtual functions, which user space gives to virtual
//! machines and migrates. [`layer`] is independent of devices and of the kernel, [`backend`] knows
//! devices, [`vfio`] knows the kernel, and [`migration`] and [`virtual_function`] bring them
//! together.

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

/// The module: its two drivers, of which the one for virtual functions goes first, and their
/// directory in debugfs.
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
