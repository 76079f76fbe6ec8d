// SPDX-License-Identifier: GPL-2.0

//! Traffic between this machine and a virtual machine with a network adapter, and the losses that a
//! migration may cause.
//!
//! [`Connections`] live as long as the virtual machine and must not lose or change any byte.
//! [`Samples`] cover one migration: packets of each kind that the adapter was set up for, at a
//! known rate. Only packets that arrive while the machine is away may be lost.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{anyhow, bail, ensure, Context, Result};
use vifa_traffic::{
    control::Control,
    datagrams,
    echo::{self, Echo},
    iperf::PORTS,
    ping::Ping,
    port,
    transfer::{self, Direction, Request, Transfer},
};

use crate::{
    iperf::{self, Measurement, Transport},
    progress::Progress,
};

/// Maximum time without an arriving packet after traffic was stopped. The traffic itself waits less
/// for a last answer.
const END_PATIENCE: Duration = Duration::from_secs(300);

/// Interval between checks for the end of traffic.
const POLL: Duration = Duration::from_millis(20);

/// Interval between pings. The identifier distinguishes samples.
pub const PING_INTERVAL: Duration = Duration::from_millis(250);
static NEXT_IDENTIFIER: AtomicU64 = AtomicU64::new(1);

/// Interval between echoed blocks of 4 KiB.
const ECHO_INTERVAL: Duration = Duration::from_millis(250);

/// Number of packets that may be lost in addition to those that arrive while the machine is away:
/// one in transit at the beginning and one at the end of that time, in each direction.
pub const UNDER_WAY: u64 = 2;

/// The addresses of the two ends.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub guest: Ipv4Addr,
    /// The guest's address in the VLAN.
    pub guest_tagged: Ipv4Addr,
    pub host: Ipv4Addr,
    /// This machine's address in the VLAN.
    pub host_tagged: Ipv4Addr,
    /// The multicast group of the guest.
    pub group: Ipv4Addr,
}

/// A kind of packets. The adapter must pass all kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Datagrams.
    Plain,
    /// Frames that exceed Ethernet's standard size.
    Jumbo,
    /// Datagrams in a VLAN.
    Tagged,
    /// Datagrams to the group.
    Group,
    /// Datagrams to the group, in the VLAN.
    TaggedGroup,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::Plain,
        Self::Jumbo,
        Self::Tagged,
        Self::Group,
        Self::TaggedGroup,
    ];

    fn plan(self) -> datagrams::Plan {
        let (size, milliseconds) = match self {
            Self::Plain => (1000, 250),
            Self::Jumbo => (8900, 1000),
            Self::Tagged | Self::Group | Self::TaggedGroup => (500, 500),
        };
        datagrams::Plan {
            size,
            interval: Duration::from_millis(milliseconds),
            seed: self as u64,
        }
    }

    /// Returns the source and destination addresses.
    fn path(self, ends: &Ends) -> (SocketAddr, SocketAddr) {
        let (from, to, port) = match self {
            Self::Plain | Self::Jumbo => (ends.host, ends.guest, port::ECHO),
            Self::Tagged => (ends.host_tagged, ends.guest_tagged, port::ECHO),
            Self::Group => (ends.host, ends.group, port::GROUP),
            Self::TaggedGroup => (ends.host_tagged, ends.group, port::GROUP),
        };
        let address = |address, port| SocketAddr::new(IpAddr::V4(address), port);
        (address(from, 0), address(to, port))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "datagrams",
            Self::Jumbo => "jumbo frames",
            Self::Tagged => "VLAN",
            Self::Group => "multicast",
            Self::TaggedGroup => "multicast in the VLAN",
        })
    }
}

/// Traffic in a separate thread, until it is stopped.
struct Flow<T> {
    control: Arc<Control>,
    thread: JoinHandle<Result<T>>,
}

impl<T: Send + 'static> Flow<T> {
    fn start(traffic: impl FnOnce(&Control) -> Result<T> + Send + 'static) -> Self {
        let control = Arc::new(Control::default());
        let shared = control.clone();
        Self {
            control,
            thread: thread::spawn(move || traffic(&shared)),
        }
    }

    /// Returns whether the traffic has ended by itself.
    fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    fn stop(&self) {
        self.control.stop();
    }

    /// Stops the traffic and returns its result.
    ///
    /// # Errors
    ///
    /// Fails if the traffic failed, or if it has not ended and no more packets arrive.
    fn end(self) -> Result<T> {
        self.end_within(END_PATIENCE)
    }

    fn end_within(self, patience: Duration) -> Result<T> {
        self.stop();
        let mut progress = Progress::new(patience);
        while !self.thread.is_finished() {
            ensure!(
                progress.continues(self.control.arrivals()),
                "timed out: nothing arrived for {} s after it was stopped",
                patience.as_secs()
            );
            thread::sleep(POLL);
        }
        self.thread
            .join()
            .map_err(|_| anyhow!("the thread panicked"))?
    }
}

