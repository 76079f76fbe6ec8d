// SPDX-License-Identifier: GPL-2.0

//! Sends traffic to a responder for a given time and prints the result as JSON.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::{ensure, Result};
use clap::{Parser, Subcommand};
use vifa_traffic::{
    control::Control,
    datagrams, echo, iperf, port, responder,
    transfer::{self, Direction, Request},
};

#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// One TCP connection, as fast as possible, whose peer echoes all data
    Echo {
        address: IpAddr,
        #[arg(long, default_value_t = 10, value_name = "SECONDS")]
        duration: u64,
    },
    /// A large file to the peer
    Upload {
        address: IpAddr,
        #[arg(long, default_value_t = 64, value_name = "MIB")]
        size: u64,
    },
    /// A large file from the peer
    Download {
        address: IpAddr,
        #[arg(long, default_value_t = 64, value_name = "MIB")]
        size: u64,
    },
    /// Numbered datagrams that are echoed
    Datagrams {
        /// The peer, or its multicast group
        address: IpAddr,
        /// The source address, which selects the interface for a group
        #[arg(long, default_value = "0.0.0.0", value_name = "ADDRESS")]
        from: IpAddr,
        #[arg(long, default_value_t = 10, value_name = "SECONDS")]
        duration: u64,
        /// Size of the payload in bytes
        #[arg(long, default_value_t = 1024, value_name = "BYTES")]
        size: usize,
        /// Interval between two datagrams
        #[arg(long, default_value_t = 20, value_name = "MILLISECONDS")]
        interval: u64,
    },
    /// Run the peer, including an iperf3 server, until it is killed
    Respond {
        /// A multicast group to join
        #[arg(long, requires = "interfaces")]
        group: Option<Ipv4Addr>,
        /// The addresses of the interfaces on which to join the group
        interfaces: Vec<Ipv4Addr>,
    },
}

fn main() -> ExitCode {
    match run(&Arguments::parse().action) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vifa-traffic: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(action: &Action) -> Result<()> {
    let seed = u64::from(std::process::id());
    match *action {
        Action::Echo { address, duration } => echo(address, seed, duration),
        Action::Upload { address, size } => move_file(address, Direction::Upload, seed, size),
        Action::Download { address, size } => move_file(address, Direction::Download, seed, size),
        Action::Datagrams {
            address,
            from,
            duration,
            size,
            interval,
        } => {
            let plan = datagrams::Plan {
                size,
                interval: Duration::from_millis(interval),
                seed,
            };
            send_datagrams(from, address, plan, duration)
        }
        Action::Respond {
            group,
            ref interfaces,
        } => {
            responder::start(group, interfaces)?;
            iperf::start()?;
            loop {
                thread::park();
            }
        }
    }
}

fn echo(address: IpAddr, seed: u64, seconds: u64) -> Result<()> {
    let address = SocketAddr::new(address, port::ECHO);
    let echo = during(seconds, |control| {
        echo::run(address, seed, Duration::ZERO, control)
    })?;
    println!(
        r#"{{"sent":{},"verified":{},"longest_gap_ms":{}}}"#,
        echo.sent,
        echo.verified,
        echo.longest_gap.as_millis()
    );
    Ok(())
}

fn send_datagrams(from: IpAddr, to: IpAddr, plan: datagrams::Plan, seconds: u64) -> Result<()> {
    let port = match to.is_multicast() {
        true => port::GROUP,
        false => port::ECHO,
    };
    let (from, target) = (SocketAddr::new(from, 0), SocketAddr::new(to, port));
    let tally = during(seconds, |control| {
        datagrams::run(from, target, plan, control)
    })?;
    println!(
        concat!(
            r#"{{"sent":{},"refused":{},"received":{},"lost":{},"doubled":{},"late":{},"#,
            r#""changed":{},"longest_gap_ms":{}}}"#
        ),
        tally.sent,
        tally.refused,
        tally.received,
        tally.lost(),
        tally.doubled,
        tally.late,
        tally.changed,
        tally.longest_gap.as_millis()
    );
    ensure!(
        tally.changed == 0,
        "{} datagrams came back changed",
        tally.changed
    );
    ensure!(tally.received > 0, "no datagram came back");
    Ok(())
}

fn move_file(address: IpAddr, direction: Direction, seed: u64, mebibytes: u64) -> Result<()> {
    let request = Request {
        direction,
        seed,
        length: mebibytes * 1024 * 1024,
        rate: 0,
    };
    let moved = transfer::run(
        SocketAddr::new(address, port::TRANSFER),
        request,
        &Control::default(),
    )?;
    println!(
        r#"{{"length":{},"checksum":"{:#010x}","took_ms":{},"longest_gap_ms":{}}}"#,
        moved.length,
        moved.checksum,
        moved.took.as_millis(),
        moved.longest_gap.as_millis()
    );
    Ok(())
}

/// Runs `traffic` for `seconds` seconds.
fn during<T: Send>(
    seconds: u64,
    traffic: impl FnOnce(&Control) -> std::io::Result<T> + Send,
) -> Result<T> {
    let control = Control::default();
    thread::scope(|scope| {
        let traffic = scope.spawn(|| traffic(&control));
        let deadline = std::time::Instant::now() + Duration::from_secs(seconds);
        while std::time::Instant::now() < deadline && !traffic.is_finished() {
            thread::sleep(Duration::from_millis(50));
        }
        control.stop();
        let result = traffic
            .join()
            .map_err(|_| anyhow::anyhow!("the traffic panicked"))?;
        Ok(result?)
    })
}
