// SPDX-License-Identifier: GPL-2.0

//! The migrations of `make test`: one machine migrates back and forth, in a different way in each
//! round, and is compared each time. Some migrations are interrupted; one loses pages. If KVM runs
//! the machine, software emulation runs a second one, which migrates once, because users have both.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{ensure, Context, Result};
use vifa_device::RegisterFile;
use vifa_migrate::{
    guest::Guest,
    hw,
    interruption::{Ending, Interruption, Moment, Phase},
    migration::{Multifd, Plan},
    processor::Accelerator,
    scratch::Scratch,
    sriov::Host,
    style::{mebibytes, seconds},
    vmm::{Backend, Machine, Passthrough, Role},
};
use vifa_tap::Tap;
use vifa_vfio::pci::Function;

use crate::{prepare, Options};

/// The ways of the rounds, used in turn. The first is QEMU's default.
const WAYS: [(Backend, Multifd); 4] = [
    (Backend::Container, Multifd::Off),
    (Backend::Iommufd, Multifd::All),
    (Backend::Container, Multifd::All),
    (Backend::Iommufd, Multifd::Off),
];

const INTERRUPTIONS: [(Interruption, Phase); 4] = [
    (Interruption::Cancel, Phase::LaterRounds),
    (Interruption::Death, Phase::LaterRounds),
    (Interruption::Cancel, Phase::Stopped),
    (Interruption::Death, Phase::LastRound),
];

/// The interval of lost pages, in written pages, of a log that loses pages.
const DROPPED: u64 = 10;

/// Runs all tests. Returns whether all passed.
pub fn run(options: &Options, rounds: u32, devices: usize) -> Result<bool> {
    // In addition to the rounds: the guest's start, the lost pages, the file, the workload's end, a
    // test of the workload, and the emulated machine.
    let mut tap = Tap::plan(rounds + INTERRUPTIONS.len() as u32 + 6);
    let begin = Instant::now();
    let result = migrate(options, rounds, devices, &mut tap);
    if let Err(error) = &result {
        tap.fail(&format!("{error:#}"));
    }
    tap.note(&format!("{} in total", seconds(begin.elapsed())));
    Ok(tap.finish())
}

fn migrate(options: &Options, rounds: u32, devices: usize, tap: &mut Tap) -> Result<()> {
    let machine = options.machine()?;
    let plan = options.plan();
    let scratch = Scratch::new()?;
    let (host, version) = prepare(options, &machine, 2 * devices + 2)?;
    tap.note(&version);
    let mut turns = Turns::new(&host, devices);

    let first = turns.next(Backend::Container);
    let mut guest = Guest::start(&machine, &first, scratch.path(), "vm")?;
    guest.boot()?;
    tap.pass(&format!("guest runs with {}", guest.passthrough()));
    for (round, (backend, multifd)) in (1..=rounds).zip(WAYS.iter().cycle()) {
        let plan = Plan {
            multifd: *multifd,
            ..plan
        };
        let name = format!("round {round}: {} to", guest.passthrough());
        let to = turns.next(*backend);
        let vmm = guest.destination(&to, Role::ReceivePaused)?;
        let outcome = guest.migrate(vmm, &plan, &mut |_| ())?;
        outcome.check_devices()?;
        tap.pass(&format!("{name} {to}, {multifd}"));
        tap.note(&outcome.to_string());
    }
    // The emulated machine boots meanwhile, which takes much longer than under KVM.
    let emulated = Emulated::start(&machine, &host.virtuals[2 * devices..], scratch.path())?;
    for (interruption, phase) in INTERRUPTIONS {
        let to = turns.other(guest.functions());
        interrupt(&mut guest, &to, &plan, interruption, phase, tap)?;
    }
    lose_pages(&host, &mut guest, &mut turns, &plan, tap)?;

    let to = turns.next(Backend::Container);
    let name = format!("by a file: {} to {to}", guest.passthrough());
    let file = scratch.path().join("machine");
    let vmm = guest.destination(&to, Role::Receive)?;
    let outcome = guest.migrate_by_file(vmm, &file, &plan, &mut |_| ())?;
    outcome.check_states()?;
    tap.pass(&name);
    tap.note(&outcome.to_string());
    tap.note(&format!("file {}", mebibytes(fs::metadata(&file)?.len())));

    let workload = guest.finish()?;
    tap.pass("every command completed once, every byte is correct");
    tap.note(&format!(
        "{} operations, {} verified, {} interrupts, longest gap {} ms of the guest's time",
        workload.operations,
        mebibytes(workload.bytes),
        workload.interrupts,
        workload.longest_gap_ms
    ));
    guest.tamper()?;
    tap.pass("the workload detects a single wrong bit");
    guest.quit()?;
    emulated.migrate(&plan, tap)
}

