// SPDX-License-Identifier: GPL-2.0

//! Tests of the backend. [`physical`] models the other side of the mailbox.

mod cancel;
mod card;
mod exchange;
mod function;
mod mediation;
mod message;
mod physical;
mod queues;
mod records;
mod replay;
mod reset;
mod set;
mod statistics;
mod strategy;
mod throttle;
