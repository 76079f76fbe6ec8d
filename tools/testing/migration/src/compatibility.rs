// SPDX-License-Identifier: GPL-2.0

//! For each field of the identity, a pair of devices that differ in it alone, both ways round.
//!
//! Where source and destination do not fit, the destination has to refuse the machine while it
//! runs, and to say which field it is and what it is on either side; the machine goes on with its
//! device, and can migrate to a device that fits. Where they fit, the machine moves.
//!
//! One machine goes through most of this. A field that must be equal cannot be changed by a move:
//! the other way round takes a machine that has booted with the other device.

use std::path::Path;
use std::time::Instant;

use anyhow::{ensure, Context, Result};

use vifa_migrate::devices::{select, Devices};
use vifa_migrate::guest::Guest;
use vifa_migrate::hw;
use vifa_migrate::identity::{Field, Identity, Rule};
use vifa_migrate::kernel_log::KernelLog;
use vifa_migrate::migration::Plan;
use vifa_migrate::region::Region;
use vifa_migrate::scratch::Scratch;
use vifa_migrate::sriov::Function;
use vifa_migrate::style::seconds;
use vifa_migrate::vmm::{Machine, Passthrough, Role};

use crate::Options;
use vifa_tap::Tap;

/// Features that the guest and QEMU make use of: a device that claims to have no others is no worse.
const FEATURES_IN_USE: u64 = (hw::VIFA_FEATURE_LOCAL_MEMORY | hw::VIFA_FEATURE_DIRTY_LOG) as u64;

/// What the device of a machine goes through that is refused.
const REFUSED_STATES: [&str; 2] = ["pre-copy", "running"];

/// Operations that show that the workload goes on: there are many cases.
const OPERATIONS: u64 = 50;

/// One direction of a pair.
#[derive(Debug)]
struct Case {
    field: Field,
    source: Identity,
    destination: Identity,
    /// Whether the destination fits.
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

/// All cases, in the order in which they are run.
#[derive(Debug)]
struct Cases {
    /// What the machine boots with that goes through the chain.
    start: Identity,
    /// Each case has the source that the case before has left.
    chain: Vec<Case>,
    /// What the machine has after the chain.
    end: Identity,
    /// What takes a machine of its own.
    reverse: Vec<Case>,
}

impl Cases {
    fn new(devices: &Devices, mut fields: Vec<Field>) -> Result<Self> {
        // Whoever moves to a device with more of its own cannot be on any of the other devices again.
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

    /// Neither way fits.
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

    /// The machine moves to a device with more, from where there is no way back.
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

    /// How many tests they are: beside each case, the first machine's start, its last move and its
    /// end.
    fn tests(&self) -> u32 {
        (self.chain.len() + self.reverse.len()) as u32 + 3
    }
}

/// Goes through all pairs for the fields with these names, or for all fields; whether all went well.
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
    tap.note(&format!("{} in all", seconds(begin.elapsed())));
    Ok(tap.finish())
}

/// What a case came to whose machine is well.
struct Report {
    /// What a refusal does not say that it has to, and the like.
    problems: Vec<String>,
    notes: Vec<String>,
}

impl Report {
    fn tell(self, case: &Case, tap: &mut Tap) {
        tap.check(&case.name(), &self.problems);
        self.notes.iter().for_each(|note| tap.note(note));
    }
}

/// What all cases share.
struct Bench<'a> {
    machine: Machine,
    plan: Plan,
    devices: &'a Devices,
    directory: &'a Path,
}

impl Bench<'_> {
    /// A machine that has booted with a device that is `identity`.
    fn boot(&self, identity: &Identity) -> Result<Guest> {
        let function = self.devices.obtain(identity, None)?;
        let mut guest = Guest::start(&self.machine, &given(function), self.directory, "vm")?;
        guest.boot()?;
        Ok(guest)
    }

    /// What one machine goes through.
    fn chain(&self, cases: &Cases, tap: &mut Tap) -> Result<()> {
        let begin = Instant::now();
        let mut guest = self.boot(&cases.start)?;
        tap.pass(&format!("guest runs with {}", guest.passthrough()));
        tap.note(&format!("{} to boot", seconds(begin.elapsed())));

        for case in &cases.chain {
            let report = self.run(case, &mut guest).with_context(|| case.name())?;
            report.tell(case, tap);
        }
        self.fit(&mut guest, &cases.end)?;
        tap.pass("afterwards, the machine migrates to a device that fits");
        let workload = guest.finish()?;
        tap.pass("every command completed once, every byte is right");
        tap.note(&format!("{} operations", workload.operations));
        guest.quit()
    }

    /// What takes a machine each: booted, refused, moved to where it fits, and found well.
    fn reverse(&self, cases: &Cases, tap: &mut Tap) -> Result<()> {
        for case in &cases.reverse {
            let report = self.boot_and_run(case).with_context(|| case.name())?;
            report.tell(case, tap);
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
    /// When the machine is lost, or was stopped.
    fn run(&self, case: &Case, guest: &mut Guest) -> Result<Report> {
        let begin = Instant::now();
        let differences = case.source.differences(&case.destination);
        ensure!(
            differences == [case.field.clone()],
            "the devices do not differ in this field alone"
        );
        let source = guest.functions()[0].clone();
        let identity = Region::read(&source)?.identity;
        ensure!(identity == case.source, "the machine has another device");
        let destination = self.devices.obtain(&case.destination, Some(&source))?;

        if case.fits {
            let vmm = guest.destination(&given(destination), Role::Receive)?;
            let outcome = guest.migrate(vmm, &self.plan, &mut |_| ())?;
            return Ok(Report {
                problems: Vec::new(),
                notes: vec![format!(
                    "{source} to {destination}: {} in all, downtime {}, device {}",
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
                .then(|| format!("the source's device went through {states:?}")),
        ];
        Ok(Report {
            problems: problems.into_iter().flatten().collect(),
            notes: vec![
                format!(
                    "{source} to {destination}: {} in all, refused after {}, {} operations \
                     meanwhile, {} then",
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

    /// Moves the machine to another device that is `identity`, as its own is.
    fn fit(&self, guest: &mut Guest, identity: &Identity) -> Result<()> {
        let source = guest.functions()[0].clone();
        let destination = self.devices.obtain(identity, Some(&source))?;
        let vmm = guest.destination(&given(destination), Role::Receive)?;
        guest.migrate(vmm, &self.plan, &mut |_| ())?;
        Ok(())
    }
}

/// What a machine is given that has one device.
fn given(function: &Function) -> Passthrough {
    Passthrough::new(std::slice::from_ref(function))
}

/// What the kernel has logged of `function`.
fn complaint(messages: &[String], function: &Function) -> String {
    let address = function.address();
    let messages = messages.iter().filter(|message| message.contains(&address));
    messages.cloned().collect::<Vec<_>>().join("; ")
}

/// What a refusal does not say of what it has to: the field, and its value on either side.
fn lacks(case: &Case, text: &str) -> Option<String> {
    let parts = [
        case.field.name.clone(),
        format!("source has {:#x}", case.source.get(&case.field)),
        format!("destination has {:#x}", case.destination.get(&case.field)),
    ];
    // A value must not be the beginning of another.
    let said = |part: &String| {
        text.split(part.as_str())
            .skip(1)
            .any(|rest| !rest.starts_with(|next: char| next.is_ascii_hexdigit()))
    };
    let missing: Vec<_> = parts.into_iter().filter(|part| !said(part)).collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let function = Function::at("/sys/bus/pci/devices/0000:01:10.2");
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
