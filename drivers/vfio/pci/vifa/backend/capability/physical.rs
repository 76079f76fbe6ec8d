// SPDX-License-Identifier: GPL-2.0

//! The driver of a physical function with the VIFA capability.
//!
//! The driver sets up the resources that the virtual functions share: the register file, DMA and
//! interrupts.

use super::{
    completion::TimedCompletion,
    register_file::RegisterFile, //
};
use crate::{
    bindings::{
        VIFA_MAILBOX_VECTOR_INDEX,
        VIFA_REFERENCE_PF_DEVICE,
        VIFA_REFERENCE_VENDOR, //
    },
    errno::Name,
    seam::Shown,
    vfio::{
        self,
        sriov::{
            self,
            Loss, //
        }, //
    }, //
};
use core::pin::Pin;
use kernel::{
    device::Core,
    dma::{
        Device as _,
        DmaMask, //
    },
    irq::{
        self,
        IrqReturn, //
    },
    pci::{
        self,
        IrqType,
        IrqTypes,
        IrqVectorRegistration, //
    },
    prelude::*,
    sync::Arc, //
};

/// The handler of one interrupt vector, with the completions that it signals.
struct Handler {
    signals: KVec<Arc<TimedCompletion>>,
}

impl irq::Handler for Handler {
    fn handle(&self) -> IrqReturn {
        for signal in &self.signals {
            signal.signal();
        }
        IrqReturn::Handled
    }
}

/// A bound physical function.
///
/// The order in which the fields are dropped guarantees that no handler runs after its vector is
/// freed, and that no signal is used after the register file is dropped.
pub(crate) struct PhysicalFunction<'bound> {
    _handlers: KVec<Pin<KBox<irq::Registration<'bound, Handler>>>>,
    vectors: KBox<IrqVectorRegistration<'bound>>,
    registers: Arc<RegisterFile>,
}

impl PhysicalFunction<'_> {
    /// Returns the register file.
    pub(super) fn registers(&self) -> &Arc<RegisterFile> {
        &self.registers
    }

    /// Returns the vector that the frames of the VF with this index signal.
    pub(super) fn vector(&self, index: u16) -> u32 {
        // CAST: There are at most 2048 vectors.
        (usize::from(index) % self.vectors.len()) as u32
    }
}

impl<'bound> PhysicalFunction<'bound> {
    fn new(device: &'bound pci::Device<Core<'_>>) -> Result<Self> {
        device.enable_device_mem()?;
        // SAFETY: The device does no DMA yet, and no memory is allocated or mapped for it.
        unsafe { device.dma_set_mask_and_coherent(DmaMask::new::<64>())? };
        // SAFETY: As above. The length of a scatter list's entry has 32 bits.
        unsafe { device.dma_set_max_seg_size(u32::MAX) };
        let registers = RegisterFile::new(device)?;
        device.set_master();

        let wanted = u32::try_from(registers.virtual_functions())?
            .min(registers.device_vectors())
            .clamp(1, VIFA_MAILBOX_VECTOR_INDEX);
        let vectors = device
            .alloc_irq_vectors(1, wanted, IrqTypes::default().with(IrqType::MsiX))
            .inspect_err(|error| {
                dev_err!(
                    device,
                    "failed to allocate MSI-X vectors: {}\n",
                    Shown(Name(*error))
                )
            })?;
        let vectors = KBox::new(vectors, GFP_KERNEL)?;
        // SAFETY: The box's content does not move, and is dropped after the handlers: in this
        // function, because `handlers` is declared later, and in `Self`, by the order of the
        // fields.
        let borrowed: &'bound IrqVectorRegistration<'bound> =
            unsafe { &*core::ptr::from_ref(&*vectors) };

        let mut handlers = KVec::with_capacity(vectors.len(), GFP_KERNEL)?;
        for vector in 0..vectors.len() {
            let mut signals = KVec::new();
            for both in registers
                .all_signals()
                .iter()
                .skip(vector)
                .step_by(vectors.len())
            {
                signals.push(both.control.clone(), GFP_KERNEL)?;
                signals.push(both.data.clone(), GFP_KERNEL)?;
            }
            // SAFETY: `Self` owns the registration, and the driver core drops `Self`.
            let registration = unsafe {
                irq::Registration::new(
                    borrowed.index(vector)?.into(),
                    irq::Flags::TRIGGER_NONE,
                    c"vifa-vfio-pci",
                    Ok::<_, Error>(Handler { signals }),
                )
            };
            handlers.push(KBox::pin_init(registration, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        Ok(Self {
            _handlers: handlers,
            vectors,
            registers,
        })
    }
}

/// The driver of physical functions with the VIFA capability.
pub(crate) struct Driver;

impl pci::Driver for Driver {
    type IdInfo = ();
    type Data<'bound> = PhysicalFunction<'bound>;
    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PHYSICAL_IDS;

    fn probe<'bound>(
        device: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        PhysicalFunction::new(device)
    }

    fn unbind<'bound>(device: &'bound pci::Device<Core<'_>>, data: Pin<&Self::Data<'bound>>) {
        vfio::pci::clear_master(device);
        data.registers.release_quarantine();
    }
}

/// The registration of the driver.
static REGISTERED: sriov::Registered = sriov::Registered::new();

impl sriov::Driver for Driver {
    fn registered() -> &'static sriov::Registered {
        &REGISTERED
    }

    fn lost(data: Pin<&Self::Data<'_>>, loss: Loss) {
        data.registers.lose(loss);
    }

    fn recovered(data: Pin<&Self::Data<'_>>) {
        data.registers.recover();
    }

    fn check_virtual_functions(
        device: &pci::Device<Core<'_>>,
        data: Pin<&Self::Data<'_>>,
        count: u16,
    ) -> Result {
        let most = data.registers.virtual_functions();
        if usize::from(count) > most {
            dev_err!(
                device,
                "invalid number of VFs: got {}, expected at most {}\n",
                count,
                most
            );
            return Err(EINVAL);
        }
        Ok(())
    }
}

kernel::pci_device_table!(
    PHYSICAL_IDS,
    <Driver as pci::Driver>::IdInfo,
    [(
        // The QEMU reference device (include/linux/vifa_reference.h).
        vfio::pci::id(VIFA_REFERENCE_VENDOR, VIFA_REFERENCE_PF_DEVICE),
        ()
    )]
);
