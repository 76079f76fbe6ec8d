// SPDX-License-Identifier: GPL-2.0

//! Virtual functions of Intel's 82576 and I350.
//!
//! These cards have no support for migration. The backend stops, reads and writes their virtual
//! functions through the registers of the guest. It observes the guest's requests to the physical
//! function in the mailbox, and repeats them on the destination. The physical function is driven by
//! `igb`, which is unaware of this.
//!
//! The guest accesses page 0 of BAR 0, which contains the mailbox, only through this driver. It
//! accesses the pages with interrupts and queues directly.
//!
//! Lock order: `opened` of a [`Function`] is innermost. While it is held, the backend waits for
//! nothing that a reset may hold.

mod device;
mod hardware;
mod identity;
mod portable;
mod probe;
mod transfer;

pub(crate) use self::{
    device::Function,
    identity::{
        ID_82576,
        ID_I350, //
    }, //
};
