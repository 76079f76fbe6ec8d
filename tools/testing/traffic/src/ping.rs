// SPDX-License-Identifier: GPL-2.0

//! ICMP echo requests, for a guest without other programs.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::{FromRawFd, OwnedFd},
    sync::{
        atomic::{AtomicBool, AtomicU16, Ordering},
        Mutex, PoisonError,
    },
    thread,
    time::{Duration, Instant},
};

use crate::{control::Control, gap::Gap, room};

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
/// Type, code, checksum, identifier and sequence number.
const HEADER: usize = 8;
const PAYLOAD: [u8; 49] = *b"A guest never notices that it has moved elsewhere";

/// Interval between checks whether to stop.
const POLL: Duration = Duration::from_millis(100);

/// The counts of requests and answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub sent: u64,
    /// Number of requests that failed to be sent.
    pub refused: u64,
    pub received: u64,
    /// Number of answers without a request, or with changed data.
    pub wrong: u64,
    /// The longest time without an answer.
    pub longest_gap: Duration,
    /// Whether the last request was answered.
    pub last_came: bool,
}

impl Tally {
    /// Returns the number of sent requests without an answer.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }
}

/// Requests to one peer, and their answers.
pub struct Ping {
    socket: UdpSocket,
    identifier: u16,
    state: Mutex<(Tally, Gap)>,
    /// The sequence number of the last request, or 0 before any.
    last: AtomicU16,
}

impl Ping {
    /// Prepares requests to `peer`. Requires the right to open raw sockets.
    pub fn new(peer: Ipv4Addr, identifier: u16) -> io::Result<Self> {
        // SAFETY: The call has no pointers.
        let socket = unsafe {
            libc::socket(
                libc::AF_INET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                libc::IPPROTO_ICMP,
            )
        };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: The descriptor is open and has no other owner. The methods used here work on all
        // datagram sockets.
        let socket = UdpSocket::from(unsafe { OwnedFd::from_raw_fd(socket) });
        room::make(&socket)?;
        socket.connect(SocketAddrV4::new(peer, 0))?;
        socket.set_read_timeout(Some(POLL))?;
        Ok(Self {
            socket,
            identifier,
            state: Mutex::new((Tally::default(), Gap::start())),
            last: AtomicU16::new(0),
        })
    }

    /// Returns the current counts.
    pub fn tally(&self) -> Tally {
        let (mut tally, gap) = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        tally.longest_gap = gap.longest();
        tally
    }

    fn deadline(&self, control: &Control) -> Instant {
        let (_, gap) = &*self.state.lock().unwrap_or_else(PoisonError::into_inner);
        gap.deadline(control.patience())
    }

    fn count(&self, change: impl FnOnce(&mut Tally, &mut Gap)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (tally, gap) = &mut *state;
        change(tally, gap);
    }

    /// Sends a request at each `interval` until `control` stops it, and waits for the answer to the
    /// last one. Earlier requests without an answer are lost.
    ///
    /// # Errors
    ///
    /// Fails if answers cannot be received.
    pub fn run(&self, interval: Duration, control: &Control) -> io::Result<()> {
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let receiver = scope.spawn(|| self.receive(&ended, control));
            let mut next = Instant::now();
            while !control.is_stopped() && !receiver.is_finished() {
                let sequence = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
                let result = self.socket.send(&request(self.identifier, sequence));
                self.count(|tally, _| match result {
                    Ok(_) => tally.sent += 1,
                    Err(_) => tally.refused += 1,
                });
                next += interval;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            ended.store(true, Ordering::Relaxed);
            receiver
                .join()
                .map_err(|_| io::Error::other("the receiver panicked"))?
        })
    }

    fn receive(&self, ended: &AtomicBool, control: &Control) -> io::Result<()> {
        let mut buffer = [0; 256];
        let mut answered = 0;
        loop {
            let complete = answered == self.last.load(Ordering::Relaxed);
            if ended.load(Ordering::Relaxed)
                && (complete || Instant::now() > self.deadline(control))
            {
                return Ok(());
            }
            let packet = match self.socket.recv(&mut buffer) {
                Ok(length) => &buffer[..length],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            match Answer::judge(packet, self.identifier) {
                Answer::Good(sequence) => {
                    answered = sequence;
                    control.arrival();
                    self.count(|tally, gap| {
                        tally.received += 1;
                        tally.last_came = sequence == self.last.load(Ordering::Relaxed);
                        gap.arrival();
                    });
                }
                Answer::Wrong => self.count(|tally, _| tally.wrong += 1),
                Answer::Foreign => (),
            }
        }
    }
}

fn request(identifier: u16, sequence: u16) -> [u8; HEADER + PAYLOAD.len()] {
    let mut packet = [0; HEADER + PAYLOAD.len()];
    packet[0] = ECHO_REQUEST;
    packet[4..6].copy_from_slice(&identifier.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    packet[HEADER..].copy_from_slice(&PAYLOAD);
    let checksum = checksum(&packet);
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// Returns the internet checksum, which is 0 for a packet that includes its checksum.
fn checksum(packet: &[u8]) -> u16 {
    let mut sum = packet.chunks(2).fold(0u32, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The meaning of a received ICMP packet.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// An answer to the request with this number.
    Good(u16),
    /// An answer to us with wrong contents.
    Wrong,
    /// Any other packet: a raw socket receives all packets.
    Foreign,
}

impl Answer {
    fn judge(packet: &[u8], identifier: u16) -> Self {
        let header = packet.first().map_or(0, |byte| usize::from(byte & 0xf) * 4);
        let Some(message) = packet
            .get(header..)
            .filter(|message| message.len() >= HEADER)
        else {
            return Self::Foreign;
        };
        if message[0] != ECHO_REPLY || message[4..6] != identifier.to_be_bytes() {
            return Self::Foreign;
        }
        if checksum(message) == 0 && message[HEADER..] == PAYLOAD {
            Self::Good(u16::from_be_bytes([message[6], message[7]]))
        } else {
            Self::Wrong
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the answer to a request, after an IP header, modified by `change`.
    fn answer(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut message = request(7, 1);
        message[0] = ECHO_REPLY;
        message[2..4].fill(0);
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        change(&mut message);
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet.extend(message);
        packet
    }

    #[test]
    fn a_request_carries_its_checksum() {
        assert_eq!(checksum(&request(7, 0xfffe)), 0);
        // RFC 1071, section 3.
        let example = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&example), !0xddf2);
    }

    #[test]
    fn distinguishes_good_changed_and_foreign_answers() {
        assert_eq!(Answer::judge(&answer(|_| ()), 7), Answer::Good(1));
        assert_eq!(Answer::judge(&answer(|_| ()), 8), Answer::Foreign);
        assert_eq!(Answer::judge(&answer(|m| m[0] = 8), 7), Answer::Foreign);
        assert_eq!(Answer::judge(&answer(|m| m[20] ^= 1), 7), Answer::Wrong);
        assert_eq!(Answer::judge(&answer(|m| m[2] ^= 1), 7), Answer::Wrong);
        for length in 0..28 {
            let whole = answer(|_| ());
            assert_eq!(Answer::judge(&whole[..length], 7), Answer::Foreign);
        }
    }
}
