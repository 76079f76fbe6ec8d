// SPDX-License-Identifier: GPL-2.0

//! A virtual machine with a virtual function of a network card, which is to migrate, and this machine,
//! which talks to it; and perhaps a second virtual machine, which is not to notice.
//!
//! This machine's end of the traffic is the first card's physical function. To and from the first
//! card's virtual functions it goes within the card; to and from the second's it goes over the wire
//! between the cards.

use std::fmt;
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

use vifa_migrate::card::Card;
use vifa_migrate::console::Traffic;
use vifa_migrate::flows::{Carried, Connections, Ends, Passed, Pings, Samples, Tally};
use vifa_migrate::guest::Guest;
use vifa_migrate::migration::{Outcome, Plan};
use vifa_migrate::processor::{self, Accelerator};
use vifa_migrate::scratch::Scratch;
use vifa_migrate::sriov::Function;
use vifa_migrate::style::seconds;
use vifa_migrate::vmm::{Machine, Passthrough, Role, Vmm};

use crate::Options;

/// What the guest is told to make of its adapter; the MAC address is not the one that it has.
pub const MAC: &str = "02:00:5e:00:00:02";
pub const VLAN: u16 = 5;
/// Larger than Ethernet's.
pub const MTU: u32 = 9000;

pub const ENDS: Ends = Ends {
    host: Ipv4Addr::new(192, 0, 2, 1),
    guest: Ipv4Addr::new(192, 0, 2, 2),
    host_tagged: Ipv4Addr::new(198, 51, 100, 1),
    guest_tagged: Ipv4Addr::new(198, 51, 100, 2),
    group: Ipv4Addr::new(239, 82, 76, 1),
};
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

/// Virtual functions of each card.
const FUNCTIONS: usize = 3;

/// Answered pings that a machine must have before and after whatever happens to it.
const OPERATIONS: u64 = 1;

/// Where the migrating machine can be: number of the card, and of the virtual function.
const PLACES: [(usize, usize); 3] = [(0, 0), (0, 1), (1, 0)];

/// How long traffic flows before a migration, and after it, at least.
const BEFORE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_millis(1000);

/// How much there is to carry. An emulated machine has not much of a network, and needs time to say
/// how it is.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Bytes of each file that goes to the guest or comes from it.
    pub file: u64,
    /// Bytes a second of a file, and of each of iperf3's tests.
    pub rate: u64,
    /// How long iperf3 measures around each migration, if it is to.
    pub measured: Option<Duration>,
}

/// A machine that stays, and this machine's pings of it.
struct Neighbour {
    guest: Guest,
    pings: Pings,
}

/// A machine that moves about between virtual functions, and what it is watched with.
pub struct Scene {
    pub guest: Guest,
    connections: Connections,
    neighbour: Option<Neighbour>,
    /// Where the guest is, by its number in [`PLACES`].
    place: usize,
    load: Load,
    /// Whether the machines run on a real processor.
    fast: bool,
    /// The guests have ended when their functions are taken away.
    pub cards: Vec<Card>,
    _scratch: Scratch,
}

/// What came of a migration under traffic.
pub struct Journey {
    pub outcome: Outcome,
    pub passed: Passed,
    /// How long the devices did not work.
    pub absence: Duration,
    /// How long packets may have gone astray.
    pub astray: Duration,
}

impl fmt::Display for Journey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "away {}, gone after {}, downtime {}, in all {}; {} bytes of device state",
            seconds(self.absence),
            seconds(self.astray),
            seconds(self.outcome.downtime),
            seconds(self.outcome.total),
            self.outcome.device_bytes
        )?;
        let tallies = self.passed.tallies.iter();
        let lines = tallies.map(|tally| format!("{tally} ({} may be)", tally.bound(self.astray)));
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

/// What is known when all is over.
pub struct End {
    pub carried: Carried,
    /// What the machine counted.
    pub guest: Traffic,
    /// This machine's pings of the machine beside, and what that counted.
    pub neighbour: Option<(Tally, Traffic)>,
}

impl Scene {
    /// Boots the machine, and one beside it if that is wanted, and begins the traffic that lasts.
    pub fn start(options: &Options, load: Load, neighbour: bool) -> Result<Self> {
        options.check_root()?;
        let machine = options.machine()?;
        let cards = Card::all(options.module.as_deref(), FUNCTIONS, MTU)?;
        let [first, second, ..] = &cards[..] else {
            bail!(
                "this takes two cards, and there are {}: run it under QEMU with -device igb twice",
                cards.len()
            )
        };
        for function in [&first.virtuals[..], &second.virtuals[..1]].concat() {
            function.bind_ours()?;
        }
        first.add_address(&format!("{}/24", ENDS.host))?;
        first.add_vlan(VLAN, &format!("{}/24", ENDS.host_tagged))?;

        let scratch = Scratch::new()?;
        let told = |address, more: &str| {
            let Ends { host, .. } = ENDS;
            let words = format!("VIFA_ADDRESS={address}/24 VIFA_PEER={host} VIFA_MTU={MTU}{more}");
            let append = machine.append.iter().cloned().chain([words]);
            Machine {
                append: Some(append.collect::<Vec<_>>().join(" ")),
                ..machine.clone()
            }
        };
        let moving = told(
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
                let staying = told(NEIGHBOUR, "");
                Guest::start(&staying, &given, scratch.path(), "neighbour")
            })
            .transpose()?;
        guest.boot()?;
        let neighbour = neighbour
            .map(|mut guest| {
                guest.boot()?;
                let pings = Pings::start(NEIGHBOUR, "ping of the machine beside")?;
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

    /// The function that the guest comes to next.
    pub fn next(&self) -> &Function {
        self.function((self.place + 1) % PLACES.len())
    }

    /// The function of the other card, where the guest can be.
    pub fn elsewhere(&self) -> &Function {
        self.function(2)
    }

    fn function(&self, place: usize) -> &Function {
        let (card, number) = PLACES[place];
        &self.cards[card].virtuals[number]
    }

    /// A QEMU with `function` that waits for the guest.
    pub fn destination(&mut self, function: &Function) -> Result<Vmm> {
        let mut vmm = self.guest.destination(&given(function), Role::Receive)?;
        // It takes a while to start.
        vmm.qmp()?;
        Ok(vmm)
    }

    /// Moves the guest to the next function while all kinds of traffic flow.
    ///
    /// # Errors
    ///
    /// When the guest does not arrive, or a connection does not last.
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
            // It waits ten seconds for an answer, which an emulated machine may take.
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

    /// Checks that the connections last.
    pub fn check_connections(&self) -> Result<()> {
        ensure!(
            self.connections.last(),
            "a connection with the machine has ended by itself"
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

/// Ends a machine; what it has counted.
fn end(mut guest: Guest) -> Result<Traffic> {
    guest.finish()?;
    let traffic = guest.traffic().cloned();
    guest.quit()?;
    traffic.context("the guest has told of no traffic")
}

/// How long iperf3 measures around each migration.
pub const MEASURED: Duration = Duration::from_secs(12);

/// Returns whether `machine` runs on a real processor, and has the network of one.
pub fn is_fast(machine: &Machine) -> bool {
    machine.accelerator == Accelerator::Kvm && !processor::is_emulated()
}

/// What is common to all migrations here.
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
