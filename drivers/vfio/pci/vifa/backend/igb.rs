// SPDX-License-Identifier: GPL-2.0

//! Virtual functions of Intel's 82576 and I350.
//!
//! These cards have nothing for migration. Their virtual functions are stopped, read and written
//! through the registers that their guests have; what a guest obtained from its physical function
//! through the mailbox is learned on its way, and asked for again on the destination. The physical
//! function is driven by `igb`, which knows nothing of this.
//!
//! The guest reaches page 0 of BAR 0, where the mailbox is, through this driver only. The pages with
//! interrupts and queues are its own.
//!
//! Lock order: `inner` of a [`Function`] is innermost. Nothing that a reset may hold is waited for
//! under it.

mod clock;
mod device;
mod fault;
mod frozen;
mod hardware;
mod identity;
mod interrupts;
mod mailbox;
mod probe;
mod queues;
mod records;
mod registers;
mod state;
mod transfer;

pub(crate) use self::{
    device::Function,
    identity::{
        ID_82576,
        ID_I350, //
    }, //
};
