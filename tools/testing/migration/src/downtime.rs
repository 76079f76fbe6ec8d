// SPDX-License-Identifier: GPL-2.0

//! Downtime of a migrating virtual machine, and the part that its device adds.
//!
//! The machine is measured in three variants. The first has a device that reports changes of its
//! local memory, which moves while the machine runs (PRE_COPY). The second has a device that does
//! not, whose local memory is sent after the machine has stopped (STOP_COPY alone). The third has
//! no device. All of the local memory holds data, and the guest's workload writes to it
//! continuously, lightly or heavily.
//!
//! All variants stop when at most [`LEFT`] bytes remain, not counting the local memory that cannot
//! be sent before. Thus the machine's own memory adds the same to each downtime.

use std::{path::PathBuf, time::Duration};

use anyhow::{ensure, Result};
use serde::Serialize;

use crate::{
    guest::Guest,
    migration::{Outcome, Plan},
    region::Region,
    scratch::Scratch,
    sriov::Host,
    style::seconds,
    vmm::{Machine, Passthrough, Role},
};

/// Number of bytes that may remain when the machine stops.
pub const LEFT: u64 = 8 << 20;

/// Minimum time for which the machine runs during the migration, so that everything is sent once.
const LIVE: Duration = Duration::from_secs(2);

/// The parameters of the measurement.
pub struct Setup {
    /// The machine.
    pub machine: Machine,
    /// The driver's module, if the driver is not loaded; otherwise modprobe finds it.
    pub module: Option<PathBuf>,
    /// The address of a physical function whose devices report changes of local memory.
    pub pre_copy: String,
    /// The address of a physical function whose devices do not, and are otherwise equal.
    pub stop_copy: String,
    /// Number of migrations of each kind.
    pub rounds: u32,
}

/// The downtime of a migration.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Downtime {
    /// The downtime that QEMU reports, which ends when the destination has received everything.
    pub reported: Duration,
    /// From the stop of the processors to their start, as both QEMUs report.
    pub stopped: Duration,
}

/// The migrations of each variant, in order.
#[derive(Clone, Debug, Serialize)]
pub struct Variants {
    /// All local memory was sent after the machine had stopped.
    pub stop_copy: Vec<Downtime>,
    /// Local memory was sent while the machine ran.
    pub pre_copy: Vec<Downtime>,
    /// The machine had no device.
    pub without: Vec<Downtime>,
}

impl Variants {
    /// Returns the fraction of the device's downtime that PRE_COPY removes, from the medians of
    /// QEMU's reports; `None` if the device adds nothing, or if there are no measurements.
    pub fn removed(&self) -> Option<f64> {
        let stop_copy = median(&self.stop_copy)?;
        let pre_copy = median(&self.pre_copy)?;
        let without = median(&self.without)?;
        (stop_copy > without).then(|| (stop_copy - pre_copy) / (stop_copy - without))
    }
}

/// Returns the median in seconds.
fn median(downtimes: &[Downtime]) -> Option<f64> {
    let mut times: Vec<_> = downtimes
        .iter()
        .map(|downtime| downtime.reported.as_secs_f64())
        .collect();
    times.sort_by(f64::total_cmp);
    let half = times.len() / 2;
    match times.len() {
        0 => None,
        length if length % 2 == 1 => Some(times[half]),
        _ => Some((times[half - 1] + times[half]) / 2.0),
    }
}

/// The measured downtimes.
#[derive(Clone, Debug, Serialize)]
pub struct Downtimes {
    /// With a workload that occasionally writes some local memory.
    pub light: Variants,
    /// With a workload that writes local memory most of the time.
    pub heavy: Variants,
}

/// Settings of the guest's driver: every block of the local memory holds data.
const LIGHT: &str = "sparse=1 speed=512 rewrite=1";
const HEAVY: &str = "sparse=1 speed=4096 rewrite=7";

/// Runs all measurements and reports the results to `announce`.
///
/// # Errors
///
/// Fails if the devices are not as required, and if a migration fails or loses data.
pub fn measure(setup: &Setup, announce: &mut dyn FnMut(&str)) -> Result<Downtimes> {
    let without = without(setup, announce)?;
    let [light_pre_copy, heavy_pre_copy] = with(setup, &setup.pre_copy, announce)?;
    let [light_stop_copy, heavy_stop_copy] = with(setup, &setup.stop_copy, announce)?;
    Ok(Downtimes {
        light: Variants {
            stop_copy: light_stop_copy,
            pre_copy: light_pre_copy,
            without: without.clone(),
        },
        heavy: Variants {
            stop_copy: heavy_stop_copy,
            pre_copy: heavy_pre_copy,
            without,
        },
    })
}

