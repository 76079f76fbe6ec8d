// SPDX-License-Identifier: GPL-2.0

//! Throughput of save and of restore, against reading and writing a memfd.
//!
//! All of it moves the same bytes, a device's whole stream, with buffers of the same size, in rounds
//! that take one after another, so that whatever else the machine does falls on each alike.
//!
//! A save is read into one buffer, time and again, from the first byte to the end of the stream; so is
//! the memfd. A restore is written from the stream's bytes, until the device has taken them all (the
//! arc out of RESUMING counts, since the driver may put work off until then); so is the memfd.
//!
//! The memfd that restore is compared with has all its pages already. Restore moves data to a device
//! that has memory of its own, and allocates nothing: a memfd whose pages come into being under the
//! writes pays for allocating and clearing them, and would make the driver look better than it is.
//! That comparison is reported, too, by its own name.

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
    memfd::{read_to_end, Memfd},
    series::{rate, Summary},
    subject::Subject,
};

/// The times of one round, in the order in which they were taken.
struct Round {
    memfd_read: Duration,
    save: Duration,
    memfd_write: Duration,
    memfd_write_fresh: Duration,
    restore: Duration,
}

/// What was measured. Rates are in MB/s (10^6 bytes in a second).
#[derive(Debug, Serialize)]
pub struct Throughput {
    /// Bytes of local memory.
    pub local_memory: u64,
    /// Bytes of the stream.
    pub stream: usize,
    /// Bytes of the buffer.
    pub buffer: usize,
    /// Rounds that count.
    pub rounds: usize,
    pub memfd_read: Summary,
    pub save: Summary,
    /// To pages that are there.
    pub memfd_write: Summary,
    /// To pages that are not.
    pub memfd_write_fresh: Summary,
    pub restore: Summary,
    /// Ratios of the same round.
    pub save_vs_memfd: Summary,
    pub restore_vs_memfd: Summary,
    pub restore_vs_fresh_memfd: Summary,
}

impl Throughput {
    /// Measures `rounds` times with a buffer of `buffer` bytes.
    pub fn measure(subject: &mut Subject, rounds: usize, buffer: usize) -> Result<Self> {
        let device = &subject.vf.device;
        let mut buffer = vec![0; buffer];

        let stream = save_whole(device, subject.local_memory)?;
        let mut memfd = Memfd::new().context("memfd")?;
        memfd.write(&stream, buffer.len()).context("memfd")?;
        // The first one warms up.
        let times = (0..=rounds)
            .map(|_| Round::measure(device, &stream, &mut memfd, &mut buffer))
            .skip(1)
            .collect::<Result<Vec<_>>>()?;
        let again = save_whole(device, subject.local_memory)?;
        ensure!(again == stream, "the device is not what it was before");

        let rates = |time: fn(&Round) -> Duration| {
            Summary::of(times.iter().map(|round| rate(stream.len(), time(round))))
        };
        let ratios = |floor: fn(&Round) -> Duration, time: fn(&Round) -> Duration| {
            Summary::of(
                times
                    .iter()
                    .map(|round| floor(round).as_secs_f64() / time(round).as_secs_f64()),
            )
        };
        Ok(Self {
            local_memory: subject.local_memory,
            stream: stream.len(),
            buffer: buffer.len(),
            rounds,
            memfd_read: rates(|round| round.memfd_read),
            save: rates(|round| round.save),
            memfd_write: rates(|round| round.memfd_write),
            memfd_write_fresh: rates(|round| round.memfd_write_fresh),
            restore: rates(|round| round.restore),
            save_vs_memfd: ratios(|round| round.memfd_read, |round| round.save),
            restore_vs_memfd: ratios(|round| round.memfd_write, |round| round.restore),
            restore_vs_fresh_memfd: ratios(|round| round.memfd_write_fresh, |round| round.restore),
        })
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
                "{what}: {length} bytes instead of {}",
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

/// Begins to save the stopped device, does `work`, and ends it.
fn with_save<T>(device: &Device, work: impl FnOnce(&Session) -> Result<T>) -> Result<T> {
    let session = device.start(State::StopCopy)?;
    let result = work(&session).context("save")?;
    device.change_state(State::Stop)?;
    Ok(result)
}

/// Returns the device's whole stream.
fn save_whole(device: &Device, local_memory: u64) -> Result<Vec<u8>> {
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

/// Saves the device; returns the bytes of its stream and the time.
fn save(device: &Device, buffer: &mut [u8]) -> Result<(usize, Duration)> {
    with_save(device, |session| Ok(read_to_end(session.file(), buffer)?))
}

/// Restores the device in pieces of `buffer` bytes; returns the time.
fn restore(device: &Device, stream: &[u8], buffer: usize) -> Result<Duration> {
    let session = device.start(State::Resuming)?;
    let start = Instant::now();
    for piece in stream.chunks(buffer) {
        session.file().write_all(piece).context("restore")?;
    }
    device.change_state(State::Stop)?;
    Ok(start.elapsed())
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "A stream of {} bytes ({} MiB of local memory), buffers of {} KiB, {} rounds",
            self.stream,
            self.local_memory >> 20,
            self.buffer >> 10,
            self.rounds
        )?;
        let columns = format_args!("{:>10}{:>10}{:>10}", "median", "min", "max").to_string();
        writeln!(f, "\n{:<34}{columns}", "MB/s")?;
        for (name, rate) in [
            ("read of a memfd", self.memfd_read),
            ("save", self.save),
            ("write of a memfd", self.memfd_write),
            ("write of a memfd, fresh pages", self.memfd_write_fresh),
            ("restore", self.restore),
        ] {
            writeln!(f, "{name:<34}{rate:.0}")?;
        }
        writeln!(f, "\n{:<34}{columns}", "ratio")?;
        for (name, ratio) in [
            ("save / read of a memfd", self.save_vs_memfd),
            ("restore / write of a memfd", self.restore_vs_memfd),
            ("restore / write, fresh pages", self.restore_vs_fresh_memfd),
        ] {
            writeln!(f, "{name:<34}{ratio:.2}")?;
        }
        Ok(())
    }
}
