// SPDX-License-Identifier: GPL-2.0

//! The cost of a DMA logging report, as a function of the size of tracked memory and of the
//! fraction of dirty memory, compared with copying and scanning a bitmap of that size in user
//! space.
//!
//! Pages are marked in the device's log without DMA, so that 1 TiB can be tracked without memory of
//! that size. Each report must contain as many pages as were marked. The floor, in the same round,
//! uses a bitmap with the same pages (see [`floor`]). The memory of all bitmaps is allocated
//! before.

mod density;
mod floor;

use std::{fmt, time::Instant};

use anyhow::{ensure, Context, Result};
use serde::Serialize;
use vifa_device::RegisterFile;
use vifa_selftests::vfio::{Device, DirtyBitmap, IovaRange};

use self::{
    density::{Density, PAGE},
    floor::Floor,
};
use crate::{
    measurement::{Figure, Measurement},
    plot::{Axis, Line, Plot},
    series::{self, Summary},
    table::Table,
};

const GIBIBYTE: u64 = 1 << 30;

/// Number of tracked bytes.
const TRACKED: [u64; 3] = [16 * GIBIBYTE, 256 * GIBIBYTE, 1024 * GIBIBYTE];
const LEAST: u64 = TRACKED[0];
const MOST: u64 = TRACKED[TRACKED.len() - 1];

/// The start of the tracked range.
const IOVA: u64 = 1 << 40;

/// Number of reports of idle memory whose median is one value.
const IDLE_REPORTS: usize = 15;

/// The size of tracked memory, and the density of dirty pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Case {
    /// Number of tracked bytes.
    tracked: u64,
    density: Density,
}

/// The results of a case. Times are in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Cost {
    #[serde(flatten)]
    case: Case,
    dirty_pages: u64,
    report: Summary,
    floor: Summary,
    /// The speed of the report divided by that of the floor.
    vs_floor: Summary,
}

/// The results.
#[derive(Debug, Serialize)]
pub struct Logging {
    page_size: u64,
    /// Number of rounds, without the first one.
    rounds: usize,
    costs: Vec<Cost>,
    /// The time for the most memory divided by that for the least, without dirty pages.
    idle_most_vs_least: Summary,
}

/// A virtual function that logs, and the register file of its physical function.
pub struct Target<'a> {
    pub device: &'a Device,
    /// The virtual function's index.
    pub vf: u32,
    pub registers: &'a RegisterFile,
}

/// The times of a report and of its floor, in seconds.
#[derive(Clone, Copy)]
struct Times {
    report: f64,
    floor: f64,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        let case = |tracked| Density::ALL.map(|density| Self { tracked, density });
        TRACKED.into_iter().flat_map(case)
    }

    fn is(self, tracked: u64, density: Density) -> bool {
        self == Self { tracked, density }
    }
}

/// The times of each case in a round.
struct Round(Vec<Times>);

impl Round {
    fn of(&self, tracked: u64, density: Density) -> Times {
        let at = Case::all().position(|case| case.is(tracked, density));
        self.0[at.expect("every case is measured")]
    }
}

impl Logging {
    /// Runs `rounds` rounds.
    pub fn measure(target: &Target<'_>, rounds: usize) -> Result<Self> {
        let mut floor = Floor::new(MOST / PAGE);
        let mut bitmaps = TRACKED
            .iter()
            .map(|&length| DirtyBitmap::new(IovaRange::new(IOVA, length), PAGE))
            .collect::<Result<Vec<_>, _>>()
            .context("failed to allocate the bitmaps")?;
        let rounds = series::rounds(rounds, || {
            let sizes = bitmaps.iter_mut().map(|bitmap| {
                with_logging(target.device, bitmap.range(), || {
                    Density::ALL
                        .iter()
                        .map(|&density| target.times(density, bitmap, &mut floor))
                        .collect::<Result<Vec<_>>>()
                })
            });
            Ok::<_, anyhow::Error>(Round(sizes.collect::<Result<Vec<_>>>()?.concat()))
        })?;

        let costs = Case::all().map(|case| {
            let over = |value: fn(Times) -> f64| {
                Summary::over(&rounds, |round| value(round.of(case.tracked, case.density)))
            };
            Cost {
                case,
                dirty_pages: case.density.dirty_pages(case.tracked),
                report: over(|times| times.report * 1e3),
                floor: over(|times| times.floor * 1e3),
                vs_floor: over(|times| times.floor / times.report),
            }
        });
        Ok(Self {
            page_size: PAGE,
            rounds: rounds.len(),
            costs: costs.collect(),
            idle_most_vs_least: Summary::over(&rounds, |round| {
                round.of(MOST, Density::Idle).report / round.of(LEAST, Density::Idle).report
            }),
        })
    }

    /// Returns the costs of `density`, by ascending size of memory.
    fn of(&self, density: Density) -> impl Iterator<Item = &Cost> {
        self.costs
            .iter()
            .filter(move |cost| cost.case.density == density)
    }
}

/// Calls `work` while the writes to `range` are logged.
fn with_logging<T>(
    device: &Device,
    range: IovaRange,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let page_size = device
        .start_logging(&[range], PAGE)
        .with_context(|| format!("failed to start logging of {} GiB", range.length / GIBIBYTE))?;
    ensure!(
        page_size == PAGE,
        "invalid page size of the log: {page_size} bytes"
    );
    let result = work();
    device.stop_logging().context("failed to stop logging")?;
    result
}