/// Connections that outlive migrations: an echo connection, and connections that transfer files to
/// the guest and from it in turn.
pub struct Connections {
    echo: Flow<Echo>,
    files: Flow<Vec<Transfer>>,
}

/// The result of [`Connections`].
pub struct Carried {
    pub echo: Echo,
    pub files: Vec<Transfer>,
}

impl Connections {
    /// Starts the connections, with files of `size` bytes at `rate` bytes per second.
    pub fn start(ends: &Ends, size: u64, rate: u64) -> Self {
        let echo = SocketAddr::from((ends.guest, port::ECHO));
        let files = SocketAddr::from((ends.guest, port::TRANSFER));
        Self {
            echo: Flow::start(move |control| Ok(echo::run(echo, 1, ECHO_INTERVAL, control)?)),
            files: Flow::start(move |control| {
                let directions = [Direction::Upload, Direction::Download].into_iter().cycle();
                let requests = (2..).zip(directions).map(|(seed, direction)| Request {
                    direction,
                    seed,
                    length: size,
                    rate,
                });
                let files = requests.map(|request| transfer::run(files, request, control));
                let mut moved = Vec::new();
                for file in files {
                    moved.push(file?);
                    if control.is_stopped() {
                        break;
                    }
                }
                Ok(moved)
            }),
        }
    }

    /// Returns whether all connections are still open.
    pub fn last(&self) -> bool {
        !self.echo.has_ended() && !self.files.has_ended()
    }

    /// Completes the current file.
    ///
    /// # Errors
    ///
    /// Fails if a connection broke or if a byte arrived changed.
    pub fn finish(self) -> Result<Carried> {
        self.files.stop();
        let echo = self.echo.end().context("the echo connection")?;
        let files = self.files.end().context("the connection of the files")?;
        Ok(Carried { echo, files })
    }
}

/// Counts of packets of one kind.
#[derive(Clone, Debug)]
pub struct Tally {
    pub kind: String,
    pub sent: u64,
    pub lost: u64,
    /// Number of packets that came back more than once or changed.
    pub wrong: u64,
    /// Interval between two packets.
    pub interval: Duration,
    /// The longest time without a packet.
    pub longest_gap: Duration,
    /// Whether the last packet came back, which proves that such packets pass at the machine's new
    /// location.
    pub last_came: bool,
}

impl Tally {
    /// Returns the maximum number of packets that may be lost during `absence`.
    pub fn bound(&self, absence: Duration) -> u64 {
        absence.as_millis().div_ceil(self.interval.as_millis()) as u64 + UNDER_WAY
    }

    /// Checks that only packets sent while the machine was away were lost, and that no packet was
    /// wrong.
    pub fn check(&self, absence: Duration) -> Result<()> {
        let bound = self.bound(absence);
        let Self {
            kind, sent, lost, ..
        } = self;
        if self.wrong != 0 {
            bail!("{kind}: {} came back twice or changed", self.wrong);
        }
        ensure!(
            *lost <= bound,
            "{kind}: {lost} of {sent} were lost, at most {bound} allowed: the machine was away for \
             {} ms, and one packet is sent every {} ms",
            absence.as_millis(),
            self.interval.as_millis()
        );
        ensure!(
            self.last_came,
            "{kind}: the last of {sent} was lost, such packets do not pass any more"
        );
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: longest gap {} ms, {} of {} lost",
            self.kind,
            self.longest_gap.as_millis(),
            self.lost,
            self.sent
        )
    }
}

/// Pings of a guest, until they are stopped.
pub struct Pings(Flow<Tally>);

impl Pings {
    /// Starts the pings. `whose` names them.
    pub fn start(address: Ipv4Addr, whose: &str) -> Result<Self> {
        let identifier = NEXT_IDENTIFIER.fetch_add(1, Ordering::Relaxed) as u16;
        let ping = Ping::new(address, identifier).context("failed to prepare pings")?;
        let kind = whose.to_owned();
        Ok(Self(Flow::start(move |control| {
            ping.run(PING_INTERVAL, control)?;
            let tally = ping.tally();
            Ok(Tally {
                kind,
                sent: tally.sent,
                lost: tally.lost(),
                wrong: tally.wrong,
                interval: PING_INTERVAL,
                longest_gap: tally.longest_gap,
                last_came: tally.last_came,
            })
        })))
    }

