// SPDX-License-Identifier: GPL-2.0

//! VFIO from user space, for programs that administer devices and for those that test them.
//!
//! [`request`] has the ioctl requests of `include/uapi/linux/vfio.h` and `iommufd.h`, each with the
//! type of its argument; with [`ioctl`] a call is safe. [`Feature`] and [`RegionInfo`] are the
//! arguments that carry other structures. [`Mapping`] is memory that a device may change at any time.
//! [`Capability`] is found in the configuration space of a physical function.

mod capability;
mod feature;
mod interrupt;
mod ioctl;
mod mapping;
mod process;
mod region;
pub mod request;

pub use capability::Capability;
pub use feature::{Feature, Operation};
pub use interrupt::{Interrupt, InterruptSet};
pub use ioctl::{
    adopt, ioctl, ioctl_number, ioctl_open, while_resetting, Argument, Descriptor, NumberRequest,
    OpenRequest, Request,
};
pub use mapping::Mapping;
pub use process::duplicate_descriptor;
pub use region::RegionInfo;
