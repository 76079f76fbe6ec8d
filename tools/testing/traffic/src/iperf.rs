// SPDX-License-Identifier: GPL-2.0

//! A server for iperf3, which measures a guest that contains no other programs.
//!
//! The client controls a test over a control connection: it sends a cookie, then both ends send the
//! state in single bytes, and JSON after its length. The data connections carry the cookie too;
//! datagrams begin with their send time and a number. The only description of the protocol is
//! iperf3 itself: `iperf_api.c`, `iperf_udp.c`.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        Arc,
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{json, Value};

use crate::room;

/// iperf3's port, and the next one, because a server runs only one test at a time.
pub const PORTS: [u16; 2] = [5201, 5202];

/// Maximum silence of a client, which exceeds any migration.
const SILENCE: Duration = Duration::from_secs(300);

/// Interval between checks whether the test has ended.
const POLL: Duration = Duration::from_millis(100);

/// Maximum size of parameters and results.
const JSON_LARGEST: u32 = 64 * 1024;

/// iperf3's limits for the number of streams and the block size.
const STREAMS_LARGEST: u64 = 128;
const BLOCK_LARGEST: u64 = 1024 * 1024;
const DATAGRAM_LARGEST: u64 = 65_507;

/// The first datagram of a client, and the reply, in the sender's byte order.
const DATAGRAM_HELLO: u32 = 0x3637_3839;
const DATAGRAM_WELCOME: u32 = 0x3938_3736;

/// The states that the ends report to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    TestStart = 1,
    TestRunning = 2,
    TestEnd = 4,
    ParameterExchange = 9,
    CreateStreams = 10,
    ClientTerminate = 12,
    ExchangeResults = 13,
    DisplayResults = 14,
    Done = 16,
    AccessDenied = 0xff,
}

type Cookie = [u8; 37];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Connections,
    Datagrams,
}

/// The parameters that a client requests.
#[derive(Clone, Debug, PartialEq)]
struct Parameters {
    transport: Transport,
    /// Whether this end sends.
    reverse: bool,
    streams: usize,
    /// Number of bytes per write.
    block: usize,
    /// Rate of each stream in bits per second, if it is limited.
    rate: Option<f64>,
    /// Whether datagrams have numbers of 64 bits.
    wide_numbers: bool,
}

impl Parameters {
    fn parse(text: &Value) -> io::Result<Self> {
        let transport = match &text["udp"] {
            Value::Bool(true) => Transport::Datagrams,
            _ => Transport::Connections,
        };
        let (smallest, largest, usual) = match transport {
            Transport::Connections => (1, BLOCK_LARGEST, 128 * 1024),
            Transport::Datagrams => (16, DATAGRAM_LARGEST, 1460),
        };
        let streams = text["parallel"].as_u64().unwrap_or(1);
        let block = text["len"].as_u64().filter(|length| *length > 0);
        let block = block.unwrap_or(usual);
        let wrong = |name: &str, value: u64| {
            let message = format!("the client requests {name} {value}");
            io::Error::new(io::ErrorKind::InvalidData, message)
        };
        if !(1..=STREAMS_LARGEST).contains(&streams) {
            return Err(wrong("streams:", streams));
        }
        if !(smallest..=largest).contains(&block) {
            return Err(wrong("blocks of", block));
        }
        if text["bidirectional"] == Value::Bool(true) {
            return Err(wrong("both directions:", 1));
        }
        Ok(Self {
            transport,
            reverse: text["reverse"] == Value::Bool(true),
            streams: streams as usize,
            block: block as usize,
            rate: text["bandwidth"].as_f64().filter(|rate| *rate > 0.0),
            wide_numbers: text["udp_counters_64bit"].as_u64().unwrap_or(0) > 0,
        })
    }
}

/// The result of one stream.
#[derive(Debug, Default)]
struct Outcome {
    bytes: u64,
    /// The number of the last datagram, and the number of missing datagrams before it.
    packets: u64,
    missing: u64,
    /// The jitter of RFC 1889, in seconds.
    jitter: f64,
    /// The transit time of the last datagram, in seconds.
    transit: Option<f64>,
}

impl Outcome {
    /// Counts a datagram that arrived `transit` seconds after it was sent, by the sender's clock.
    fn take_datagram(&mut self, number: u64, length: usize, transit: f64) {
        self.bytes += length as u64;
        if number > self.packets {
            self.missing += number - self.packets - 1;
            self.packets = number;
        } else {
            self.missing = self.missing.saturating_sub(1);
        }
        if let Some(previous) = self.transit.replace(transit) {
            self.jitter += ((transit - previous).abs() - self.jitter) / 16.0;
        }
    }

