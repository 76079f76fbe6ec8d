// SPDX-License-Identifier: GPL-2.0

//! The longest time without an arrival, which is the visible effect of a migration.

use std::time::{Duration, Instant};

/// Records the times of arrivals.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    last: Instant,
    longest: Duration,
}

impl Gap {
    /// Starts the measurement.
    pub fn start() -> Self {
        Self {
            last: Instant::now(),
            longest: Duration::ZERO,
        }
    }

    /// Records an arrival.
    pub fn arrival(&mut self) {
        self.longest = self.longest();
        self.last = Instant::now();
    }

    /// Returns the time at which to stop waiting for a peer, at least `patience` after the last
    /// arrival. If the peer was silent for longer before, it may be again.
    pub fn deadline(&self, patience: Duration) -> Instant {
        self.last + self.longest.max(patience)
    }

    /// Returns the longest time without an arrival, including the time since the last one.
    pub fn longest(&self) -> Duration {
        self.longest.max(self.last.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn returns_the_longest_gap_including_the_current_one() {
        let mut gap = Gap::start();
        thread::sleep(Duration::from_millis(60));
        gap.arrival();
        gap.arrival();
        let first = gap.longest();
        assert!(first >= Duration::from_millis(60));
        thread::sleep(first + Duration::from_millis(1));
        assert!(gap.longest() > first);
    }

    #[test]
    fn a_longer_silence_extends_the_deadline() {
        let patience = Duration::from_secs(10);
        let mut gap = Gap::start();
        let usual = gap.deadline(patience);
        gap.longest = patience + Duration::from_secs(5);
        assert_eq!(gap.deadline(patience), usual + Duration::from_secs(5));
    }
}
