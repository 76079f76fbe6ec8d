// SPDX-License-Identifier: GPL-2.0

//! The command as a user runs it, on hosts made of files.

mod binding;
mod check;
mod host;
mod list;
mod show;
mod usage;
mod watch;
