// SPDX-License-Identifier: GPL-2.0

//! The workload of a network adapter: it answers all incoming traffic, including iperf3's, and
//! pings its peer.
//!
//! The adapter's driver is the kernel's. The kernel's command line sets the configuration of the
//! adapter, in parameters that the kernel passes on as environment variables:
//!
//! - `VIFA_ADDRESS=192.0.2.2/24`: the address, which enables this workload;
//! - `VIFA_PEER=192.0.2.1`: the peer to ping;
//! - `VIFA_MAC=02:00:00:00:00:02`: a hardware address that replaces the adapter's;
//! - `VIFA_MTU=9000`: the maximum packet size;
//! - `VIFA_VLAN=5:198.51.100.2/24`: a VLAN, and the address in it;
//! - `VIFA_GROUP=239.82.76.1`: a multicast group to join, on the adapter and in the VLAN.
//!
//! A line of progress has `traffic` instead of workloads. `stop` ends the pings.

use std::{
    env,
    ffi::c_int,
    net::Ipv4Addr,
    str::FromStr,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
        Arc,
    },
    thread,
    time::{Duration, Instant},
};

use vifa_traffic::{
    control::Control,
    iperf,
    ping::Ping,
    responder::{self, Counters},
};

use crate::{
    escape,
    interface::{Address, Interface, Mac},
    print_line, read_lines, PROBE_TIMEOUT,
};

/// Interval between two lines of progress, which take time to collect on an emulated machine.
const PERIOD: Duration = Duration::from_millis(500);

/// Interval between two requests to the peer.
const PING_INTERVAL: Duration = Duration::from_millis(250);
const PING_IDENTIFIER: u16 = 0x5649;

/// The kernel's error counters of each interface, which must stay 0.
const FAULTS: [&str; 6] = [
    "rx_errors",
    "rx_crc_errors",
    "rx_length_errors",
    "tx_errors",
    "tx_carrier_errors",
    "tx_aborted_errors",
];

/// The settings on the command line.
#[derive(Clone, Debug)]
pub struct Settings {
    address: Address,
    peer: Option<Ipv4Addr>,
    mac: Option<Mac>,
    mtu: Option<c_int>,
    vlan: Option<Vlan>,
    group: Option<Ipv4Addr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vlan {
    id: u16,
    address: Address,
}

impl FromStr for Vlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("invalid VLAN with an address: {text}");
        let (id, address) = text.split_once(':').ok_or_else(wrong)?;
        Ok(Self {
            id: id.parse().map_err(|_| wrong())?,
            address: address.parse()?,
        })
    }
}

impl Settings {
    /// Reads the settings. Returns `None` if the command line sets no address.
    ///
    /// # Errors
    ///
    /// Names the invalid word.
    pub fn read() -> Result<Option<Self>, String> {
        let Some(address) = setting("VIFA_ADDRESS")? else {
            return Ok(None);
        };
        Ok(Some(Self {
            address,
            peer: setting("VIFA_PEER")?,
            mac: setting("VIFA_MAC")?,
            mtu: setting("VIFA_MTU")?,
            vlan: setting("VIFA_VLAN")?,
            group: setting("VIFA_GROUP")?,
        }))
    }
}

fn setting<T: FromStr>(name: &str) -> Result<Option<T>, String>
where
    T::Err: ToString,
{
    match env::var(name) {
        Ok(text) => match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(format!("{name}={text}: {}", T::Err::to_string(&error))),
        },
        Err(_) => Ok(None),
    }
}

/// An event of the main loop.
enum Event {
    Line(String),
    /// The pings have ended.
    Ended(Result<(), String>),
}

