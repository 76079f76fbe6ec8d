// SPDX-License-Identifier: GPL-2.0

//! Migration of a machine with a network adapter under traffic: within a card, over the wire to
//! another card, and back. Migrations are also interrupted, and refused if the destination host
//! does not grant the settings that the guest has at the source. The results are TAP.

mod demo;
mod scene;

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::{ensure, Context, Result};
use vifa_migrate::{
    card::HostInterface,
    console::Pings,
    flows::{PING_INTERVAL, UNDER_WAY},
    interruption::{Ending, Interruption, Moment, Phase},
    migration::Plan,
    region::Region,
    style::{mebibytes, seconds},
};
use vifa_tap::Tap;

use self::scene::{Load, Scene, MAC, MTU, VLAN};
use crate::Options;

pub use self::demo::run as demo;

/// The interruptions of migrations; a short run uses the first.
const INTERRUPTIONS: [(Interruption, Phase); 2] = [
    (Interruption::Cancel, Phase::Stopped),
    (Interruption::Death, Phase::LastRound),
];

/// An address that is not the guest's, and the address that removes it.
const OTHER_MAC: &str = "02:00:5e:00:00:99";
const NO_MAC: &str = "00:00:00:00:00:00";

/// VLANs that fill the card's filters, which have 32 entries.
const VLANS: Range<u16> = 100..132;

/// A missing precondition at the destination host.
#[derive(Clone, Copy, Debug)]
enum Lack {
    /// The physical function's interface is down.
    Interface,
    /// The administrator fixed another MAC address.
    Mac,
    /// The VLAN filters are full.
    Vlan,
}

impl Lack {
    /// All missing preconditions; a short run uses the first.
    const ALL: [Self; 3] = [Self::Mac, Self::Interface, Self::Vlan];

    fn name(self) -> &'static str {
        match self {
            Self::Interface => "the physical function's interface is down",
            Self::Mac => "the administrator fixed another MAC address",
            Self::Vlan => "the VLAN filters are full",
        }
    }

    /// Returns the texts that the driver's message must contain.
    fn expected_texts(self) -> Vec<String> {
        match self {
            Self::Interface => vec!["interface up?".to_owned()],
            Self::Mac => vec![MAC.to_owned(), OTHER_MAC.to_owned()],
            Self::Vlan => vec![format!("VLAN {VLAN}:")],
        }
    }
}

/// Number of checks in each round.
const CHECKS: u32 = 3;

/// Runs all tests. Returns whether all passed.
pub fn run(options: &Options, rounds: u32, full: bool) -> Result<bool> {
    let (interruptions, lacks) = match full {
        true => (&INTERRUPTIONS[..], &Lack::ALL[..]),
        false => (&INTERRUPTIONS[..1], &Lack::ALL[..1]),
    };
    // In addition to these: the start, and the checks at the end, including those of a neighbour
    // machine.
    let mut tap = Tap::plan(
        CHECKS * rounds + (interruptions.len() + lacks.len()) as u32 + if full { 6 } else { 4 },
    );
    let begin = Instant::now();
    let load = Load {
        file: 256 << 10,
        // An emulated machine can transfer little more than this for files and both iperf3 tests.
        rate: if full { 8 << 10 } else { 32 << 10 },
        measured: full.then_some(scene::MEASURED),
    };
    let result = run_rounds(options, rounds, load, full, interruptions, lacks, &mut tap);
    if let Err(error) = &result {
        tap.fail(&format!("{error:#}"));
    }
    tap.note(&format!("{} in total", seconds(begin.elapsed())));
    Ok(tap.finish())
}

fn run_rounds(
    options: &Options,
    rounds: u32,
    load: Load,
    neighbour: bool,
    interruptions: &[(Interruption, Phase)],
    lacks: &[Lack],
    tap: &mut Tap,
) -> Result<()> {
    let plan = scene::plan(options);
    tap.note(&options.machine()?.version()?);
    let mut scene = Scene::start(options, load, neighbour)?;
    tap.pass(&format!("guest runs with {}", scene.guest.passthrough()));
    // The first round stays within the card, so that the other card is free for the interruptions
    // and refusals.
    round(&mut scene, &plan, 1, tap)?;
    for (interruption, phase) in interruptions {
        interrupt(&mut scene, &plan, *interruption, *phase, tap)?;
    }
    for lack in lacks {
        be_refused(&mut scene, &plan, *lack, tap)?;
    }
    for number in 2..=rounds {
        round(&mut scene, &plan, number, tap)?;
    }
    end(scene, u64::from(rounds) + interruptions.len() as u64, tap)
}

/// Runs one migration and checks the traffic.
fn round(scene: &mut Scene, plan: &Plan, number: u32, tap: &mut Tap) -> Result<()> {
    let from = scene.guest.functions()[0].clone();
    let name = format!("round {number}, {from} to {}", scene.next());
    let journey = scene.travel(plan).with_context(|| name.clone())?;
    tap.pass(&format!("{name}: the machine migrates"));
    tap.note(&journey.to_string());
    let lost: Vec<_> = journey
        .passed
        .tallies
        .iter()
        .filter_map(|tally| tally.check(journey.astray).err())
        .map(|error| error.to_string())
        .collect();
    tap.check(
        &format!("{name}: packets of all kinds are only lost while it is away"),
        &lost,
    );
    if !lost.is_empty() {
        // The guest's counters show in which direction packets were lost.
        tap.note(&format!("the guest: {:?}", scene.guest.traffic()));
    }
    let ended = scene.check_connections().err().map(|e| e.to_string());
    tap.check(&format!("{name}: connections survive it"), ended.as_slice());
    Ok(())
}