    /// Returns the report of the stream `index`, which counts from 0. iperf3 numbers its streams 1,
    /// 3, 4 and so on.
    fn report(&self, index: usize, took: Duration) -> Value {
        json!({
            "id": if index == 0 { 1 } else { index + 2 },
            "bytes": self.bytes,
            "retransmits": -1,
            "jitter": self.jitter,
            "errors": self.missing,
            "omitted_errors": 0,
            "packets": self.packets,
            "omitted_packets": 0,
            "start_time": 0,
            "end_time": took.as_secs_f64(),
        })
    }
}

/// Starts to listen for clients on all [`PORTS`]. Returns a counter of successful tests.
///
/// # Errors
///
/// Fails if a port is in use.
pub fn start() -> io::Result<Arc<AtomicU64>> {
    let tests = Arc::new(AtomicU64::new(0));
    for port in PORTS {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
        let counter = tests.clone();
        thread::spawn(move || loop {
            // A client that aborts a test gets no reply.
            let served = listener
                .accept()
                .and_then(|(control, _)| serve(&listener, control));
            if served.is_ok() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    Ok(tests)
}

/// Serves one test.
fn serve(listener: &TcpListener, mut control: TcpStream) -> io::Result<()> {
    let port = control.local_addr()?.port();
    control.set_nodelay(true)?;
    control.set_read_timeout(Some(SILENCE))?;
    let cookie: Cookie = read_array(&mut control)?;
    send_state(&mut control, State::ParameterExchange)?;
    let parameters = Parameters::parse(&read_json(&mut control)?);
    let parameters = match parameters {
        Ok(parameters) => parameters,
        Err(error) => {
            send_state(&mut control, State::AccessDenied)?;
            return Err(error);
        }
    };

    let datagrams = match parameters.transport {
        Transport::Connections => None,
        Transport::Datagrams => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
            room::make(&socket)?;
            Some(socket)
        }
    };
    send_state(&mut control, State::CreateStreams)?;
    let ended = AtomicBool::new(false);
    let (outcomes, took) = match datagrams {
        None => {
            let streams = accept(listener, &cookie, parameters.streams)?;
            run(&mut control, &ended, || {
                through_connections(&streams, &parameters, &ended)
            })
        }
        Some(socket) => {
            let peers = welcome(&socket, parameters.streams)?;
            run(&mut control, &ended, || {
                through_datagrams(&socket, &peers, &parameters, &ended)
            })
        }
    }?;

    send_state(&mut control, State::ExchangeResults)?;
    read_json(&mut control)?;
    let streams: Vec<_> = (0..)
        .zip(&outcomes)
        .map(|(index, outcome)| outcome.report(index, took))
        .collect();
    write_json(
        &mut control,
        &json!({
            "cpu_util_total": 0,
            "cpu_util_user": 0,
            "cpu_util_system": 0,
            "sender_has_retransmits": 0,
            "streams": streams,
        }),
    )?;
    send_state(&mut control, State::DisplayResults)?;
    expect(&mut control, State::Done)
}

/// Keeps `traffic` running until the client reports the end of the test. Returns the duration.
fn run(
    control: &mut TcpStream,
    ended: &AtomicBool,
    traffic: impl FnOnce() -> io::Result<Vec<Outcome>> + Send,
) -> io::Result<(Vec<Outcome>, Duration)> {
    thread::scope(|scope| {
        let begin = Instant::now();
        let traffic = scope.spawn(traffic);
        let led = send_state(control, State::TestStart)
            .and_then(|()| send_state(control, State::TestRunning))
            // A test has no time limit.
            .and_then(|()| control.set_read_timeout(None))
            .and_then(|()| expect(control, State::TestEnd))
            .and_then(|()| control.set_read_timeout(Some(SILENCE)));
        ended.store(true, Ordering::Relaxed);
        let took = begin.elapsed();
        let outcomes = traffic
            .join()
            .map_err(|_| io::Error::other("the traffic panicked"))??;
        led.map(|()| (outcomes, took))
    })
}

fn accept(listener: &TcpListener, cookie: &Cookie, number: usize) -> io::Result<Vec<TcpStream>> {
    let mut streams = Vec::new();
    while streams.len() < number {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(SILENCE))?;
        if read_array(&mut stream).is_ok_and(|theirs: Cookie| theirs == *cookie) {
            stream.set_read_timeout(Some(POLL))?;
            stream.set_write_timeout(Some(POLL))?;
            streams.push(stream);
        } else {
            // Another client, which has to wait. If it is gone, the error does not matter.
            let _ = send_state(&mut stream, State::AccessDenied);
        }
    }
    Ok(streams)
}

fn through_connections(
    streams: &[TcpStream],
    parameters: &Parameters,
    ended: &AtomicBool,
) -> io::Result<Vec<Outcome>> {
    thread::scope(|scope| {
        let threads: Vec<_> = streams
            .iter()
            .map(|stream| scope.spawn(|| through_connection(stream, parameters, ended)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .map_err(|_| io::Error::other("a stream panicked"))?
            })
            .collect()
    })
}

fn through_connection(
    mut stream: &TcpStream,
    parameters: &Parameters,
    ended: &AtomicBool,
) -> io::Result<Outcome> {
    let mut block = vec![0; parameters.block];
    let mut outcome = Outcome::default();
    let mut pace = Pace::start(parameters);
    while !ended.load(Ordering::Relaxed) {
        let moved = match parameters.reverse {
            true => {
                pace.wait();
                stream.write(&block)
            }
            false => stream.read(&mut block),
        };
        match moved {
            Ok(0) => break,
            Ok(length) => outcome.bytes += length as u64,
            Err(error) if is_timeout(&error) => (),
            // The client may close its sending streams at any time.
            Err(_) if ended.load(Ordering::Relaxed) => (),
            Err(error) => return Err(error),
        }
    }
    Ok(outcome)
}

/// Returns the addresses from which the client sends its streams, in order.
fn welcome(socket: &UdpSocket, number: usize) -> io::Result<Vec<SocketAddr>> {
    socket.set_read_timeout(Some(SILENCE))?;
    let mut peers = Vec::new();
    let mut hello = [0; 64];
    while peers.len() < number {
        let (length, from) = socket.recv_from(&mut hello)?;
        if hello[..length] == DATAGRAM_HELLO.to_ne_bytes() && !peers.contains(&from) {
            socket.send_to(&DATAGRAM_WELCOME.to_ne_bytes(), from)?;
            peers.push(from);
        }
    }
    socket.set_read_timeout(Some(POLL))?;
    Ok(peers)
}

fn through_datagrams(
    socket: &UdpSocket,
    peers: &[SocketAddr],
    parameters: &Parameters,
    ended: &AtomicBool,
) -> io::Result<Vec<Outcome>> {
    let mut outcomes: Vec<_> = peers.iter().map(|_| Outcome::default()).collect();
    let mut pace = Pace::start(parameters);
    let mut datagram = vec![0; parameters.block.max(DATAGRAM_LARGEST as usize)];
    while !ended.load(Ordering::Relaxed) {
        if parameters.reverse {
            pace.wait();
            let datagram = &mut datagram[..parameters.block];
            for (peer, outcome) in peers.iter().zip(&mut outcomes) {
                outcome.packets += 1;
                write_header(datagram, now(), outcome.packets, parameters.wide_numbers);
                // A datagram that fails to be sent is lost.
                if let Ok(length) = socket.send_to(datagram, peer) {
                    outcome.bytes += length as u64;
                }
            }
            continue;
        }
        let (length, from) = match socket.recv_from(&mut datagram) {
            Ok(received) => received,
            Err(error) if is_timeout(&error) => continue,
            Err(error) => return Err(error),
        };
        let Some(stream) = peers.iter().position(|peer| *peer == from) else {
            continue;
        };
        if let Some((sent, number)) = read_header(&datagram[..length], parameters.wide_numbers) {
            outcomes[stream].take_datagram(number, length, now() - sent);
        }
    }
    Ok(outcomes)
}

/// Returns the seconds since 1970.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |time| time.as_secs_f64())
}

