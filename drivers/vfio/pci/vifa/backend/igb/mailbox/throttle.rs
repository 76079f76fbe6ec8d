// SPDX-License-Identifier: GPL-2.0

//! A limit on how often a guest interrupts its physical function.
//!
//! `igb` serves all its functions in one interrupt, under one lock. A guest that interrupts it
//! without end delays its neighbours; here it delays itself.

use crate::backend::igb::clock::Clock;

/// Interrupts that a guest may cause at once. A driver that sets up causes some dozens.
pub(crate) const BURST: u64 = 256;

/// Microseconds in which a guest may cause one more.
pub(crate) const INTERVAL: u64 = 5_000;

/// A bucket of [`BURST`] tokens, which gains one in each [`INTERVAL`].
pub(crate) struct Throttle {
    /// When the bucket is full again.
    full_at: u64,
}

impl Throttle {
    /// A full bucket.
    pub(crate) const fn new() -> Self {
        Self { full_at: 0 }
    }

    /// Takes a token; sleeps until there is one, for an [`INTERVAL`] at most.
    pub(crate) fn pass(&mut self, device: &mut impl Clock) {
        const EMPTY: u64 = BURST.saturating_mul(INTERVAL);

        let now = device.now();
        self.full_at = self.full_at.max(now).saturating_add(INTERVAL);
        let missing = self.full_at.saturating_sub(now).saturating_sub(EMPTY);
        if missing != 0 {
            device.sleep(missing.min(INTERVAL) as u32);
        }
    }
}
