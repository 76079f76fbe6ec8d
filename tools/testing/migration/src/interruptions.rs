// SPDX-License-Identifier: GPL-2.0

//! Migrations that are interrupted in each phase and at random moments, and complete migrations in
//! between, which prove that interruptions leave no trace.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use vifa_device::{opcode::ANY_CONTROL, Fault, RegisterFile};
use vifa_migrate::{
    guest::Guest,
    hw,
    interruption::{Ending, Interrupted, Interruption, Moment, Phase},
    migration::{Multifd, Plan},
    scratch::Scratch,
    style::seconds,
    vmm::{Backend, Role},
};
use vifa_tap::Tap;

use crate::{prepare, rounds::Turns, Options};

/// Number of interruptions at random moments between complete migrations.
const INTERRUPTIONS: u32 = 5;

/// Delay of each change of a device's run state, to leave time for an interruption.
const DELAY: Duration = Duration::from_millis(200);

/// Returns the phases, the kind of interruption in each, and whether devices use separate channels.
fn phases() -> impl Iterator<Item = (Interruption, Phase, Multifd)> {
    let kinds = [
        (Interruption::Cancel, Multifd::Off),
        (Interruption::Death, Multifd::Off),
        (Interruption::Cancel, Multifd::All),
        (Interruption::Death, Multifd::All),
    ];
    kinds.into_iter().flat_map(|(interruption, multifd)| {
        Phase::ALL
            .into_iter()
            .map(move |phase| (interruption, phase, multifd))
    })
}

/// Runs all tests. Returns whether all passed.
pub fn run(
    options: &Options,
    times: u32,
    seed: u64,
    devices: usize,
    random_alone: bool,
) -> Result<bool> {
    let phases: Vec<_> = phases().filter(|_| !random_alone).collect();
    // In addition to these: the guest's start, a migration after each kind of interruption, one at
    // the beginning, one at the end, and the workload's end.
    let migrations = phases.len() / Phase::ALL.len() + times.div_ceil(INTERRUPTIONS) as usize + 1;
    let mut tap = Tap::plan((phases.len() + migrations) as u32 + times + 2);
    let begin = Instant::now();
    let result = interrupt(options, &phases, times, seed, devices, &mut tap);
    if let Err(error) = &result {
        tap.fail(&format!("{error:#}"));
    }
    tap.note(&format!("{} in total", seconds(begin.elapsed())));
    Ok(tap.finish())
}

fn interrupt(
    options: &Options,
    phases: &[(Interruption, Phase, Multifd)],
    times: u32,
    seed: u64,
    devices: usize,
    tap: &mut Tap,
) -> Result<()> {
    let machine = options.machine()?;
    let scratch = Scratch::new()?;
    let (host, version) = prepare(options, &machine, 2 * devices)?;
    tap.note(&version);
    let mut turns = Turns::new(&host, devices);
    let first = turns.next(Backend::Container);
    let mut bench = Bench {
        guest: Guest::start(&machine, &first, scratch.path(), "vm")?,
        turns,
        plan: options.plan(),
        tap,
    };
    bench.guest.boot()?;
    bench
        .tap
        .pass(&format!("guest runs with {}", bench.guest.passthrough()));
    let whole = bench.migrate("at first")?;

    let registers = RegisterFile::map(&host.physical)?;
    for interruptions in phases.chunks(Phase::ALL.len()) {
        let delay = registers.arm(
            hw::VIFA_FAULT_ANY_VF,
            ANY_CONTROL,
            Fault::Delay(DELAY),
            hw::VIFA_FAULT_ALWAYS,
        )?;
        for (interruption, phase, multifd) in interruptions {
            bench.in_phase(*interruption, *phase, *multifd)?;
        }
        drop(delay);
        bench.migrate("then")?;
    }

    bench.tap.note(&format!(
        "a migration takes {}; random moments from seed {seed}",
        seconds(whole)
    ));
    let mut random = Random::new(seed);
    let mut done = 0;
    while done < times {
        if bench.at_random(whole, &mut random)? {
            done += 1;
            if done % INTERRUPTIONS == 0 || done == times {
                bench.migrate("then")?;
            }
        }
    }

    let workload = bench.guest.finish()?;
    bench
        .tap
        .pass("every command completed once, every byte is correct");
    bench
        .tap
        .note(&format!("{} operations", workload.operations));
    bench.guest.quit()
}

