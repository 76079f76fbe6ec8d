// SPDX-License-Identifier: GPL-2.0

//! Ways to open a VFIO device.
//!
//! An unused device is opened through its character device and an iommufd, or through its legacy
//! group and a container if the kernel lacks these. If a process has the device open, its
//! descriptor is duplicated.

use std::{
    fs::{File, OpenOptions},
    os::fd::AsRawFd,
    path::Path,
};

use anyhow::{Context, Result};
use vfio_bindings::bindings::vfio;
use vifa_vfio::{
    bind_iommufd, duplicate_descriptor, ioctl, ioctl_number,
    pci::{Address, Function},
    request, Descriptor,
};

use super::holder::Holder;
use crate::{exit::Exit, host::Host};

/// An open device, and the files that must stay open with it.
pub(super) struct Opened {
    pub(super) device: File,
    pub(super) _keep: Vec<File>,
}

/// Duplicates `holder`'s descriptor of the function at `address`.
pub(super) fn duplicate(address: Address, holder: &Holder) -> Result<Opened> {
    let device = duplicate_descriptor(holder.pid, holder.descriptor)
        .with_context(|| format!("{address}: failed to get its descriptor from {holder}"))?;

    Ok(Opened {
        device: device.into(),
        _keep: Vec::new(),
    })
}

/// Opens `function`, which resets it.
pub(super) fn open(function: &Function, host: &Host) -> Result<Opened> {
    match function.vfio_device() {
        Some(name) if host.iommufd().exists() => {
            open_character_device(&host.vfio().join("devices").join(name), &host.iommufd())
        }
        _ => open_in_group(function, host),
    }
    .with_context(|| format!("failed to open {function}"))
}

fn open_character_device(path: &Path, iommufd: &Path) -> Result<Opened> {
    let device = open_file(path)?;
    let iommufd = open_file(iommufd)?;

    bind_iommufd(&device, &iommufd).context("VFIO_DEVICE_BIND_IOMMUFD")?;
    Ok(Opened {
        device,
        _keep: vec![iommufd],
    })
}

fn open_in_group(function: &Function, host: &Host) -> Result<Opened> {
    let group = function
        .iommu_group()
        .ok_or_else(|| Exit::Failed.because("not in an IOMMU group"))?;
    let container = open_file(&host.vfio().join("vfio"))?;
    let group = open_file(&host.vfio().join(group))?;

    ioctl(
        &group,
        &request::GROUP_SET_CONTAINER,
        &mut Descriptor(container.as_raw_fd()),
    )
    .context("VFIO_GROUP_SET_CONTAINER")?;
    ioctl_number(
        &container,
        &request::SET_IOMMU,
        vfio::VFIO_TYPE1v2_IOMMU.into(),
    )
    .context("VFIO_SET_IOMMU")?;
    let device = vifa_vfio::open_in_group(&group, function).context("VFIO_GROUP_GET_DEVICE_FD")?;

    Ok(Opened {
        device: device.into(),
        _keep: vec![group, container],
    })
}

fn open_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| path.display().to_string())
}
