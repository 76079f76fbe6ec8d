// SPDX-License-Identifier: GPL-2.0

//! Series of measured values, and their summaries.

use std::time::Duration;

use serde::Serialize;

/// The summary of a series: its median and its spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Summary {
    /// Summarizes `values`.
    ///
    /// # Panics
    ///
    /// Panics if there are no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (half, last) = (values.len() / 2, values.len() - 1);
        let median = match values.len() % 2 {
            0 => (values[half - 1] + values[half]) / 2.0,
            _ => values[half],
        };
        Self {
            median,
            min: values[0],
            max: values[last],
        }
    }

    /// Summarizes `value` of each of `rounds`.
    ///
    /// # Panics
    ///
    /// Panics if there are no rounds.
    pub fn over<R>(rounds: &[R], value: impl FnMut(&R) -> f64) -> Self {
        Self::of(rounds.iter().map(value))
    }

    /// Converts to another unit, of which `factor` equal one of the current unit.
    pub fn scaled(self, factor: f64) -> Self {
        Self {
            median: self.median * factor,
            min: self.min * factor,
            max: self.max * factor,
        }
    }
}

/// Runs `rounds` rounds after a first round for warm-up.
pub fn rounds<R, E>(rounds: usize, mut measure: impl FnMut() -> Result<R, E>) -> Result<Vec<R>, E> {
    measure()?;
    (0..rounds).map(|_| measure()).collect()
}

/// Returns the rate of moving `bytes`, in MB/s (10^6 bytes per second).
pub fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_of_an_odd_number() {
        assert_eq!(
            Summary::of([3.0, 100.0, 1.0]),
            Summary {
                median: 3.0,
                min: 1.0,
                max: 100.0
            }
        );
    }

    #[test]
    fn median_is_between_the_two_in_the_middle() {
        assert_eq!(Summary::of([4.0, 1.0, 2.0, 100.0]).median, 3.0);
    }

    #[test]
    fn single_value_is_all_three() {
        let summary = Summary::of([2.0]);
        assert_eq!((summary.median, summary.min, summary.max), (2.0, 2.0, 2.0));
    }

    #[test]
    fn another_unit_changes_all_three() {
        let summary = Summary::of([1.0, 2.0, 4.0]).scaled(1e3);
        assert_eq!(summary, Summary::of([1e3, 2e3, 4e3]));
    }

    #[test]
    fn first_round_does_not_count() {
        let mut count = 0;
        let measured: Result<Vec<i32>, ()> = rounds(3, || {
            count += 1;
            Ok(count)
        });
        assert_eq!(measured, Ok(vec![2, 3, 4]));
    }

    #[test]
    fn rate_is_in_decimal_megabytes() {
        assert_eq!(rate(3_000_000, Duration::from_millis(500)), 6.0);
    }
}