fn plan(left: u64) -> Plan {
    Plan {
        live: LIVE,
        left: Some(left),
        operations: 20,
        ..Plan::default()
    }
}

fn without(setup: &Setup, announce: &mut dyn FnMut(&str)) -> Result<Vec<Downtime>> {
    let scratch = Scratch::new()?;
    let nothing = Passthrough::default();
    let mut guest = Guest::start(&setup.machine, &nothing, scratch.path(), "without")?;
    guest.boot()?;
    let mut downtimes = Vec::new();
    for _ in 0..setup.rounds {
        let vmm = guest.destination(&nothing, Role::Receive)?;
        let outcome = guest.migrate(vmm, &plan(LEFT), &mut |_| ())?;
        downtimes.push(downtime("without device", &outcome, announce));
    }
    guest.quit()?;
    Ok(downtimes)
}

/// Measures the downtimes with light and heavy writes on devices of the physical function at
/// `address`.
fn with(
    setup: &Setup,
    address: &str,
    announce: &mut dyn FnMut(&str),
) -> Result<[Vec<Downtime>; 2]> {
    let host = Host::prepare(setup.module.as_deref(), Some(address), 2)?;
    let identity = Region::read(&host.virtuals[0])?.identity;
    let local_memory = identity.local_memory();
    let reports = identity.reports_local_dirty();
    ensure!(
        reports == (address == setup.pre_copy) && local_memory > 0,
        "{address}: the devices have {local_memory} bytes of local memory, and {} \
         changes of it",
        if reports { "report" } else { "do not report" }
    );
    let variant = if reports {
        "PRE_COPY"
    } else {
        "STOP_COPY alone"
    };
    // The stream lists each granule of the local memory, in the worst case with a separate header.
    let left = if reports {
        LEFT
    } else {
        LEFT + local_memory + local_memory / 16
    };

    let scratch = Scratch::new()?;
    let mut turns = host.virtuals.iter().cycle();
    let mut next = || Passthrough::new(turns.next().map_or(&[], std::slice::from_ref));
    let mut guest = Guest::start(&setup.machine, &next(), scratch.path(), "with")?;
    guest.boot()?;
    let mut measured = [Vec::new(), Vec::new()];
    for ((writer, settings), downtimes) in [("light", LIGHT), ("heavy", HEAVY)]
        .into_iter()
        .zip(&mut measured)
    {
        guest.finish()?;
        guest.run(settings)?;
        for _ in 0..setup.rounds {
            let vmm = guest.destination(&next(), Role::Receive)?;
            let outcome = guest.migrate(vmm, &plan(left), &mut |_| ())?;
            if reports {
                outcome.check_devices()?;
            } else {
                outcome.check_states()?;
            }
            let name = format!("{variant}, {writer} writer");
            downtimes.push(downtime(&name, &outcome, announce));
        }
    }
    guest.finish()?;
    guest.quit()?;
    Ok(measured)
}

fn downtime(what: &str, outcome: &Outcome, announce: &mut dyn FnMut(&str)) -> Downtime {
    announce(&format!(
        "{what}: downtime {}, processors stopped for {}, {} in total, {} bytes of device state \
         ({} of them after the stop)",
        seconds(outcome.downtime),
        seconds(outcome.stopped),
        seconds(outcome.total),
        outcome.device_bytes,
        outcome.trace.stopped_bytes
    ));
    Downtime {
        reported: outcome.downtime,
        stopped: outcome.stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn downtimes(milliseconds: &[u64]) -> Vec<Downtime> {
        let downtime = |milliseconds: &u64| Downtime {
            reported: Duration::from_millis(*milliseconds),
            stopped: Duration::ZERO,
        };
        milliseconds.iter().map(downtime).collect()
    }

    #[test]
    fn removed_is_a_fraction_of_the_added_downtime() {
        let variants = Variants {
            stop_copy: downtimes(&[1100, 900, 1000]),
            pre_copy: downtimes(&[150, 250]),
            without: downtimes(&[100]),
        };
        let removed = variants.removed().unwrap();
        assert!((removed - 800.0 / 900.0).abs() < 1e-9, "{removed}");
    }

    #[test]
    fn nothing_is_removed_if_the_device_adds_nothing() {
        let variants = Variants {
            stop_copy: downtimes(&[100]),
            pre_copy: downtimes(&[100]),
            without: downtimes(&[100]),
        };
        assert_eq!(variants.removed(), None);
        let nothing = Variants {
            without: Vec::new(),
            ..variants
        };
        assert_eq!(nothing.removed(), None);
    }
}
