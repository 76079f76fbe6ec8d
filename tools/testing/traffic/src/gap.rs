// SPDX-License-Identifier: GPL-2.0

//! The longest time in which nothing arrived: what a user notices of a migration.

use std::time::{Duration, Instant};

/// Notes when something arrives.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    last: Instant,
    longest: Duration,
}

impl Gap {
    /// Begins now.
    pub fn start() -> Self {
        Self {
            last: Instant::now(),
            longest: Duration::ZERO,
        }
    }

    /// Something has arrived.
    pub fn arrival(&mut self) {
        self.longest = self.longest();
        self.last = Instant::now();
    }

    /// When to stop waiting for a peer that is waited for `patience` at least: one that was silent for
    /// longer before may be again.
    pub fn deadline(&self, patience: Duration) -> Instant {
        self.last + self.longest.max(patience)
    }

    /// The longest time without an arrival, that since the last one included.
    pub fn longest(&self) -> Duration {
        self.longest.max(self.last.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn tells_the_longest_of_several_and_the_one_that_lasts() {
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
    fn a_longer_silence_is_waited_for_longer() {
        let patience = Duration::from_secs(10);
        let mut gap = Gap::start();
        let usual = gap.deadline(patience);
        gap.longest = patience + Duration::from_secs(5);
        assert_eq!(gap.deadline(patience), usual + Duration::from_secs(5));
    }
}
