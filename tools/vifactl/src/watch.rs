// SPDX-License-Identifier: GPL-2.0

//! `vifactl watch`: a VIFA interface during migration.
//!
//! This command never opens the device. It reads debugfs, or the open file of the process that has
//! the device open.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::Serialize;
use vifa_vfio::pci::Address;

use crate::{
    context::Context,
    device::Holder,
    exit::Exit,
    region::{self, Region},
    state::State,
};

/// Show the state and the progress of a VIFA interface until the device is removed
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The virtual function, as in 0000:01:00.1
    function: Address,
    /// Seconds between two lines, from 0.01
    #[arg(long, short, default_value = "1", value_name = "SECONDS", value_parser = interval)]
    interval: Duration,
    /// Number of lines to show
    #[arg(long, short, value_name = "LINES")]
    count: Option<u64>,
}

/// Parses an interval.
fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;

    if !(0.01..=86400.0).contains(&seconds) {
        return Err("must be 0.01 to 86400 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// One line of output.
#[derive(Serialize)]
struct Line {
    function: Address,
    /// Seconds since the first line.
    seconds: f64,
    state: State,
    /// Bytes of the stream so far.
    stream_bytes: u64,
    /// Rate of the stream since the previous line.
    bytes_per_second: Option<u64>,
    sections: u64,
    /// Bytes of local memory moved so far.
    data_bytes: u64,
    /// Bytes of local memory known to require a move.
    local_bytes: u64,
    /// The last error as text.
    error: Option<String>,
}

/// The heading.
const HEAD: &str =
    "   SECONDS  STATE           STREAM BYTES     BYTES/S  SECTIONS      DATA BYTES  OF";

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self
            .bytes_per_second
            .map_or("-".to_owned(), |rate| rate.to_string());

        write!(
            f,
            "{:>10.2}  {:12}  {:>14}  {rate:>10}  {:>8}  {:>14}  {}",
            self.seconds,
            self.state,
            self.stream_bytes,
            self.sections,
            self.data_bytes,
            self.local_bytes
        )?;
        match &self.error {
            Some(error) => write!(f, "  {error}"),
            None => Ok(()),
        }
    }
}

/// Data of the previous line.
struct Before {
    /// Time of the first line.
    began: Instant,
    at: Instant,
    stream_bytes: u64,
}

impl Line {
    /// Returns the line for `region` at the time `at`.
    fn new(function: Address, region: &Region, at: Instant, before: Option<&Before>) -> Self {
        let stream_bytes = region.transfer.stream_bytes;
        let began = before.map_or(at, |before| before.began);
        let rate = |before: &Before| {
            let seconds = at.duration_since(before.at).as_secs_f64();
            // A new transfer begins at 0.
            let moved = stream_bytes
                .checked_sub(before.stream_bytes)
                .unwrap_or(stream_bytes);

            // CAST: Saturates if infinite.
            (moved as f64 / seconds) as u64
        };

        Self {
            function,
            seconds: at.duration_since(began).as_secs_f64(),
            state: region.state,
            stream_bytes,
            bytes_per_second: before.map(rate),
            sections: region.transfer.sections,
            data_bytes: region.addresses.data_bytes,
            local_bytes: region.addresses.local_bytes,
            error: region.last_error.as_ref().map(ToString::to_string),
        }
    }
}

/// Watches the function.
///
/// # Errors
///
/// The device does not exist at first, shows no region, or shows an invalid one.
pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let address = arguments.function;
    let host = &context.host;
    let mut before: Option<Before> = None;
    let mut left = arguments.count;

    host.function(address)?;
    while left != Some(0) {
        let holder = Holder::of(address, host);
        let found = region::peek(address, host, holder.as_ref());
        let region = match (found, &before) {
            (Ok(Some((region, _))), _) => region,
            (Ok(None), None) => {
                return Err(Exit::Failed
                    .because(format!(
                        "failed to watch {address}: debugfs does not show it to this user, \
                         and no process has it open"
                    ))
                    .into())
            }
            // The device was removed, or the process that shared it exited.
            (Ok(None), Some(_)) => return Ok(()),
            (Err(_), Some(_)) if host.function(address).is_err() => return Ok(()),
            (Err(error), _) => return Err(error),
        };
        let at = Instant::now();

        if before.is_none() {
            context.output.print_head(HEAD)?;
        }
        context
            .output
            .print_line(&Line::new(address, &region, at, before.as_ref()))?;
        before = Some(Before {
            began: before.map_or(at, |before| before.began),
            at,
            stream_bytes: region.transfer.stream_bytes,
        });
        left = left.map(|left| left - 1);
        if left != Some(0) {
            thread::sleep(arguments.interval);
        }
    }
    Ok(())
}
