// SPDX-License-Identifier: GPL-2.0

//! The administrator's command for VIFA interfaces.
//!
//! Each sub-command is a module with an `Arguments` structure, which is its command line, and a
//! `run` function; [`cli`] combines them. The common modules are: [`host`] has the PCI functions,
//! and the paths of debugfs, procfs and devices; [`device`] opens or shares a VFIO device;
//! [`region`] and [`identity`] decode the state of a VIFA interface; [`output`] prints a result as
//! a table or as JSON; [`exit`] maps errors to exit codes.
//!
//! The rules of streams, identities and states are the driver's ([`vifa_layer`]).

pub mod decode;
pub mod exit;
pub mod host;
pub mod output;
pub mod save_set;

mod bind;
mod check;
mod cli;
mod completions;
mod context;
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
