// SPDX-License-Identifier: GPL-2.0

//! The migration callbacks of a VFIO device.
//!
//! `include/uapi/linux/vfio.h` defines the states and the arcs between them
//! (`enum vfio_device_mig_state`). The VFIO core implements `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`
//! and `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE` through `struct vfio_migration_ops`.

use super::{
    Device,
    Driver, //
};
use crate::bindings;
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    ffi,
    fs::File,
    impl_flags,
    prelude::*,
    sync::aref::ARef, //
};

/// Number of a state in `enum vfio_device_mig_state`. User space may pass any number.
pub(crate) type StateNumber = bindings::vfio_device_mig_state;

impl_flags!(
    /// The parts of the migration protocol that a device supports.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Support(u32);

    /// A part of the migration protocol.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Part {
        /// Stop-copy, which every device supports.
        StopCopy = bindings::VFIO_MIGRATION_STOP_COPY,
        /// The states without peer-to-peer DMA.
        P2p = bindings::VFIO_MIGRATION_P2P,
        /// The pre-copy states, in which user space reads a running device.
        PreCopy = bindings::VFIO_MIGRATION_PRE_COPY,
    }
);

impl<T: Driver> Device<T> {
    /// Returns the next state on the path from `current` to `new`: one arc of the state machine.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such path, or if the device does not support the state `new`.
    pub(crate) fn next_state(&self, current: StateNumber, new: StateNumber) -> Result<StateNumber> {
        let mut next = current;
        // SAFETY: `self` is a registered `struct vfio_device` by its type invariant; `next` is
        // valid for a write for the duration of the call.
        to_result(unsafe {
            bindings::vfio_mig_get_next_state(self.vfio_device(), current, new, &mut next)
        })?;
        Ok(next)
    }
}

/// The migration callbacks of `T`.
pub(super) struct Operations<T: Driver>(core::marker::PhantomData<T>);

impl<T: Driver> Operations<T> {
    const TABLE: bindings::vfio_migration_ops = bindings::vfio_migration_ops {
        migration_set_state: Some(Self::set_state),
        migration_get_state: Some(Self::get_state),
        migration_get_data_size: Some(Self::get_data_size),
    };

    pub(super) fn table() -> &'static bindings::vfio_migration_ops {
        &Self::TABLE
    }

    extern "C" fn set_state(
        vfio_device: *mut bindings::vfio_device,
        new: StateNumber,
    ) -> *mut kernel::bindings::file {
        // SAFETY: The VFIO core passes a device that was registered with this table.
        let device = unsafe { Device::<T>::from_vfio(vfio_device) };
        match T::set_state(device, new) {
            Ok(Some(file)) => ARef::<File>::into_raw(file).as_ptr().cast(),
            Ok(None) => core::ptr::null_mut(),
            Err(error) => error.to_ptr(),
        }
    }

    extern "C" fn get_state(
        vfio_device: *mut bindings::vfio_device,
        state: *mut StateNumber,
    ) -> ffi::c_int {
        // SAFETY: As in `set_state`.
        let device = unsafe { Device::<T>::from_vfio(vfio_device) };
        // SAFETY: The VFIO core passes a valid pointer for the answer.
        unsafe { *state = T::state(device) };
        0
    }

    extern "C" fn get_data_size(
        vfio_device: *mut bindings::vfio_device,
        size: *mut ffi::c_ulong,
    ) -> ffi::c_int {
        // SAFETY: As in `set_state`.
        let device = unsafe { Device::<T>::from_vfio(vfio_device) };
        from_result(|| {
            let bytes = ffi::c_ulong::try_from(T::data_size(device)?).unwrap_or(ffi::c_ulong::MAX);
            // SAFETY: The VFIO core passes a valid pointer for the answer.
            unsafe { *size = bytes };
            Ok(0)
        })
    }
}
