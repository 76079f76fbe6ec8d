// SPDX-License-Identifier: GPL-2.0

//! Waits that last while there is progress, independent of the machine's speed.

use std::time::{Duration, Instant};

/// Watches a counter of progress.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    patience: Duration,
    last: Option<u64>,
    since: Instant,
}

impl Progress {
    /// Returns a watch that expects progress at least once in `patience`.
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            last: None,
            since: Instant::now(),
        }
    }

    /// Returns whether `counter` has changed within the patience, including this call.
    pub fn continues(&mut self, counter: u64) -> bool {
        if self.last.replace(counter) != Some(counter) {
            self.since = Instant::now();
            return true;
        }
        self.since.elapsed() < self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_stalled_counter_ends_the_wait() {
        let mut progress = Progress::new(Duration::from_millis(60));
        let long = Duration::from_millis(80);
        for counter in 0..3 {
            assert!(progress.continues(counter));
            thread::sleep(long);
        }
        assert!(!progress.continues(2));
        assert!(progress.continues(3));
    }
}