    /// Stops the pings and returns their counts.
    pub fn finish(self) -> Result<Tally> {
        self.0.end().context("ping")
    }
}

/// All kinds of packets, and iperf3, during one migration.
pub struct Samples {
    pings: Pings,
    kinds: Vec<(Kind, Flow<datagrams::Tally>)>,
    iperf: Option<[Flow<Measurement>; 2]>,
}

/// The result of [`Samples`].
#[derive(Clone, Debug)]
pub struct Passed {
    /// The counts of each kind of packets, the pings first.
    pub tallies: Vec<Tally>,
    /// iperf3's results over TCP and UDP, or the error.
    pub measurements: Option<[Result<Measurement, String>; 2]>,
}

impl Samples {
    /// Starts the traffic. With `measured`, also runs iperf3 for this time, at `rate` bytes per
    /// second.
    pub fn start(ends: &Ends, measured: Option<Duration>, rate: u64) -> Result<Self> {
        let ends = *ends;
        let kinds = Kind::ALL.map(|kind| {
            let flow = Flow::start(move |control| {
                let (from, to) = kind.path(&ends);
                Ok(datagrams::run(from, to, kind.plan(), control)?)
            });
            (kind, flow)
        });
        Ok(Self {
            pings: Pings::start(ends.guest, "ping")?,
            kinds: kinds.into(),
            iperf: measured.map(|duration| {
                let [tcp, udp] = PORTS;
                [(tcp, Transport::Tcp), (udp, Transport::Udp)].map(|(port, transport)| {
                    Flow::start(move |_| {
                        iperf::measure(ends.guest, port, transport, 8 * rate, duration)
                    })
                })
            }),
        })
    }

    /// Stops the traffic and returns its result.
    ///
    /// # Errors
    ///
    /// Fails if traffic cannot be sent at all.
    pub fn finish(self) -> Result<Passed> {
        self.pings.0.stop();
        self.kinds.iter().for_each(|(_, flow)| flow.stop());
        let mut tallies = vec![self.pings.finish()?];
        for (kind, flow) in self.kinds {
            let tally = flow.end().with_context(|| kind.to_string())?;
            tallies.push(Tally {
                kind: kind.to_string(),
                sent: tally.sent,
                lost: tally.lost(),
                wrong: tally.doubled + tally.changed,
                interval: kind.plan().interval,
                longest_gap: tally.longest_gap,
                last_came: tally.last_came,
            });
        }
        let measurements = self
            .iperf
            .map(|flows| flows.map(|flow| flow.end().map_err(|error| format!("{error:#}"))));
        Ok(Passed {
            tallies,
            measurements,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(sent: u64, lost: u64, wrong: u64) -> Tally {
        Tally {
            kind: "ping".to_owned(),
            sent,
            lost,
            wrong,
            interval: Duration::from_millis(100),
            longest_gap: Duration::ZERO,
            last_came: lost < sent,
        }
    }

    #[test]
    fn only_packets_of_the_absence_may_be_lost() {
        let away = Duration::from_millis(950);
        assert_eq!(tally(50, 0, 0).bound(away), 12);
        assert!(tally(50, 12, 0).check(away).is_ok());
        let error = tally(50, 13, 0).check(away).unwrap_err().to_string();
        assert!(
            error.contains("13 of 50") && error.contains("at most 12 allowed"),
            "{error}"
        );
        assert!(tally(50, 0, 1).check(away).is_err());
        assert!(tally(5, 5, 0).check(away).is_err());
    }

    #[test]
    fn a_flow_that_makes_progress_is_waited_for() {
        let flow = Flow::start(|control| {
            for _ in 0..30 {
                thread::sleep(Duration::from_millis(100));
                control.arrival();
            }
            Ok(())
        });
        flow.end_within(Duration::from_secs(2)).unwrap();
        let silent = Flow::start(|_| {
            thread::sleep(Duration::from_secs(60));
            Ok(())
        });
        let error = silent.end_within(Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("nothing arrived"), "{error}");
    }

    #[test]
    fn a_stopped_flow_returns_its_result() {
        let flow = Flow::start(|control| {
            let mut turns = 0u64;
            while !control.is_stopped() {
                thread::sleep(Duration::from_millis(1));
                turns += 1;
            }
            Ok(turns)
        });
        thread::sleep(Duration::from_millis(30));
        assert!(!flow.has_ended());
        assert!(flow.end().unwrap() > 0);
        let failing: Flow<()> = Flow::start(|_| bail!("no route"));
        assert!(failing.end().unwrap_err().to_string().contains("no route"));
    }
}
