// SPDX-License-Identifier: GPL-2.0

//! The mailbox, through which a guest requests resources from its physical function: an address,
//! VLANs, filters.
//!
//! The physical function stores the granted resources, and a virtual function cannot read them. The
//! backend observes the messages in the mailbox on the source, and repeats the requests on the
//! destination.

pub(crate) mod configuration;
pub(crate) mod exchange;
pub(crate) mod message;
pub(crate) mod replay;
pub(crate) mod set;
pub(crate) mod shadow;
pub(crate) mod statistics;
pub(crate) mod throttle;
