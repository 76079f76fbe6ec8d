// SPDX-License-Identifier: GPL-2.0

//! A TCP connection whose peer echoes all data.
//!
//! It lives as long as the traffic, which proves that connections survive.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::{control::Control, gap::Gap, pattern::Pattern};

const BUFFER: usize = 64 * 1024;

/// Number of bytes per write.
const BLOCK: usize = 4 * 1024;

/// The result of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Number of sent bytes.
    pub sent: u64,
    /// Number of bytes that came back unchanged.
    pub verified: u64,
    /// The longest time without an arrival.
    pub longest_gap: Duration,
}

/// Sends 4 KiB to `address` at each `interval`, or as fast as possible if it is zero, and checks
/// the echo, until `control` stops it.
///
/// # Errors
///
/// Fails if the connection fails, if a wrong byte comes back, or if bytes are missing at the end.
pub fn run(
    address: SocketAddr,
    seed: u64,
    interval: Duration,
    control: &Control,
) -> io::Result<Echo> {
    let stream = TcpStream::connect(address)?;
    let pattern = Pattern::new(seed);
    let (sent, received) = thread::scope(|scope| {
        let sender = scope.spawn(|| send(&stream, pattern, interval, control));
        let received = verify(&stream, pattern, control);
        if received.is_err() {
            // Unblock the sender, which may wait for buffer space.
            let _ = stream.shutdown(Shutdown::Both);
        }
        (sender.join(), received)
    });
    let (verified, longest_gap) = received?;
    let sent = sent.map_err(|_| io::Error::other("the sender panicked"))??;
    if verified != sent {
        return Err(io::Error::other(format!(
            "of {sent} bytes, {verified} came back"
        )));
    }
    Ok(Echo {
        sent,
        verified,
        longest_gap,
    })
}

fn send(
    mut stream: &TcpStream,
    pattern: Pattern,
    interval: Duration,
    control: &Control,
) -> io::Result<u64> {
    let mut buffer = vec![0; BLOCK];
    let mut sent = 0;
    let mut next = Instant::now();
    while !control.is_stopped() {
        pattern.fill(sent, &mut buffer);
        stream.write_all(&buffer)?;
        sent += buffer.len() as u64;
        next += interval;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(sent)
}

fn verify(
    mut stream: &TcpStream,
    pattern: Pattern,
    control: &Control,
) -> io::Result<(u64, Duration)> {
    let mut buffer = vec![0; BUFFER];
    let mut verified = 0;
    let mut gap = Gap::start();
    loop {
        let data = match stream.read(&mut buffer)? {
            0 => return Ok((verified, gap.longest())),
            length => &buffer[..length],
        };
        gap.arrival();
        if let Some(offset) = pattern.first_difference(verified, data) {
            return Err(io::Error::other(format!(
                "the byte at {offset} came back changed"
            )));
        }
        verified += data.len() as u64;
        control.arrival();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Runs against a peer that calls `behave`.
    fn against(behave: fn(TcpStream) -> io::Result<()>) -> io::Result<Echo> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let far = thread::spawn(move || behave(listener.accept()?.0));
        let control = Control::default();
        let result = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(50));
                control.stop();
            });
            run(address, 9, Duration::from_millis(1), &control)
        });
        // The peer may return an error after a disconnect.
        let _ = far.join();
        result
    }

    #[test]
    fn everything_comes_back() {
        let echo = against(|stream| io::copy(&mut &stream, &mut &stream).map(drop)).unwrap();
        assert!(echo.sent > 0 && echo.verified == echo.sent);
    }

    #[test]
    fn a_changed_byte_is_detected() {
        let error = against(|mut stream| {
            let mut data = [0; 1000];
            stream.read_exact(&mut data)?;
            data[700] ^= 1;
            stream.write_all(&data)
        });
        assert!(error.unwrap_err().to_string().contains("byte at 700 "));
    }

    #[test]
    fn an_early_end_is_detected() {
        let error = against(|mut stream| {
            let mut data = [0; 1000];
            stream.read_exact(&mut data)?;
            stream.write_all(&data)?;
            stream.shutdown(Shutdown::Write)?;
            io::copy(&mut stream, &mut io::sink()).map(drop)
        });
        assert!(error.unwrap_err().to_string().contains("1000 came back"));
    }
}
