// SPDX-License-Identifier: GPL-2.0

//! Migrations between pairs of devices that differ in exactly one field of the identity, in both
//! directions.
//!
//! If source and destination are incompatible, the destination has to refuse the machine while it
//! runs, and to report the field and its value on both sides. The machine continues with its
//! device, and can migrate to a compatible device. If they are compatible, the machine moves.
//!
//! One machine runs most of the cases. A field that must be equal cannot be changed by a move: the
//! opposite direction requires a machine that has booted with the other device.

use std::{path::Path, time::Instant};

use anyhow::{ensure, Context, Result};
use vifa_migrate::{
    devices::{select, Devices},
    guest::Guest,
    hw,
    identity::{Field, Identity, Rule},
    kernel_log::KernelLog,
    migration::Plan,
    region::Region,
    scratch::Scratch,
    style::seconds,
    vmm::{Machine, Passthrough, Role},
};
use vifa_tap::Tap;
use vifa_vfio::pci::Function;

use crate::Options;

/// Features that the guest and QEMU use. A device may hide all others without any effect.
const FEATURES_IN_USE: u64 = (hw::VIFA_FEATURE_LOCAL_MEMORY | hw::VIFA_FEATURE_DIRTY_LOG) as u64;

/// The states of a device whose machine is refused.
const REFUSED_STATES: [&str; 2] = ["pre-copy", "running"];

/// Number of operations that prove that the workload continues. It is small because there are many
/// cases.
const OPERATIONS: u64 = 50;

/// One direction of a pair.
#[derive(Debug)]
struct Case {
    field: Field,
    source: Identity,
    destination: Identity,
    /// Whether the destination is compatible.
    fits: bool,
}

impl Case {
    fn name(&self) -> String {
        format!(
            "{}: {:#x} to {:#x} {}",
            self.field,
            self.source.get(&self.field),
            self.destination.get(&self.field),
            if self.fits { "migrates" } else { "is refused" }
        )
    }
}

/// All cases, in the order in which they run.
#[derive(Debug)]
struct Cases {
    /// The identity of the device that the chain's machine boots with.
    start: Identity,
    /// Each case has the source that the previous case left.
    chain: Vec<Case>,
    /// The identity of the machine's device after the chain.
    end: Identity,
    /// The cases that require a separate machine.
    reverse: Vec<Case>,
}

impl Cases {
    fn new(devices: &Devices, mut fields: Vec<Field>) -> Result<Self> {
        // After a move to a device with more of a field, the machine cannot use the other devices
        // again.
        fields.sort_by_key(Field::is_for_good);

        let mut start = devices.first().clone();
        for field in fields.iter().filter(|field| field.rule == Rule::Subset) {
            start = start.with(field, start.get(field) & FEATURES_IN_USE)?;
        }
        let mut cases = Self {
            end: start.clone(),
            start,
            chain: Vec::new(),
            reverse: Vec::new(),
        };
        for field in fields {
            match field.rule {
                Rule::Equal => cases.equal(devices, field)?,
                Rule::AtLeast => cases.more(devices, &field)?,
                Rule::Subset => {
                    while cases.end.get(&field) != devices.first().get(&field) {
                        cases.more(devices, &field)?;
                    }
                }
            }
        }
        Ok(cases)
    }

    /// Adds both directions, which are both incompatible.
    fn equal(&mut self, devices: &Devices, field: Field) -> Result<()> {
        let other = devices.counterpart(&self.end, &field)?;
        self.reverse.push(Case {
            field: field.clone(),
            source: other.clone(),
            destination: self.end.clone(),
            fits: false,
        });
        self.chain.push(Case {
            field,
            source: self.end.clone(),
            destination: other,
            fits: false,
        });
        Ok(())
    }

    /// Adds a move to a device with more, after which the machine cannot return.
    fn more(&mut self, devices: &Devices, field: &Field) -> Result<()> {
        let less = self.end.clone();
        let more = devices.counterpart(&less, field)?;
        for (source, destination, fits) in [(&less, &more, true), (&more, &less, false)] {
            self.chain.push(Case {
                field: field.clone(),
                source: source.clone(),
                destination: destination.clone(),
                fits,
            });
        }
        self.end = more;
        Ok(())
    }

    /// Returns the number of tests: the cases, and the first machine's start, last move and end.
    fn tests(&self) -> u32 {
        (self.chain.len() + self.reverse.len()) as u32 + 3
    }
}