/// Writes the header; `datagram` has room for it.
fn write_header(datagram: &mut [u8], time: f64, number: u64, wide: bool) {
    datagram[..4].copy_from_slice(&(time as u32).to_be_bytes());
    datagram[4..8].copy_from_slice(&((time.fract() * 1e6) as u32).to_be_bytes());
    if wide {
        datagram[8..16].copy_from_slice(&number.to_be_bytes());
    } else {
        datagram[8..12].copy_from_slice(&(number as u32).to_be_bytes());
    }
}

/// Returns the time and the number.
fn read_header(datagram: &[u8], wide: bool) -> Option<(f64, u64)> {
    let word = |place: usize| -> Option<u32> {
        let bytes = datagram.get(place..)?.first_chunk()?;
        Some(u32::from_be_bytes(*bytes))
    };
    let time = f64::from(word(0)?) + f64::from(word(4)?) / 1e6;
    let first = u64::from(word(8)?);
    Some(match wide {
        true => (time, (first << 32) | u64::from(word(12)?)),
        false => (time, first),
    })
}

/// Limits a stream to its rate.
struct Pace {
    interval: Duration,
    next: Instant,
}

impl Pace {
    fn start(parameters: &Parameters) -> Self {
        let bits = (parameters.block * 8) as f64;
        let seconds = parameters.rate.map_or(0.0, |rate| bits / rate);
        Self {
            interval: Duration::try_from_secs_f64(seconds).unwrap_or(SILENCE),
            next: Instant::now(),
        }
    }

