// SPDX-License-Identifier: GPL-2.0

//! The argument of `VFIO_DEVICE_FEATURE`.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use vfio_bindings::bindings::vfio::{self, vfio_device_feature_mig_state};

use crate::{adopt, ioctl, request, Argument};

/// An operation on a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Operation {
    Get = vfio::VFIO_DEVICE_FEATURE_GET,
    Set = vfio::VFIO_DEVICE_FEATURE_SET,
    /// Checks that the feature is supported with this operation.
    ProbeGet = vfio::VFIO_DEVICE_FEATURE_PROBE | vfio::VFIO_DEVICE_FEATURE_GET,
    ProbeSet = vfio::VFIO_DEVICE_FEATURE_PROBE | vfio::VFIO_DEVICE_FEATURE_SET,
}

/// The argument of `VFIO_DEVICE_FEATURE`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Feature<T> {
    /// Number of bytes of this structure that the kernel may access.
    pub argsz: u32,
    /// The operation and the feature's number.
    pub flags: u32,
    /// The feature's data.
    pub data: T,
}

impl<T> Argument for Feature<T> {
    fn stated_size(&self) -> usize {
        self.argsz as usize
    }
}

impl<T> Feature<T> {
    /// Creates the argument for `operation` on the feature `number` with `data`.
    pub fn new(operation: Operation, number: u32, data: T) -> Self {
        Self {
            argsz: size_of::<Self>() as u32,
            flags: operation as u32 | number,
            data,
        }
    }
}

/// Sets the migration state of `device` to `state`, a `VFIO_DEVICE_STATE_*`. Returns the session,
/// if the state begins one.
///
/// # Errors
///
/// Returns the error of the request. The device may remain in an intermediate state.
pub fn set_migration_state(device: impl AsFd, state: u32) -> io::Result<Option<OwnedFd>> {
    let mut set = Feature::new(
        Operation::Set,
        vfio::VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
        vfio_device_feature_mig_state {
            device_state: state,
            data_fd: -1,
        },
    );

    ioctl(device, &request::device_feature(), &mut set)?;
    // SAFETY: The kernel has just made this descriptor for this call, so nothing else owns it.
    Ok((set.data.data_fd >= 0).then(|| unsafe { adopt(set.data.data_fd) }))
}
