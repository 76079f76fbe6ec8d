// SPDX-License-Identifier: GPL-2.0

//! A migrating virtual machine with a virtual function of a network card, this machine as its peer,
//! and optionally a second virtual machine, which must not notice the migrations.
//!
//! This machine's end of the traffic is the first card's physical function. Traffic with the first
//! card's virtual functions stays within the card; traffic with the second card's goes over the
//! wire between the cards.

use std::{fmt, net::Ipv4Addr, thread, time::Duration};

use anyhow::{bail, ensure, Context, Result};
use vifa_migrate::{
    card::Card,
    console::Traffic,
    flows::{Carried, Connections, Ends, Passed, Pings, Samples, Tally},
    guest::Guest,
    migration::{Outcome, Plan},
    processor::{self, Accelerator},
    scratch::Scratch,
    sriov,
    style::seconds,
    vmm::{Machine, Passthrough, Role, Vmm},
};
use vifa_vfio::pci::Function;

use crate::Options;

/// The settings of the guest's adapter. The MAC address differs from the adapter's own.
pub const MAC: &str = "02:00:5e:00:00:02";
pub const VLAN: u16 = 5;
/// Larger than Ethernet's standard MTU.
pub const MTU: u32 = 9000;

pub const ENDS: Ends = Ends {
    host: Ipv4Addr::new(192, 0, 2, 1),
    guest: Ipv4Addr::new(192, 0, 2, 2),
    host_tagged: Ipv4Addr::new(198, 51, 100, 1),
    guest_tagged: Ipv4Addr::new(198, 51, 100, 2),
    group: Ipv4Addr::new(239, 82, 76, 1),
};
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

/// Number of virtual functions of each card.
const FUNCTIONS: usize = 3;

/// Number of answered pings that a machine needs before and after each step.
const OPERATIONS: u64 = 1;

/// The possible locations of the migrating machine: the numbers of the card and of the virtual
/// function.
const PLACES: [(usize, usize); 3] = [(0, 0), (0, 1), (1, 0)];

/// Minimum time of traffic before and after a migration.
const BEFORE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_millis(1000);

/// The amount of traffic. An emulated machine has a slow network, and takes time to report its
/// state.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Size of each file that is transferred to or from the guest, in bytes.
    pub file: u64,
    /// Rate of a file and of each iperf3 test, in bytes per second.
    pub rate: u64,
    /// Duration of iperf3's measurements around each migration; `None` for no measurement.
    pub measured: Option<Duration>,
}

/// A machine that does not migrate, and this machine's pings to it.
struct Neighbour {
    guest: Guest,
    pings: Pings,
}

/// A machine that moves between virtual functions, and the traffic that checks it.
pub struct Scene {
    pub guest: Guest,
    connections: Connections,
    neighbour: Option<Neighbour>,
    /// The guest's location, as an index of [`PLACES`].
    place: usize,
    load: Load,
    /// Whether the machines run on a real processor.
    fast: bool,
    /// Dropped after the guests, which use the functions.
    pub cards: Vec<Card>,
    _scratch: Scratch,
}

/// The result of a migration under traffic.
pub struct Journey {
    pub outcome: Outcome,
    pub passed: Passed,
    /// The time during which the devices did not work.
    pub absence: Duration,
    /// The time during which packets may have been lost.
    pub astray: Duration,
}

impl fmt::Display for Journey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "away {}, source ended after {}, downtime {}, total {}; {} bytes of device state",
            seconds(self.absence),
            seconds(self.astray),
            seconds(self.outcome.downtime),
            seconds(self.outcome.total),
            self.outcome.device_bytes
        )?;
        let tallies = self.passed.tallies.iter();
        let lines = tallies.map(|tally| format!("{tally} (limit {})", tally.bound(self.astray)));
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))?;
        let transports = ["TCP", "UDP"];
        let measurements = self.passed.measurements.iter().flatten();
        for (transport, measurement) in transports.iter().zip(measurements) {
            match measurement {
                Ok(measurement) => write!(f, "\niperf3 by {transport}: {measurement}")?,
                Err(error) => write!(f, "\niperf3 by {transport}: {error}")?,
            }
        }
        Ok(())
    }
}

/// The final counts.
pub struct End {
    pub carried: Carried,
    /// The counts of the machine.
    pub guest: Traffic,
    /// This machine's pings to the neighbour, and the neighbour's counts.
    pub neighbour: Option<(Tally, Traffic)>,
}

