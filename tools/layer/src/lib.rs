// SPDX-License-Identifier: GPL-2.0

//! The VIFA layer of the kernel driver, for user space.
//!
//! The files are those of the driver, so that `vifactl`, the fuzz targets and the tests of the
//! backends use the driver's rules. [`seam`] replaces the kernel. The tests of this crate cover
//! more than the kernel's own tests.

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
