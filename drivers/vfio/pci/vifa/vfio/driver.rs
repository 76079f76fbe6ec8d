// SPDX-License-Identifier: GPL-2.0

//! Registration of VFIO PCI variant drivers.
//!
//! Such a driver differs from other PCI drivers in four ways, which [`pci::Adapter`] does not
//! support:
//!
//! - Its ids match only if the administrator selects the driver by name (override-only).
//! - It leaves the DMA ownership of its devices to VFIO (`driver_managed_dma`).
//! - It has reset callbacks.
//! - Its device data is the `struct vfio_pci_core_device` itself.
//!
//! One `struct pci_driver` serves several kinds of devices, each with its own [`Driver`], because
//! user space derives the name of the PCI driver from the name of the module with the alias.

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

/// A VFIO PCI variant driver. A value of the type is the driver's data of one device.
///
/// The functions are called in this order: [`Self::probe`], then any number of times
/// [`Self::open`], the functions of an open device, and [`Self::close`]. Finally, the value is
/// dropped.
/// [`Self::reset_prepare`], followed by [`Self::reset_done`], may be called at any time in between,
/// on any CPU, and concurrently with any other function: the VFIO core does not serialise a reset
/// with them.
pub(crate) trait Driver: Sized + Send + Sync + 'static {
    /// The module that the driver is part of.
    type Module: kernel::ModuleMetadata;

    /// Name of the VFIO driver.
    const NAME: &'static CStr;

    /// The parts of the device's BARs whose accesses the driver emulates, in ascending order of BAR
    /// and offset. No two of them overlap.
    const WINDOWS: &'static [Window];

    /// The kind that the ids of such devices refer to.
    const KIND: Kind = Kind::of::<Self>();

    /// Probes a device. After an error, other drivers can bind to the device.
    fn probe(device: &pci::Device<Core<'_>>) -> impl PinInit<Self, Error>;

    /// Returns the parts of the migration protocol that the device supports, or `None` if it cannot
    /// be migrated. Called once, after [`Self::probe`].
    fn migration_support(&self) -> Option<migration::Support>;

    /// Returns whether the device can log its DMA. Called once, after [`Self::probe`]. The
    /// functions that begin with `log_` are called only for such a device.
    fn logs_dma(&self) -> bool;

    /// Opens the device for its only user. The device has just been reset.
    fn open(device: &Opening<'_, Self>) -> Result;

    /// Closes the device. Its migration files may still be open, and must not reach the device.
    fn close(device: &Device<Self>);

    /// Prepares for a reset of the device. [`Self::reset_done`] always follows.
    ///
    /// The caller may hold locks of the VFIO core under which other code faults in user memory. An
    /// implementation must not wait for a lock that is held across an access to user memory.
    fn reset_prepare(&self);

    /// Handles a completed reset. For most devices, 100 ms or more have passed since
    /// [`Self::reset_prepare`]. The requirements of that function apply.
    fn reset_done(&self);

    /// Handles an uncorrectable error of the device, or of a device above it, that the PCI core has
    /// detected. The requirements of [`Self::reset_done`] apply.
    fn error_detected(&self, loss: Loss);

    /// Reads the register at `offset` of a window. `window` is an index into [`Self::WINDOWS`].
    ///
    /// # Errors
    ///
    /// `EBUSY` while the device is being reset. The caller repeats the call after the reset.
    fn read_window(device: &Device<Self>, window: usize, offset: u64) -> Result<u32>;

    /// Writes the register at `offset` of a window.
    ///
    /// # Errors
    ///
    /// The same as for [`Self::read_window`].
    fn write_window(device: &Device<Self>, window: usize, offset: u64, value: u32) -> Result;

    /// Implements `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE` (set).
    fn set_state(device: &Device<Self>, new: migration::StateNumber) -> Result<Option<ARef<File>>>;

    /// Implements `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE` (get).
    fn state(device: &Device<Self>) -> migration::StateNumber;

    /// Implements `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE`: returns the number of bytes that stop-copy
    /// would have to transfer.
    fn data_size(device: &Device<Self>) -> Result<u64>;

    /// Implements `VFIO_DEVICE_FEATURE_DMA_LOGGING_START`: starts to log writes to `ranges`.
    /// `page_size` is the page size that user space requests. Returns the actual page size.
    fn log_start(device: &Device<Self>, ranges: logging::Ranges<'_>, page_size: u64)
        -> Result<u64>;

    /// Implements `VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP`.
    fn log_stop(device: &Device<Self>) -> Result;

    /// Implements `VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT`: sets in `dirty` the pages that were
    /// written among the `length` bytes from `iova`, and clears them in the log. `iova + length`
    /// does not overflow.
    fn log_report(
        device: &Device<Self>,
        iova: u64,
        length: u64,
        dirty: &mut logging::DirtyBitmap<'_>,
    ) -> Result;
}

/// A kind of devices: the callbacks of a [`Driver`], independent of its type.
pub(crate) struct Kind {
    register: fn(&pci::Device<CoreInternal<'_>>) -> Result,
    /// # Safety
    ///
    /// The same as for [`Device::unregister`].
    unregister: unsafe fn(&pci::Device<CoreInternal<'_>>),
    /// # Safety
    ///
    /// `register` has succeeded for the device, and `unregister` does not run during the call.
    reset_prepare: unsafe fn(*mut bindings::pci_dev),
    /// # Safety
    ///
    /// The same as for `reset_prepare`.
    reset_done: unsafe fn(*mut bindings::pci_dev),
    /// # Safety
    ///
    /// The same as for `reset_prepare`.
    error_detected: unsafe fn(*mut bindings::pci_dev, Loss),
}

impl Kind {
    /// Returns the kind of devices that `T` drives.
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
/// The same as for [`Kind::reset_prepare`].
unsafe fn reset_prepare<T: Driver>(pdev: *mut bindings::pci_dev) {
    // SAFETY: By the safety requirements.
    unsafe { Device::<T>::from_pci(pdev) }
        .data()
        .reset_prepare();
}

/// # Safety
///
/// The same as for [`Kind::reset_done`].
unsafe fn reset_done<T: Driver>(pdev: *mut bindings::pci_dev) {
    // SAFETY: By the safety requirements.
    unsafe { Device::<T>::from_pci(pdev) }.data().reset_done();
}

/// # Safety
///
/// The same as for [`Kind::error_detected`].
unsafe fn error_detected<T: Driver>(pdev: *mut bindings::pci_dev, loss: Loss) {
    // SAFETY: By the safety requirements.
    unsafe { Device::<T>::from_pci(pdev) }
        .data()
        .error_detected(loss);
}

/// The kinds of devices that one PCI driver serves.
pub(crate) trait Kinds {
    /// The ids of the devices, which are override-only.
    const ID_TABLE: pci::IdTable<Kind>;

    /// The kind of devices with other ids, to which user space has bound the driver explicitly.
    const OTHERS: Kind;
}

/// An adapter for the registration of VFIO PCI variant drivers with
/// [`kernel::driver::Registration`].
pub(crate) struct Adapter<K: Kinds>(PhantomData<K>);

// SAFETY:
// - `bindings::pci_driver` is a C type declared as `repr(C)`.
// - The device private data is a `struct vfio_pci_core_device`, which `remove_callback` clears, so
//   that the driver core never finds Rust data there.
// - `struct pci_driver` embeds a `struct device_driver` at `DEVICE_DRIVER_OFFSET`.
unsafe impl<K: Kinds> driver::DriverLayout for Adapter<K> {
    type DriverType = bindings::pci_driver;
    type DriverData<'bound> = ();
    const DEVICE_DRIVER_OFFSET: usize = offset_of!(Self::DriverType, driver);
}

// SAFETY: A call to `unregister` is valid after a successful call to `register`, as the PCI core
// requires.
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
        // SAFETY: The PCI core passes a valid device, which is locked and remains bound to this
        // driver for the duration of the call.
        let device = unsafe { &*pdev.cast::<pci::Device<CoreInternal<'_>>>() };
        // SAFETY: `pci::DeviceId` is a transparent wrapper. The id is one of `K::ID_TABLE`, or one
        // that user space added, whose data the PCI core has found in that table, or the wildcard
        // id, which has no data.
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
        // SAFETY: The PCI core calls this once, after a successful `probe_callback`, which has
        // registered a device of that kind.
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