impl Scene {
    /// Boots the machine and, if requested, a neighbour, and starts the persistent traffic.
    pub fn start(options: &Options, load: Load, neighbour: bool) -> Result<Self> {
        options.check_root()?;
        let machine = options.machine()?;
        let cards = Card::all(options.module.as_deref(), FUNCTIONS, MTU)?;
        let [first, second, ..] = &cards[..] else {
            bail!(
                "two cards are required, found {}: run the host under QEMU with -device igb twice",
                cards.len()
            )
        };
        for function in [&first.virtuals[..], &second.virtuals[..1]].concat() {
            sriov::bind_ours(&function)?;
        }
        first.add_address(&format!("{}/24", ENDS.host))?;
        first.add_vlan(VLAN, &format!("{}/24", ENDS.host_tagged))?;

        let scratch = Scratch::new()?;
        let settings = |address, more: &str| {
            let Ends { host, .. } = ENDS;
            let words = format!("VIFA_ADDRESS={address}/24 VIFA_PEER={host} VIFA_MTU={MTU}{more}");
            let append = machine.append.iter().cloned().chain([words]);
            Machine {
                append: Some(append.collect::<Vec<_>>().join(" ")),
                ..machine.clone()
            }
        };
        let moving = settings(
            ENDS.guest,
            &format!(
                " VIFA_MAC={MAC} VIFA_VLAN={VLAN}:{}/24 VIFA_GROUP={}",
                ENDS.guest_tagged, ENDS.group
            ),
        );
        let (card, number) = PLACES[0];
        let given = given(&cards[card].virtuals[number]);
        let mut guest = Guest::start(&moving, &given, scratch.path(), "vm")?;
        let neighbour = neighbour
            .then(|| {
                let given = self::given(&first.virtuals[2]);
                let staying = settings(NEIGHBOUR, "");
                Guest::start(&staying, &given, scratch.path(), "neighbour")
            })
            .transpose()?;
        guest.boot()?;
        let neighbour = neighbour
            .map(|mut guest| {
                guest.boot()?;
                let pings = Pings::start(NEIGHBOUR, "ping of the neighbour")?;
                Ok::<_, anyhow::Error>(Neighbour { guest, pings })
            })
            .transpose()?;
        Ok(Self {
            connections: Connections::start(&ENDS, load.file, load.rate),
            load,
            fast: is_fast(&machine),
            guest,
            neighbour,
            place: 0,
            cards,
            _scratch: scratch,
        })
    }

    /// Returns the next function of the guest.
    pub fn next(&self) -> &Function {
        self.function((self.place + 1) % PLACES.len())
    }

    /// Returns the function of the other card that the guest can use.
    pub fn on_other_card(&self) -> &Function {
        self.function(2)
    }

    fn function(&self, place: usize) -> &Function {
        let (card, number) = PLACES[place];
        &self.cards[card].virtuals[number]
    }

    /// Starts a QEMU with `function` that waits for the guest.
    pub fn destination(&mut self, function: &Function) -> Result<Vmm> {
        let mut vmm = self.guest.destination(&given(function), Role::Receive)?;
        // Wait until it has started, which takes a while.
        vmm.qmp()?;
        Ok(vmm)
    }

    /// Moves the guest to the next function under all kinds of traffic.
    ///
    /// # Errors
    ///
    /// Fails if the guest does not arrive, or if a connection breaks.
    pub fn travel(&mut self, plan: &Plan) -> Result<Journey> {
        let function = self.next().clone();
        let vmm = self.destination(&function)?;
        let samples = Samples::start(&ENDS, self.load.measured, self.load.rate)?;
        thread::sleep(BEFORE);
        let outcome = self.guest.migrate(vmm, plan, &mut |_| ())?;
        self.place = (self.place + 1) % PLACES.len();
        thread::sleep(AFTER);
        let passed = samples.finish()?;
        let measurements = passed.measurements.iter().flatten();
        for error in measurements.filter_map(|measurement| measurement.as_ref().err()) {
            // iperf3 waits ten seconds for a reply, but an emulated machine can take longer.
            ensure!(!self.fast, "iperf3: {error}");
        }
        outcome.check_states()?;
        Ok(Journey {
            absence: outcome.absence()?,
            astray: outcome.astray()?,
            passed,
            outcome,
        })
    }

    /// Checks that the connections are still open.
    pub fn check_connections(&self) -> Result<()> {
        ensure!(
            self.connections.last(),
            "a connection with the machine has ended"
        );
        Ok(())
    }

    /// Ends the traffic, and then the machines.
    pub fn finish(mut self) -> Result<End> {
        let carried = self.connections.finish()?;
        let neighbour = match self.neighbour {
            Some(Neighbour { guest, pings }) => Some((pings.finish()?, end(guest)?)),
            None => None,
        };
        let guest = end(self.guest)?;
        self.cards.clear();
        Ok(End {
            carried,
            guest,
            neighbour,
        })
    }
}

/// Ends a machine and returns its counts.
fn end(mut guest: Guest) -> Result<Traffic> {
    guest.finish()?;
    let traffic = guest.traffic().cloned();
    guest.quit()?;
    traffic.context("the guest has reported no traffic")
}

/// Duration of iperf3's measurements around each migration.
pub const MEASURED: Duration = Duration::from_secs(12);

/// Returns whether `machine` runs on a real processor and therefore has a fast network.
pub fn is_fast(machine: &Machine) -> bool {
    machine.accelerator == Accelerator::Kvm && !processor::is_emulated()
}

/// Returns the common parameters of all migrations in this module.
pub fn plan(options: &Options) -> Plan {
    Plan {
        operations: OPERATIONS,
        ..options.plan()
    }
}

fn given(function: &Function) -> Passthrough {
    Passthrough {
        unlogged: true,
        ..Passthrough::new(std::slice::from_ref(function))
    }
}
