// SPDX-License-Identifier: GPL-2.0

//! Numbered datagrams to one receiver or a group, which are echoed. Counts lost, duplicate,
//! reordered and changed datagrams.
//!
//! A network may lose, duplicate and reorder datagrams. It must not change them.

use std::{
    collections::BTreeSet,
    io,
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{control::Control, gap::Gap, pattern::Pattern, room};

/// Interval between checks whether to stop.
const POLL: Duration = Duration::from_millis(100);

/// The largest payload of a UDP datagram over IPv4.
const LARGEST: usize = 65_507;

/// The parameters of the traffic.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Size of the payload in bytes, at least 8.
    pub size: usize,
    /// Interval between two datagrams.
    pub interval: Duration,
    pub seed: u64,
}

/// The counts of datagrams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub sent: u64,
    /// Number of datagrams that failed to be sent.
    pub refused: u64,
    /// Number of different datagrams that came back unchanged.
    pub received: u64,
    /// Number of duplicates.
    pub doubled: u64,
    /// Number of datagrams that came back after a later one.
    pub late: u64,
    /// Number of datagrams that differ from the sent ones.
    pub changed: u64,
    /// The longest time without a datagram.
    pub longest_gap: Duration,
    /// Whether the last datagram came back.
    pub last_came: bool,
}

impl Tally {
    /// Returns the number of sent datagrams that did not come back.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }
}

/// Sends from the address `local` to `target` until `control` stops it, and counts the datagrams
/// that come back.
///
/// # Errors
///
/// Fails if no socket is available, or if a datagram cannot be received.
pub fn run(
    local: SocketAddr,
    target: SocketAddr,
    plan: Plan,
    control: &Control,
) -> io::Result<Tally> {
    if !(size_of::<u64>()..=LARGEST).contains(&plan.size) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "invalid datagram size: got {}, expected 8 to {LARGEST}",
                plan.size
            ),
        ));
    }
    let socket = UdpSocket::bind(local)?;
    room::make(&socket)?;
    socket.set_read_timeout(Some(POLL))?;
    let sent = AtomicU64::new(0);
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&socket, plan, &sent, &ended, control));
        let refused = send(&socket, target, plan, &sent, control);
        ended.store(true, Ordering::Release);
        let mut tally = receiver
            .join()
            .map_err(|_| io::Error::other("the receiver panicked"))??;
        tally.sent = sent.load(Ordering::Relaxed);
        tally.refused = refused;
        Ok(tally)
    })
}

fn fill(plan: Plan, number: u64, datagram: &mut [u8]) {
    let (head, data) = datagram.split_at_mut(size_of::<u64>());
    head.copy_from_slice(&number.to_le_bytes());
    Pattern::new(plan.seed.wrapping_add(number)).fill(0, data);
}

/// Returns the number of datagrams that failed to be sent.
fn send(
    socket: &UdpSocket,
    target: SocketAddr,
    plan: Plan,
    sent: &AtomicU64,
    control: &Control,
) -> u64 {
    let mut datagram = vec![0; plan.size];
    let mut refused = 0;
    let mut next = Instant::now();
    while !control.is_stopped() {
        fill(plan, sent.load(Ordering::Relaxed), &mut datagram);
        match socket.send_to(&datagram, target) {
            Ok(_) => {
                sent.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => refused += 1,
        }
        next += plan.interval;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    refused
}

fn receive(
    socket: &UdpSocket,
    plan: Plan,
    sent: &AtomicU64,
    ended: &AtomicBool,
    control: &Control,
) -> io::Result<Tally> {
    let mut tally = Tally::default();
    // All datagrams below `expected` have arrived, except for the missing ones.
    let (mut expected, mut missing) = (0, BTreeSet::new());
    let mut buffer = vec![0; plan.size + 1];
    let mut wanted = vec![0; plan.size];
    let mut gap = Gap::start();
    loop {
        if ended.load(Ordering::Acquire) {
            // Datagrams that are missing before the last one are lost: the last one has not
            // overtaken them all.
            let complete = expected == sent.load(Ordering::Relaxed);
            if complete || Instant::now() > gap.deadline(control.patience()) {
                tally.longest_gap = gap.longest();
                tally.last_came = complete;
                return Ok(tally);
            }
        } else {
            tally.longest_gap = gap.longest();
        }
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            // No datagram yet; or no process listened to an earlier datagram.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::ConnectionRefused
                ) =>
            {
                continue
            }
            Err(error) => return Err(error),
        };
        gap.arrival();
        let number = buffer
            .first_chunk()
            .map_or(u64::MAX, |head| u64::from_le_bytes(*head));
        fill(plan, number, &mut wanted);
        // A datagram that is sent after this check cannot have arrived before it.
        if buffer[..length] != wanted || number > sent.load(Ordering::Relaxed) {
            tally.changed += 1;
        } else if number >= expected {
            missing.extend(expected..number);
            expected = number + 1;
            tally.received += 1;
            control.arrival();
        } else if missing.remove(&number) {
            tally.late += 1;
            tally.received += 1;
        } else {
            tally.doubled += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The peer runs on this machine.
    const PATIENCE: Duration = Duration::from_secs(3);

    const PLAN: Plan = Plan {
        size: 100,
        interval: Duration::from_millis(1),
        seed: 3,
    };

    /// Returns the counts with a peer that answers datagram `number` with the result of `answer`.
    fn against(answer: fn(u64, &[u8]) -> Vec<Vec<u8>>) -> Tally {
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        far.set_read_timeout(Some(Duration::from_millis(10)))
            .unwrap();
        let target = far.local_addr().unwrap();
        let control = Control::with_patience(PATIENCE);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0;
                let mut buffer = [0; 200];
                while !done.load(Ordering::Relaxed) {
                    let Ok((length, from)) = far.recv_from(&mut buffer) else {
                        continue;
                    };
                    for datagram in answer(number, &buffer[..length]) {
                        far.send_to(&datagram, from).unwrap();
                    }
                    number += 1;
                }
            });
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(100));
                control.stop();
            });
            let tally = run("127.0.0.1:0".parse().unwrap(), target, PLAN, &control);
            done.store(true, Ordering::Relaxed);
            tally.unwrap()
        })
    }

    #[test]
    fn counts_all_echoed_datagrams() {
        let tally = against(|_, datagram| vec![datagram.to_vec()]);
        assert!(tally.sent > 5);
        assert_eq!((tally.lost(), tally.doubled, tally.changed), (0, 0, 0));
        assert!(tally.last_came);
    }

    #[test]
    fn distinguishes_lost_doubled_and_changed() {
        let tally = against(|number, datagram| match number {
            1 => vec![],
            2 => vec![datagram.to_vec(); 2],
            3 => {
                let mut changed = datagram.to_vec();
                changed[50] ^= 1;
                vec![changed]
            }
            4 => vec![datagram[..60].to_vec()],
            _ => vec![datagram.to_vec()],
        });
        assert_eq!((tally.lost(), tally.doubled, tally.changed), (3, 1, 2));
    }

    #[test]
    fn a_lost_last_datagram_is_detected() {
        let tally = against(|number, datagram| match number {
            0..3 => vec![datagram.to_vec()],
            _ => vec![],
        });
        assert_eq!(tally.received, 3);
        assert!(!tally.last_came);
    }

    #[test]
    fn a_size_without_room_for_the_number_is_rejected() {
        let address = "127.0.0.1:0".parse().unwrap();
        let plan = Plan { size: 7, ..PLAN };
        let error = run(address, address, plan, &Control::default()).unwrap_err();
        assert!(error.to_string().contains("got 7"));
    }
}
