// SPDX-License-Identifier: GPL-2.0

//! The VIFA layer of the kernel driver, built for the host to be tested there.
//!
//! The layer's files are the driver's own. This crate gives them a [`seam`] of the host's and tests
//! them harder than a kernel can.

// Nothing but the tests uses the layer here.
#![cfg_attr(not(test), allow(dead_code, unused_imports))]

mod seam;
#[cfg(test)]
mod tests;

#[path = "../../../../drivers/vfio/pci/vifa"]
mod driver {
    pub(crate) mod checksum;
    pub(crate) mod layer;
}

#[cfg(test)]
use driver::layer;

#[cfg(test)]
layer::tests::suite!(cfg(test));
