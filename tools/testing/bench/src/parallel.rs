// SPDX-License-Identifier: GPL-2.0

//! Many virtual functions that are saved in parallel: their total throughput, and the fairness
//! among them.
//!
//! For a fixed time, each of them is saved repeatedly, in a separate thread. Its rate is the number
//! of bytes read divided by the time, including the transitions to and from STOP_COPY. Fairness is
//! the slowest rate divided by the fastest, and Jain's index: 1 if all are equal, 1/n if one of n
//! has everything.

use std::{
    fmt, io,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, ensure, Context, Result};
use serde::Serialize;
use vifa_selftests::{migration::State, vfio::Device};

use crate::{
    measurement::{Figure, Measurement},
    plot::{Axis, Line, Plot},
    series::{self, rate, Summary},
    subject::Subject,
    table::Table,
};

/// Numbers of parallel saves.
const COUNTS: [usize; 4] = [1, 8, 32, 64];

/// Duration of one value.
const WHILE: Duration = Duration::from_secs(2);

/// Size of each read buffer in bytes.
const BUFFER: usize = 256 << 10;

/// The results for one number of parallel saves.
#[derive(Clone, Debug, Serialize)]
struct Count {
    virtual_functions: usize,
    /// The total rate, in MB/s (10^6 bytes per second).
    rate: Summary,
    /// The slowest rate divided by the fastest.
    slowest_vs_fastest: Summary,
    jain: Summary,
    /// The mean rate of each function. Persistent differences are not random.
    mean_rates: Vec<f64>,
}

/// The results.
#[derive(Debug, Serialize)]
pub struct Parallel {
    /// Number of bytes of local memory of each function.
    local_memory: u64,
    /// Number of rounds, without the first one.
    rounds: usize,
    counts: Vec<Count>,
    /// The rate of the largest number divided by that of one alone, in the same round.
    most_vs_one: Summary,
}

impl Parallel {
    /// Number of virtual functions that the measurement requires.
    pub const MOST: usize = COUNTS[COUNTS.len() - 1];

    /// Runs `rounds` rounds with `subjects`, and leaves them stopped.
    pub fn measure(subjects: &[Subject], rounds: usize) -> Result<Self> {
        ensure!(
            subjects.len() >= Self::MOST,
            "not enough virtual functions: got {}, expected {}",
            subjects.len(),
            Self::MOST
        );
        let devices: Vec<&Device> = subjects.iter().map(|subject| &subject.vf.device).collect();
        for device in &devices {
            device.change_state(State::Stop)?;
        }
        let rounds = series::rounds(rounds, || {
            COUNTS
                .iter()
                .map(|&count| Shares::measure(&devices[..count]))
                .collect::<Result<Vec<_>>>()
        })?;
        Ok(Self {
            local_memory: subjects[0].local_memory,
            rounds: rounds.len(),
            counts: COUNTS
                .iter()
                .enumerate()
                .map(|(at, &virtual_functions)| Count {
                    virtual_functions,
                    rate: Summary::over(&rounds, |round| round[at].sum()),
                    slowest_vs_fastest: Summary::over(&rounds, |round| {
                        round[at].slowest_vs_fastest()
                    }),
                    jain: Summary::over(&rounds, |round| round[at].jain()),
                    mean_rates: means(rounds.iter().map(|round| &round[at])),
                })
                .collect(),
            most_vs_one: Summary::over(&rounds, |round| {
                round[COUNTS.len() - 1].sum() / round[0].sum()
            }),
        })
    }
}

/// The rates of the parallel saves, in MB/s.
struct Shares(Vec<f64>);

impl Shares {
    fn measure(devices: &[&Device]) -> Result<Self> {
        let start = Barrier::new(devices.len());
        thread::scope(|scope| {
            let threads: Vec<_> = devices
                .iter()
                .map(|device| {
                    let start = &start;
                    scope.spawn(move || {
                        let mut buffer = vec![0; BUFFER];
                        start.wait();
                        save_for_a_while(device, &mut buffer)
                    })
                })
                .collect();
            let rates = threads.into_iter().map(|thread| {
                let result = thread.join().map_err(|_| anyhow!("a thread panicked"))?;
                result.context("save")
            });
            Ok(Self(rates.collect::<Result<_>>()?))
        })
    }

    fn sum(&self) -> f64 {
        self.0.iter().sum()
    }

