// SPDX-License-Identifier: GPL-2.0

//! Driver for a virtual function of the VIFA reference device.
//!
//! This driver runs in a guest. It is not aware of migration: except for the elapsed time, a
//! migration that is noticeable in the guest is a bug. [`engine`] is the actual driver, which is
//! minimal. [`workload`] keeps the engine busy and verifies its results. It is controlled and
//! observed through debugfs.

use kernel::{
    debugfs,
    device::Core,
    dma::{
        Device as _,
        DmaMask, //
    },
    irq,
    pci,
    prelude::*,
    str::CString,
    sync::Arc, //
};

mod bindings;
mod crc32c;
mod engine;
mod registers;
mod workload;

use engine::{
    Engine,
    InterruptHandler, //
};
use workload::Workload;

const NAME: &CStr = c"vifa_reference";

// SAFETY: `pci::Vendor` is a transparent wrapper of `u16`, and any value is a valid vendor id. The
// kernel crate has no constructor for ids without a name.
const VENDOR: pci::Vendor =
    unsafe { core::mem::transmute::<u16, pci::Vendor>(bindings::VIFA_REFERENCE_VENDOR as u16) };

/// A bound virtual function. The fields are dropped in this order: the workload, the interrupt that
/// the engine signals, the vectors that contain the interrupt, and the engine.
#[pin_data]
struct Function<'bound> {
    #[pin]
    workload: debugfs::Scope<Workload>,
    #[pin]
    interrupt: irq::ThreadedRegistration<'bound, InterruptHandler>,
    vectors: pci::IrqVectorRegistration<'bound>,
    engine: Arc<Engine>,
}

struct ReferenceDriver;

kernel::pci_device_table!(
    PCI_TABLE,
    <ReferenceDriver as pci::Driver>::IdInfo,
    [(
        pci::DeviceId::from_id(VENDOR, bindings::VIFA_REFERENCE_VF_DEVICE),
        ()
    )]
);

impl pci::Driver for ReferenceDriver {
    type IdInfo = ();
    type Data<'bound> = Function<'bound>;

    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            pdev.enable_device_mem()?;
            pdev.set_master();

            // SAFETY: The device is being probed: no DMA memory is allocated or mapped for it yet.
            unsafe { pdev.dma_set_mask_and_coherent(DmaMask::new::<64>())? };

            let msix = pci::IrqTypes::default().with(pci::IrqType::MsiX);
            let vectors = pdev
                .alloc_irq_vectors(
                    bindings::VIFA_REFERENCE_VECTORS,
                    bindings::VIFA_REFERENCE_VECTORS,
                    msix,
                )
                .inspect_err(|error| {
                    dev_err!(pdev, "failed to allocate MSI-X vectors: {:?}\n", error)
                })?;
            let engine = Engine::new(pdev)?;
            let directory = CString::try_from_fmt(fmt!("vifa_reference-{}", pdev.as_ref().name()))?;

            dev_info!(
                pdev,
                "reference device with {} KiB of local memory\n",
                engine.local_memory() / 1024
            );

            Ok(try_pin_init!(Function {
                vectors,
                // SAFETY: `Function` is the driver's private data, which is dropped when the
                // device is unbound. The vector borrows `vectors`, which is already initialised,
                // does not move, and is dropped after the registration.
                interrupt <- unsafe {
                    irq::ThreadedRegistration::new(
                        (*core::ptr::from_ref::<pci::IrqVectorRegistration<'bound>>(vectors))
                            .index(0)?
                            .into(),
                        irq::Flags::TRIGGER_NONE,
                        NAME,
                        Ok::<_, Error>(InterruptHandler(engine.clone())),
                    )
                },
                workload <- workload::files(pdev.as_ref(), engine.clone(), &directory),
                engine,
            }))
        })
    }

    fn unbind<'bound>(_pdev: &'bound pci::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        this.workload.close();
        this.engine.stop();
    }
}

kernel::module_pci_driver! {
    type: ReferenceDriver,
    name: "vifa_reference",
    authors: ["VIFA developers"],
    description: "Driver for the VIFA reference device, with a workload",
    license: "GPL",
}
