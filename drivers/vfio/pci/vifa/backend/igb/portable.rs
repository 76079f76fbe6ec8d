// SPDX-License-Identifier: GPL-2.0

//! The rules of the backend: stopping and resuming a function, the observation of its mailbox, the
//! replay of its requests, and the records of its control plane.
//!
//! These modules reach a device only through [`access::Access`] and [`clock::Clock`], and call
//! neither the kernel nor `vfio`. Besides `core`, they use the VIFA layer and its seam. The same
//! files are therefore compiled for the kernel and for the host, where `tools/testing/igb` tests
//! them.

pub(crate) mod access;
pub(crate) mod clock;
pub(crate) mod fault;
pub(crate) mod frozen;
pub(crate) mod interrupts;
pub(crate) mod mailbox;
pub(crate) mod queues;
pub(crate) mod records;
pub(crate) mod registers;
pub(crate) mod saved;
pub(crate) mod state;