/// Runs the traffic. Returns only if there cannot be any traffic.
pub fn run(settings: &Settings) -> Result<(), String> {
    let network = Network::configure(settings)?;
    print_line(r#"{"event":"ready"}"#);

    let (sender, events) = mpsc::channel();
    read_lines(sender.clone(), Event::Line);
    let control = Arc::new(Control::default());
    if let Some(ping) = network.ping.clone() {
        let control = control.clone();
        thread::spawn(move || {
            let result = ping.run(PING_INTERVAL, &control);
            sender.send(Event::Ended(result.map_err(|error| error.to_string())))
        });
    }

    let mut sequence = 0u64;
    loop {
        match events.recv_timeout(PERIOD) {
            Err(RecvTimeoutError::Timeout) => {
                print_line(&format!(
                    r#"{{"event":"progress","sequence":{sequence},"traffic":{}}}"#,
                    network.progress()
                ));
                sequence += 1;
            }
            Err(RecvTimeoutError::Disconnected) => return Err("the event channel is closed".into()),
            Ok(Event::Line(line)) => {
                if line.trim() == "stop" {
                    control.stop();
                }
            }
            Ok(Event::Ended(result)) => {
                let error = match result {
                    Ok(()) => "null".to_owned(),
                    Err(error) => format!(r#""{}""#, escape(&error)),
                };
                print_line(&format!(
                    r#"{{"event":"finished","error":{error},"traffic":{}}}"#,
                    network.progress()
                ));
            }
        }
    }
}

/// The adapter and its traffic.
struct Network {
    adapter: Interface,
    /// The initial value. A guest that does not notice a migration sees no change.
    carrier_changes: Option<String>,
    ping: Option<Arc<Ping>>,
    answered: Arc<Counters>,
    /// Number of iperf3 tests that succeeded.
    iperf_tests: Arc<AtomicU64>,
}

impl Network {
    fn configure(settings: &Settings) -> Result<Self, String> {
        let adapter = wait("no driver is bound to a network adapter", || {
            Interface::of_device()
        })?;
        if let Some(mac) = settings.mac {
            adapter.set_mac(mac)?;
        }
        if let Some(mtu) = settings.mtu {
            adapter.set_mtu(mtu)?;
        }
        adapter.bring_up()?;
        adapter.set_address(settings.address)?;
        let mut addresses = vec![settings.address.address];
        if let Some(vlan) = settings.vlan {
            let interface = adapter.add_vlan(vlan.id)?;
            interface.bring_up()?;
            interface.set_address(vlan.address)?;
            addresses.push(vlan.address.address);
        }
        wait("the network adapter has no link", || {
            (adapter.attribute("carrier")? == "1").then_some(())
        })?;

        let ping = settings
            .peer
            .map(|peer| Ping::new(peer, PING_IDENTIFIER))
            .transpose()
            .map_err(|error| format!("preparing to ping: {error}"))?;
        Ok(Self {
            carrier_changes: adapter.attribute("carrier_changes"),
            ping: ping.map(Arc::new),
            answered: responder::start(settings.group, &addresses)
                .map_err(|error| format!("listening: {error}"))?,
            iperf_tests: iperf::start()
                .map_err(|error| format!("listening for iperf3: {error}"))?,
            adapter,
        })
    }

    /// Returns the state of all traffic as a JSON object.
    fn progress(&self) -> String {
        let attribute = |file: &str| self.adapter.attribute(file).unwrap_or_default();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let ping = self.ping.as_ref().map(|ping| ping.tally());
        let ping = ping.unwrap_or_default();
        let faults: u64 = FAULTS
            .iter()
            .filter_map(|name| attribute(&format!("statistics/{name}")).parse::<u64>().ok())
            .sum();
        let answered = &self.answered;
        format!(
            concat!(
                r#"{{"interface":"{}","carrier":{},"link_changed":{},"mac":"{}","mtu":{},"#,
                r#""transmit_timeouts":{},"faults":{},"ping":{{"sent":{},"refused":{},"#,
                r#""received":{},"wrong":{},"longest_gap_ms":{}}},"#,
                r#""answered":{{"connections":{},"broken":{},"bytes":{},"datagrams":{},"#,
                r#""group_datagrams":{},"iperf_tests":{}}}}}"#
            ),
            self.adapter.name(),
            attribute("carrier") == "1",
            self.adapter.attribute("carrier_changes") != self.carrier_changes,
            attribute("address"),
            attribute("mtu").parse::<u64>().unwrap_or_default(),
            attribute("queues/tx-0/tx_timeout")
                .parse::<u64>()
                .unwrap_or_default(),
            faults,
            ping.sent,
            ping.refused,
            ping.received,
            ping.wrong,
            ping.longest_gap.as_millis(),
            count(&answered.connections),
            count(&answered.broken),
            count(&answered.bytes),
            count(&answered.datagrams),
            count(&answered.group_datagrams),
            count(&self.iperf_tests),
        )
    }
}

/// Waits until `look` returns a value, with a timeout.
fn wait<T>(failure: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, String> {
    let deadline = Instant::now() + PROBE_TIMEOUT;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(failure.to_owned());
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_vlan_with_its_address() {
        let vlan: Vlan = "5:198.51.100.2/24".parse().unwrap();
        assert_eq!(vlan.id, 5);
        assert_eq!(vlan.address, "198.51.100.2/24".parse().unwrap());
        for wrong in [
            "5",
            "x:198.51.100.2/24",
            "5:198.51.100.2",
            "70000:1.2.3.4/8",
        ] {
            assert!(wrong.parse::<Vlan>().is_err(), "{wrong}");
        }
    }
}
