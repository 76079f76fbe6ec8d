// SPDX-License-Identifier: GPL-2.0

//! The receiver: takes a stream into a stopped device.
//!
//! A stream comes in pieces of any size. [`Restorer`] returns where the next bytes belong, and takes
//! them when they are there. Identity and relationships are verified before anything else is
//! accepted. Local memory goes to the device run by run, each after its checksum was verified; the
//! control plane goes to the device when the whole stream was found to be valid.
//!
//! Part of a control plane may have to be obtained from the destination's host, which can refuse it.
//! It refuses while the source still exists: claims are tried as they come, and everything is
//! obtained with the last byte of the stream. What is left for the end of the transfer is between
//! the device and its records.

mod destination;
mod error;
mod payload;
mod phase;
mod restorer;
mod section;

pub use destination::Destination;
pub use error::{
    Class,
    Place,
    RestoreError, //
};
pub use restorer::Restorer;
