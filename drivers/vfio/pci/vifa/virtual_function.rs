// SPDX-License-Identifier: GPL-2.0

//! The VFIO variant driver of virtual functions.

use crate::{
    backend::{
        capability,
        Backend, //
    },
    bindings::{
        VIFA_REFERENCE_VENDOR,
        VIFA_REFERENCE_VF_DEVICE, //
    },
    layer::identity::{
        FEATURE_DIRTY_LOG,
        FEATURE_P2P, //
    },
    migration::{
        debugfs,
        Migration, //
    },
    vfio::{
        self,
        logging::{
            self,
            DirtyBitmap,
            Ranges, //
        },
        migration::{
            StateNumber,
            Support, //
        },
        sriov::{
            NotVirtual,
            Virtual, //
        },
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

/// A virtual function as a VIFA interface.
pub(crate) struct VirtualFunction<B: Backend> {
    migration: Arc<Migration<B>>,
    _debugfs: debugfs::Files,
}

impl VirtualFunction<capability::Function> {
    fn new(device: &pci::Device<Core<'_>>) -> Result<Self> {
        let place = Virtual::new(device).map_err(|reason| {
            match reason {
                NotVirtual::NotAVirtualFunction => {
                    dev_err!(device, "this is not an SR-IOV virtual function\n")
                }
                NotVirtual::ForeignPhysicalFunction => dev_err!(
                    device,
                    "its physical function is not bound to vifa-vfio-pci-pf\n"
                ),
            }
            ENODEV
        })?;
        let function = capability::Function::new(device, &place)?;
        let migration = Migration::new(function, device.into())?;
        if migration.backend().identity().features & FEATURE_DIRTY_LOG == 0 {
            dev_info!(
                device,
                "no DMA logging: the device does not log its writes\n"
            );
        } else if !logging::IS_AVAILABLE {
            pr_info_once!("no DMA logging: this kernel has no IOVA bitmap\n");
        }
        Ok(Self {
            _debugfs: migration.debugfs_files(device)?,
            migration,
        })
    }
}

impl vfio::Driver for VirtualFunction<capability::Function> {
    type Module = VifaModule;
    const NAME: &'static CStr = c"vifa-vfio-pci";
    const ID_TABLE: pci::IdTable<()> = &VIRTUAL_IDS;

    fn probe(device: &pci::Device<Core<'_>>) -> impl PinInit<Self, Error> {
        Self::new(device)
    }

    fn migration_support(&self) -> Support {
        let support = Support::STOP_COPY.and_pre_copy();
        if self.migration.backend().identity().features & FEATURE_P2P == 0 {
            support
        } else {
            support.and_p2p()
        }
    }

    fn logs_dma(&self) -> bool {
        self.migration.backend().identity().features & FEATURE_DIRTY_LOG != 0
    }

    fn open(device: &Opening<'_, Self>) -> Result {
        let data = device.data();
        data.migration.open()?;
        device.add_region(data.migration.region())
    }

    fn close(device: &Device<Self>) {
        device.data().migration.close();
    }

    fn reset_done(&self) {
        self.migration.reset_done();
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

kernel::pci_device_table!(
    VIRTUAL_IDS,
    (),
    [(
        // The QEMU reference device (include/linux/vifa_reference.h).
        vfio::pci::override_only_id(VIFA_REFERENCE_VENDOR, VIFA_REFERENCE_VF_DEVICE),
        ()
    )]
);
