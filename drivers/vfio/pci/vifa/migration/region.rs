// SPDX-License-Identifier: GPL-2.0

//! The migration region: what a VIFA interface tells of itself.
//!
//! `struct vifa_region` of `include/uapi/linux/vifa.h` has the layout. A virtual machine monitor
//! needs nothing of it; an administrator's tools do.

use super::{
    report::LastError,
    Migration, //
};
use crate::{
    backend::Backend,
    bindings::{
        vifa_identity,
        vifa_region,
        VIFA_REGION_MAGIC,
        VIFA_REGION_MAJOR,
        VIFA_REGION_MINOR,
        VIFA_REGION_SUBTYPE,
        VIFA_REGION_VENDOR, //
    },
    layer::{
        identity::Identity,
        interface::Plane, //
    },
    vfio::region::Region, //
};
use kernel::{
    error::Error,
    transmute::AsBytes, //
};

/// The region as its bytes.
pub(crate) struct Content(vifa_region);

impl AsRef<[u8]> for Content {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl<B: Backend> Region for Migration<B> {
    // CAST: PCI vendor ids have 16 bits.
    const VENDOR: u16 = VIFA_REGION_VENDOR as u16;
    const SUBTYPE: u32 = VIFA_REGION_SUBTYPE;
    const SIZE: usize = size_of::<vifa_region>();
    type Content = Content;

    fn content(&self) -> Content {
        let state = self.state();
        let LastError { error, text } = self.report.last();
        let interfaces = self.backend.interfaces();
        let errno = error.map_or(0, |error: Error| error.to_errno().unsigned_abs());
        let mut magic = [0; 8];
        magic.copy_from_slice(&VIFA_REGION_MAGIC[..8]);

        Content(vifa_region {
            magic,
            // CAST: Both are small.
            major: (VIFA_REGION_MAJOR as u16).to_le(),
            minor: (VIFA_REGION_MINOR as u16).to_le(),
            size: (Self::SIZE as u32).to_le(),
            control_interface: interfaces.plane(Plane::Control).as_raw().to_le(),
            data_interface: interfaces.plane(Plane::Data).as_raw().to_le(),
            state: u32::from(state).to_le(),
            error: errno.to_le(),
            error_text: text,
            identity: encode(self.backend.identity()),
        })
    }
}

fn encode(identity: &Identity) -> vifa_identity {
    vifa_identity {
        vendor: identity.vendor.to_le(),
        device: identity.device.to_le(),
        subsystem_vendor: identity.subsystem_vendor.to_le(),
        subsystem: identity.subsystem.to_le(),
        revision_id: identity.revision_id,
        reserved0: 0,
        vifa_revision: identity.vifa_revision.to_le(),
        features: identity.features.to_le(),
        bar_size: identity.bar_size.map(u64::to_le),
        interrupt_vectors: identity.interrupt_vectors.to_le(),
        queues: identity.queues.to_le(),
        granule: identity.granule.to_le(),
        local_memory: identity.local_memory.to_le(),
        control_plane_max: identity.control_plane_max.to_le(),
        reserved1: 0,
        record_version: identity.record_version.map(u16::to_le),
    }
}
