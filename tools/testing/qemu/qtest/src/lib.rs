// SPDX-License-Identifier: GPL-2.0

//! A test bed for the QEMU model of the VIFA reference device.
//!
//! The driver's tests see the device through the driver, and a guest's through the guest's driver.
//! Here is neither: QEMU runs without a processor, under its qtest protocol, and a test is what
//! reads and writes registers, configuration space and memory, and what moves the clock. Thus a
//! test can stop a command half way, always at the same point, and see what nobody else sees.
//!
//! `$VIFA_QEMU` names the QEMU that has the device.

mod bed;
mod engine;
mod log;
mod mailbox;
mod pci;
mod qtest;
mod random;
mod records;

pub use bed::{Bed, Vector, RESET_WORD};
pub use crc32c::crc32c;
pub use engine::{scattered, Command, Completion, Engine};
pub use log::Mark;
pub use mailbox::{Answer, Buffer, Frame};
pub use pci::{EXTENDED_ERRORS, EXTENDED_SRIOV};
pub use qtest::Qtest;
pub use random::Random;
pub use records::Records;
pub use vifa_headers as hw;
