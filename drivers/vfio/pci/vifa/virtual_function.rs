// SPDX-License-Identifier: GPL-2.0

//! The VFIO variant driver of virtual functions.

use crate::{
    backend::{
        capability,
        igb,
        Backend, //
    },
    layer::identity::{
        FEATURE_DIRTY_LOG,
        FEATURE_P2P, //
    },
    migration::{
        debugfs,
        Migration,
        Unsupported, //
    },
    seam::Shown,
    vfio::{
        self,
        bar::Window,
        logging::{
            self,
            DirtyBitmap,
            Ranges, //
        },
        migration::{
            Part,
            StateNumber,
            Support, //
        },
        sriov::Loss,
        Device,
        Opening, //
    },
    VifaModule,
};
use kernel::{
    device::Core,
    fs::File,
    pci,
    pr_info_once,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};

/// A virtual function that is a VIFA interface.
pub(crate) struct VirtualFunction<B: Backend> {
    migration: Arc<Migration<B>>,
    _debugfs: debugfs::Files,
}

impl<B: Backend> VirtualFunction<B> {
    fn new(device: &pci::Device<Core<'_>>) -> Result<Self> {
        let migration = Migration::new(B::probe(device)?, device.into())?;
        if let Some(fault) = migration.backend().unsupported() {
            dev_warn!(device, "{}\n", Shown(Unsupported(fault)));
        } else if migration.backend().identity().features & FEATURE_DIRTY_LOG == 0 {
            dev_info!(device, "DMA logging is not supported by the device\n");
        } else if !logging::IS_AVAILABLE {
            pr_info_once!("DMA logging is not supported by the kernel (CONFIG_IOMMUFD_DRIVER)\n");
        }
        Ok(Self {
            _debugfs: migration.debugfs_files(device)?,
            migration,
        })
    }
}

impl<B: Backend> vfio::Driver for VirtualFunction<B> {
    type Module = VifaModule;
    const NAME: &'static CStr = c"vifa-vfio-pci";
    const WINDOWS: &'static [Window] = B::WINDOWS;

    fn probe(device: &pci::Device<Core<'_>>) -> impl PinInit<Self, Error> {
        Self::new(device)
    }

    fn migration_support(&self) -> Option<Support> {
        let backend = self.migration.backend();
        if backend.unsupported().is_some() {
            return None;
        }
        let mut support = Part::StopCopy | Part::PreCopy;
        if backend.identity().features & FEATURE_P2P != 0 {
            support |= Part::P2p;
        }
        Some(support)
    }

    fn logs_dma(&self) -> bool {
        self.migration.backend().identity().features & FEATURE_DIRTY_LOG != 0
    }

    fn open(device: &Opening<'_, Self>) -> Result {
        let migration = &device.data().migration;
        device.add_region(migration.region())?;
        migration.open(device.registers()?)
    }

    fn close(device: &Device<Self>) {
        device.data().migration.close();
    }

    fn reset_prepare(&self) {
        self.migration.reset_prepare();
    }

    fn reset_done(&self) {
        self.migration.reset_done();
    }

    fn error_detected(&self, loss: Loss) {
        self.migration.error_detected(loss);
    }

    fn read_window(device: &Device<Self>, window: usize, offset: u64) -> Result<u32> {
        let migration = &device.data().migration;
        migration.backend().read(window, offset)
    }

    fn write_window(device: &Device<Self>, window: usize, offset: u64, value: u32) -> Result {
        let migration = &device.data().migration;
        migration.backend().write(window, offset, value)
    }

    fn set_state(device: &Device<Self>, new: StateNumber) -> Result<Option<ARef<File>>> {
        device.data().migration.set_state(device, new)
    }

    fn state(device: &Device<Self>) -> StateNumber {
        device.data().migration.state().into()
    }

    fn data_size(device: &Device<Self>) -> Result<u64> {
        device.data().migration.data_size()
    }

    fn log_start(device: &Device<Self>, ranges: Ranges<'_>, page_size: u64) -> Result<u64> {
        device.data().migration.log_start(ranges, page_size)
    }

    fn log_stop(device: &Device<Self>) -> Result {
        device.data().migration.log_stop()
    }

    fn log_report(
        device: &Device<Self>,
        iova: u64,
        length: u64,
        dirty: &mut DirtyBitmap<'_>,
    ) -> Result {
        device.data().migration.log_report(iova, length, dirty)
    }
}

/// The kinds of virtual functions, by backend.
pub(crate) struct VirtualFunctions;

impl vfio::Kinds for VirtualFunctions {
    const ID_TABLE: pci::IdTable<vfio::Kind> = &VIRTUAL_IDS;

    // A device of any vendor may have the VIFA capability.
    const OTHERS: vfio::Kind = <VirtualFunction<capability::Function> as vfio::Driver>::KIND;
}

kernel::pci_device_table!(
    VIRTUAL_IDS,
    vfio::Kind,
    [
        (
            capability::REFERENCE,
            <VirtualFunction<capability::Function> as vfio::Driver>::KIND
        ),
        (
            igb::ID_82576,
            <VirtualFunction<igb::Function> as vfio::Driver>::KIND
        ),
        (
            igb::ID_I350,
            <VirtualFunction<igb::Function> as vfio::Driver>::KIND
        ),
    ]
);