/// Runs all pairs for the named fields, or for all fields. Returns whether all tests passed.
pub fn run(options: &Options, names: &[String]) -> Result<bool> {
    let begin = Instant::now();
    options.check_root()?;
    let machine = options.machine()?;
    let fields = select(names)?;
    let devices = Devices::prepare(options.module.as_deref())?;
    let cases = Cases::new(&devices, fields)?;
    let scratch = Scratch::new()?;

    let mut tap = Tap::plan(cases.tests());
    tap.note(&machine.version()?);
    let bench = Bench {
        machine,
        plan: Plan {
            operations: OPERATIONS,
            ..options.plan()
        },
        devices: &devices,
        directory: scratch.path(),
    };
    let result = bench
        .chain(&cases, &mut tap)
        .and_then(|()| bench.reverse(&cases, &mut tap));
    if let Err(error) = &result {
        tap.fail(&format!("{error:#}"));
    }
    tap.note(&format!("{} in total", seconds(begin.elapsed())));
    Ok(tap.finish())
}

/// The result of a case whose machine works.
struct Report {
    /// Problems of the case, such as missing parts of a refusal's message.
    problems: Vec<String>,
    notes: Vec<String>,
}

impl Report {
    fn print(self, case: &Case, tap: &mut Tap) {
        tap.check(&case.name(), &self.problems);
        self.notes.iter().for_each(|note| tap.note(note));
    }
}

/// Data that all cases share.
struct Bench<'a> {
    machine: Machine,
    plan: Plan,
    devices: &'a Devices,
    directory: &'a Path,
}

impl Bench<'_> {
    /// Boots a machine with a device that has `identity`.
    fn boot(&self, identity: &Identity) -> Result<Guest> {
        let function = self.devices.obtain(identity, None)?;
        let mut guest = Guest::start(&self.machine, &given(function), self.directory, "vm")?;
        guest.boot()?;
        Ok(guest)
    }

    /// Runs the cases of one machine.
    fn chain(&self, cases: &Cases, tap: &mut Tap) -> Result<()> {
        let begin = Instant::now();
        let mut guest = self.boot(&cases.start)?;
        tap.pass(&format!("guest runs with {}", guest.passthrough()));
        tap.note(&format!("{} to boot", seconds(begin.elapsed())));

        for case in &cases.chain {
            let report = self.run(case, &mut guest).with_context(|| case.name())?;
            report.print(case, tap);
        }
        self.fit(&mut guest, &cases.end)?;
        tap.pass("afterwards, the machine migrates to a compatible device");
        let workload = guest.finish()?;
        tap.pass("every command completed once, every byte is correct");
        tap.note(&format!("{} operations", workload.operations));
        guest.quit()
    }

    /// Runs the cases that require a separate machine each: boots it, lets a destination refuse it,
    /// moves it to a compatible device and checks it.
    fn reverse(&self, cases: &Cases, tap: &mut Tap) -> Result<()> {
        for case in &cases.reverse {
            let report = self.boot_and_run(case).with_context(|| case.name())?;
            report.print(case, tap);
        }
        Ok(())
    }

    fn boot_and_run(&self, case: &Case) -> Result<Report> {
        let mut guest = self.boot(&case.source)?;
        let report = self.run(case, &mut guest)?;
        self.fit(&mut guest, &case.source)?;
        guest.finish()?;
        guest.quit()?;
        Ok(report)
    }

    /// Runs one case.
    ///
    /// # Errors
    ///
    /// Fails if the machine is lost or was stopped.
    fn run(&self, case: &Case, guest: &mut Guest) -> Result<Report> {
        let begin = Instant::now();
        let differences = case.source.differences(&case.destination);
        ensure!(
            differences == [case.field.clone()],
            "the devices do not differ in exactly this field"
        );
        let source = guest.functions()[0].clone();
        let identity = Region::read(&source)?.identity;
        ensure!(
            identity == case.source,
            "the machine's device has a different identity"
        );
        let destination = self.devices.obtain(&case.destination, Some(&source))?;

        if case.fits {
            let vmm = guest.destination(&given(destination), Role::Receive)?;
            let outcome = guest.migrate(vmm, &self.plan, &mut |_| ())?;
            return Ok(Report {
                problems: Vec::new(),
                notes: vec![format!(
                    "{source} to {destination}: {} in total, downtime {}, device {}",
                    seconds(begin.elapsed()),
                    seconds(outcome.downtime),
                    outcome.source_states
                )],
            });
        }

        let mut log = KernelLog::from_now()?;
        let mut vmm = guest.destination(&given(destination), Role::Receive)?;
        let refusal = guest.be_refused(&mut vmm, &self.plan)?;
        let region = Region::read(destination)?;
        vmm.quit()?;

        let logged = log.take()?;
        let complaint = complaint(&logged, destination);
        let states = &refusal.source_states;
        let problems = [
            lacks(case, &complaint).map(|part| format!("the kernel's log lacks {part}")),
            lacks(case, &region.error).map(|part| format!("the migration region lacks {part}")),
            (states != &REFUSED_STATES)
                .then(|| format!("invalid states of the source's device: {states:?}")),
        ];
        Ok(Report {
            problems: problems.into_iter().flatten().collect(),
            notes: vec![
                format!(
                    "{source} to {destination}: {} in total, refused after {}, {} operations \
                     meanwhile, {} afterwards",
                    seconds(begin.elapsed()),
                    seconds(refusal.took),
                    refusal.during.operations,
                    refusal.after.operations
                ),
                format!("kernel: {complaint}"),
                format!("region: {}", region.error),
                format!("QEMU: {}", refusal.reason),
            ],
        })
    }

    /// Moves the machine to another device with `identity`, which is the identity of its own
    /// device.
    fn fit(&self, guest: &mut Guest, identity: &Identity) -> Result<()> {
        let source = guest.functions()[0].clone();
        let destination = self.devices.obtain(identity, Some(&source))?;
        let vmm = guest.destination(&given(destination), Role::Receive)?;
        guest.migrate(vmm, &self.plan, &mut |_| ())?;
        Ok(())
    }
}

