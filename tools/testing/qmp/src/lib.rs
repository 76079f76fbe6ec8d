// SPDX-License-Identifier: GPL-2.0

//! Starts a QEMU ([`Qemu`]), controls it over QMP ([`Qmp`]), and reads the serial console of its
//! machine ([`Transcript`]). The user selects the machine and interprets its output.

mod client;
mod console;
mod process;

pub use client::{Event, Qmp};
pub use console::{Line, Output, Transcript};
pub use process::Qemu;
