// SPDX-License-Identifier: GPL-2.0

//! The ioctl requests of `include/uapi/linux/vfio.h` and `iommufd.h`, each with the type of its
//! argument.

use std::ffi::c_ulong;

use iommufd_bindings::iommufd::{iommu_ioas_alloc, iommu_ioas_map, iommu_ioas_unmap};
use vfio_bindings::bindings::vfio::{
    vfio_device_attach_iommufd_pt, vfio_device_bind_iommufd, vfio_device_info,
    vfio_device_ioeventfd, vfio_iommu_type1_dma_map, vfio_iommu_type1_dma_unmap, vfio_irq_info,
    vfio_precopy_info, vfio_region_info,
};

use crate::{
    Argument, Descriptor, Feature, InterruptSet, NumberRequest, OpenRequest, RegionInfo, Request,
};

/// Returns `_IO(';', number)`, the encoding of both interfaces, which contains no size.
const fn io(number: c_ulong) -> c_ulong {
    ((b';' as c_ulong) << 8) | number
}

macro_rules! sized_by {
    ($field:ident: $($type:ty),*) => {
        $(
            impl Argument for $type {
                fn stated_size(&self) -> usize {
                    self.$field as usize
                }
            }
        )*
    };
}

sized_by!(argsz: vfio_device_info, vfio_region_info, vfio_irq_info, vfio_device_bind_iommufd,
    vfio_device_attach_iommufd_pt, vfio_iommu_type1_dma_map, vfio_iommu_type1_dma_unmap,
    vfio_precopy_info, vfio_device_ioeventfd);
sized_by!(size: iommu_ioas_alloc, iommu_ioas_map, iommu_ioas_unmap);

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $number:expr;)*) => {
        $(
            $(#[$doc])*
            // SAFETY: The header assigns this number to a request with this argument. A field of
            // the argument states its size.
            pub const $name: Request<$type> = unsafe { Request::new(io($number)) };
        )*
    };
}

requests! {
    /// `VFIO_DEVICE_GET_INFO`
    DEVICE_GET_INFO: vfio_device_info = 107;
    /// `VFIO_DEVICE_GET_REGION_INFO`
    DEVICE_GET_REGION_INFO: vfio_region_info = 108;
    /// `VFIO_DEVICE_GET_REGION_INFO`, with room for capabilities
    DEVICE_GET_REGION_CAPABILITIES: RegionInfo = 108;
    /// `VFIO_DEVICE_GET_IRQ_INFO`
    DEVICE_GET_IRQ_INFO: vfio_irq_info = 109;
    /// `VFIO_DEVICE_SET_IRQS`, with one descriptor
    DEVICE_SET_IRQS: InterruptSet = 110;
    /// `VFIO_DEVICE_IOEVENTFD`
    DEVICE_IOEVENTFD: vfio_device_ioeventfd = 116;
    /// `VFIO_DEVICE_BIND_IOMMUFD`
    DEVICE_BIND_IOMMUFD: vfio_device_bind_iommufd = 118;
    /// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`
    DEVICE_ATTACH_IOMMUFD_PT: vfio_device_attach_iommufd_pt = 119;
    /// `VFIO_IOMMU_MAP_DMA`
    IOMMU_MAP_DMA: vfio_iommu_type1_dma_map = 113;
    /// `VFIO_IOMMU_UNMAP_DMA`
    IOMMU_UNMAP_DMA: vfio_iommu_type1_dma_unmap = 114;
    /// `VFIO_MIG_GET_PRECOPY_INFO`
    MIG_GET_PRECOPY_INFO: vfio_precopy_info = 121;
    /// `IOMMU_IOAS_ALLOC`
    IOAS_ALLOC: iommu_ioas_alloc = 0x81;
    /// `IOMMU_IOAS_MAP`
    IOAS_MAP: iommu_ioas_map = 0x85;
    /// `IOMMU_IOAS_UNMAP`
    IOAS_UNMAP: iommu_ioas_unmap = 0x86;
}

/// Returns `VFIO_DEVICE_FEATURE` for a feature with data of the type `T`.
pub const fn device_feature<T>() -> Request<Feature<T>> {
    // SAFETY: The handler accesses at most the argument's `argsz` bytes.
    unsafe { Request::new(io(117)) }
}

/// `VFIO_SET_IOMMU`: the argument is the number of an IOMMU type
// SAFETY: The header assigns this number to a request with a number as its argument.
pub const SET_IOMMU: NumberRequest = unsafe { NumberRequest::new(io(102)) };

/// `VFIO_DEVICE_RESET`: the argument is ignored
// SAFETY: The header assigns this number to a request without an argument.
pub const DEVICE_RESET: NumberRequest = unsafe { NumberRequest::new(io(111)) };

/// `VFIO_GROUP_SET_CONTAINER`: the argument is the address of a descriptor
// SAFETY: The header assigns this number to a request that reads one int.
pub const GROUP_SET_CONTAINER: Request<Descriptor> = unsafe { Request::new(io(104)) };

/// `VFIO_GROUP_GET_DEVICE_FD`: the argument is the name of a device
// SAFETY: The header assigns this number to a request that reads a string and returns a new
// descriptor.
pub const GROUP_GET_DEVICE_FD: OpenRequest = unsafe { OpenRequest::new(io(106)) };
