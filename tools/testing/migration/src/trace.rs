// SPDX-License-Identifier: GPL-2.0

//! QEMU's trace of its actions on the migrated devices.
//!
//! A successful migration does not show how it was done. Without a dirty log of the devices, QEMU
//! assumes that all memory is dirty, or none. Without rounds, it moves a device's memory while the
//! machine is stopped.

use std::{
    fmt,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use anyhow::{ensure, Context, Result};

/// The events that [`Trace`] uses.
pub const EVENTS: [&str; 6] = [TRACKING, REPORT, BLOCK, EMPTY, STOPPED, STOPPED_THREAD];

const TRACKING: &str = "vfio_device_dirty_tracking_start";
const REPORT: &str = "vfio_get_dirty_bitmap";
const BLOCK: &str = "vfio_save_block";
const EMPTY: &str = "vfio_save_block_precopy_empty_hit";
const STOPPED: &str = "vfio_save_complete_precopy_start";
const STOPPED_THREAD: &str = "vfio_save_complete_precopy_thread_start";

/// The actions of the source's QEMU in one migration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Number of times that QEMU started the devices' logs.
    pub log_starts: u64,
    /// Number of memory ranges for which QEMU queried the devices' logs.
    pub reports: u64,
    /// Number of pages reported dirty.
    pub dirty_pages: u64,
    /// Number of bytes of device state that were read while the machine ran.
    pub live_bytes: u64,
    /// Number of times that the state of a running device was read to its end.
    pub live_ends: u64,
    /// Number of bytes of device state that were read after the machine had stopped, without those
    /// that are sent over separate channels.
    pub stopped_bytes: u64,
    /// Number of devices whose remaining state was sent over separate channels.
    pub threads: u64,
}

impl Trace {
    /// Reads the file at `path`, starting at byte `start`.
    pub fn read(path: &Path, start: u64) -> Result<Self> {
        let mut text = String::new();
        let mut file = File::open(path).with_context(|| path.display().to_string())?;
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.read_to_string(&mut text))
            .with_context(|| path.display().to_string())?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut trace = Self::default();
        let mut stopped = false;
        for (event, rest) in text.lines().filter_map(|line| line.split_once(' ')) {
            match event {
                TRACKING => trace.log_starts += 1,
                REPORT => {
                    trace.reports += 1;
                    trace.dirty_pages += number(rest, "dirty_pages=");
                }
                EMPTY => trace.live_ends += 1,
                STOPPED => stopped = true,
                STOPPED_THREAD => {
                    stopped = true;
                    trace.threads += 1;
                }
                BLOCK if stopped => trace.stopped_bytes += number(rest, "data_size "),
                BLOCK => trace.live_bytes += number(rest, "data_size "),
                _ => (),
            }
        }
        trace
    }

    /// Checks that QEMU queried the devices' logs.
    pub fn check_log(&self) -> Result<()> {
        ensure!(self.log_starts > 0, "QEMU did not start the devices' logs");
        ensure!(self.reports > 0, "QEMU requested no report of a log");
        Ok(())
    }

    /// Checks that most of `bytes` bytes of device state were read while the machine ran: the
    /// destination does not let it stop before the first round is sent.
    pub fn check_live(&self, bytes: u64) -> Result<()> {
        ensure!(
            self.live_bytes > bytes / 2,
            "of {bytes} bytes of device state, only {} were read while the machine ran",
            self.live_bytes
        );
        Ok(())
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} reports of {} dirty pages; device state: {} bytes while the machine ran, {} then",
            self.reports, self.dirty_pages, self.live_bytes, self.stopped_bytes
        )?;
        match self.threads {
            0 => Ok(()),
            threads => write!(f, " and the data of {threads} threads"),
        }
    }
}

/// Returns the number after `name` in `text`; 0 if there is none.
fn number(text: &str, name: &str) -> u64 {
    let digits = text.split_once(name).map_or("", |(_, rest)| rest);
    let end = digits
        .find(|digit: char| !digit.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "vfio_device_dirty_tracking_start nr_ranges 1 32:[0x0 - 0x7ffffff]
vfio_save_block  (0000:01:10.0) data_size 300
vfio_get_dirty_bitmap iova=0x0 size= 0x8000000 bitmap_size=0x1000 start=0x0 dirty_pages=17
vfio_save_block  (0000:01:10.0) data_size 1048576
vfio_save_block_precopy_empty_hit  (0000:01:10.0)
vfio_save_complete_precopy_start  (0000:01:10.0)
vfio_save_block  (0000:01:10.0) data_size 512
";

    #[test]
    fn distinguishes_live_reads_from_stopped_reads() {
        let trace = Trace::parse(LINES);
        assert_eq!(
            trace,
            Trace {
                log_starts: 1,
                reports: 1,
                dirty_pages: 17,
                live_bytes: 1_048_876,
                live_ends: 1,
                stopped_bytes: 512,
                threads: 0,
            }
        );
        assert!(trace.check_log().is_ok());
        assert!(trace.check_live(1_049_388).is_ok());
        assert!(trace.check_live(64 << 20).is_err());
    }

    #[test]
    fn detects_a_log_that_was_not_started_or_not_read() {
        let without = |event: &str| {
            let lines: Vec<_> = LINES
                .lines()
                .filter(|line| !line.starts_with(event))
                .collect();
            Trace::parse(&lines.join("\n"))
        };
        assert!(without(TRACKING).check_log().is_err());
        assert!(without(REPORT).check_log().is_err());
    }
}
