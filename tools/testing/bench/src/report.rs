// SPDX-License-Identifier: GPL-2.0

//! The JSON file: the figures by which a run is judged, and behind them what they come from.

use serde::Serialize;

use crate::{environment::Environment, series::Summary, throughput::Throughput};

/// The lowest and the highest value.
#[derive(Debug, Serialize)]
struct Range {
    min: f64,
    max: f64,
}

impl From<Summary> for Range {
    fn from(Summary { min, max, .. }: Summary) -> Self {
        Self { min, max }
    }
}

/// How far the figures spread, each by its name.
#[derive(Debug, Serialize)]
struct Spread {
    save_vs_memfd: Range,
    restore_vs_memfd: Range,
}

/// A run. The figures are medians.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    save_vs_memfd: f64,
    restore_vs_memfd: f64,
    spread: Spread,
    environment: &'a Environment,
    throughput: &'a Throughput,
}

impl<'a> Report<'a> {
    /// Makes the report of what was measured.
    pub fn new(environment: &'a Environment, throughput: &'a Throughput) -> Self {
        Self {
            save_vs_memfd: throughput.save_vs_memfd.median,
            restore_vs_memfd: throughput.restore_vs_memfd.median,
            spread: Spread {
                save_vs_memfd: throughput.save_vs_memfd.into(),
                restore_vs_memfd: throughput.restore_vs_memfd.into(),
            },
            environment,
            throughput,
        }
    }
}
