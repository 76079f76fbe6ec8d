// SPDX-License-Identifier: GPL-2.0

//! A VFIO device as a VMM holds it: its address space, its regions, its interrupts and features.

mod address_space;
mod device;
mod feature;
mod logging;
pub mod request;

pub use address_space::{AddressSpace, DmaMemory};
pub use device::{Device, Interrupt};
pub use feature::{Feature, Operation};
pub use logging::{DirtyBitmap, IovaRange, Place, Start};
