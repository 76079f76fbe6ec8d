// SPDX-License-Identifier: GPL-2.0

//! A device's regions, with their capabilities.

use vfio_bindings::bindings::vfio::{self, vfio_region_info};

use crate::Argument;

/// Maximum length of the capabilities in [`RegionInfo`], in bytes.
const CAPABILITIES: usize = 512;

/// `struct vfio_region_info` with its capabilities.
#[repr(C)]
pub struct RegionInfo {
    info: vfio_region_info,
    capabilities: [u8; CAPABILITIES],
}

impl Argument for RegionInfo {
    fn stated_size(&self) -> usize {
        self.info.argsz as usize
    }
}

impl RegionInfo {
    /// Returns the argument of a request for the region `index`.
    pub fn of(index: u32) -> Self {
        Self {
            info: vfio_region_info {
                argsz: size_of::<Self>() as u32,
                index,
                ..Default::default()
            },
            capabilities: [0; CAPABILITIES],
        }
    }

    /// Returns the offset of the region in the device's file, and its size in bytes.
    pub fn place(&self) -> (u64, u64) {
        (self.info.offset, self.info.size)
    }

    /// Returns the ids of the capabilities.
    pub fn capabilities(&self) -> Vec<u32> {
        self.chain().map(|(id, _)| id).collect()
    }

    /// Returns the type and subtype of a device-specific region.
    pub fn kind(&self) -> Option<(u32, u32)> {
        // struct vfio_region_info_cap_type: header, type, subtype.
        let offset = self.find(vfio::VFIO_REGION_INFO_CAP_TYPE)?;

        Some((self.word(offset + 8)?, self.word(offset + 12)?))
    }

    /// Returns the offset and size of each mappable area, if the kernel lists areas
    /// (`VFIO_REGION_INFO_CAP_SPARSE_MMAP`).
    pub fn areas(&self) -> Option<Vec<(u64, u64)>> {
        // struct vfio_region_info_cap_sparse_mmap: header, number of areas, reserved; the areas.
        let offset = self.find(vfio::VFIO_REGION_INFO_CAP_SPARSE_MMAP)?;
        let long = |at| Some(u64::from(self.word(at)?) | (u64::from(self.word(at + 4)?) << 32));

        (0..self.word(offset + 8)? as usize)
            .map(|index| offset + 16 + 16 * index)
            .map(|area| Some((long(area)?, long(area + 8)?)))
            .collect()
    }

    fn find(&self, wanted: u32) -> Option<usize> {
        self.chain()
            .find_map(|(id, offset)| (id == wanted).then_some(offset))
    }

    /// Returns the id of each capability, and its offset from the start of the structure.
    fn chain(&self) -> impl Iterator<Item = (u32, usize)> + '_ {
        let mut offset = self.info.cap_offset as usize;

        // A longer chain is circular.
        (0..CAPABILITIES / size_of::<vfio::vfio_info_cap_header>()).map_while(move |_| {
            // struct vfio_info_cap_header: id and version, 16 bits each; offset of the next.
            let capability = (self.word(offset)? & 0xffff, offset);

            offset = self.word(offset + 4)? as usize;
            Some(capability)
        })
    }

    /// Returns the word at `offset` from the start of the structure.
    fn word(&self, offset: usize) -> Option<u32> {
        let at = offset.checked_sub(size_of::<vfio_region_info>())?;
        let bytes = self.capabilities.get(at..)?;

        Some(u32::from_ne_bytes(*bytes.first_chunk()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_type_capability_is_found_after_another() {
        let mut info = RegionInfo::of(9);
        let start = size_of::<vfio_region_info>() as u32;
        let words = [
            0x1_0001,
            start + 8,
            0x1_0000 | vfio::VFIO_REGION_INFO_CAP_TYPE,
            0,
            5,
            6,
        ];

        info.info.cap_offset = start;
        for (place, word) in info.capabilities.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&u32::to_ne_bytes(word));
        }
        assert_eq!(info.kind(), Some((5, 6)));
    }

    proptest! {
        #[test]
        fn the_search_of_arbitrary_capabilities_ends_without_panic(
            cap_offset: u32,
            near in 0..1024_u32,
            bytes: [u8; 32],
        ) {
            let mut info = RegionInfo::of(9);

            for chunk in info.capabilities.chunks_exact_mut(32) {
                chunk.copy_from_slice(&bytes);
            }
            for offset in [cap_offset, near] {
                info.info.cap_offset = offset;
                let _ = info.kind();
            }
        }
    }
}
