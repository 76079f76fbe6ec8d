// SPDX-License-Identifier: GPL-2.0

//! Throughput of save and of restore, by the size of the local memory, compared with reading and
//! writing a memfd.
//!
//! All of these move the same bytes, a device's whole stream, with buffers of the same size. The
//! rounds alternate between them, so that other activity of the machine affects all of them
//! equally. A small stream is moved several times for one value.
//!
//! A save is read into one buffer repeatedly, from the first byte to the end of the stream; so is
//! the memfd. A restore is written from the stream's bytes until the device has accepted them all;
//! so is the memfd. The arc out of RESUMING counts, since the driver may defer work until then.
//!
//! The memfd that restore is compared with already has all its pages. Restore moves data to a
//! device with its own memory, and allocates nothing. A memfd that allocates and clears its pages
//! during the writes would make the driver look better than it is. That comparison is also
//! reported, under a separate name.

use std::{
    fmt,
    io::{Read, Write},
    time::{Duration, Instant},
};

use anyhow::{ensure, Context, Result};
use serde::Serialize;
use vifa_selftests::{
    migration::{Session, State},
    vfio::Device,
};

use crate::{
    measurement::{Figure, Measurement},
    memfd::{read_to_end, Memfd},
    plot::{Axis, Line, Plot},
    series::{self, rate, Summary},
    subject::Subject,
    table::Table,
};

/// Minimum number of bytes that each value moves.
const LEAST: u64 = 64 << 20;

/// The times of one round, in order of measurement.
#[derive(Clone, Copy, Default)]
struct Round {
    memfd_read: Duration,
    save: Duration,
    memfd_write: Duration,
    memfd_write_fresh: Duration,
    restore: Duration,
}

/// The results for one size of local memory. Rates are in MB/s (10^6 bytes per second).
#[derive(Clone, Copy, Debug, Serialize)]
struct Size {
    /// Number of bytes of local memory.
    local_memory: u64,
    /// Number of bytes of the stream.
    stream: usize,
    memfd_read: Summary,
    save: Summary,
    /// Writes to allocated pages.
    memfd_write: Summary,
    /// Writes to pages that are not allocated.
    memfd_write_fresh: Summary,
    restore: Summary,
    /// Ratios within a round.
    save_vs_memfd: Summary,
    restore_vs_memfd: Summary,
    restore_vs_fresh_memfd: Summary,
}

/// The results.
#[derive(Debug, Serialize)]
pub struct Throughput {
    /// Size of the buffer in bytes.
    buffer: usize,
    /// Number of rounds, without the first one.
    rounds: usize,
    /// The results by size, ascending.
    sizes: Vec<Size>,
}

impl Throughput {
    /// Returns an empty result for `rounds` rounds per value and a buffer of `buffer` bytes.
    pub fn new(rounds: usize, buffer: usize) -> Self {
        Self {
            buffer,
            rounds,
            sizes: Vec::new(),
        }
    }

    /// Measures `subject`, and leaves it stopped.
    pub fn measure(&mut self, subject: &Subject) -> Result<()> {
        let device = &subject.vf.device;
        let local_memory = subject.local_memory;
        let mut buffer = vec![0; self.buffer];

        let stream = save_whole(device, local_memory)?;
        let mut memfd = Memfd::new().context("memfd")?;
        memfd.write(&stream, buffer.len()).context("memfd")?;
        let times = LEAST.div_ceil(local_memory);
        let rounds = series::rounds(self.rounds, || {
            (0..times).try_fold(Round::default(), |sum, _| {
                Ok::<_, anyhow::Error>(
                    sum + Round::measure(device, &stream, &mut memfd, &mut buffer)?,
                )
            })
        })?;
        let again = save_whole(device, local_memory)?;
        ensure!(again == stream, "the device's stream has changed");

        let bytes = times * stream.len() as u64;
        let rates =
            |time: fn(&Round) -> Duration| Summary::over(&rounds, |round| rate(bytes, time(round)));
        let ratios = |floor: fn(&Round) -> Duration, time: fn(&Round) -> Duration| {
            Summary::over(&rounds, |round| {
                floor(round).as_secs_f64() / time(round).as_secs_f64()
            })
        };
        self.sizes.push(Size {
            local_memory,
            stream: stream.len(),
            memfd_read: rates(|round| round.memfd_read),
            save: rates(|round| round.save),
            memfd_write: rates(|round| round.memfd_write),
            memfd_write_fresh: rates(|round| round.memfd_write_fresh),
            restore: rates(|round| round.restore),
            save_vs_memfd: ratios(|round| round.memfd_read, |round| round.save),
            restore_vs_memfd: ratios(|round| round.memfd_write, |round| round.restore),
            restore_vs_fresh_memfd: ratios(|round| round.memfd_write_fresh, |round| round.restore),
        });
        self.sizes.sort_by_key(|size| size.local_memory);
        Ok(())
    }
}

impl Round {
    fn measure(
        device: &Device,
        stream: &[u8],
        memfd: &mut Memfd,
        buffer: &mut [u8],
    ) -> Result<Self> {
        let whole = |what: &str, (length, time): (usize, Duration)| {
            ensure!(
                length == stream.len(),
                "{what}: invalid length: got {length} bytes, expected {}",
                stream.len()
            );
            Ok(time)
        };
        let memfd_read = whole("memfd", memfd.read(buffer).context("memfd")?)?;
        let save = whole("save", save(device, buffer)?)?;
        let memfd_write = memfd.write(stream, buffer.len()).context("memfd")?;
        let memfd_write_fresh = Memfd::new()
            .and_then(|mut fresh| fresh.write(stream, buffer.len()))
            .context("memfd")?;
        let restore = restore(device, stream, buffer.len())?;
        Ok(Self {
            memfd_read,
            save,
            memfd_write,
            memfd_write_fresh,
            restore,
        })
    }
}

