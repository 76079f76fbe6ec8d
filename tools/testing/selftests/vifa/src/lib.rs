// SPDX-License-Identifier: GPL-2.0

//! Tests of the VIFA driver against the reference device, through VFIO's user API.
//!
//! Each test of [`tests`] proves one claim. The modules below the tests, from VFIO's ioctls to the
//! guest's part of the reference device, are public for other programs that use the same devices.

pub mod bed;
pub mod engine;
pub mod expect;
pub mod igb;
pub mod injection;
pub mod kmsg;
pub mod migration;
pub mod module;
pub mod process;
pub mod region;
pub mod sys;
pub mod tests;
pub mod tracefs;
pub mod vfio;
pub mod vifactl;

pub use vifa_headers as hw;
pub use vifa_streams as stream;
