// SPDX-License-Identifier: GPL-2.0

//! The backend for virtual functions of the 82576 and of the I350, built for the host to be tested
//! there.
//!
//! These are the driver's own files, those that touch neither the kernel nor a device: what is
//! learned from a guest's mailbox, how it is asked for again, how a function is stopped and goes
//! on, and the records of the control plane. The tests put a physical function behind them that
//! keeps `igb`'s rules, and registers that keep the card's.

// Nothing but the tests uses the backend here, and they do not use all of the layer.
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
