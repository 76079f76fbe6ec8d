// SPDX-License-Identifier: GPL-2.0

//! Opening of devices. While another process resets a device, both functions wait.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use vfio_bindings::bindings::vfio::vfio_device_bind_iommufd;

use crate::{ioctl, ioctl_open, pci::Function, request, while_resetting};

/// Binds `device`, an open VFIO character device, to `iommufd`. This opens the device.
///
/// # Errors
///
/// Returns the error of `VFIO_DEVICE_BIND_IOMMUFD`.
pub fn bind_iommufd(device: impl AsFd, iommufd: impl AsFd) -> io::Result<()> {
    let mut bind = vfio_device_bind_iommufd {
        // Without the token, which older kernels do not support.
        argsz: 16,
        iommufd: iommufd.as_fd().as_raw_fd(),
        ..Default::default()
    };

    while_resetting(|| ioctl(&device, &request::DEVICE_BIND_IOMMUFD, &mut bind)).map(drop)
}

/// Opens `function` in `group`, its IOMMU group.
///
/// # Errors
///
/// Returns the error of `VFIO_GROUP_GET_DEVICE_FD`.
pub fn open_in_group(group: impl AsFd, function: &Function) -> io::Result<OwnedFd> {
    let name = CString::new(function.to_string())?;

    while_resetting(|| ioctl_open(&group, &request::GROUP_GET_DEVICE_FD, &name))
}
