// SPDX-License-Identifier: GPL-2.0

//! A test bed for the QEMU model of the VIFA reference device.
//!
//! The driver's tests access the device through the driver, and a guest's tests through the guest's
//! driver. This test bed uses neither: QEMU runs without a processor, under its qtest protocol, and
//! a test accesses registers, configuration space and memory, and steps the clock. Thus a test can
//! stop a command halfway, always at the same point, and check states that no driver can see.
//!
//! `$VIFA_QEMU` is the path of the QEMU with the device.

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
