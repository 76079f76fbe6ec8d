// SPDX-License-Identifier: GPL-2.0

//! All ways in which a machine can migrate: between all VFIO backends, with devices on the main
//! connection or on separate channels, with one device and with more; and several machines at the
//! same time.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, ensure, Context, Result};
use vifa_migrate::{
    guest::Guest,
    migration::{Multifd, Outcome, Plan},
    region::Region,
    scratch::Scratch,
    style::seconds,
    vmm::{Backend, Machine, Passthrough, Role},
};
use vifa_tap::Tap;
use vifa_vfio::pci::Function;

use crate::{prepare, rounds::Turns, Options};

/// The ways, in an order in which each begins where the previous one ended: the backend of the
/// destination, and the use of several connections.
const WAYS: [(Backend, Multifd); 9] = [
    (Backend::Container, Multifd::Off),
    (Backend::Container, Multifd::Memory),
    (Backend::Container, Multifd::All),
    (Backend::Iommufd, Multifd::Off),
    (Backend::Iommufd, Multifd::Memory),
    (Backend::Iommufd, Multifd::All),
    (Backend::Container, Multifd::Off),
    (Backend::Iommufd, Multifd::All),
    (Backend::Container, Multifd::All),
];

/// The time for which a machine is watched and must not be stopped.
const WATCHED: Duration = Duration::from_secs(4);

/// Runs all tests. Returns whether all passed.
pub fn run(options: &Options, devices: &[usize], machines: usize) -> Result<bool> {
    // In addition to the ways, for each number of devices: the guest's start and end; at the end,
    // the limit and several machines.
    let mut tap = Tap::plan(((WAYS.len() + 2) * devices.len() + 2) as u32);
    let begin = Instant::now();
    let result = devices
        .iter()
        .try_for_each(|devices| ways(options, *devices, &mut tap))
        .and_then(|()| limit(options, &mut tap))
        .and_then(|()| at_once(options, machines, &mut tap));
    if let Err(error) = &result {
        tap.fail(&format!("{error:#}"));
    }
    tap.note(&format!("{} in total", seconds(begin.elapsed())));
    Ok(tap.finish())
}

fn ways(options: &Options, devices: usize, tap: &mut Tap) -> Result<()> {
    let machine = options.machine()?;
    let scratch = Scratch::new()?;
    let (host, _) = prepare(options, &machine, 2 * devices)?;
    let mut turns = Turns::new(&host, devices);
    let first = turns.next(Backend::Container);
    let mut guest = Guest::start(&machine, &first, scratch.path(), "vm")?;
    guest.boot()?;
    tap.pass(&format!("guest runs with {first}"));
    for (backend, multifd) in WAYS {
        let plan = Plan {
            multifd,
            ..options.plan()
        };
        let from = guest.passthrough().backend;
        let name = format!("{devices} devices from {from} to {backend}, {multifd}");
        let outcome =
            migrate(&mut guest, &turns.next(backend), &plan).with_context(|| name.clone())?;
        tap.pass(&name);
        tap.note(&outcome.to_string());
    }
    let workload = guest.finish()?;
    tap.pass("every command completed once, every byte is correct");
    tap.note(&format!("{} operations", workload.operations));
    guest.quit()
}

/// Moves the machine, compares it, and checks how it was moved.
fn migrate(guest: &mut Guest, to: &Passthrough, plan: &Plan) -> Result<Outcome> {
    let functions = guest.functions().to_vec();
    let before = logs(&functions)?;
    let vmm = guest.destination(to, Role::ReceivePaused)?;
    let outcome = guest.migrate(vmm, plan, &mut |_| ())?;
    outcome.check_devices()?;
    ensure!(
        (outcome.trace.threads > 0) == (plan.multifd == Multifd::All),
        "{} devices used separate channels",
        outcome.trace.threads
    );
    for ((function, before), after) in functions.iter().zip(before).zip(logs(&functions)?) {
        ensure!(
            after.reports > before.reports && after.dirty_bytes > before.dirty_bytes,
            "{function} reported no pages: {before:?}, then {after:?}"
        );
        ensure!(
            after.lost == before.lost,
            "{function} lost its log: {before:?}, then {after:?}"
        );
    }
    Ok(outcome)
}

fn logs(functions: &[Function]) -> Result<Vec<vifa_migrate::region::Log>> {
    let regions = functions.iter().map(Region::read);
    regions.map(|region| Ok(region?.log)).collect()
}

/// Checks that a machine whose devices have more data than the downtime allows is not stopped until
/// the limit is raised.
fn limit(options: &Options, tap: &mut Tap) -> Result<()> {
    let machine = options.machine()?;
    let scratch = Scratch::new()?;
    let (host, _) = prepare(options, &machine, 2)?;
    let mut turns = Turns::new(&host, 1);
    let first = turns.next(Backend::Container);
    let mut guest = Guest::start(&machine, &first, scratch.path(), "vm")?;
    guest.boot()?;
    let plan = Plan {
        live: WATCHED,
        ..options.plan()
    };
    let vmm = guest.destination(&turns.next(Backend::Container), Role::Receive)?;
    let outcome = guest.migrate(vmm, &plan, &mut |_| ())?;
    ensure!(
        outcome.total >= WATCHED,
        "the machine was stopped after {}, before the remaining data fit the downtime limit",
        seconds(outcome.total)
    );
    guest.finish()?;
    guest.quit()?;
    tap.pass("the machine is not stopped before the limit allows it");
    tap.note(&format!(
        "downtime limit {}: downtime {}",
        seconds(plan.downtime),
        seconds(outcome.downtime)
    ));
    Ok(())
}

/// Migrates several machines with a device each at the same time, there and back.
fn at_once(options: &Options, machines: usize, tap: &mut Tap) -> Result<()> {
    let machine = options.machine()?;
    let plan = options.plan();
    let scratch = Scratch::new()?;
    let (host, _) = prepare(options, &machine, 2 * machines)?;
    let outcomes: Vec<Result<[Outcome; 2]>> = thread::scope(|scope| {
        let threads: Vec<_> = host
            .virtuals
            .chunks(2)
            .enumerate()
            .map(|(number, functions)| {
                let (machine, plan, path) = (&machine, &plan, scratch.path());
                let name = format!("vm{number}");
                scope.spawn(move || there_and_back(machine, functions, plan, path, &name))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
            })
            .collect()
    });
    for outcomes in outcomes {
        for outcome in outcomes? {
            tap.note(&outcome.to_string());
        }
    }
    tap.pass(&format!(
        "{machines} machines migrate at the same time, and back"
    ));
    Ok(())
}

fn there_and_back(
    machine: &Machine,
    functions: &[Function],
    plan: &Plan,
    directory: &std::path::Path,
    name: &str,
) -> Result<[Outcome; 2]> {
    let [here, there] = functions else {
        unreachable!("each machine has two functions");
    };
    let given = |function: &Function| Passthrough::new(std::slice::from_ref(function));
    let mut guest = Guest::start(machine, &given(here), directory, name)?;
    guest.boot()?;
    let outcomes = [
        migrate(&mut guest, &given(there), plan)?,
        migrate(&mut guest, &given(here), plan)?,
    ];
    guest.finish()?;
    guest.quit()?;
    Ok(outcomes)
}
