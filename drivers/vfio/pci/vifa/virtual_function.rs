// SPDX-License-Identifier: GPL-2.0

//! The VFIO variant driver of virtual functions.
//!
//! # Resets
//!
//! Neither the VFIO core nor the PCI core serialises a reset with other calls. A reset by
//! `VFIO_DEVICE_RESET`, by the guest or by the administrator can begin at any time, and takes
//! 100 ms on most devices. It is handled in three steps:
//!
//! - `reset_prepare`, before the device is reset, makes the backend block every access that would
//!   change the device. The reset undoes earlier changes.
//! - `reset_done` records that the device was reset.
//! - [`VirtualFunction::settle`] ends the transfer and the log that began before the reset,
//!   unblocks the backend, and checks that the device runs.
//!
//! As a result, no operation from before a reset reaches the device after it. The state is RUNNING
//! if the device runs, and ERROR otherwise. A call that begins during a reset waits for the
//! end of that reset. A call that is in progress when a reset begins may fail with `EBUSY`, or with
//! `ECANCELED` if the device had already started the operation.
//!
//! The PCI core calls back while the VFIO core holds `memory_lock`, which a page fault takes under
//! `mmap_lock`. `machine` is locked while memory is allocated, and while the bitmap of user space
//! is pinned, which takes `mmap_lock`. The callbacks must therefore not wait for `machine`. If it
//! is locked, its holder settles the reset ([`VirtualFunction::unlock`]).
//!
//! # Errors
//!
//! A PCI error, or a reset of the physical function, destroys the state of the device. The
//! callback takes no lock for that. The next holder of `machine` finds the error and sets the state
//! to ERROR, where it remains until the device is reset.
//!
//! Lock order: `machine`, then the session of a migration file, then the backend's mutexes or the
//! status. `reset` comes last, before the spinlocks of the backend.

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
        Machine,
        Status,
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
    new_condvar,
    new_mutex,
    new_spinlock,
    pci,
    pr_info_once,
    prelude::*,
    sync::{
        aref::ARef,
        lock::{
            mutex::MutexBackend,
            Guard, //
        },
        Arc,
        CondVar,
        Mutex,
        SpinLock, //
    }, //
};

/// The progress of a reset.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reset {
    /// No reset is in progress or unsettled.
    Settled,
    /// The PCI core is resetting the device.
    InProgress,
    /// The device was reset. The holder of `machine` has to settle the reset.
    Unsettled,
}

/// The resets of a device.
struct Resets {
    last: Reset,
    /// Number of resets that have ended, modulo 2^32.
    ended: u32,
    /// Loss that the PCI core has reported since the last reset.
    loss: Option<Loss>,
}

/// A virtual function that is a VIFA interface.
#[pin_data]
pub(crate) struct VirtualFunction<B: Backend> {
    backend: Arc<B>,
    status: Arc<Status>,
    _debugfs: debugfs::Files,
    #[pin]
    machine: Mutex<Machine<B>>,
    #[pin]
    reset: SpinLock<Resets>,
    /// Notified when a reset has ended.
    #[pin]
    reset_ended: CondVar,
}

impl<B: Backend> VirtualFunction<B> {
    fn new(device: &pci::Device<Core<'_>>) -> Result<impl PinInit<Self, Error>> {
        let backend = B::probe(device)?;
        let status = Status::new(
            device.into(),
            *backend.identity(),
            backend.interfaces(),
            backend.unsupported().map(Unsupported),
        );
        let status = Arc::pin_init(status, GFP_KERNEL)?;
        if let Some(fault) = backend.unsupported() {
            dev_warn!(device, "{}\n", Shown(Unsupported(fault)));
        } else if backend.identity().features & FEATURE_DIRTY_LOG == 0 {
            dev_info!(device, "DMA logging is not supported by the device\n");
        } else if !logging::IS_AVAILABLE {
            pr_info_once!("DMA logging is not supported by the kernel (CONFIG_IOMMUFD_DRIVER)\n");
        }
        let debugfs = debugfs::Files::new(device, &status)?;
        Ok(try_pin_init!(Self {
            _debugfs: debugfs,
            machine <- new_mutex!(Machine::new(&backend, &status), "vifa_migration"),
            reset <- new_spinlock!(
                Resets {
                    last: Reset::Settled,
                    ended: 0,
                    loss: None,
                },
                "vifa_reset"
            ),
            reset_ended <- new_condvar!("vifa_reset"),
            backend,
            status,
        }))
    }

    /// Runs `act` with the state machine, which has no unsettled reset and has recorded any loss.
    fn with<R>(&self, act: impl FnOnce(&mut Machine<B>) -> R) -> R {
        let mut machine = self.machine.lock();
        self.settle(&mut machine);
        let reported = self.reset.lock().loss;
        if let Some(loss) = reported.or(self.backend.loss()) {
            machine.lose(loss);
        }
        let result = act(&mut machine);
        self.unlock(machine);
        result
    }

