// SPDX-License-Identifier: GPL-2.0

//! The VIFA layer: the device-independent part of the driver.
//!
//! It knows what a migratable virtual function is ([`identity`]), who sends to whom ([`relation`]),
//! how a function's state stands in the migration stream ([`stream`]) as control plane ([`records`])
//! and as data plane ([`address`]), how a stream is made ([`save`]) and taken in ([`restore`]), how
//! far that has come ([`progress`]), and which arcs of the VFIO state machine are single steps
//! ([`state`]). It calls neither the kernel nor a device. The same files are therefore compiled for
//! the host, where they are tested, and for the kernel.
//!
//! Bytes that come from a stream or from a device are believed only after they were checked. No
//! input makes the layer panic, recurse, or allocate more than the destination's own
//! [`Identity::control_plane_max`](identity::Identity::control_plane_max) and one part of the
//! address record file ([`address::LENGTH_MAX`]).
//!
//! # The seam
//!
//! Besides `core`, the layer uses what the surrounding crate provides as `crate::seam`:
//!
//! ```ignore
//! /// A buffer of bytes that grows fallibly; dereferences to `[u8]`.
//! pub struct Bytes;
//!
//! impl Bytes {
//!     /// Makes an empty buffer with room for `capacity` bytes.
//!     pub fn with_capacity(capacity: usize) -> Result<Bytes, OutOfMemory>;
//!
//!     /// Sets the length to `length`; bytes that are new are zero.
//!     pub fn resize_zeroed(&mut self, length: usize) -> Result<(), OutOfMemory>;
//! }
//!
//! /// There was no memory; [`core::fmt::Display`] says so.
//! #[derive(Clone, Copy, Debug, PartialEq, Eq)]
//! pub struct OutOfMemory;
//!
//! /// Feeds `bytes` into a CRC-32C whose register holds `seed`, and returns the register.
//! ///
//! /// This is `crc32c()` of `<linux/crc32.h>`: reflected, polynomial 0x1edc6f41, with no inversion
//! /// before or after. [`stream::Checksum`] inverts.
//! pub fn crc32c(seed: u32, bytes: &[u8]) -> u32;
//! ```

#![forbid(unsafe_code)]
// In user space the layer is a crate of its own.
#![allow(unreachable_pub)]

pub mod address;
pub mod check;
pub mod granules;
pub mod identity;
pub mod interface;
pub mod log;
pub mod progress;
pub mod records;
pub mod relation;
pub mod restore;
pub mod save;
pub mod state;
pub mod stream;
#[cfg(any(test, CONFIG_KUNIT = "y"))]
pub mod tests;
