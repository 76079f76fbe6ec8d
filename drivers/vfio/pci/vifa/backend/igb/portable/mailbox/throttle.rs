// SPDX-License-Identifier: GPL-2.0

//! A rate limit on the interrupts that a guest causes in its physical function.
//!
//! `igb` serves all its functions in one interrupt, under one lock. A guest that interrupts it
//! continuously would delay its neighbours. The limit delays the guest instead.

use crate::backend::igb::portable::clock::Clock;

/// Maximum number of interrupts in a burst. The initialization of a driver causes some dozens.
pub(crate) const BURST: u64 = 256;

/// Interval after which a guest may cause another interrupt, in microseconds.
pub(crate) const INTERVAL: u64 = 5_000;

/// A bucket of [`BURST`] tokens, which gains one token per [`INTERVAL`].
pub(crate) struct Throttle {
    /// The time at which the bucket is full again.
    full_at: u64,
}

impl Throttle {
    /// Returns a full bucket.
    pub(crate) const fn new() -> Self {
        Self { full_at: 0 }
    }

    /// Takes a token. If there is none, sleeps until the next one, for at most one [`INTERVAL`].
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