struct Bench<'a> {
    guest: Guest,
    turns: Turns<'a>,
    plan: Plan,
    tap: &'a mut Tap,
}

impl Bench<'_> {
    /// Moves the machine and compares it. Returns the duration.
    fn migrate(&mut self, when: &str) -> Result<Duration> {
        let to = self.turns.other(self.guest.functions());
        let vmm = self.guest.destination(&to, Role::ReceivePaused)?;
        let outcome = self.guest.migrate(vmm, &self.plan, &mut |_| ())?;
        outcome.check_devices()?;
        self.tap.pass(&format!("{when}, the machine migrates"));
        self.tap.note(&outcome.to_string());
        Ok(outcome.total)
    }

    fn in_phase(
        &mut self,
        interruption: Interruption,
        phase: Phase,
        multifd: Multifd,
    ) -> Result<()> {
        let plan = Plan {
            // This phase lasts until the interruption.
            live: match phase {
                Phase::LaterRounds => Duration::from_secs(3600),
                _ => self.plan.live,
            },
            multifd,
            ..self.plan
        };
        let name = format!("{interruption} {phase}, {multifd}: the machine continues");
        let interrupted = self
            .interrupt(&plan, interruption, Moment::In(phase))
            .with_context(|| name.clone())?;
        self.tap.pass(&name);
        self.tap.note(&interrupted.to_string());
        Ok(())
    }

    /// Returns whether the migration was in progress at the moment.
    fn at_random(&mut self, whole: Duration, random: &mut Random) -> Result<bool> {
        let moment = Moment::After(whole.mul_f64(random.fraction()));
        let (interruption, multifd) = match random.next() % 4 {
            0 => (Interruption::Cancel, Multifd::Off),
            1 => (Interruption::Cancel, Multifd::All),
            2 => (Interruption::Death, Multifd::Off),
            _ => (Interruption::Death, Multifd::All),
        };
        let plan = Plan {
            multifd,
            ..self.plan
        };
        let name = format!("{interruption} {moment}, {multifd}: the machine continues");
        let interrupted = self
            .interrupt(&plan, interruption, moment)
            .with_context(|| name.clone())?;
        let under_way = interrupted.ending != Ending::Moved;
        if under_way {
            self.tap.pass(&name);
            self.tap.note(&interrupted.to_string());
        } else {
            self.tap.note(&format!("too late: {name}, {interrupted}"));
        }
        Ok(under_way)
    }

    fn interrupt(
        &mut self,
        plan: &Plan,
        interruption: Interruption,
        moment: Moment,
    ) -> Result<Interrupted> {
        let to = self.turns.other(self.guest.functions());
        let vmm = self.guest.destination(&to, Role::Receive)?;
        self.guest.interrupt(vmm, plan, interruption, moment)
    }
}

/// Pseudo-random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Any number except 0 is valid.
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    /// Returns a number from 0 up to 1.
    fn fraction(&mut self) -> f64 {
        self.next() as f64 / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_gives_the_same_numbers() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            [(); 100].map(|()| random.fraction())
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        let all = numbers(1);
        assert!(all.iter().all(|number| (0.0..=1.0).contains(number)));
        let below = all.iter().filter(|number| **number < 0.5).count();
        assert!((30..70).contains(&below), "{below}");
    }

    #[test]
    fn each_kind_covers_each_phase() {
        assert_eq!(phases().count(), 4 * Phase::ALL.len());
    }
}
