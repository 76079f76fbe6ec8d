// SPDX-License-Identifier: GPL-2.0

//! A VFIO device as used by a VMM: address space, regions, interrupts and features.

mod address_space;
mod device;
mod feature;
mod logging;

pub use address_space::{AddressSpace, DmaMemory};
pub use device::Device;
pub use logging::{DirtyBitmap, Place, Start};
pub use vifa_vfio::{request, Feature, Interrupt, IovaRange, Operation};
