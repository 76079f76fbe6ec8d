// SPDX-License-Identifier: GPL-2.0

//! Drivers of SR-IOV physical functions.
//!
//! This module extends [`pci::Driver`] with support of `sriov_numvfs` and with recovery from PCI
//! errors. It also gives the drivers of virtual functions (VFs) safe access to the data of the
//! physical function (PF). That data stays valid while a VF is bound, because unbinding the PF
//! begins with the removal of its VFs ([`Physical`]).
//!
//! # Resets and errors of the PF
//!
//! A reset or an error of the PF destroys the state of its VFs, whose drivers get no callback for a
//! reset of the PF. [`Driver::lost`] of the PF's driver is called when the PF's registers and the
//! state of its VFs become unreliable, and [`Driver::recovered`] when they can be used again.
//!
//! # Unbinding
//!
//! User space can keep a VF open indefinitely, which must not block other operations. Therefore, a
//! VF that is bound to a driver of this module is a consumer of its PF by a device link. Before the
//! PF is unbound, the driver core unbinds the VF, with no lock of the PF held. The VFs that
//! `pci_disable_sriov()` then removes have no driver.
//!
//! The PCI core requires `pci_rescan_remove_lock` for the removal of VFs. It holds the lock in
//! `sriov_numvfs` and during a removal of the PF, but not while a driver is unbound. A driver
//! cannot take the lock there: a removal holds it while waiting for the PF's device lock, which
//! unbinding holds. A kernel with lockdep therefore warns when any driver of a PF with VFs is
//! unbound.
//!
//! C header: [`include/linux/pci.h`](srctree/include/linux/pci.h)

use super::pci::as_raw;
use core::{
    fmt,
    marker::PhantomData,
    pin::Pin, //
};
use kernel::{
    bindings,
    device::{
        Core,
        CoreInternal, //
    },
    driver,
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi,
    pci,
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Release, //
    },
    types::Opaque, //
};

/// The reason why a PF and its VFs lost their state.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The PF is being reset, or was reset.
    Reset,
    /// The PCI core reported an uncorrectable error.
    Error,
    /// The device is permanently gone: its recovery failed, or it was removed.
    Gone,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "the physical function was reset",
            Self::Error => "uncorrectable PCI error",
            Self::Gone => "the device is gone after an uncorrectable PCI error",
        })
    }
}

/// The driver of a physical function.
pub(crate) trait Driver: pci::Driver {
    /// Returns the storage for the registration of this driver, which only [`Adapter`] uses.
    fn registered() -> &'static Registered;

    /// Handles the loss of the state of the PF and its VFs. The PF's registers cannot be used until
    /// [`Self::recovered`] is called, which never happens after [`Loss::Gone`]. Must not sleep.
    fn lost(data: Pin<&Self::Data<'_>>, loss: Loss);

    /// Handles a recovery: the PF's registers can be used again. Must not sleep.
    fn recovered(data: Pin<&Self::Data<'_>>);

    /// Checks a request for `count` VFs (more than 0) before they are enabled.
    fn check_virtual_functions(
        device: &pci::Device<Core<'_>>,
        data: Pin<&Self::Data<'_>>,
        count: u16,
    ) -> Result;
}

/// The `struct pci_driver` of a driver while it is registered, which identifies the driver's
/// devices.
pub(crate) struct Registered(Atomic<*mut bindings::pci_driver>);

impl Registered {
    /// Creates the storage for a driver that is not registered.
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(core::ptr::null_mut()))
    }
}

/// A [`pci::Driver`] that extends `T` and removes the VFs before it drops the PF's data.
pub(crate) struct Physical<T: Driver>(PhantomData<T>);

impl<T: Driver> pci::Driver for Physical<T> {
    type IdInfo = T::IdInfo;
    type Data<'bound> = T::Data<'bound>;
    const ID_TABLE: pci::IdTable<Self::IdInfo> = T::ID_TABLE;

    fn probe<'bound>(
        device: &'bound pci::Device<Core<'_>>,
        info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        T::probe(device, info)
    }

    fn unbind<'bound>(device: &'bound pci::Device<Core<'_>>, data: Pin<&Self::Data<'bound>>) {
        // The PCI core holds `pci_rescan_remove_lock` if the device is removed, but not if its
        // driver is unbound. Taking it here, under the device's lock, would invert the lock order
        // of a removal.
        // SAFETY: `device` is valid and locked, and its driver is being removed. The call returns
        // after every VF has been unbound from its driver and removed. It does nothing if there are
        // no VFs.
        unsafe { bindings::pci_disable_sriov(as_raw(device)) };
        T::unbind(device, data);
    }
}