    fn wait(&mut self) {
        thread::sleep(self.next.saturating_duration_since(Instant::now()));
        self.next += self.interval;
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

fn send_state(control: &mut TcpStream, state: State) -> io::Result<()> {
    control.write_all(&[state as u8])
}

fn expect(control: &mut TcpStream, wanted: State) -> io::Result<()> {
    let [state] = read_array(control)?;
    if state == wanted as u8 {
        return Ok(());
    }
    let what = if state == State::ClientTerminate as u8 {
        "the client aborted the test".to_owned()
    } else {
        format!("invalid state of the client: got {state}, expected {wanted:?}")
    };
    Err(io::Error::other(what))
}

fn read_array<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_json(control: &mut TcpStream) -> io::Result<Value> {
    let length = u32::from_be_bytes(read_array(control)?);
    if length > JSON_LARGEST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the client's JSON is too long: {length} bytes"),
        ));
    }
    let mut text = vec![0; length as usize];
    control.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn write_json(control: &mut TcpStream, value: &Value) -> io::Result<()> {
    let text = value.to_string();
    control.write_all(&(text.len() as u32).to_be_bytes())?;
    control.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_both_widths_are_read_as_written() {
        for wide in [false, true] {
            let mut datagram = [0; 16];
            write_header(&mut datagram, 12.5, 0x8000_0001, wide);
            assert_eq!(read_header(&datagram, wide), Some((12.5, 0x8000_0001)));
        }
        assert_eq!(read_header(&[0; 11], false), None);
        assert_eq!(read_header(&[0; 15], true), None);
    }

    #[test]
    fn missing_datagrams_are_counted_until_they_arrive() {
        let mut outcome = Outcome::default();
        for (number, missing) in [(1, 0), (4, 2), (2, 1), (5, 1), (3, 0)] {
            outcome.take_datagram(number, 100, 0.0);
            assert_eq!(outcome.missing, missing, "after {number}");
        }
        assert_eq!((outcome.packets, outcome.bytes), (5, 500));
    }

    #[test]
    fn jitter_is_a_sixteenth_of_each_difference() {
        let mut outcome = Outcome::default();
        outcome.take_datagram(1, 100, 5.0);
        outcome.take_datagram(2, 100, 5.0);
        assert_eq!(outcome.jitter, 0.0);
        outcome.take_datagram(3, 100, 7.0);
        assert_eq!(outcome.jitter, 2.0 / 16.0);
    }

    #[test]
    fn streams_have_the_numbers_that_iperf3_gives() {
        let outcome = Outcome::default();
        let ids: Vec<_> = (0..4)
            .map(|index| outcome.report(index, Duration::ZERO)["id"].clone())
            .collect();
        assert_eq!(ids, [1, 3, 4, 5]);
    }

    #[test]
    fn unbounded_parameters_are_rejected() {
        let usual = json!({ "tcp": true, "parallel": 2, "len": 1000, "reverse": true });
        let parameters = Parameters::parse(&usual).unwrap();
        assert_eq!((parameters.streams, parameters.block), (2, 1000));
        assert!(parameters.reverse && parameters.rate.is_none());
        for (wrong, named) in [
            (json!({ "parallel": 0 }), "streams: 0"),
            (json!({ "parallel": 129 }), "streams: 129"),
            (json!({ "len": 1 << 30 }), "blocks of 1073741824"),
            (json!({ "udp": true, "len": 8 }), "blocks of 8"),
            (json!({ "bidirectional": true }), "both directions"),
        ] {
            let error = Parameters::parse(&wrong).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
