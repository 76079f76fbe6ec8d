// SPDX-License-Identifier: GPL-2.0

//! What is tested of the backend: [`physical`] is the other side of the mailbox.

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
