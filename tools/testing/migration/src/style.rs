// SPDX-License-Identifier: GPL-2.0

//! The format of times and sizes.

use std::time::{Duration, Instant};

/// Prints steps, with the time since the clock was started.
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn announce(&self, text: &str) {
        println!("[{:6.1} s] {text}", self.0.elapsed().as_secs_f64());
    }
}

/// Formats a duration in seconds and milliseconds.
pub fn seconds(duration: Duration) -> String {
    format!("{:.3} s", duration.as_secs_f64())
}

/// Formats a size in MiB.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_times_and_sizes() {
        assert_eq!(seconds(Duration::from_millis(1250)), "1.250 s");
        assert_eq!(mebibytes(3 << 19), "1.5 MiB");
    }
}
