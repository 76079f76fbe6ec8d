// SPDX-License-Identifier: GPL-2.0

//! The command as a user runs it, on hosts made of files.

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
