// SPDX-License-Identifier: GPL-2.0

//! Control of traffic that runs in a thread: stop and progress.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

/// Minimum time for which stopped traffic waits for the next answer. An emulated machine on a busy
/// host can pause for many seconds. Only the loss of the last answer takes this long.
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
    /// Returns a control for a peer that pauses for `patience` at most.
    pub fn with_patience(patience: Duration) -> Self {
        Self {
            stop: AtomicBool::new(false),
            arrivals: AtomicU64::new(0),
            patience,
        }
    }

    /// Stops the traffic: it sends nothing more, and ends after the last answer has arrived.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Returns whether the traffic shall stop sending.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Counts an arrival of expected data.
    pub fn arrival(&self) {
        self.arrivals.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of arrivals.
    pub fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::Relaxed)
    }

    /// Returns the minimum time to wait for a silent peer.
    pub fn patience(&self) -> Duration {
        self.patience
    }
}
