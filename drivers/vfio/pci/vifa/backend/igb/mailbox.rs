// SPDX-License-Identifier: GPL-2.0

//! The mailbox, through which a guest obtains from its physical function what it cannot take: an
//! address, VLANs, filters.
//!
//! What it obtained lives there, and cannot be read. It is learned from what passes through the
//! mailbox on the source, and asked for again on the destination.

pub(crate) mod configuration;
pub(crate) mod exchange;
pub(crate) mod message;
pub(crate) mod replay;
pub(crate) mod set;
pub(crate) mod shadow;
pub(crate) mod statistics;
pub(crate) mod throttle;