/// A machine that software emulation runs.
struct Emulated {
    guest: Guest,
    to: Passthrough,
}

impl Emulated {
    /// Starts the machine with the first of two `functions`; it later moves to the second.
    fn start(machine: &Machine, functions: &[Function], directory: &Path) -> Result<Self> {
        let machine = Machine {
            accelerator: Accelerator::Tcg,
            ..machine.clone()
        };
        let (from, to) = functions.split_at(1);
        Ok(Self {
            guest: Guest::start(&machine, &Passthrough::new(from), directory, "emulated")?,
            to: Passthrough::new(to),
        })
    }

    fn migrate(mut self, plan: &Plan, tap: &mut Tap) -> Result<()> {
        self.guest.boot()?;
        let vmm = self.guest.destination(&self.to, Role::Receive)?;
        let outcome = self.guest.migrate(vmm, plan, &mut |_| ())?;
        outcome.check_devices()?;
        self.guest.finish()?;
        self.guest.quit()?;
        tap.pass(&format!("a machine under {} migrates", Accelerator::Tcg));
        tap.note(&outcome.to_string());
        Ok(())
    }
}

/// Two sets of functions that a machine uses in turn.
pub(crate) struct Turns<'a> {
    sides: [&'a [Function]; 2],
    next: usize,
}

impl<'a> Turns<'a> {
    /// Returns the first `devices` functions of the host, and the next ones.
    pub(crate) fn new(host: &'a Host, devices: usize) -> Self {
        let (first, second) = host.virtuals.split_at(devices);
        Self {
            sides: [first, &second[..devices]],
            next: 0,
        }
    }

    /// Returns the functions that the machine does not use, and takes turns.
    pub(crate) fn next(&mut self, backend: Backend) -> Passthrough {
        let side = self.sides[self.next];
        self.next = 1 - self.next;
        Passthrough {
            backend,
            ..Passthrough::new(side)
        }
    }

    /// Like [`Self::next`], for a destination at which the machine does not stay; the machine uses
    /// `taken`.
    pub(crate) fn other(&self, taken: &[Function]) -> Passthrough {
        let other = self.sides.iter().find(|side| **side != taken);
        Passthrough::new(other.copied().unwrap_or_default())
    }
}

/// Interrupts a migration in a phase in which the source still owns the machine.
fn interrupt(
    guest: &mut Guest,
    to: &Passthrough,
    plan: &Plan,
    interruption: Interruption,
    phase: Phase,
    tap: &mut Tap,
) -> Result<()> {
    let name = format!("{interruption} {phase}: the machine continues");
    let plan = Plan {
        // This phase lasts until the interruption.
        live: if phase == Phase::LaterRounds {
            Duration::from_secs(3600)
        } else {
            plan.live
        },
        ..*plan
    };
    let vmm = guest.destination(to, Role::Receive)?;
    let interrupted = guest
        .interrupt(vmm, &plan, interruption, Moment::In(phase))
        .with_context(|| name.clone())?;
    ensure!(
        interrupted.ending == Ending::Stayed,
        "{name}: it did not stay: {interrupted}"
    );
    tap.pass(&name);
    tap.note(&interrupted.to_string());
    Ok(())
}

/// Lets the devices' logs lose pages, which the comparison must detect.
fn lose_pages(
    host: &Host,
    guest: &mut Guest,
    turns: &mut Turns,
    plan: &Plan,
    tap: &mut Tap,
) -> Result<()> {
    let registers = RegisterFile::map(&host.physical)?;
    let sabotaged = registers.sabotage_log(hw::VIFA_FAULT_ANY_VF, DROPPED)?;
    let to = turns.other(guest.functions());
    let vmm = guest.destination(&to, Role::ReceivePaused)?;
    let compared = guest.send_and_return(vmm, plan);
    let dropped = sabotaged.fired();
    drop(sabotaged);
    let error = match compared? {
        Ok(comparison) => {
            anyhow::bail!("{dropped} pages were not logged, but not detected: {comparison}")
        }
        Err(error) => format!("{error:#}"),
    };
    ensure!(
        error.contains("pages of memory differ"),
        "the error is not about the lost pages: {error}"
    );
    tap.pass("pages that are not logged are detected");
    tap.note(&format!("{dropped} pages were not logged: {error}"));
    Ok(())
}
