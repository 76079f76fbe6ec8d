// SPDX-License-Identifier: GPL-2.0

//! Drivers of SR-IOV physical functions.
//!
//! Adds to [`pci::Driver`] what a driver needs to serve `sriov_numvfs` and to recover from PCI
//! errors, and gives the drivers of its virtual functions (VFs) a safe way to the physical
//! function's (PF's) data. That data stays valid while a VF is bound: unbinding the PF begins with
//! the removal of its VFs ([`Physical`]).
//!
//! # Resets and errors of the PF
//!
//! Both take the VFs' state with them, and the drivers of VFs get no callback for a reset of the PF.
//! The PF's driver gets [`Driver::lost`] when its registers, or what its VFs hold, can no longer be
//! relied on, and [`Driver::recovered`] when they can be used again.
//!
//! # Unbinding
//!
//! A VF that may be open for as long as its user likes must not hold up others. So a VF that is
//! bound to a driver of this module is a consumer of its PF by a device link: the driver core
//! unbinds it first, with no lock of the PF held, when the PF is about to be unbound. What
//! `pci_disable_sriov()` then removes has no driver.
//!
//! The PCI core wants `pci_rescan_remove_lock` held where VFs are removed, and holds it in
//! `sriov_numvfs` and in a removal of the PF, but not where a driver is unbound. A driver cannot
//! take it there: a removal holds it and waits for the PF's device lock, which unbinding holds. A
//! kernel with lockdep therefore warns where a PF is unbound that has VFs, whatever its driver.
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

/// Why a PF, and with it its VFs, lost what they had.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The PF is being reset, or was.
    Reset,
    /// The PCI core reported an uncorrectable error.
    Error,
    /// The device does not come back: its recovery failed, or it was removed.
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
    /// Where [`Adapter`] keeps the registration of this driver, and of no other.
    fn registered() -> &'static Registered;

    /// The PF, and with it its VFs, loses what it had. Its registers cannot be used until
    /// [`Self::recovered`]; after [`Loss::Gone`], never again. Must not sleep.
    fn lost(data: Pin<&Self::Data<'_>>, loss: Loss);

    /// The PF's registers can be used again. Must not sleep.
    fn recovered(data: Pin<&Self::Data<'_>>);

    /// Checks a request for `count` VFs (more than 0) before they are made.
    fn check_virtual_functions(
        device: &pci::Device<Core<'_>>,
        data: Pin<&Self::Data<'_>>,
        count: u16,
    ) -> Result;
}

/// The `struct pci_driver` of a driver while it is registered: what tells its devices from others.
pub(crate) struct Registered(Atomic<*mut bindings::pci_driver>);

impl Registered {
    /// A driver that is not registered.
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(core::ptr::null_mut()))
    }
}

/// A [`pci::Driver`] that is `T` and removes the VFs before the PF's data goes.
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
        // The PCI core holds `pci_rescan_remove_lock` where the device is removed, and not where its
        // driver is unbound. Taking it here would be taking it under the device's lock, which a
        // removal takes the other way round.
        // SAFETY: `device` is valid and locked, and its driver is being removed. The call returns
        // when every VF has been unbound from its driver and removed; it does nothing where there
        // are none.
        unsafe { bindings::pci_disable_sriov(as_raw(device)) };
        T::unbind(device, data);
    }
}

/// An adapter for the registration of PF drivers with [`kernel::driver::Registration`].
pub(crate) struct Adapter<T: Driver>(PhantomData<T>);

type Inner<T> = pci::Adapter<Physical<T>>;

// SAFETY: The layout is the one of `pci::Adapter`.
unsafe impl<T: Driver> driver::DriverLayout for Adapter<T> {
    type DriverType = <Inner<T> as driver::DriverLayout>::DriverType;
    type DriverData<'bound> = <Inner<T> as driver::DriverLayout>::DriverData<'bound>;
    const DEVICE_DRIVER_OFFSET: usize = <Inner<T> as driver::DriverLayout>::DEVICE_DRIVER_OFFSET;
}

// SAFETY: Registration and its end are those of `pci::Adapter`.
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

    /// Has `act` do something with the data of the driver.
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
        // SAFETY: The PCI core calls back with a locked device that is bound to this driver.
        unsafe { Self::with_data(pdev, |data| T::lost(data, loss)) };
        vote
    }

    extern "C" fn slot_reset_callback(pdev: *mut bindings::pci_dev) -> bindings::pci_ers_result_t {
        // SAFETY: As for `error_detected_callback`. The state was saved when the device was added;
        // the driver had enabled the device and its DMA, which that state lacks.
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
        // SAFETY: The PCI core calls back with a valid device that is locked and bound to this
        // driver.
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

/// A VF, with what the PCI core knows of its place among the VFs of its PF.
pub(crate) struct Virtual<'a, T: Driver> {
    /// Data of the PF's driver.
    pub(crate) physical: Pin<&'a T::Data<'a>>,
    /// Index among the VFs, from 0.
    pub(crate) index: u16,
}

/// Why a device is no VF of a PF that `T` drives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotVirtual {
    /// It is no VF.
    NotAVirtualFunction,
    /// Its PF has another driver, or none.
    ForeignPhysicalFunction,
    /// It could not be made a consumer of its PF: memory ran out, or the PF is being unbound.
    Unlinked,
}

impl<'a, T: Driver> Virtual<'a, T> {
    /// Looks at a device that is being bound.
    ///
    /// # Errors
    ///
    /// [`NotVirtual`] says why it is not one of `T`'s.
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
        // looks into neither.
        let data = unsafe { bindings::pci_iov_get_pf_drvdata(pdev, driver) };
        if data.is_null() || from_err_ptr(data).is_err() {
            return Err(NotVirtual::ForeignPhysicalFunction);
        }
        Self::link(pdev)?;
        // SAFETY: The driver is `Adapter<T>`'s, which has the PCI core store a
        // `Pin<KBox<T::Data>>`. That stays while the VF is bound, which it is for `'a`:
        // `pci_disable_sriov()`, with which unbinding the PF begins ([`Physical`]), waits for the
        // VF's lock, which is held.
        let physical = unsafe { Pin::new_unchecked(&*data.cast::<T::Data<'a>>()) };
        Ok(Self { physical, index })
    }

    /// Makes a VF that is being bound a consumer of its PF, until it is unbound.
    fn link(pdev: *mut bindings::pci_dev) -> Result<(), NotVirtual> {
        // SAFETY: `pdev` is a VF, whose `physfn` is valid as long as it is.
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
        // SAFETY: The link stays at least until the VF's probe has failed. Another CPU may write
        // the status: any value of it may be seen.
        match unsafe { (&raw const (*link).status).read_volatile() } {
            bindings::device_link_state_DL_STATE_SUPPLIER_UNBIND => Err(NotVirtual::Unlinked),
            _ => Ok(()),
        }
    }
}
