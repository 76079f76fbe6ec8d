// SPDX-License-Identifier: GPL-2.0

//! The administrator's command for VIFA interfaces.
//!
//! Each sub-command is a module with an `Arguments` structure, which is its command line, and a
//! `run` function ([`cli`] puts them together). What they stand on: [`host`] says where sysfs,
//! debugfs, procfs and the devices are; [`function`] reads PCI functions there; [`device`] reaches a
//! VFIO device, whoever has it open; [`region`] and [`identity`] are what a VIFA interface tells of
//! itself; [`output`] prints a result as a table or as JSON; [`exit`] gives an error its exit code.
//!
//! The rules of the stream, of identities and of states are the driver's own ([`vifa_layer`]).

pub mod decode;
pub mod exit;
pub mod function;
pub mod host;
pub mod output;
pub mod save_set;

mod bind;
mod check;
mod cli;
mod completions;
mod device;
mod guide;
mod identity;
mod interface;
mod interrupt;
mod list;
mod man;
mod migratable;
mod place;
mod progress;
mod region;
mod restore;
mod save;
mod show;
mod state;
mod stream_file;
mod verdict;
mod watch;

use vifa_headers as headers;
use vifa_layer::layer;

pub use cli::main;
