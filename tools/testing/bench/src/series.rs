// SPDX-License-Identifier: GPL-2.0

//! Series of measured values, and what is said of them.

use std::{fmt, time::Duration};

use serde::Serialize;

/// What is said of a series: its median, and how far it spreads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Summary {
    /// Sums up `values`.
    ///
    /// # Panics
    ///
    /// If there are none.
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
}

impl fmt::Display for Summary {
    /// In three columns; a precision counts for each of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(0);
        let Self { median, min, max } = self;
        write!(f, "{median:>10.digits$}{min:>10.digits$}{max:>10.digits$}")
    }
}

/// Returns the rate at which `bytes` were moved, in MB/s (10^6 bytes in a second).
pub fn rate(bytes: usize, time: Duration) -> f64 {
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
    fn rate_is_in_decimal_megabytes() {
        assert_eq!(rate(3_000_000, Duration::from_millis(500)), 6.0);
    }

    #[test]
    fn summary_stands_in_columns() {
        let summary = Summary::of([1.0, 2.0, 4.0]);
        assert_eq!(format!("{summary:.1}"), "       2.0       1.0       4.0");
    }
}
