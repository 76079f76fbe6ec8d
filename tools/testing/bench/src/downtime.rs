// SPDX-License-Identifier: GPL-2.0

//! Downtime of a migrating virtual machine: with a device whose local memory is sent while the
//! machine runs (PRE_COPY), with a device whose local memory is sent after the machine has stopped
//! (STOP_COPY alone), and without a device, which is the floor.
//!
//! [`vifa_migrate::downtime`] migrates the machine; this module reports the results.

use std::fmt;

use anyhow::{Context, Result};
use serde::Serialize;
use vifa_migrate::downtime::{self, Downtime, Setup, Variants};

use crate::{
    measurement::{Figure, Measurement},
    plot::{Group, Plot},
    series::Summary,
    table::Table,
};

/// The results with one writer. Times are in milliseconds, as QEMU reports them.
#[derive(Clone, Copy, Debug, Serialize)]
struct Writer {
    name: &'static str,
    stop_copy: Summary,
    pre_copy: Summary,
    without: Summary,
    /// The fraction of the device's downtime that PRE_COPY removes.
    removed: Summary,
}

/// The results.
#[derive(Debug, Serialize)]
pub struct Downtimes {
    /// Number of migrations of each kind.
    rounds: u32,
    writers: [Writer; 2],
    /// The results of each migration.
    migrations: downtime::Downtimes,
}

impl Downtimes {
    /// Runs the measurement `setup` and reports each migration to `announce`.
    pub fn measure(setup: &Setup, announce: &mut dyn FnMut(&str)) -> Result<Self> {
        let migrations = downtime::measure(setup, announce)?;
        Ok(Self {
            rounds: setup.rounds,
            writers: [
                Writer::new("light writer", &migrations.light)?,
                Writer::new("heavy writer", &migrations.heavy)?,
            ],
            migrations,
        })
    }
}

fn milliseconds(downtime: &Downtime) -> f64 {
    downtime.reported.as_secs_f64() * 1e3
}

/// Returns the fraction of the device's downtime that PRE_COPY removes; 0 if the device adds
/// nothing.
fn removed(stop_copy: f64, pre_copy: f64, without: f64) -> f64 {
    if stop_copy > without {
        (stop_copy - pre_copy) / (stop_copy - without)
    } else {
        0.0
    }
}

impl Writer {
    fn new(name: &'static str, variants: &Variants) -> Result<Self> {
        let of = |downtimes: &[Downtime]| downtimes.iter().map(milliseconds).collect();
        let [stop_copy, pre_copy, without]: [Vec<f64>; 3] =
            [&variants.stop_copy, &variants.pre_copy, &variants.without].map(|of_one| of(of_one));
        let rounds = stop_copy.iter().zip(&pre_copy).zip(&without);
        let parts: Vec<f64> = rounds
            .map(|((stop_copy, pre_copy), without)| removed(*stop_copy, *pre_copy, *without))
            .collect();
        parts.first().context("no measured migration")?;
        Ok(Self {
            name,
            stop_copy: Summary::of(stop_copy),
            pre_copy: Summary::of(pre_copy),
            without: Summary::of(without),
            removed: Summary::of(parts),
        })
    }
}

impl fmt::Display for Downtimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Downtime of a migration: {} migrations of each kind",
            self.rounds
        )?;
        for writer in &self.writers {
            let times = Table::new("ms", 0)
                .row("STOP_COPY alone", writer.stop_copy)
                .row("PRE_COPY", writer.pre_copy)
                .row("floor: without device", writer.without);
            let ratio = Table::new("ratio", 2).row("taken away by PRE_COPY", writer.removed);
            write!(f, "\n{}\n{times}{ratio}", writer.name)?;
        }
        Ok(())
    }
}

impl Measurement for Downtimes {
    const NAME: &'static str = "downtime";

    /// Returns the figures of the writer for which PRE_COPY removes less.
    fn figures(&self) -> Vec<Figure> {
        let worse = self
            .writers
            .iter()
            .map(|writer| writer.removed)
            .min_by(|one, other| one.median.total_cmp(&other.median));
        worse
            .map(|summary| Figure {
                name: "precopy_downtime_removed",
                summary,
            })
            .into_iter()
            .collect()
    }

    fn plots(&self) -> Vec<Plot> {
        let groups = self.writers.iter().map(|writer| {
            let bars = [
                ("STOP_COPY alone", writer.stop_copy),
                ("PRE_COPY", writer.pre_copy),
                ("without device", writer.without),
            ];
            Group::new(writer.name, bars)
        });
        vec![Plot::bars(
            Self::NAME,
            "Downtime of a migration",
            "milliseconds",
            groups.collect(),
        )]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn downtimes(times: &[u64]) -> Vec<Downtime> {
        let downtime = |time: &u64| Downtime {
            reported: Duration::from_millis(*time),
            stopped: Duration::ZERO,
        };
        times.iter().map(downtime).collect()
    }

    fn variants(stop_copy: &[u64], pre_copy: &[u64], without: &[u64]) -> Variants {
        Variants {
            stop_copy: downtimes(stop_copy),
            pre_copy: downtimes(pre_copy),
            without: downtimes(without),
        }
    }

    #[test]
    fn removed_is_a_fraction_of_the_added_downtime() {
        let variants = variants(&[1100, 1100, 1100], &[100, 350, 600], &[100, 100, 100]);
        let writer = Writer::new("a writer", &variants).unwrap();
        assert_eq!(writer.removed, Summary::of([1.0, 0.75, 0.5]));
        assert_eq!(writer.stop_copy.median, 1100.0);
    }

    #[test]
    fn nothing_is_removed_if_the_device_adds_nothing() {
        assert_eq!(removed(100.0, 50.0, 100.0), 0.0);
    }

    #[test]
    fn no_migration_is_an_error() {
        assert!(Writer::new("a writer", &variants(&[], &[], &[])).is_err());
    }

    #[test]
    fn figure_is_that_of_the_writer_with_less() {
        let light = variants(&[1000], &[100], &[0]);
        let heavy = variants(&[1000], &[200], &[0]);
        let downtimes = Downtimes {
            rounds: 1,
            writers: [
                Writer::new("light", &light).unwrap(),
                Writer::new("heavy", &heavy).unwrap(),
            ],
            migrations: downtime::Downtimes { light, heavy },
        };
        let figures = downtimes.figures();
        assert_eq!(figures[0].name, "precopy_downtime_removed");
        assert_eq!(figures[0].summary.median, 0.8);
    }
}
