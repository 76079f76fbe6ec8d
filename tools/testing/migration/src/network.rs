// SPDX-License-Identifier: GPL-2.0

//! A machine with a network adapter migrates under traffic: within a card, over the wire to another,
//! and back. Migrations are broken off, and refused where the other host does not grant what the
//! guest has of this one. The results are TAP.

mod demo;
mod scene;

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use vifa_migrate::card::HostInterface;
use vifa_migrate::console::Pings;
use vifa_migrate::flows::{PING_INTERVAL, UNDER_WAY};
use vifa_migrate::interruption::{Ending, Interruption, Moment, Phase};
use vifa_migrate::migration::Plan;
use vifa_migrate::region::Region;
use vifa_migrate::style::{mebibytes, seconds};

use self::scene::{Load, Scene, MAC, MTU, VLAN};
use crate::Options;
use vifa_tap::Tap;

pub use self::demo::run as demo;

/// How migrations are broken off; the first in short.
const INTERRUPTIONS: [(Interruption, Phase); 2] = [
    (Interruption::Cancel, Phase::Stopped),
    (Interruption::Death, Phase::LastRound),
];

/// An address that is not the guest's, and the one that lets go of it.
const OTHER_MAC: &str = "02:00:5e:00:00:99";
const NO_MAC: &str = "00:00:00:00:00:00";

/// VLANs that fill the card's filters, which have 32 places.
const VLANS: Range<u16> = 100..132;

/// What the other host lacks.
#[derive(Clone, Copy, Debug)]
enum Lack {
    /// Its physical function's interface is down.
    Interface,
    /// Its administrator fixed another MAC address.
    Mac,
    /// Its VLAN filters are full.
    Vlan,
}

impl Lack {
    /// All; the first in short.
    const ALL: [Self; 3] = [Self::Mac, Self::Interface, Self::Vlan];

    fn name(self) -> &'static str {
        match self {
            Self::Interface => "the physical function's interface is down",
            Self::Mac => "the administrator fixed another MAC address",
            Self::Vlan => "the VLAN filters are full",
        }
    }

    /// What the driver has to say of it, part by part.
    fn told(self) -> Vec<String> {
        match self {
            Self::Interface => vec!["interface up?".to_owned()],
            Self::Mac => vec![MAC.to_owned(), OTHER_MAC.to_owned()],
            Self::Vlan => vec![format!("VLAN {VLAN}:")],
        }
    }
}

/// Checks in each round.
const CHECKS: u32 = 3;

/// Runs it all; whether all went well.
pub fn run(options: &Options, rounds: u32, full: bool) -> Result<bool> {
    let (interruptions, lacks) = match full {
        true => (&INTERRUPTIONS[..], &Lack::ALL[..]),
        false => (&INTERRUPTIONS[..1], &Lack::ALL[..1]),
    };
    // Beside these: the start, and what is known at the end, also of a machine beside.
    let mut tap = Tap::plan(
        CHECKS * rounds + (interruptions.len() + lacks.len()) as u32 + if full { 6 } else { 4 },
    );
    let begin = Instant::now();
    let load = Load {
        file: 256 << 10,
        // An emulated machine has not much more than this for files and iperf3's two tests together.
        rate: if full { 8 << 10 } else { 32 << 10 },
        measured: full.then_some(scene::MEASURED),
    };
    let result = go_round(options, rounds, load, full, interruptions, lacks, &mut tap);
    if let Err(error) = &result {
        tap.fail(&format!("{error:#}"));
    }
    tap.note(&format!("{} in all", seconds(begin.elapsed())));
    Ok(tap.finish())
}

fn go_round(
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
    // Within the card, beside which there is another to be refused by.
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

/// One migration, and what came of the traffic.
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
        &format!("{name}: of no kind of packets more are lost than while it is away"),
        &lost,
    );
    if !lost.is_empty() {
        // Whether they came to the guest tells on which way they were lost.
        tap.note(&format!("the guest: {:?}", scene.guest.traffic()));
    }
    let ended = scene.check_connections().err().map(|e| e.to_string());
    tap.check(&format!("{name}: connections outlive it"), ended.as_slice());
    Ok(())
}

