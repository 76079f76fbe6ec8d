// SPDX-License-Identifier: GPL-2.0

//! The identity of a function, from its device id and from the PCI core.

use super::{
    hardware::{
        BAR,
        BAR_LENGTH, //
    },
    portable::{
        records::{
            CONTROL_PLANE_MAX,
            RECORD_VERSION, //
        },
        registers::interrupt::VECTORS,
    },
};
use crate::{
    layer::identity::{
        Identity,
        FEATURE_P2P, //
    },
    seam::Shown,
    vfio,
};
use kernel::{
    device::Core,
    pci::{
        self,
        DeviceId, //
    },
    prelude::*, //
};

const INTEL: u16 = 0x8086;
const DEVICE_82576: u16 = 0x10ca;
const DEVICE_I350: u16 = 0x1520;

/// The virtual function of the 82576.
pub(crate) const ID_82576: DeviceId = id(DEVICE_82576);

/// The virtual function of the I350.
pub(crate) const ID_I350: DeviceId = id(DEVICE_I350);

const fn id(device: u16) -> DeviceId {
    vfio::pci::override_only_id(INTEL as u32, device as u32)
}

/// Revision of this backend's method: how a function is stopped and which state is saved.
const REVISION: u16 = 1;

/// Returns the identity of `device`.
///
/// # Errors
///
/// Returns `ENODEV`, and logs the reason, if `device` is not a supported function.
pub(super) fn identify(device: &pci::Device<Core<'_>>) -> Result<Identity> {
    let queues = match device.device_id() {
        DEVICE_82576 => 2,
        DEVICE_I350 => 1,
        other => {
            dev_err!(device, "unsupported device id {:#x}\n", other);
            return Err(ENODEV);
        }
    };
    let vectors = vfio::pci::msix_vectors(device);
    if vectors.map(usize::from) != Some(VECTORS) {
        dev_err!(
            device,
            "invalid number of MSI-X vectors: got {}, expected {}\n",
            vectors.unwrap_or(0),
            VECTORS
        );
        return Err(ENODEV);
    }
    let registers = device.resource_len(BAR.into())?;
    if registers < BAR_LENGTH {
        dev_err!(
            device,
            "invalid size of BAR {}: got {:#x}, expected at least {:#x}\n",
            BAR,
            registers,
            BAR_LENGTH
        );
        return Err(ENODEV);
    }

    let mut identity = Identity {
        vendor: device.vendor_id().as_raw(),
        device: device.device_id(),
        subsystem_vendor: device.subsystem_vendor_id(),
        subsystem: device.subsystem_device_id(),
        revision_id: device.revision_id(),
        vifa_revision: REVISION,
        features: FEATURE_P2P,
        interrupt_vectors: VECTORS as u16,
        queues,
        control_plane_max: CONTROL_PLANE_MAX,
        record_version: RECORD_VERSION,
        ..Identity::default()
    };
    for (bar, size) in (0..).zip(&mut identity.bar_size) {
        *size = device.resource_len(bar)?;
    }
    identity.validate().map_err(|violation| {
        dev_err!(device, "invalid identity: {}\n", Shown(violation));
        ENODEV
    })?;
    Ok(identity)
}
