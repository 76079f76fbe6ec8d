// SPDX-License-Identifier: GPL-2.0

//! Registration of VFIO PCI variant drivers.
//!
//! Such a driver differs from others on the PCI bus in four ways: its ids match only where the
//! administrator names the driver (override-only), it leaves the DMA ownership of its devices to
//! VFIO (`driver_managed_dma`), it hears of resets, and its device data is the
//! `struct vfio_pci_core_device` itself. [`pci::Adapter`] offers none of these.
//!
//! One `struct pci_driver` serves several kinds of devices, each with a [`Driver`] of its own: user
//! space finds the PCI driver by the name of the module that has the alias, and that is one name.

use super::{
    bar::Window,
    device::{
        Device,
        Head,
        Opening, //
    },
    logging,
    migration,
    sriov::Loss, //
};
use core::{
    marker::PhantomData,
    mem::offset_of, //
};
use kernel::{
    bindings,
    device::{
        Core,
        CoreInternal, //
    },
    device_id::RawDeviceIdIndex,
    driver,
    error::{
        from_result,
        to_result, //
    },
    ffi,
    fs::File,
    pci,
    prelude::*,
    sync::aref::ARef,
    types::Opaque, //
};

/// A VFIO PCI variant driver; a value of the type is the driver's part of one device.
///
/// The calls come in this order: [`Self::probe`], then any number of times [`Self::open`], calls
/// of an open device, and [`Self::close`]; at last the value is dropped. [`Self::reset_prepare`] and
/// then [`Self::reset_done`] may come at any time in between, on any CPU, and beside any other call:
/// the VFIO core does not serialise a reset with them.
pub(crate) trait Driver: Sized + Send + Sync + 'static {
    /// The module that the driver is part of.
    type Module: kernel::ModuleMetadata;

    /// Name of the driver among VFIO drivers.
    const NAME: &'static CStr;

    /// The parts of the device's BARs for which the driver answers: by ascending BAR and offset, and
    /// none overlaps another.
    const WINDOWS: &'static [Window];

    /// What an id of such a device stands for.
    const KIND: Kind = Kind::of::<Self>();

    /// Begins to drive a device. An error leaves it to other drivers.
    fn probe(device: &pci::Device<Core<'_>>) -> impl PinInit<Self, Error>;

    /// The parts of the migration protocol that the device supports; `None` where it cannot be
    /// migrated. Asked once, after [`Self::probe`].
    fn migration_support(&self) -> Option<migration::Support>;

    /// Whether the device can log its DMA; asked once, after [`Self::probe`]. The calls that begin
    /// with `log_` come only for such a device.
    fn logs_dma(&self) -> bool;

    /// The device is about to be opened by its only user; it has just been reset.
    fn open(device: &Opening<'_, Self>) -> Result;

    /// The user is gone. Its migration files may still be open, and must reach nothing any more.
    fn close(device: &Device<Self>);

    /// The device is about to be reset; [`Self::reset_done`] follows in any case. The caller may
    /// hold locks of the VFIO core under which user memory is faulted in elsewhere: an
    /// implementation must not wait for a lock that is held across an access to user memory.
    fn reset_prepare(&self);

    /// The device has been reset, 100 ms or more after [`Self::reset_prepare`] for most devices. The
    /// same holds as there.
    fn reset_done(&self);

    /// The PCI core has detected an uncorrectable error of the device, or of one above it. The
    /// requirements of [`Self::reset_done`] apply.
    fn error_detected(&self, loss: Loss);

    /// Reads the register at `offset` of a window, which is given by its place in
    /// [`Self::WINDOWS`].
    ///
    /// # Errors
    ///
    /// `EBUSY` while the device is being reset: it is asked again after that.
    fn read_window(device: &Device<Self>, window: usize, offset: u64) -> Result<u32>;

    /// Writes the register at `offset` of a window.
    ///
    /// # Errors
    ///
    /// As for [`Self::read_window`].
    fn write_window(device: &Device<Self>, window: usize, offset: u64, value: u32) -> Result;

    /// `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE` (set).
    fn set_state(device: &Device<Self>, new: migration::StateNumber) -> Result<Option<ARef<File>>>;

    /// `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE` (get).
    fn state(device: &Device<Self>) -> migration::StateNumber;

    /// `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE`: bytes that stop-copy would have to transfer.
    fn data_size(device: &Device<Self>) -> Result<u64>;

    /// `VFIO_DEVICE_FEATURE_DMA_LOGGING_START`: begins to log writes to `ranges`. `page_size` is
    /// what user space would like; returns what it gets.
    fn log_start(device: &Device<Self>, ranges: logging::Ranges<'_>, page_size: u64)
        -> Result<u64>;

    /// `VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP`.
    fn log_stop(device: &Device<Self>) -> Result;

    /// `VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT`: sets in `dirty` what was written of the `length`
    /// bytes from `iova`, and forgets it. They end within the address space.
    fn log_report(
        device: &Device<Self>,
        iova: u64,
        length: u64,
        dirty: &mut logging::DirtyBitmap<'_>,
    ) -> Result;
}

/// A kind of devices: how a [`Driver`] begins with one of them and what it does with it later, for
/// those who know nothing else of the driver.
pub(crate) struct Kind {
    register: fn(&pci::Device<CoreInternal<'_>>) -> Result,
    /// # Safety
    ///
    /// As for [`Device::unregister`].
    unregister: unsafe fn(&pci::Device<CoreInternal<'_>>),
    /// # Safety
    ///
    /// `register` has succeeded for the device, and `unregister` does not run meanwhile.
    reset_prepare: unsafe fn(*mut bindings::pci_dev),
    /// # Safety
    ///
    /// As for `reset_prepare`.
    reset_done: unsafe fn(*mut bindings::pci_dev),
    /// # Safety
    ///
    /// As for `reset_prepare`.
    error_detected: unsafe fn(*mut bindings::pci_dev, Loss),
}

impl Kind {
    /// The kind of devices that `T` drives.
    const fn of<T: Driver>() -> Self {
        Self {
            register: |device| Device::<T>::register(device, T::probe(device)),
            unregister: Device::<T>::unregister,
            reset_prepare: reset_prepare::<T>,
            reset_done: reset_done::<T>,
            error_detected: error_detected::<T>,
        }
    }
}

/// # Safety
///
/// As for [`Kind::reset_prepare`].
unsafe fn reset_prepare<T: Driver>(pdev: *mut bindings::pci_dev) {
    // SAFETY: By the safety requirements.
    unsafe { Device::<T>::from_pci(pdev) }
        .data()
        .reset_prepare();
}

/// # Safety
///
/// As for [`Kind::reset_done`].
unsafe fn reset_done<T: Driver>(pdev: *mut bindings::pci_dev) {
    // SAFETY: By the safety requirements.
    unsafe { Device::<T>::from_pci(pdev) }.data().reset_done();
}

/// # Safety
///
/// As for [`Kind::error_detected`].
unsafe fn error_detected<T: Driver>(pdev: *mut bindings::pci_dev, loss: Loss) {
    // SAFETY: By the safety requirements.
    unsafe { Device::<T>::from_pci(pdev) }
        .data()
        .error_detected(loss);
}

/// The kinds of devices that one PCI driver serves.
pub(crate) trait Kinds {
    /// Their ids, override-only.
    const ID_TABLE: pci::IdTable<Kind>;

    /// The kind of devices with other ids, which user space has given to the driver all the same.
    const OTHERS: Kind;
}

/// An adapter for the registration of VFIO PCI variant drivers with
/// [`kernel::driver::Registration`].
pub(crate) struct Adapter<K: Kinds>(PhantomData<K>);

// SAFETY:
// - `bindings::pci_driver` is a C type declared as `repr(C)`.
// - The device private data is a `struct vfio_pci_core_device`, which `remove_callback` takes back
//   and clears, so that the driver core never finds Rust data there.
// - `struct pci_driver` embeds a `struct device_driver` at `DEVICE_DRIVER_OFFSET`.
unsafe impl<K: Kinds> driver::DriverLayout for Adapter<K> {
    type DriverType = bindings::pci_driver;
    type DriverData<'bound> = ();
    const DEVICE_DRIVER_OFFSET: usize = offset_of!(Self::DriverType, driver);
}

// SAFETY: A call to `unregister` is valid after a successful call to `register`, which is what the
// PCI core demands.
unsafe impl<K: Kinds> driver::RegistrationOps for Adapter<K> {
    unsafe fn register(
        driver: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        // SAFETY: The fields of `struct pci_driver` may be set before its registration.
        unsafe {
            (*driver.get()).name = name.as_char_ptr();
            (*driver.get()).probe = Some(Self::probe_callback);
            (*driver.get()).remove = Some(Self::remove_callback);
            (*driver.get()).id_table = K::ID_TABLE.as_ptr();
            (*driver.get()).err_handler = Self::error_handlers();
            (*driver.get()).driver_managed_dma = true;
        }
        // SAFETY: `driver` is a valid `struct pci_driver`, pinned until `unregister`.
        to_result(unsafe {
            bindings::__pci_register_driver(driver.get(), module.as_ptr(), name.as_char_ptr())
        })
    }

    unsafe fn unregister(driver: &Opaque<Self::DriverType>) {
        // SAFETY: `driver` was registered by `register`.
        unsafe { bindings::pci_unregister_driver(driver.get()) }
    }
}

impl<K: Kinds> Adapter<K> {
    const ERROR_HANDLERS: bindings::pci_error_handlers = bindings::pci_error_handlers {
        error_detected: Some(Self::error_detected_callback),
        reset_prepare: Some(Self::reset_prepare_callback),
        reset_done: Some(Self::reset_done_callback),
        ..pin_init::zeroed()
    };

    fn error_handlers() -> *const bindings::pci_error_handlers {
        &Self::ERROR_HANDLERS
    }

    extern "C" fn probe_callback(
        pdev: *mut bindings::pci_dev,
        id: *const bindings::pci_device_id,
    ) -> ffi::c_int {
        // SAFETY: The PCI core calls back with a valid device, which stays bound to this driver
        // for the duration of the call and is locked.
        let device = unsafe { &*pdev.cast::<pci::Device<CoreInternal<'_>>>() };
        // SAFETY: `pci::DeviceId` is a transparent wrapper. The id is one of `K::ID_TABLE`, or one
        // that user space added, whose data the PCI core has found in that table, or the id of any
        // device, which has none.
        let kind = unsafe { (*id.cast::<pci::DeviceId>()).info_unchecked_opt::<Kind>() };
        let kind = kind.unwrap_or(&K::OTHERS);
        from_result(|| {
            (kind.register)(device)?;
            Ok(0)
        })
    }

    extern "C" fn remove_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: As in `probe_callback`.
        let device = unsafe { &*pdev.cast::<pci::Device<CoreInternal<'_>>>() };
        // SAFETY: The PCI core calls back only after a successful `probe_callback`, and once: it
        // has registered a device of that kind.
        unsafe {
            if let Some(kind) = Head::kind(pdev) {
                (kind.unregister)(device);
            }
        }
    }

    extern "C" fn error_detected_callback(
        pdev: *mut bindings::pci_dev,
        channel: bindings::pci_channel_state_t,
    ) -> bindings::pci_ers_result_t {
        let loss = match channel {
            bindings::pci_channel_io_perm_failure => Loss::Gone,
            _ => Loss::Error,
        };
        // SAFETY: As in `reset_prepare_callback`.
        unsafe {
            if let Some(kind) = Head::kind(pdev) {
                (kind.error_detected)(pdev, loss);
            }
            // Notifies the device's user, too.
            crate::bindings::vfio_pci_core_aer_err_detected(pdev, channel)
        }
    }

    extern "C" fn reset_prepare_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: The device is locked and bound to this driver: between `probe_callback` and
        // `remove_callback`.
        unsafe {
            if let Some(kind) = Head::kind(pdev) {
                (kind.reset_prepare)(pdev);
            }
        }
    }

    extern "C" fn reset_done_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: As in `reset_prepare_callback`.
        unsafe {
            if let Some(kind) = Head::kind(pdev) {
                (kind.reset_done)(pdev);
            }
        }
    }
}
