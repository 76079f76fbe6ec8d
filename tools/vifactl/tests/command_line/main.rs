// SPDX-License-Identifier: GPL-2.0

//! Tests of the command line on fake hosts made of files.

mod binding;
mod check;
mod decode;
mod host;
mod list;
mod restore;
mod save;
mod save_set;
mod show;
mod usage;
mod watch;
