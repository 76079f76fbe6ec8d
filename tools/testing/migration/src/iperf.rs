// SPDX-License-Identifier: GPL-2.0

//! Measurements with iperf3, and their results.

use std::{fmt, net::Ipv4Addr, process::Command, time::Duration};

use anyhow::{bail, ensure, Context, Result};
use serde::Deserialize;
use serde_json::Value;

/// The transport protocol of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// The result of a measurement, as the receiver reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Measurement {
    pub bits_per_second: f64,
    /// Number of lost datagrams.
    pub lost_packets: u64,
    /// Number of sent datagrams.
    pub packets: u64,
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} Mbit/s", self.bits_per_second / 1e6)?;
        match self.packets {
            0 => Ok(()),
            packets => write!(f, ", {} of {packets} datagrams lost", self.lost_packets),
        }
    }
}

/// Sends to the server at `address` and `port` for `time`, at no more than `rate` bits per second.
///
/// # Errors
///
/// Fails if the connection to the server breaks, or if the server is silent at the end for more
/// than the ten seconds that iperf3 waits.
pub fn measure(
    address: Ipv4Addr,
    port: u16,
    transport: Transport,
    rate: u64,
    duration: Duration,
) -> Result<Measurement> {
    let mut command = Command::new("iperf3");
    command
        .args(["--json", "--client", &address.to_string()])
        .args(["--port", &port.to_string()])
        .args(["--bitrate", &rate.to_string()])
        .args(["--time", &duration.as_secs().to_string()])
        // By default, one write is larger than the data of a second at such a rate.
        .args(["--length", "2048"]);
    if transport == Transport::Udp {
        command.arg("--udp");
    }
    let output = command.output().context("failed to start iperf3")?;
    parse(&output.stdout)
}

fn parse(answer: &[u8]) -> Result<Measurement> {
    let answer: Value =
        serde_json::from_slice(answer).context("invalid output of iperf3: not JSON")?;
    if let Some(error) = answer["error"].as_str() {
        bail!("iperf3: {error}");
    }
    let sum = &answer["end"]["sum_received"];
    ensure!(sum.is_object(), "iperf3 reports no received data");
    Measurement::deserialize(sum).with_context(|| format!("invalid report of received data: {sum}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_receivers_report() {
        let tcp = br#"{"end":{"sum_sent":{"bits_per_second":9e6},
            "sum_received":{"bits_per_second":2e6,"bytes":5}}}"#;
        assert_eq!(parse(tcp).unwrap().to_string(), "2.0 Mbit/s");
        let udp = br#"{"end":{"sum_received":
            {"bits_per_second":1.5e6,"lost_packets":3,"packets":40}}}"#;
        let text = parse(udp).unwrap().to_string();
        assert_eq!(text, "1.5 Mbit/s, 3 of 40 datagrams lost");
    }

    #[test]
    fn a_failure_is_an_error() {
        for wrong in [
            &b"iperf3: what"[..],
            br#"{"error":"unable to connect"}"#,
            br#"{"end":{}}"#,
        ] {
            assert!(parse(wrong).is_err());
        }
    }
}
