// SPDX-License-Identifier: GPL-2.0

//! How long a virtual machine stands when it migrates, and how much of that its device adds.
//!
//! Three variants of one machine: with a device that knows which of its local memory has changed,
//! which moves while the machine runs (PRE_COPY); with one that does not, whose local memory is sent
//! when the machine has stopped (STOP_COPY alone); and without a device. All of the local memory
//! holds data, and the guest's workload writes to it all the time, lightly or heavily.
//!
//! All variants stop when no more than [`LEFT`] is left to send, beside the local memory that cannot
//! be sent before: so the machine's own memory adds the same to each.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{ensure, Result};
use serde::Serialize;

use crate::guest::Guest;
use crate::migration::{Outcome, Plan};
use crate::region::Region;
use crate::scratch::Scratch;
use crate::sriov::Host;
use crate::style::seconds;
use crate::vmm::{Machine, Passthrough, Role};

/// Bytes that may be left when the machine stops.
pub const LEFT: u64 = 8 << 20;

/// How long the machine runs on at least, for everything to be sent once.
const LIVE: Duration = Duration::from_secs(2);

/// What is measured.
pub struct Setup {
    /// The machine.
    pub machine: Machine,
    /// The driver's module, for when no driver is there; else modprobe finds it.
    pub module: Option<PathBuf>,
    /// The address of a physical function whose devices know which local memory has changed.
    pub pre_copy: String,
    /// The address of one whose devices do not know it, and are like the other's in all else.
    pub stop_copy: String,
    /// Migrations of each kind.
    pub rounds: u32,
}

/// How long a machine stood.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Downtime {
    /// As QEMU reports it, which counts until the destination has everything.
    pub reported: Duration,
    /// From the stop of the processors to their run, as both QEMUs tell.
    pub stopped: Duration,
}

/// The migrations of each variant, in their order.
#[derive(Clone, Debug, Serialize)]
pub struct Variants {
    /// All local memory was sent when the machine had stopped.
    pub stop_copy: Vec<Downtime>,
    /// Local memory was sent while it ran.
    pub pre_copy: Vec<Downtime>,
    /// There was no device.
    pub without: Vec<Downtime>,
}

impl Variants {
    /// The part of what the device adds to the downtime that PRE_COPY takes away, from the medians
    /// of what QEMU reports; `None` where the device adds nothing, or nothing was measured.
    pub fn removed(&self) -> Option<f64> {
        let stop_copy = median(&self.stop_copy)?;
        let pre_copy = median(&self.pre_copy)?;
        let without = median(&self.without)?;
        (stop_copy > without).then(|| (stop_copy - pre_copy) / (stop_copy - without))
    }
}

/// In seconds.
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

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Downtimes {
    /// With a writer that writes some local memory now and then.
    pub light: Variants,
    /// With one that does little else.
    pub heavy: Variants,
}

/// Settings of the guest's driver: every block of the local memory holds data.
const LIGHT: &str = "sparse=1 speed=512 rewrite=1";
const HEAVY: &str = "sparse=1 speed=4096 rewrite=7";

/// Measures everything; `tell` hears what comes out.
///
/// # Errors
///
/// When the devices are not what they are to be, and when a migration fails or loses anything.
pub fn measure(setup: &Setup, tell: &mut dyn FnMut(&str)) -> Result<Downtimes> {
    let without = without(setup, tell)?;
    let [light_pre_copy, heavy_pre_copy] = with(setup, &setup.pre_copy, tell)?;
    let [light_stop_copy, heavy_stop_copy] = with(setup, &setup.stop_copy, tell)?;
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

fn without(setup: &Setup, tell: &mut dyn FnMut(&str)) -> Result<Vec<Downtime>> {
    let scratch = Scratch::new()?;
    let nothing = Passthrough::default();
    let mut guest = Guest::start(&setup.machine, &nothing, scratch.path(), "without")?;
    guest.boot()?;
    let mut downtimes = Vec::new();
    for _ in 0..setup.rounds {
        let vmm = guest.destination(&nothing, Role::Receive)?;
        let outcome = guest.migrate(vmm, &plan(LEFT), &mut |_| ())?;
        downtimes.push(downtime("without device", &outcome, tell));
    }
    guest.quit()?;
    Ok(downtimes)
}

/// The downtimes with a light and a heavy writer on devices of the physical function at `address`.
fn with(setup: &Setup, address: &str, tell: &mut dyn FnMut(&str)) -> Result<[Vec<Downtime>; 2]> {
    let host = Host::prepare(setup.module.as_deref(), Some(address), 2)?;
    let identity = Region::read(&host.virtuals[0])?.identity;
    let local_memory = identity.local_memory();
    let knows = identity.knows_local_dirty();
    ensure!(
        knows == (address == setup.pre_copy) && local_memory > 0,
        "{address}: the devices have {local_memory} bytes of local memory, and {} which of it has \
         changed",
        if knows { "know" } else { "do not know" }
    );
    let variant = if knows { "PRE_COPY" } else { "STOP_COPY alone" };
    // Each granule of the local memory is listed, and has a header of its own at the worst.
    let left = if knows {
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
            if knows {
                outcome.check_devices()?;
            } else {
                outcome.check_states()?;
            }
            let name = format!("{variant}, {writer} writer");
            downtimes.push(downtime(&name, &outcome, tell));
        }
    }
    guest.finish()?;
    guest.quit()?;
    Ok(measured)
}

fn downtime(what: &str, outcome: &Outcome, tell: &mut dyn FnMut(&str)) -> Downtime {
    tell(&format!(
        "{what}: downtime {}, processors stopped for {}, {} in all, {} bytes of device state ({} of \
         them after the stop)",
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
    fn removed_is_the_part_of_what_the_device_adds() {
        let variants = Variants {
            stop_copy: downtimes(&[1100, 900, 1000]),
            pre_copy: downtimes(&[150, 250]),
            without: downtimes(&[100]),
        };
        let removed = variants.removed().unwrap();
        assert!((removed - 800.0 / 900.0).abs() < 1e-9, "{removed}");
    }

    #[test]
    fn where_the_device_adds_nothing_nothing_can_be_removed() {
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