/// An adapter for the registration of PF drivers with [`kernel::driver::Registration`].
pub(crate) struct Adapter<T: Driver>(PhantomData<T>);

type Inner<T> = pci::Adapter<Physical<T>>;

// SAFETY: The layout is that of `pci::Adapter`.
unsafe impl<T: Driver> driver::DriverLayout for Adapter<T> {
    type DriverType = <Inner<T> as driver::DriverLayout>::DriverType;
    type DriverData<'bound> = <Inner<T> as driver::DriverLayout>::DriverData<'bound>;
    const DEVICE_DRIVER_OFFSET: usize = <Inner<T> as driver::DriverLayout>::DEVICE_DRIVER_OFFSET;
}

// SAFETY: Both functions forward to `pci::Adapter`.
unsafe impl<T: Driver> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        driver: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        // SAFETY: The fields may be set before the registration.
        unsafe {
            (*driver.get()).sriov_configure = Some(Self::sriov_configure_callback);
            (*driver.get()).err_handler = Self::error_handlers();
        }
        T::registered().0.store(driver.get(), Release);
        // SAFETY: The requirements are the same.
        unsafe { Inner::<T>::register(driver, name, module) }
            .inspect_err(|_| Self::forget_registration())
    }

    unsafe fn unregister(driver: &Opaque<Self::DriverType>) {
        // SAFETY: The requirements are the same.
        unsafe { Inner::<T>::unregister(driver) };
        Self::forget_registration();
    }
}

impl<T: Driver> Adapter<T> {
    fn forget_registration() {
        T::registered().0.store(core::ptr::null_mut(), Release);
    }

    const ERROR_HANDLERS: bindings::pci_error_handlers = bindings::pci_error_handlers {
        error_detected: Some(Self::error_detected_callback),
        slot_reset: Some(Self::slot_reset_callback),
        resume: Some(Self::resume_callback),
        reset_prepare: Some(Self::reset_prepare_callback),
        reset_done: Some(Self::reset_done_callback),
        ..pin_init::zeroed()
    };

    fn error_handlers() -> *const bindings::pci_error_handlers {
        &Self::ERROR_HANDLERS
    }

