// SPDX-License-Identifier: GPL-2.0

//! The VIFA layer: the device-independent part of the driver.
//!
//! It defines the identity of a migratable virtual function ([`identity`]), the transfer
//! relationships ([`relation`]), and the migration stream ([`stream`]) with its control plane
//! ([`records`]) and its data plane ([`address`]). It writes streams ([`save`]), reads them
//! ([`restore`]), accounts for a transfer ([`progress`]), and lists the single steps of the VFIO
//! state machine ([`state`]). It calls neither the kernel nor a device. The same files are
//! therefore compiled for the kernel and for the host, where they are tested.
//!
//! The layer checks all bytes from a stream or a device before it uses them. No input makes the
//! layer panic, recurse, or allocate more than the destination's own
//! [`Identity::control_plane_max`](identity::Identity::control_plane_max) and one part of the
//! address record file ([`address::LENGTH_MAX`]).
//!
//! # The seam
//!
//! Besides `core`, the layer uses these items, which the surrounding crate provides as
//! `crate::seam`:
//!
//! ```ignore
//! /// A byte buffer with fallible growth. It dereferences to `[u8]`.
//! pub struct Bytes;
//!
//! impl Bytes {
//!     /// Creates an empty buffer with room for `capacity` bytes.
//!     pub fn with_capacity(capacity: usize) -> Result<Bytes, OutOfMemory>;
//!
//!     /// Sets the length to `length`. New bytes are zero.
//!     pub fn resize_zeroed(&mut self, length: usize) -> Result<(), OutOfMemory>;
//! }
//!
//! /// The error of a failed allocation.
//! #[derive(Clone, Copy, Debug, PartialEq, Eq)]
//! pub struct OutOfMemory;
//!
//! /// Feeds `bytes` into a CRC-32C whose register holds `seed`, and returns the register.
//! ///
//! /// This is `crc32c()` of `<linux/crc32.h>`: reflected, polynomial 0x1edc6f41, no inversion
//! /// before or after. [`stream::Checksum`] inverts.
//! pub fn crc32c(seed: u32, bytes: &[u8]) -> u32;
//! ```

#![forbid(unsafe_code)]
// In user space the layer is a separate crate.
#![allow(unreachable_pub)]

pub mod address;
pub mod check;
pub mod granules;
pub mod identity;
pub mod interface;
pub mod local;
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
