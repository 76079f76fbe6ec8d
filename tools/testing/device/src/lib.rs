// SPDX-License-Identifier: GPL-2.0

//! Direct access to the reference device's registers, bypassing the driver, for test programs.
//!
//! [`RegisterFile`] maps the register file of a physical function. It arms a [`Fault`] for a
//! command ([`opcode`]), makes the device report errors, and changes its capability and limits
//! (`include/linux/vifa_fault.h`).

mod fault;
pub mod opcode;
mod register_file;

use vifa_headers as hw;

pub use fault::{Fault, Marks, Slot};
pub use opcode::Opcode;
pub use register_file::{
    capability, is_ready_at_once, Armed, ChangedCapability, Gone, RegisterFile, Reporter,
    UncorrectableError, FATAL, NON_FATAL,
};