    fn slowest_vs_fastest(&self) -> f64 {
        let summary = Summary::of(self.0.iter().copied());
        summary.min / summary.max
    }

    fn jain(&self) -> f64 {
        let squares: f64 = self.0.iter().map(|rate| rate * rate).sum();
        self.sum().powi(2) / (self.0.len() as f64 * squares)
    }
}

/// Returns the mean rate of each function.
fn means<'a>(rounds: impl ExactSizeIterator<Item = &'a Shares>) -> Vec<f64> {
    let count = rounds.len() as f64;
    let mut sums: Vec<f64> = Vec::new();
    for Shares(rates) in rounds {
        sums.resize(rates.len(), 0.0);
        for (sum, rate) in sums.iter_mut().zip(rates) {
            *sum += rate / count;
        }
    }
    sums
}

/// Saves the device repeatedly. Returns the rate.
fn save_for_a_while(device: &Device, buffer: &mut [u8]) -> Result<f64> {
    let start = Instant::now();
    let mut bytes = 0;
    while start.elapsed() < WHILE {
        let session = device.start(State::StopCopy)?;
        while start.elapsed() < WHILE {
            match io::Read::read(&mut session.file(), buffer)? {
                0 => break,
                length => bytes += length as u64,
            }
        }
        device.change_state(State::Stop)?;
    }
    Ok(rate(bytes, start.elapsed()))
}

impl fmt::Display for Parallel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Saving at once: {} MiB of local memory each, {} rounds\n",
            self.local_memory >> 20,
            self.rounds
        )?;
        let table = |unit: &str, digits, value: fn(&Count) -> Summary| {
            let mut table = Table::new(unit, digits);
            table.extend(self.counts.iter().map(|count| {
                let name = match count.virtual_functions {
                    1 => "1 virtual function".into(),
                    many => format!("{many} virtual functions"),
                };
                (name, value(count))
            }));
            table
        };
        let rates = table("MB/s, all together", 0, |count| count.rate);
        let extremes = table("slowest / fastest", 2, |count| count.slowest_vs_fastest);
        let jain = table("Jain's index", 3, |count| count.jain);
        let ratio = Table::new("ratio", 2).row(
            format!("{} together / 1 alone", Self::MOST),
            self.most_vs_one,
        );
        write!(f, "{rates}{extremes}{jain}{ratio}")
    }
}

impl Measurement for Parallel {
    const NAME: &'static str = "parallel";

    fn figures(&self) -> Vec<Figure> {
        vec![Figure {
            name: "save_64vf_vs_1vf",
            summary: self.most_vs_one,
        }]
    }

    fn plots(&self) -> Vec<Plot> {
        let line = |name: &str, value: fn(&Count) -> Summary| {
            let points = self
                .counts
                .iter()
                .map(|count| (count.virtual_functions as f64, value(count)));
            Line::new(name, points)
        };
        let axis = || {
            let ticks = COUNTS.map(|count| (count as f64, count.to_string()));
            Axis::logarithmic("virtual functions that save at once").ticks(ticks)
        };
        vec![
            Plot::lines(
                Self::NAME,
                "Saving at once: throughput",
                axis(),
                Axis::linear("MB/s, all together"),
                vec![line("save", |count| count.rate)],
            ),
            Plot::lines(
                "fairness",
                "Saving at once: fairness",
                axis(),
                Axis::linear("1 is fair"),
                vec![
                    line("Jain's index", |count| count.jain),
                    line("slowest / fastest", |count| count.slowest_vs_fastest),
                ],
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_shares_are_fair() {
        let shares = Shares(vec![5.0; 8]);
        assert_eq!(shares.sum(), 40.0);
        assert_eq!(shares.slowest_vs_fastest(), 1.0);
        assert_eq!(shares.jain(), 1.0);
    }

    #[test]
    fn share_of_one_alone_is_unfair() {
        let shares = Shares(vec![3.0, 0.0, 0.0, 0.0]);
        assert_eq!(shares.slowest_vs_fastest(), 0.0);
        assert_eq!(shares.jain(), 0.25);
    }

    #[test]
    fn means_are_those_of_each() {
        let rounds = [Shares(vec![1.0, 10.0]), Shares(vec![3.0, 20.0])];
        assert_eq!(means(rounds.iter()), [2.0, 15.0]);
    }
}
