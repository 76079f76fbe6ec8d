// SPDX-License-Identifier: GPL-2.0

//! The receiver: restores a stream to a stopped device.
//!
//! A stream arrives in pieces of any size. [`Restorer`] returns the space for the next bytes, and
//! processes them once the caller has filled it. It verifies identity and relationships before it
//! accepts anything else. It writes local memory to the device run by run, each after its checksum
//! was verified. It writes the control plane to the device once the whole stream is valid.
//!
//! Part of a control plane may have to be obtained from the destination's host, which can refuse
//! it. It refuses while the source still exists: claims are tried as they arrive, and everything is
//! obtained with the last byte of the stream. The end of the transfer then involves only the device
//! and its records.

mod destination;
mod error;
mod payload;
mod phase;
mod restorer;
mod section;

pub use destination::{
    Destination,
    LocalDestination, //
};
pub use error::{
    Class,
    Place,
    RestoreError, //
};
pub use restorer::Restorer;
