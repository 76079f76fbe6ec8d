// SPDX-License-Identifier: GPL-2.0

//! The ioctl requests of `include/uapi/linux/vfio.h` that the command uses, each with the type of
//! its argument.

use std::ffi::c_ulong;

use vfio_bindings::bindings::vfio::{
    self, vfio_device_bind_iommufd, vfio_device_info, vfio_region_info,
};

use crate::sys::{Argument, NumberRequest, OpenRequest, Request};

/// `_IO(VFIO_TYPE, VFIO_BASE + number)`
const fn io(number: u32) -> c_ulong {
    ((vfio::VFIO_TYPE as c_ulong) << 8) | (vfio::VFIO_BASE + number) as c_ulong
}

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident: $argument:ty = $number:expr;)*) => {
        $(
            $(#[$doc])*
            // SAFETY: The header gives this number to a request with this argument, a structure of
            // integers, whose size its own field states.
            pub(super) const $name: Request<$argument> = unsafe { Request::new(io($number)) };
        )*
    };
}

requests! {
    /// `VFIO_DEVICE_GET_INFO`
    DEVICE_GET_INFO: vfio_device_info = 7;
    /// `VFIO_DEVICE_GET_REGION_INFO`, with room for capabilities
    DEVICE_GET_REGION_INFO: RegionInfo = 8;
    /// `VFIO_DEVICE_BIND_IOMMUFD`
    DEVICE_BIND_IOMMUFD: vfio_device_bind_iommufd = 18;
}

/// `VFIO_DEVICE_FEATURE`, whatever the feature's data is.
pub(super) const fn device_feature<T: FeatureData>() -> Request<Feature<T>> {
    // SAFETY: The handler accesses no more than the argument's `argsz` bytes, and `T` is one of the
    // structures below, which consist of integers.
    unsafe { Request::new(io(17)) }
}

/// `VFIO_SET_IOMMU`: the number of an IOMMU type
// SAFETY: The header gives this number to a request whose argument is a number.
pub(super) const SET_IOMMU: NumberRequest = unsafe { NumberRequest::new(io(2)) };

/// `VFIO_DEVICE_RESET`: ignores its argument
// SAFETY: The header gives this number to a request without an argument.
pub(super) const DEVICE_RESET: NumberRequest = unsafe { NumberRequest::new(io(11)) };

/// `VFIO_GROUP_SET_CONTAINER`: the address of a descriptor
// SAFETY: The header gives this number to a request that reads one int.
pub(super) const GROUP_SET_CONTAINER: Request<Descriptor> = unsafe { Request::new(io(4)) };

/// `VFIO_GROUP_GET_DEVICE_FD`: the name of a device
// SAFETY: The header gives this number to a request that reads a string and returns a new descriptor.
pub(super) const GROUP_GET_DEVICE_FD: OpenRequest = unsafe { OpenRequest::new(io(6)) };

macro_rules! sized_by_argsz {
    ($($argument:ty),* $(,)?) => {
        $(
            impl Argument for $argument {
                fn stated_size(&self) -> usize {
                    self.argsz as usize
                }
            }
        )*
    };
}

sized_by_argsz!(vfio_device_info, vfio_device_bind_iommufd);

/// A descriptor.
#[repr(C)]
pub(super) struct Descriptor(pub(super) i32);

impl Argument for Descriptor {
    fn stated_size(&self) -> usize {
        size_of::<Self>()
    }
}

/// The data of a feature.
pub(super) trait FeatureData: Default {}

impl FeatureData for vfio::vfio_device_feature_mig_state {}
impl FeatureData for vfio::vfio_device_feature_mig_data_size {}

/// `struct vfio_device_feature` with its data.
#[derive(Default)]
#[repr(C)]
pub(super) struct Feature<T> {
    argsz: u32,
    flags: u32,
    pub(super) data: T,
}

impl<T: FeatureData> Feature<T> {
    /// A request to read the feature `number`.
    pub(super) fn get(number: u32) -> Self {
        Self {
            argsz: size_of::<Self>() as u32,
            flags: vfio::VFIO_DEVICE_FEATURE_GET | number,
            data: T::default(),
        }
    }

    /// A request to set the feature `number` to `data`.
    pub(super) fn set(number: u32, data: T) -> Self {
        Self {
            argsz: size_of::<Self>() as u32,
            flags: vfio::VFIO_DEVICE_FEATURE_SET | number,
            data,
        }
    }
}

impl<T> Argument for Feature<T> {
    fn stated_size(&self) -> usize {
        self.argsz as usize
    }
}

/// Bytes of capabilities that [`RegionInfo`] has room for.
const CAPABILITIES: usize = 512;

/// `struct vfio_region_info` with its capabilities.
#[repr(C)]
pub(super) struct RegionInfo {
    info: vfio_region_info,
    capabilities: [u8; CAPABILITIES],
}

impl Argument for RegionInfo {
    fn stated_size(&self) -> usize {
        self.info.argsz as usize
    }
}

impl RegionInfo {
    /// A request for the region `index`.
    pub(super) fn of(index: u32) -> Self {
        Self {
            info: vfio_region_info {
                argsz: size_of::<Self>() as u32,
                index,
                ..Default::default()
            },
            capabilities: [0; CAPABILITIES],
        }
    }

    /// Where the region starts in the device's file, and how many bytes it has.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.info.offset, self.info.size)
    }

    /// Type and subtype of a device-specific region.
    pub(super) fn kind(&self) -> Option<(u32, u32)> {
        let mut offset = self.info.cap_offset as usize;

        // A chain longer than this goes in a circle.
        for _ in 0..CAPABILITIES / size_of::<vfio::vfio_info_cap_header>() {
            let header = offset;

            // struct vfio_info_cap_header: id and version, 16 bits each; offset of the next.
            if self.word(header)? & 0xffff == vfio::VFIO_REGION_INFO_CAP_TYPE {
                return Some((self.word(header + 8)?, self.word(header + 12)?));
            }
            offset = self.word(header + 4)? as usize;
        }
        None
    }

    /// The word at `offset` from the start of the structure.
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
    fn the_type_capability_is_found_behind_another() {
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
        fn no_capabilities_make_the_search_panic_or_endless(
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
