// SPDX-License-Identifier: GPL-2.0

//! The migration region: the status of a VIFA interface, for user space.
//!
//! `struct vifa_region` of `include/uapi/linux/vifa.h` defines the layout. A virtual machine
//! monitor does not need the region. An administrator's tools read it, or the same content in
//! debugfs ([`super::debugfs`]).

use super::status::{
    Moment,
    Role,
    Status, //
};
use crate::{
    bindings::{
        vifa_identity,
        vifa_region,
        vifa_region_relation,
        VIFA_REGION_MAGIC,
        VIFA_REGION_MAJOR,
        VIFA_REGION_MINOR,
        VIFA_REGION_SUBTYPE,
        VIFA_REGION_VENDOR, //
    },
    layer::{
        identity::Identity,
        interface::Plane,
        progress::Progress,
        relation::Relations, //
    },
    vfio::region::Region, //
};
use kernel::{
    error::Error,
    transmute::AsBytes, //
};

/// The content of the region, as bytes.
pub(crate) struct Content(vifa_region);

impl AsRef<[u8]> for Content {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Region for Status {
    // CAST: PCI vendor ids have 16 bits.
    const VENDOR: u16 = VIFA_REGION_VENDOR as u16;
    const SUBTYPE: u32 = VIFA_REGION_SUBTYPE;
    const SIZE: usize = size_of::<vifa_region>();
    type Content = Content;

    fn content(&self) -> Content {
        let Moment {
            generation,
            state,
            last,
            transfer,
            counters,
            tracked,
            reports,
        } = self.moment();
        let interfaces = self.interfaces();
        let errno = last
            .error
            .map_or(0, |error: Error| error.to_errno().unsigned_abs());
        let mut magic = [0; 8];
        magic.copy_from_slice(&VIFA_REGION_MAGIC[..8]);

        let relations =
            transfer.and_then(|(role, progress)| Some(encode(role, &progress.relations?)));
        let progress = transfer.map_or(Progress::NONE, |(_, progress)| progress);
        let Progress {
            records, addresses, ..
        } = progress;

        Content(vifa_region {
            magic,
            // CAST: Both are small.
            major: (VIFA_REGION_MAJOR as u16).to_le(),
            minor: (VIFA_REGION_MINOR as u16).to_le(),
            size: (Self::SIZE as u32).to_le(),
            generation: generation.to_le(),
            control_interface: interfaces.plane(Plane::Control).as_raw().to_le(),
            data_interface: interfaces.plane(Plane::Data).as_raw().to_le(),
            state: u32::from(state).to_le(),
            error: errno.to_le(),
            error_text: last.text,
            identity: encode_identity(self.identity()),
            relations: relations.unwrap_or_default(),
            stream_bytes: progress.stream_bytes.to_le(),
            sections: progress.sections.to_le(),
            record_bytes: records.bytes.to_le(),
            records: records.count.map(u32::to_le),
            local_ranges: addresses.local_ranges.to_le(),
            local_bytes: addresses.local_bytes.to_le(),
            data_bytes: progress.data_bytes.to_le(),
            guest_ranges: addresses.guest_ranges.to_le(),
            guest_bytes: addresses.guest_bytes.to_le(),
            saved: counters.saved.to_le(),
            restored: counters.restored.to_le(),
            failed: counters.failed.to_le(),
            log_page_size: tracked.map_or(0, |tracked| tracked.page_size).to_le(),
            log_ranges: tracked.map_or(0, |tracked| tracked.ranges).to_le(),
            log_bytes: tracked.map_or(0, |tracked| tracked.bytes).to_le(),
            log_reports: reports.count.to_le(),
            log_dirty_bytes: reports.dirty_bytes.to_le(),
            log_lost: reports.lost.to_le(),
        })
    }
}

fn encode(role: Role, relations: &Relations) -> [vifa_region_relation; 2] {
    [Plane::Control, Plane::Data].map(|plane| {
        let relation = relations.plane(plane);
        vifa_region_relation {
            output: relation.output.as_raw().to_le(),
            receiver: relation
                .receiver
                .map_or(0, |receiver| receiver.as_raw())
                .to_le(),
            plane: plane as u8,
            role: role as u8,
            reserved: [0; 6],
        }
    })
}

fn encode_identity(identity: &Identity) -> vifa_identity {
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
