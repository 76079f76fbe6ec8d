// SPDX-License-Identifier: GPL-2.0

//! Network traffic with predictable contents at both ends.
//!
//! The traffic during a migration shows whether a network adapter survives it. One end answers
//! ([`responder`]); the other requests, measures and evaluates ([`echo`], [`transfer`],
//! [`datagrams`], [`ping`]). A seed and an offset determine all data ([`pattern`]), so either end
//! detects and locates each wrong, missing, duplicate or misplaced byte.

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

/// The ports of a responder.
pub mod port {
    /// Echoes data over TCP and in datagrams; the port of the echo protocol.
    pub const ECHO: u16 = 7;
    /// Receives and sends known bytes.
    pub const TRANSFER: u16 = 5010;
    /// Answers datagrams to a group.
    pub const GROUP: u16 = 5011;
}
