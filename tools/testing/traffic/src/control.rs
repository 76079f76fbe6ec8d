// SPDX-License-Identifier: GPL-2.0

//! How the starter of traffic that runs in a thread ends it, and sees that it makes progress.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long traffic that has stopped sending waits, at least, for the next answer. An emulated
/// machine on a busy one can pause for many seconds. Only a lost last answer takes this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Shared between traffic and its starter.
#[derive(Debug)]
pub struct Control {
    stop: AtomicBool,
    arrivals: AtomicU64,
    patience: Duration,
}

impl Default for Control {
    fn default() -> Self {
        Self::with_patience(PATIENCE)
    }
}

impl Control {
    /// For a peer that pauses for `patience` at most.
    pub fn with_patience(patience: Duration) -> Self {
        Self {
            stop: AtomicBool::new(false),
            arrivals: AtomicU64::new(0),
            patience,
        }
    }

    /// Stops the traffic: it sends no more, and ends when the last answer has arrived.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Returns whether the traffic is to send no more.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Counts something that arrived as expected.
    pub fn arrival(&self) {
        self.arrivals.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how often something arrived.
    pub fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::Relaxed)
    }

    /// Returns how long a silent peer is waited for, at least.
    pub fn patience(&self) -> Duration {
        self.patience
    }
}
