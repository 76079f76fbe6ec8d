// SPDX-License-Identifier: GPL-2.0

//! The backend for virtual functions of the 82576 and of the I350, built for tests on the host.
//!
//! These are the files of the driver that access neither the kernel nor a device: the observation
//! of a guest's mailbox, the replay of its requests, stopping and resuming of a function, and the
//! records of the control plane. The tests connect them to models of a physical function with the
//! rules of `igb`, and of the card's registers.

// Only the tests use the backend here, and they do not use the whole layer.
#![allow(dead_code, unused_imports, unused_macros)]
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

#[path = "../../../../drivers/vfio/pci/vifa"]
mod driver {
    pub(crate) mod backend {
        pub(crate) mod igb {
            pub(crate) mod clock;
            pub(crate) mod fault;
            pub(crate) mod frozen;
            pub(crate) mod interrupts;
            pub(crate) mod mailbox;
            pub(crate) mod queues;
            pub(crate) mod records;
            pub(crate) mod registers;
            pub(crate) mod state;
        }
    }
}

use driver::backend;
use vifa_layer::{layer, seam};