impl Target<'_> {
    fn times(
        &self,
        density: Density,
        bitmap: &mut DirtyBitmap,
        floor: &mut Floor,
    ) -> Result<Times> {
        let range = bitmap.range();
        let name = || format!("{density} of {} GiB", range.length / GIBIBYTE);
        let reports = match density.marks(range) {
            Some(marks) => {
                self.registers.mark(self.vf, marks)?;
                1
            }
            None => IDLE_REPORTS,
        };
        bitmap.clear();
        let mut times = Vec::new();
        for _ in 0..reports {
            let start = Instant::now();
            self.device
                .report(bitmap)
                .with_context(|| format!("failed to report {}", name()))?;
            times.push(start.elapsed().as_secs_f64());
        }
        let expected = density.dirty_pages(range.length);
        let reported = bitmap.count();
        ensure!(
            reported == expected,
            "{}: invalid report: got {reported} pages, expected {expected}",
            name()
        );
        floor.fill(bitmap);
        let start = Instant::now();
        let pages = floor.copy_and_scan();
        let floor = start.elapsed();
        ensure!(
            pages == expected,
            "{}: invalid floor: got {pages} pages, expected {expected}",
            name()
        );
        Ok(Times {
            report: Summary::of(times).median,
            floor: floor.as_secs_f64(),
        })
    }
}

impl fmt::Display for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Report of DMA logging: pages of {} KiB, {} rounds\n",
            self.page_size >> 10,
            self.rounds
        )?;
        let table = |unit: &str, digits, value: fn(&Cost) -> Summary| {
            let mut table = Table::new(unit, digits);
            table.extend(self.costs.iter().map(|cost| {
                let Case { tracked, density } = cost.case;
                let name = format!("{:>5} GiB, {density}", tracked / GIBIBYTE);
                (name, value(cost))
            }));
            table
        };
        let reports = table("ms, report", 3, |cost| cost.report);
        let floors = table("ms, floor", 3, |cost| cost.floor);
        let ratios = table("speed, report / floor", 2, |cost| cost.vs_floor);
        let idle = Table::new("time", 2).row("idle, 1024 GiB / 16 GiB", self.idle_most_vs_least);
        write!(f, "{reports}{floors}{ratios}{idle}")
    }
}

impl Measurement for Logging {
    const NAME: &'static str = "logging";

    fn figures(&self) -> Vec<Figure> {
        let full = self
            .costs
            .iter()
            .filter(|cost| cost.case.is(MOST, Density::Full));
        let full = full.map(|cost| Figure {
            name: "report_full_vs_floor",
            summary: cost.vs_floor,
        });
        let idle = Figure {
            name: "report_idle_1tib_vs_16gib",
            summary: self.idle_most_vs_least,
        };
        full.chain([idle]).collect()
    }

    fn plots(&self) -> Vec<Plot> {
        let by_memory = |name: String, density, value: fn(&Cost) -> Summary| {
            let points = self
                .of(density)
                .map(|cost| ((cost.case.tracked / GIBIBYTE) as f64, value(cost)));
            Line::new(name, points)
        };
        let reports =
            Density::ALL.map(|density| by_memory(density.to_string(), density, |cost| cost.report));
        let floor = by_memory("floor, 100 %".into(), Density::Full, |cost| cost.floor);
        let ticks = TRACKED.map(|tracked| {
            let gibibytes = tracked / GIBIBYTE;
            (gibibytes as f64, gibibytes.to_string())
        });

        let by_dirty = TRACKED.map(|tracked| {
            let dirty = self
                .costs
                .iter()
                .filter(|cost| cost.case.tracked == tracked && cost.dirty_pages > 0);
            let points = dirty.map(|cost| (cost.dirty_pages as f64, cost.report));
            Line::new(format!("{} GiB tracked", tracked / GIBIBYTE), points)
        });
        vec![
            Plot::lines(
                "logging-by-memory",
                "Report of DMA logging, by memory",
                Axis::logarithmic("tracked, GiB").ticks(ticks),
                Axis::logarithmic("milliseconds"),
                reports.into_iter().chain([floor]).collect(),
            ),
            Plot::lines(
                "logging-by-pages",
                "Report of DMA logging, by dirty pages",
                Axis::logarithmic("dirty pages of 4 KiB"),
                Axis::logarithmic("milliseconds"),
                by_dirty.into(),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_exists_once() {
        let cases: Vec<Case> = Case::all().collect();
        assert_eq!(cases.len(), TRACKED.len() * Density::ALL.len());
        for (at, case) in cases.iter().enumerate() {
            assert!(!cases[..at].contains(case), "{case:?}");
        }
    }

    #[test]
    fn figures_are_those_of_a_tebibyte() {
        let one = Summary::of([1.0]);
        let costs = Case::all().zip(1..).map(|(case, at)| Cost {
            case,
            dirty_pages: 0,
            report: one,
            floor: one,
            vs_floor: Summary::of([f64::from(at)]),
        });
        let logging = Logging {
            page_size: PAGE,
            rounds: 1,
            costs: costs.collect(),
            idle_most_vs_least: Summary::of([2.5]),
        };
        let figures = logging.figures();
        let median = |name| {
            let figure = figures.iter().find(|figure| figure.name == name);
            figure.map(|figure| figure.summary.median)
        };
        assert_eq!(median("report_full_vs_floor"), Some(12.0));
        assert_eq!(median("report_idle_1tib_vs_16gib"), Some(2.5));
    }
}
