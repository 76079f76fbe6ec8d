// SPDX-License-Identifier: GPL-2.0

//! Network traffic of which each byte is known, and both of its ends.
//!
//! Whether a network adapter survives a migration shows in what passes through it meanwhile. One end
//! answers ([`responder`]); the other asks, measures and judges ([`echo`], [`transfer`],
//! [`datagrams`], [`ping`]). What is sent follows from a seed and its place ([`pattern`]), so either
//! end finds any byte that is wrong, missing, doubled or elsewhere, and says where.

pub mod control;
pub mod datagrams;
pub mod echo;
pub mod gap;
pub mod iperf;
pub mod pattern;
pub mod ping;
pub mod responder;
pub mod room;
pub mod transfer;

/// Where a responder listens.
pub mod port {
    /// Sends back what comes, over TCP and in datagrams; the protocol's own number.
    pub const ECHO: u16 = 7;
    /// Takes and gives known bytes.
    pub const TRANSFER: u16 = 5010;
    /// Answers datagrams to a group.
    pub const GROUP: u16 = 5011;
}