/// Returns the devices of a machine with one device.
fn given(function: &Function) -> Passthrough {
    Passthrough::new(std::slice::from_ref(function))
}

/// Returns the kernel's messages about `function`.
fn complaint(messages: &[String], function: &Function) -> String {
    let address = function.to_string();
    let messages = messages.iter().filter(|message| message.contains(&address));
    messages.cloned().collect::<Vec<_>>().join("; ")
}

/// Returns the missing part of a refusal's message: the field, or its value on either side.
fn lacks(case: &Case, text: &str) -> Option<String> {
    let parts = [
        case.field.name.clone(),
        format!("source has {:#x}", case.source.get(&case.field)),
        format!("destination has {:#x}", case.destination.get(&case.field)),
    ];
    // A value must not match a prefix of another.
    let contains = |part: &String| {
        text.split(part.as_str())
            .skip(1)
            .any(|rest| !rest.starts_with(|next: char| next.is_ascii_hexdigit()))
    };
    let missing: Vec<_> = parts.into_iter().filter(|part| !contains(part)).collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vifa_vfio::pci::Bus;

    fn case(name: &str, source: u64, destination: u64) -> Case {
        let field = select(&[name.to_owned()]).unwrap().remove(0);
        let region = vec![0; size_of::<hw::vifa_region>()];
        let identity = Identity::in_region(&region).unwrap();
        Case {
            source: identity.with(&field, source).unwrap(),
            destination: identity.with(&field, destination).unwrap(),
            field,
            fits: false,
        }
    }

    #[test]
    fn a_refusal_names_field_and_both_values() {
        let case = case("queues", 0x10, 0x2);
        assert_eq!(case.name(), "queues: 0x10 to 0x2 is refused");
        let whole = "identity: queues: source has 0x10, destination has 0x2; too few";
        assert_eq!(lacks(&case, whole), None);
        for part in [
            "identity: source has 0x10, destination has 0x2",
            "queues: source has 0x1, destination has 0x2",
            "queues: source has 0x100, destination has 0x2",
            "queues: source has 0x2, destination has 0x10",
            "",
        ] {
            assert!(lacks(&case, part).is_some(), "{part}");
        }
    }

    #[test]
    fn a_complaint_is_about_its_function() {
        let function = Bus::default().function("0000:01:10.2".parse().unwrap());
        let messages = [
            "vifa 0000:01:10.0: one",
            "vifa 0000:01:10.2: two",
            "other 0000:01:10.2: three",
        ]
        .map(str::to_owned);
        assert_eq!(
            complaint(&messages, &function),
            "vifa 0000:01:10.2: two; other 0000:01:10.2: three"
        );
    }
}
