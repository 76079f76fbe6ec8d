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

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(median: f64) -> Summary {
        Summary {
            median,
            min: median / 2.0,
            max: median * 2.0,
        }
    }

    #[test]
    fn figures_stand_at_the_top_with_their_spread() {
        let environment = Environment {
            processor: "P".into(),
            accelerator: "TCG".into(),
            kernel: "K".into(),
            cpus: 2,
            date: "D".into(),
        };
        let throughput = Throughput {
            local_memory: 1 << 28,
            stream: (1 << 28) + 1,
            buffer: 1 << 20,
            rounds: 7,
            memfd_read: summary(10.0),
            save: summary(20.0),
            memfd_write: summary(30.0),
            memfd_write_fresh: summary(40.0),
            restore: summary(50.0),
            save_vs_memfd: summary(0.5),
            restore_vs_memfd: summary(0.25),
            restore_vs_fresh_memfd: summary(4.0),
        };
        let json = serde_json::to_value(Report::new(&environment, &throughput)).unwrap();

        assert_eq!(json["save_vs_memfd"], 0.5);
        assert_eq!(json["restore_vs_memfd"], 0.25);
        assert_eq!(json["spread"]["save_vs_memfd"]["min"], 0.25);
        assert_eq!(json["spread"]["restore_vs_memfd"]["max"], 0.5);
        assert_eq!(json["environment"]["accelerator"], "TCG");
        assert_eq!(json["throughput"]["restore"]["median"], 50.0);
    }
}
