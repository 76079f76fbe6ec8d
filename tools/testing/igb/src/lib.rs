// SPDX-License-Identifier: GPL-2.0

//! The portable part of the backend for virtual functions of the 82576 and of the I350, built for
//! tests on the host.
//!
//! The files are those of the driver that call neither the kernel nor a device: the observation of
//! a guest's mailbox, the replay of its requests, stopping and resuming of a function, and the
//! records of the control plane. The tests connect them to models of a physical function with the
//! rules of `igb`, and of the card's registers. Without tests, this crate is empty.

#![cfg(test)]
#![forbid(unsafe_code)]

#[path = "../../../../drivers/vfio/pci/vifa/backend"]
mod backend {
    pub(crate) mod igb {
        pub(crate) mod portable;
    }
}
mod tests;

use vifa_layer::{layer, seam};
