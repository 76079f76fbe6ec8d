// SPDX-License-Identifier: GPL-2.0

//! VFIO from user space, for administration and test programs.
//!
//! [`request`] defines the ioctl requests of `include/uapi/linux/vfio.h` and `iommufd.h`, each with
//! the type of its argument. [`ioctl`] executes them safely. [`Feature`] and [`RegionInfo`] are
//! arguments that contain other structures. [`Mapping`] is memory that a device may change at any
//! time. [`pci`] has the functions in sysfs. [`Capability`] is the VIFA capability of a physical
//! function. [`wait_for`] repeats a check until it holds.

mod capability;
mod feature;
mod interrupt;
mod ioctl;
mod iova;
mod mapping;
mod open;
pub mod pci;
mod process;
mod region;
pub mod request;
mod wait;

pub use capability::Capability;
pub use feature::{set_migration_state, Feature, Operation};
pub use interrupt::{Interrupt, InterruptSet};
pub use ioctl::{
    adopt, ioctl, ioctl_number, ioctl_open, while_resetting, Argument, Descriptor, NumberRequest,
    OpenRequest, Request,
};
pub use iova::IovaRange;
pub use mapping::Mapping;
pub use open::{bind_iommufd, open_in_group};
pub use process::duplicate_descriptor;
pub use region::RegionInfo;
pub use wait::wait_for;