impl std::ops::Add for Round {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            memfd_read: self.memfd_read + other.memfd_read,
            save: self.save + other.save,
            memfd_write: self.memfd_write + other.memfd_write,
            memfd_write_fresh: self.memfd_write_fresh + other.memfd_write_fresh,
            restore: self.restore + other.restore,
        }
    }
}

/// Begins to save the stopped device, calls `work`, and ends the save.
fn with_save<T>(device: &Device, work: impl FnOnce(&Session) -> Result<T>) -> Result<T> {
    let session = device.start(State::StopCopy)?;
    let result = work(&session).context("save")?;
    device.change_state(State::Stop)?;
    Ok(result)
}

/// Returns the device's whole stream.
pub fn save_whole(device: &Device, local_memory: u64) -> Result<Vec<u8>> {
    with_save(device, |session| {
        let mut stream = Vec::with_capacity(local_memory as usize + (1 << 20));
        session.file().read_to_end(&mut stream)?;
        ensure!(
            stream.len() as u64 > local_memory,
            "{} bytes of stream for {local_memory} bytes of local memory",
            stream.len()
        );
        Ok(stream)
    })
}

/// Saves the device. Returns the number of bytes of its stream and the time.
fn save(device: &Device, buffer: &mut [u8]) -> Result<(usize, Duration)> {
    with_save(device, |session| Ok(read_to_end(session.file(), buffer)?))
}

/// Restores the device in pieces of `buffer` bytes. Returns the time.
fn restore(device: &Device, stream: &[u8], buffer: usize) -> Result<Duration> {
    let session = device.start(State::Resuming)?;
    let start = Instant::now();
    for piece in stream.chunks(buffer) {
        session.file().write_all(piece).context("restore")?;
    }
    device.change_state(State::Stop)?;
    Ok(start.elapsed())
}

impl Size {
    fn mebibytes(&self) -> u64 {
        self.local_memory >> 20
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} MiB of local memory", self.mebibytes())?;
        let rates = Table::new("MB/s", 0)
            .row("read of a memfd", self.memfd_read)
            .row("save", self.save)
            .row("write of a memfd", self.memfd_write)
            .row("write of a memfd, fresh pages", self.memfd_write_fresh)
            .row("restore", self.restore);
        let ratios = Table::new("ratio", 2)
            .row("save / read of a memfd", self.save_vs_memfd)
            .row("restore / write of a memfd", self.restore_vs_memfd)
            .row("restore / write, fresh pages", self.restore_vs_fresh_memfd);
        writeln!(f, "{rates}{ratios}")
    }
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Save and restore: buffers of {} KiB, {} rounds\n",
            self.buffer >> 10,
            self.rounds
        )?;
        self.sizes.iter().try_for_each(|size| size.fmt(f))
    }
}

impl Measurement for Throughput {
    const NAME: &'static str = "throughput";

    /// Returns the figures of the largest size.
    fn figures(&self) -> Vec<Figure> {
        let largest = self.sizes.iter().next_back();
        largest.map_or_else(Vec::new, |size| {
            vec![
                Figure {
                    name: "save_vs_memfd",
                    summary: size.save_vs_memfd,
                },
                Figure {
                    name: "restore_vs_memfd",
                    summary: size.restore_vs_memfd,
                },
            ]
        })
    }

    fn plots(&self) -> Vec<Plot> {
        let line = |name: &str, value: fn(&Size) -> Summary| {
            let points = self
                .sizes
                .iter()
                .map(|size| (size.mebibytes() as f64, value(size)));
            Line::new(name, points)
        };
        let ticks = self
            .sizes
            .iter()
            .map(|size| (size.mebibytes() as f64, size.mebibytes().to_string()));
        vec![Plot::lines(
            Self::NAME,
            "Save and restore",
            Axis::logarithmic("local memory, MiB").ticks(ticks),
            Axis::linear("MB/s"),
            vec![
                line("save", |size| size.save),
                line("read of a memfd", |size| size.memfd_read),
                line("restore", |size| size.restore),
                line("write of a memfd", |size| size.memfd_write),
            ],
        )]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(local_memory: u64, save_vs_memfd: f64) -> Size {
        let one = Summary::of([1.0]);
        Size {
            local_memory,
            stream: local_memory as usize + 1,
            memfd_read: one,
            save: one,
            memfd_write: one,
            memfd_write_fresh: one,
            restore: one,
            save_vs_memfd: Summary::of([save_vs_memfd]),
            restore_vs_memfd: one,
            restore_vs_fresh_memfd: one,
        }
    }

    #[test]
    fn figures_are_those_of_the_largest_size() {
        let mut throughput = Throughput::new(1, 1 << 20);
        throughput.sizes = vec![size(4 << 20, 0.5), size(256 << 20, 0.75)];
        let figures = throughput.figures();
        assert_eq!(figures[0].name, "save_vs_memfd");
        assert_eq!(figures[0].summary.median, 0.75);
    }

    #[test]
    fn times_of_a_round_add_up() {
        let round = Round {
            restore: Duration::from_secs(2),
            ..Round::default()
        };
        assert_eq!((round + round).restore, Duration::from_secs(4));
        assert_eq!((round + round).save, Duration::ZERO);
    }
}
