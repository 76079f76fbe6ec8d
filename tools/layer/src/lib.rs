// SPDX-License-Identifier: GPL-2.0

//! The VIFA layer of the kernel driver, for user space.
//!
//! The files are the driver's own: `vifactl`, the fuzz targets and the tests of the backends use the
//! rules that the driver uses. [`seam`] gives them what the kernel gives them there. The tests of
//! this crate go further than the kernel's own can.

#![forbid(unsafe_code)]

pub mod seam;
#[cfg(test)]
mod tests;

#[path = "../../../drivers/vfio/pci/vifa"]
mod driver {
    #[cfg(test)]
    pub(crate) mod checksum;
    pub mod layer;
}

pub use driver::layer;

#[cfg(any(test, CONFIG_KUNIT = "y"))]
layer::tests::suite!(cfg(test));