    /// Calls `act` with the data of the driver.
    ///
    /// # Safety
    ///
    /// `pdev` is valid, locked and bound to this driver.
    unsafe fn with_data(pdev: *mut bindings::pci_dev, act: impl FnOnce(Pin<&T::Data<'_>>)) {
        // SAFETY: By the safety requirements.
        let device = unsafe { &*pdev.cast::<pci::Device<CoreInternal<'_>>>() };
        // SAFETY: The device is bound to this driver: its data was set after the probe.
        act(unsafe { device.as_ref().drvdata_borrow::<T::Data<'_>>() });
    }

    extern "C" fn error_detected_callback(
        pdev: *mut bindings::pci_dev,
        channel: bindings::pci_channel_state_t,
    ) -> bindings::pci_ers_result_t {
        let (loss, vote) = match channel {
            bindings::pci_channel_io_normal => (
                Loss::Error,
                bindings::pci_ers_result_PCI_ERS_RESULT_CAN_RECOVER,
            ),
            bindings::pci_channel_io_frozen => (
                Loss::Error,
                bindings::pci_ers_result_PCI_ERS_RESULT_NEED_RESET,
            ),
            _ => (
                Loss::Gone,
                bindings::pci_ers_result_PCI_ERS_RESULT_DISCONNECT,
            ),
        };
        // SAFETY: The PCI core passes a locked device that is bound to this driver.
        unsafe { Self::with_data(pdev, |data| T::lost(data, loss)) };
        vote
    }

    extern "C" fn slot_reset_callback(pdev: *mut bindings::pci_dev) -> bindings::pci_ers_result_t {
        // SAFETY: As for `error_detected_callback`. The state was saved when the device was added,
        // before the driver enabled the device and its DMA.
        let result = unsafe {
            bindings::pci_restore_state(pdev);
            let result = bindings::pci_reenable_device(pdev);
            bindings::pci_set_master(pdev);
            result
        };
        match to_result(result) {
            Ok(()) => bindings::pci_ers_result_PCI_ERS_RESULT_RECOVERED,
            Err(_) => bindings::pci_ers_result_PCI_ERS_RESULT_DISCONNECT,
        }
    }

    extern "C" fn resume_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: As for `error_detected_callback`.
        unsafe { Self::with_data(pdev, |data| T::recovered(data)) };
    }

    extern "C" fn reset_prepare_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: As for `error_detected_callback`.
        unsafe { Self::with_data(pdev, |data| T::lost(data, Loss::Reset)) };
    }

    extern "C" fn reset_done_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: As for `error_detected_callback`.
        unsafe { Self::with_data(pdev, |data| T::recovered(data)) };
    }

    extern "C" fn sriov_configure_callback(
        pdev: *mut bindings::pci_dev,
        count: ffi::c_int,
    ) -> ffi::c_int {
        // SAFETY: The PCI core passes a valid device that is locked and bound to this driver.
        let device = unsafe { &*pdev.cast::<pci::Device<CoreInternal<'_>>>() };
        if count == 0 {
            // SAFETY: `pdev` is valid and locked.
            unsafe { bindings::pci_disable_sriov(pdev) };
            return 0;
        }
        // SAFETY: The device is bound to this driver: its data was set after the probe.
        let data = unsafe { device.as_ref().drvdata_borrow::<T::Data<'_>>() };
        let result = u16::try_from(count).map_err(Error::from).and_then(|vfs| {
            T::check_virtual_functions(device, data, vfs)?;
            // SAFETY: `pdev` is valid and locked.
            to_result(unsafe { bindings::pci_enable_sriov(pdev, count) })
        });
        match result {
            Ok(()) => count,
            Err(error) => error.to_errno(),
        }
    }
}

/// A VF of a PF that `T` drives.
pub(crate) struct Virtual<'a, T: Driver> {
    /// Data of the PF's driver.
    pub(crate) physical: Pin<&'a T::Data<'a>>,
    /// Index among the VFs of the PF, from 0.
    pub(crate) index: u16,
}

/// The reason why a device is not a VF of a PF that `T` drives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotVirtual {
    /// The device is not a VF.
    NotAVirtualFunction,
    /// The PF has another driver, or no driver.
    ForeignPhysicalFunction,
    /// The link to the PF could not be created: no memory, or the PF is being unbound.
    Unlinked,
}

impl<'a, T: Driver> Virtual<'a, T> {
    /// Checks a device that is being bound.
    ///
    /// # Errors
    ///
    /// The device is not a VF of a PF that `T` drives.
    pub(crate) fn new(device: &'a pci::Device<Core<'_>>) -> Result<Self, NotVirtual> {
        let pdev = as_raw(device);
        // SAFETY: `pdev` is valid.
        if unsafe { (*pdev).is_virtfn() } == 0 {
            return Err(NotVirtual::NotAVirtualFunction);
        }
        // SAFETY: `pdev` is valid.
        let index = unsafe { bindings::pci_iov_vf_id(pdev) };
        let index = u16::try_from(index).map_err(|_| NotVirtual::NotAVirtualFunction)?;

        let driver = T::registered().0.load(Acquire);
        if driver.is_null() {
            return Err(NotVirtual::ForeignPhysicalFunction);
        }
        // SAFETY: `pdev` is valid. The function compares `driver` with the driver of the PF, and
        // dereferences neither.
        let data = unsafe { bindings::pci_iov_get_pf_drvdata(pdev, driver) };
        if data.is_null() || from_err_ptr(data).is_err() {
            return Err(NotVirtual::ForeignPhysicalFunction);
        }
        Self::link(pdev)?;
        // SAFETY: The driver is that of `Adapter<T>`, for which the driver core stores a
        // `Pin<KBox<T::Data>>`. The data stays valid while the VF is bound, which includes `'a`:
        // unbinding the PF begins with `pci_disable_sriov()` ([`Physical`]), which waits for the
        // VF's lock, which is held.
        let physical = unsafe { Pin::new_unchecked(&*data.cast::<T::Data<'a>>()) };
        Ok(Self { physical, index })
    }

    /// Makes a VF that is being bound a consumer of its PF, until the VF is unbound.
    fn link(pdev: *mut bindings::pci_dev) -> Result<(), NotVirtual> {
        // SAFETY: `pdev` is a VF, whose `physfn` is valid for as long as the VF is.
        let link = unsafe {
            let physical = crate::bindings::rust_helper_pci_physfn(pdev);
            bindings::device_link_add(
                &raw mut (*pdev).dev,
                &raw mut (*physical).dev,
                crate::bindings::VIFA_DL_FLAG_AUTOREMOVE_CONSUMER,
            )
        };
        if link.is_null() {
            return Err(NotVirtual::Unlinked);
        }
        // SAFETY: The link exists at least until the VF's probe has failed. Another CPU may write
        // the status concurrently. Either value is acceptable.
        match unsafe { (&raw const (*link).status).read_volatile() } {
            bindings::device_link_state_DL_STATE_SUPPLIER_UNBIND => Err(NotVirtual::Unlinked),
            _ => Ok(()),
        }
    }
}