/// Interrupts a migration after its devices have stopped: they continue at the source.
fn interrupt(
    scene: &mut Scene,
    plan: &Plan,
    interruption: Interruption,
    phase: Phase,
    tap: &mut Tap,
) -> Result<()> {
    let name = format!("{interruption} {phase}: the machine continues");
    let function = scene.on_other_card().clone();
    let vmm = scene.destination(&function)?;
    let interrupted = scene
        .guest
        .interrupt(vmm, plan, interruption, Moment::In(phase))
        .with_context(|| name.clone())?;
    ensure!(
        interrupted.ending != Ending::Moved,
        "{name}: it did not stay: {interrupted}"
    );
    scene.check_connections()?;
    tap.pass(&name);
    tap.note(&interrupted.to_string());
    Ok(())
}

/// Offers the machine to a host that lacks a precondition, and restores the host afterwards.
fn be_refused(scene: &mut Scene, plan: &Plan, lack: Lack, tap: &mut Tap) -> Result<()> {
    let name = format!(
        "{}: the destination reports it, and the machine continues at the source",
        lack.name()
    );
    let function = scene.on_other_card().clone();
    // QEMU resets the device at its start: remove the precondition after that.
    let mut vmm = scene.destination(&function)?;
    let card = &scene.cards[1];
    let mut filler = None;
    match lack {
        Lack::Interface => card.set_up(false)?,
        Lack::Mac => card.fix_mac(0, OTHER_MAC)?,
        Lack::Vlan => {
            let interface = HostInterface::of(&card.virtuals[1])?;
            interface.take_vlans(VLANS)?;
            filler = Some(interface);
        }
    }
    let refusal = scene
        .guest
        .be_refused(&mut vmm, plan)
        .with_context(|| name.clone())?;
    let error = Region::read(&function)?.error;
    vmm.quit()?;
    drop(filler);
    let card = &scene.cards[1];
    match lack {
        Lack::Interface => card.set_up(true)?,
        Lack::Mac => card.fix_mac(0, NO_MAC)?,
        Lack::Vlan => (),
    }
    scene.check_connections()?;
    let missing = lack
        .expected_texts()
        .into_iter()
        .filter(|part| !error.contains(part));
    let missing: Vec<_> = missing
        .map(|part| format!("expected '{part}' in the migration region's error: '{error}'"))
        .collect();
    tap.check(&name, &missing);
    tap.note(&format!(
        "refused after {}, source's device {}; region: {error}; QEMU: {}",
        seconds(refusal.took),
        refusal.source_states.join(" -> "),
        refusal.reason
    ));
    Ok(())
}

/// Checks the final counts after `stops` stops of the machine.
fn end(scene: Scene, stops: u64, tap: &mut Tap) -> Result<()> {
    let end = scene.finish()?;
    tap.pass("connections survived all migrations, and every byte arrived unchanged");
    let bytes: u64 = end.carried.files.iter().map(|file| file.length).sum();
    tap.note(&format!(
        "one connection echoed {}; {} files with {}, whose checksums match at both ends",
        mebibytes(end.carried.echo.verified),
        end.carried.files.len(),
        mebibytes(bytes)
    ));
    let settings = [
        ("MAC address", MAC.to_owned(), end.guest.mac.clone()),
        ("MTU", MTU.to_string(), end.guest.mtu.to_string()),
    ];
    let wrong: Vec<_> = settings
        .into_iter()
        .filter(|(_, expected, found)| expected != found)
        .map(|(what, expected, found)| format!("{what}: expected {expected}, found {found}"))
        .collect();
    tap.check(
        "the guest's adapter has its settings, its link was never lost",
        &wrong,
    );
    tap.note(&format!("the guest: {:?}", end.guest));
    check_pings(
        "the guest reaches its peer whenever it runs",
        &end.guest.ping,
        stops,
        tap,
    );

    let Some((pings, counted)) = end.neighbour else {
        return Ok(());
    };
    let disturbed = pings.check(Duration::ZERO).err().map(|e| e.to_string());
    tap.check(
        "a neighbour machine is always reachable",
        disturbed.as_slice(),
    );
    tap.note(&pings.to_string());
    check_pings(
        "a neighbour machine always reaches its peer",
        &counted.ping,
        1,
        tap,
    );
    tap.note(&format!("the neighbour: {counted:?}"));
    Ok(())
}

/// Checks that a guest lost at most as many of its pings as can have been in transit at `stops`
/// stops. On a slow machine, a reply can take as long as the longest gap between two replies.
fn check_pings(name: &str, pings: &Pings, stops: u64, tap: &mut Tap) {
    let Pings { sent, received, .. } = *pings;
    let lost = sent.saturating_sub(received);
    let interval = PING_INTERVAL.as_millis() as u64;
    let most = stops * UNDER_WAY.max(pings.longest_gap_ms / interval);
    let problem =
        (lost > most).then(|| format!("{lost} of {sent} pings lost, expected at most {most}"));
    tap.check(name, problem.as_slice());
}
