// SPDX-License-Identifier: GPL-2.0

//! Numbered datagrams, to one receiver or a group, that come back: how many were lost, came twice,
//! out of turn or changed.
//!
//! A network may lose, double and reorder. It may not change.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::control::Control;
use crate::gap::Gap;
use crate::pattern::Pattern;
use crate::room;

/// Between two looks whether to stop.
const POLL: Duration = Duration::from_millis(100);

/// The largest payload of a UDP datagram over IPv4.
const LARGEST: usize = 65_507;

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Bytes of payload, 8 at the least.
    pub size: usize,
    /// Between two datagrams.
    pub interval: Duration,
    pub seed: u64,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub sent: u64,
    /// Those that could not be sent.
    pub refused: u64,
    /// Different ones that came back unchanged.
    pub received: u64,
    /// Those that came another time.
    pub doubled: u64,
    /// Those that came after a later one.
    pub late: u64,
    /// Those that are not what was sent.
    pub changed: u64,
    /// The longest time in which none came.
    pub longest_gap: Duration,
    /// Whether the last one came back.
    pub last_came: bool,
}

impl Tally {
    /// Those that were sent and never came back.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }
}

/// Sends from the address `local` to `target` until `control` stops it, and counts what comes back.
///
/// # Errors
///
/// When there is no socket to be had, and when a datagram cannot be received.
pub fn run(
    local: SocketAddr,
    target: SocketAddr,
    plan: Plan,
    control: &Control,
) -> io::Result<Tally> {
    if !(size_of::<u64>()..=LARGEST).contains(&plan.size) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a datagram has 8 to {LARGEST} bytes, not {}", plan.size),
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

/// Returns how many could not be sent.
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
    // All below `expected` have come, but for those that are missing.
    let (mut expected, mut missing) = (0, BTreeSet::new());
    let mut buffer = vec![0; plan.size + 1];
    let mut wanted = vec![0; plan.size];
    let mut gap = Gap::start();
    loop {
        if ended.load(Ordering::Acquire) {
            // Those that are missing before the last one are lost: it has not overtaken them all.
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
            // Nothing yet; or nobody listened to a datagram before.
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
        // What is sent after this look cannot have come before it.
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

    /// The far end is this machine's.
    const PATIENCE: Duration = Duration::from_secs(3);

    const PLAN: Plan = Plan {
        size: 100,
        interval: Duration::from_millis(1),
        seed: 3,
    };

    /// The tally with a far end that answers datagram `number` with what `answer` gives.
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
    fn all_that_come_back_are_counted() {
        let tally = against(|_, datagram| vec![datagram.to_vec()]);
        assert!(tally.sent > 5);
        assert_eq!((tally.lost(), tally.doubled, tally.changed), (0, 0, 0));
        assert!(tally.last_came);
    }

    #[test]
    fn lost_doubled_and_changed_are_told_apart() {
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
    fn the_last_one_is_missed() {
        let tally = against(|number, datagram| match number {
            0..3 => vec![datagram.to_vec()],
            _ => vec![],
        });
        assert_eq!(tally.received, 3);
        assert!(!tally.last_came);
    }

    #[test]
    fn a_size_without_room_for_the_number_is_refused() {
        let address = "127.0.0.1:0".parse().unwrap();
        let plan = Plan { size: 7, ..PLAN };
        let error = run(address, address, plan, &Control::default()).unwrap_err();
        assert!(error.to_string().contains("not 7"));
    }
}