/// Breaks a migration off when its devices have stopped: they go on where they were.
fn interrupt(
    scene: &mut Scene,
    plan: &Plan,
    interruption: Interruption,
    phase: Phase,
    tap: &mut Tap,
) -> Result<()> {
    let name = format!("{interruption} {phase}: the machine goes on");
    let function = scene.elsewhere().clone();
    let vmm = scene.destination(&function)?;
    let interrupted = scene
        .guest
        .interrupt(vmm, plan, interruption, Moment::In(phase))
        .with_context(|| name.clone())?;
    ensure!(
        interrupted.ending != Ending::Moved,
        "{name}: it did not stay, {interrupted}"
    );
    scene.check_connections()?;
    tap.pass(&name);
    tap.note(&interrupted.to_string());
    Ok(())
}

/// Offers the machine to a host that lacks something; puts that right afterwards.
fn be_refused(scene: &mut Scene, plan: &Plan, lack: Lack, tap: &mut Tap) -> Result<()> {
    let name = format!(
        "{}: that is said, and the machine goes on where it is",
        lack.name()
    );
    let function = scene.elsewhere().clone();
    // QEMU has the device reset; only then can it lack anything.
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
    let told = Region::read(&function)?.error;
    vmm.quit()?;
    drop(filler);
    let card = &scene.cards[1];
    match lack {
        Lack::Interface => card.set_up(true)?,
        Lack::Mac => card.fix_mac(0, NO_MAC)?,
        Lack::Vlan => (),
    }
    scene.check_connections()?;
    let missing = lack.told().into_iter().filter(|part| !told.contains(part));
    let missing: Vec<_> = missing
        .map(|part| format!("expected '{part}' in what the migration region says: '{told}'"))
        .collect();
    tap.check(&name, &missing);
    tap.note(&format!(
        "refused after {}, source's device {}; region: {told}; QEMU: {}",
        seconds(refusal.took),
        refusal.source_states.join(" -> "),
        refusal.reason
    ));
    Ok(())
}

/// What is known when all is over; the machine was stopped so often.
fn end(scene: Scene, stops: u64, tap: &mut Tap) -> Result<()> {
    let end = scene.finish()?;
    tap.pass("connections outlived it all, and every byte came through them as it was sent");
    let bytes: u64 = end.carried.files.iter().map(|file| file.length).sum();
    tap.note(&format!(
        "one connection sent back {}; {} files with {}, on whose checksums both ends agree",
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
        "the guest's adapter is set as it was, its link was never lost",
        &wrong,
    );
    tap.note(&format!("the guest: {:?}", end.guest));
    check_pings(
        "the guest reaches others all the while that it runs",
        &end.guest.ping,
        stops,
        tap,
    );

    let Some((pings, counted)) = end.neighbour else {
        return Ok(());
    };
    let disturbed = pings.check(Duration::ZERO).err().map(|e| e.to_string());
    tap.check(
        "a machine beside is reached all the while",
        disturbed.as_slice(),
    );
    tap.note(&pings.to_string());
    check_pings(
        "a machine beside reaches others all the while",
        &counted.ping,
        1,
        tap,
    );
    tap.note(&format!("the machine beside: {counted:?}"));
    Ok(())
}

/// Checks that of a guest's own pings no more were lost than can have been under way at so many stops.
/// On a slow machine, answers take as long as the longest gap between two.
fn check_pings(name: &str, pings: &Pings, stops: u64, tap: &mut Tap) {
    let Pings { sent, received, .. } = *pings;
    let lost = sent.saturating_sub(received);
    let interval = PING_INTERVAL.as_millis() as u64;
    let most = stops * UNDER_WAY.max(pings.longest_gap_ms / interval);
    let problem = (lost > most).then(|| format!("{lost} of {sent} pings lost, of {most} at most"));
    tap.check(name, problem.as_slice());
}