    /// Runs `act` for the user, after waiting for a reset that is in progress.
    fn call<R>(&self, act: impl FnOnce(&mut Machine<B>) -> Result<R>) -> Result<R> {
        self.wait_for_reset()?;
        self.with(act)
    }

    /// Waits for the end of a reset that is in progress. Does not wait for later resets.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS` if a signal arrives.
    fn wait_for_reset(&self) -> Result {
        let mut reset = self.reset.lock();
        let ended = reset.ended;
        while reset.last == Reset::InProgress && reset.ended == ended {
            if self.reset_ended.wait_interruptible(&mut reset) {
                return Err(ERESTARTSYS);
            }
        }
        Ok(())
    }

    /// Settles a reset: the device runs, any transfer has ended, and writes are not logged.
    fn settle(&self, machine: &mut Machine<B>) {
        while self.reset.lock().last == Reset::Unsettled {
            machine.abandon();
            let mut reset = self.reset.lock();
            if reset.last == Reset::Unsettled {
                reset.last = Reset::Settled;
                reset.loss = None;
                // Under the lock: another reset that begins blocks the backend again.
                self.backend.reset_settled();
                drop(reset);
                machine.check_reset();
            }
        }
    }

    /// Settles any reset that ended in the meantime, then unlocks the state.
    fn unlock(&self, mut machine: Guard<'_, Machine<B>, MutexBackend>) {
        loop {
            self.settle(&mut machine);
            let reset = self.reset.lock();
            if reset.last != Reset::Unsettled {
                // Before `reset` is unlocked: if a reset finds the state locked, the holder must
                // still settle that reset.
                drop(machine);
                return;
            }
        }
    }
}

impl<B: Backend> vfio::Driver for VirtualFunction<B> {
    type Module = VifaModule;
    const NAME: &'static CStr = c"vifa-vfio-pci";
    const WINDOWS: &'static [Window] = B::WINDOWS;

    fn probe(device: &pci::Device<Core<'_>>) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || Self::new(device))
    }

    fn migration_support(&self) -> Option<Support> {
        if self.backend.unsupported().is_some() {
            return None;
        }
        let mut support = Part::StopCopy | Part::PreCopy;
        if self.backend.identity().features & FEATURE_P2P != 0 {
            support |= Part::P2p;
        }
        Some(support)
    }

    fn logs_dma(&self) -> bool {
        self.backend.identity().features & FEATURE_DIRTY_LOG != 0
    }

    fn open(device: &Opening<'_, Self>) -> Result {
        let function = device.data();
        device.add_region(function.status.clone())?;
        let registers = device.registers()?;
        function.wait_for_reset()?;
        function.status.opened();
        function.backend.open(registers)?;
        function.with(Machine::open).map_err(|fault| {
            function.backend.close();
            function.status.error(
                fault.into(),
                format_args!("failed to enter RUNNING at open: {fault}"),
            )
        })
    }

    fn close(device: &Device<Self>) {
        let function = device.data();
        function.with(Machine::close);
        function.backend.close();
    }

    fn reset_prepare(&self) {
        let mut reset = self.reset.lock();
        reset.last = Reset::InProgress;
        self.backend.reset_prepare();
    }

    fn reset_done(&self) {
        let mut reset = self.reset.lock();
        self.backend.reset();
        reset.last = Reset::Unsettled;
        reset.ended = reset.ended.wrapping_add(1);
        drop(reset);
        if let Some(machine) = self.machine.try_lock() {
            self.unlock(machine);
        }
        self.reset_ended.notify_all();
    }

    fn error_detected(&self, loss: Loss) {
        self.reset.lock().loss = Some(loss);
    }

    fn read_window(device: &Device<Self>, window: usize, offset: u64) -> Result<u32> {
        device.data().backend.read(window, offset)
    }

    fn write_window(device: &Device<Self>, window: usize, offset: u64, value: u32) -> Result {
        device.data().backend.write(window, offset, value)
    }

    fn set_state(device: &Device<Self>, new: StateNumber) -> Result<Option<ARef<File>>> {
        device.data().call(|machine| machine.set_state(device, new))
    }

    fn state(device: &Device<Self>) -> StateNumber {
        device.data().with(|machine| machine.state()).into()
    }

    fn data_size(device: &Device<Self>) -> Result<u64> {
        device.data().call(|machine| machine.data_size())
    }

    fn log_start(device: &Device<Self>, ranges: Ranges<'_>, page_size: u64) -> Result<u64> {
        device
            .data()
            .call(|machine| machine.logging.start(ranges, page_size))
    }

    fn log_stop(device: &Device<Self>) -> Result {
        device.data().call(|machine| machine.logging.stop())
    }

    fn log_report(
        device: &Device<Self>,
        iova: u64,
        length: u64,
        dirty: &mut DirtyBitmap<'_>,
    ) -> Result {
        device
            .data()
            .call(|machine| machine.logging.report(iova, length, dirty))
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
