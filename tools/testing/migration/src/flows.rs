// SPDX-License-Identifier: GPL-2.0

//! What passes between this machine and a virtual machine with a network adapter, and what a
//! migration may do to it.
//!
//! [`Connections`] live as long as the virtual machine; no byte of theirs may be lost or changed.
//! [`Samples`] are taken of one migration: packets of each kind that the adapter was set up for, at a
//! known rate. Those that come while the machine is away may be lost, and no others.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context, Result};
use vifa_traffic::control::Control;
use vifa_traffic::datagrams;
use vifa_traffic::echo::{self, Echo};
use vifa_traffic::iperf::PORTS;
use vifa_traffic::ping::Ping;
use vifa_traffic::port;
use vifa_traffic::transfer::{self, Direction, Request, Transfer};

use crate::iperf::{self, Measurement, Transport};
use crate::progress::Progress;

/// How long traffic that was stopped may go on without anything arriving. Traffic itself waits for a
/// last answer for less.
const END_PATIENCE: Duration = Duration::from_secs(300);

/// Between two looks at what is to end.
const POLL: Duration = Duration::from_millis(20);

/// Between two pings, and what they are told by; each sample is another.
pub const PING_INTERVAL: Duration = Duration::from_millis(250);
static NEXT_IDENTIFIER: AtomicU64 = AtomicU64::new(1);

/// Between two blocks of 4 KiB that are to come back.
const ECHO_INTERVAL: Duration = Duration::from_millis(250);

/// Packets that may be lost beyond those that come while the machine is away: one that is under way
/// at either end of that time, each way.
pub const UNDER_WAY: u64 = 2;

/// The addresses of the two ends.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub guest: Ipv4Addr,
    /// The guest's in the VLAN.
    pub guest_tagged: Ipv4Addr,
    pub host: Ipv4Addr,
    /// This machine's in the VLAN.
    pub host_tagged: Ipv4Addr,
    /// The group that the guest is in.
    pub group: Ipv4Addr,
}

/// A kind of packets, of which the adapter must let each pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Datagrams.
    Plain,
    /// Frames that are larger than Ethernet's.
    Jumbo,
    /// Datagrams in a VLAN.
    Tagged,
    /// Datagrams to the group.
    Group,
    /// Datagrams to the group, in the VLAN.
    TaggedGroup,
}

impl Kind {
    /// All.
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

    /// Where they are sent from, and where to.
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

/// Traffic in a thread of its own, until it is stopped.
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

    /// Whether it has ended by itself.
    fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    fn stop(&self) {
        self.control.stop();
    }

    /// Stops it, and returns its result.
    ///
    /// # Errors
    ///
    /// When it failed, and when it has not ended and nothing arrives any more.
    fn end(self) -> Result<T> {
        self.end_within(END_PATIENCE)
    }

    fn end_within(self, patience: Duration) -> Result<T> {
        self.stop();
        let mut progress = Progress::new(patience);
        while !self.thread.is_finished() {
            ensure!(
                progress.goes_on(self.control.arrivals()),
                "not ended; nothing arrived for {} s after it was stopped",
                patience.as_secs()
            );
            thread::sleep(POLL);
        }
        self.thread.join().map_err(|_| anyhow!("it panicked"))?
    }
}

/// Connections that outlive migrations: one on which everything comes back, and those of files that
/// go to the guest and come from it by turns.
pub struct Connections {
    echo: Flow<Echo>,
    files: Flow<Vec<Transfer>>,
}

/// What came of [`Connections`].
pub struct Carried {
    pub echo: Echo,
    pub files: Vec<Transfer>,
}

impl Connections {
    /// Begins, with files of `size` bytes that go at `rate` bytes a second.
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

    /// Whether none has ended.
    pub fn last(&self) -> bool {
        !self.echo.has_ended() && !self.files.has_ended()
    }

    /// Lets the file that is under way come to its end.
    ///
    /// # Errors
    ///
    /// When a connection broke, and when a byte arrived changed.
    pub fn finish(self) -> Result<Carried> {
        self.files.stop();
        let echo = self
            .echo
            .end()
            .context("the connection on which everything comes back")?;
        let files = self.files.end().context("the connection of a file")?;
        Ok(Carried { echo, files })
    }
}

/// How packets of one kind fared.
#[derive(Clone, Debug)]
pub struct Tally {
    pub kind: String,
    pub sent: u64,
    pub lost: u64,
    /// Those that came back more than once, or not as they were sent.
    pub wrong: u64,
    /// Between two of them.
    pub interval: Duration,
    /// The longest time in which none came.
    pub longest_gap: Duration,
    /// Whether the last one came back: such packets pass, wherever the machine is then.
    pub last_came: bool,
}

impl Tally {
    /// How many may be lost of what is sent while nobody takes it.
    pub fn bound(&self, absence: Duration) -> u64 {
        absence.as_millis().div_ceil(self.interval.as_millis()) as u64 + UNDER_WAY
    }

    /// Checks that no more were lost than while the machine was away, and none came wrong.
    pub fn check(&self, absence: Duration) -> Result<()> {
        let bound = self.bound(absence);
        let Self {
            kind, sent, lost, ..
        } = self;
        if self.wrong != 0 {
            bail!("{kind}: {} came doubled or changed", self.wrong);
        }
        ensure!(
            *lost <= bound,
            "{kind}: {lost} of {sent} were lost; {bound} may be, for the machine was away for {} ms \
             and one is sent each {} ms",
            absence.as_millis(),
            self.interval.as_millis()
        );
        ensure!(
            self.last_came,
            "{kind}: the last of {sent} was lost, such packets pass no more"
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
    /// Begins. `whose` names them.
    pub fn start(address: Ipv4Addr, whose: &str) -> Result<Self> {
        let identifier = NEXT_IDENTIFIER.fetch_add(1, Ordering::Relaxed) as u16;
        let ping = Ping::new(address, identifier).context("preparing to ping")?;
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

    /// What came of them.
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

/// What came of [`Samples`].
#[derive(Clone, Debug)]
pub struct Passed {
    /// Of each kind of packets, the pings first.
    pub tallies: Vec<Tally>,
    /// iperf3's, by TCP and by UDP, or why it gave up.
    pub measurements: Option<[Result<Measurement, String>; 2]>,
}

impl Samples {
    /// Begins; with `measured`, iperf3 as well, for so long, at `rate` bytes a second.
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

    /// What came of them.
    ///
    /// # Errors
    ///
    /// When traffic cannot be sent at all.
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
    fn no_more_may_be_lost_than_is_sent_while_the_machine_is_away() {
        let away = Duration::from_millis(950);
        assert_eq!(tally(50, 0, 0).bound(away), 12);
        assert!(tally(50, 12, 0).check(away).is_ok());
        let error = tally(50, 13, 0).check(away).unwrap_err().to_string();
        assert!(
            error.contains("13 of 50") && error.contains("12 may be"),
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
