// SPDX-License-Identifier: GPL-2.0

//! The answering end: it echoes, receives and sends data on all interfaces.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc,
    },
    thread,
};

use crate::{port, room, transfer};

const BUFFER: usize = 64 * 1024;

/// Counters of answered traffic.
#[derive(Debug, Default)]
pub struct Counters {
    /// Number of TCP connections.
    pub connections: AtomicU64,
    /// Number of connections that the requesting end did not close.
    pub broken: AtomicU64,
    /// Number of bytes over TCP that were echoed, received or sent.
    pub bytes: AtomicU64,
    /// Number of datagrams to this machine.
    pub datagrams: AtomicU64,
    /// Number of datagrams to the group.
    pub group_datagrams: AtomicU64,
}

/// Starts to answer on all addresses, and to `group` on `interfaces`.
///
/// # Errors
///
/// Fails if a port is unavailable, or if an interface does not join the group.
pub fn start(group: Option<Ipv4Addr>, interfaces: &[Ipv4Addr]) -> io::Result<Arc<Counters>> {
    let counters = Arc::new(Counters::default());
    let any = Ipv4Addr::UNSPECIFIED;

    accept(TcpListener::bind((any, port::ECHO))?, &counters, send_back);
    accept(
        TcpListener::bind((any, port::TRANSFER))?,
        &counters,
        |stream, counters| {
            let bytes = transfer::serve(stream)?;
            counters.bytes.fetch_add(bytes, Ordering::Relaxed);
            Ok(())
        },
    );
    let socket = UdpSocket::bind((any, port::ECHO))?;
    room::make(&socket)?;
    answer(socket, &counters, |counters| &counters.datagrams);
    if let Some(group) = group {
        // A socket that is bound to the group receives no other datagrams.
        let socket = UdpSocket::bind((group, port::GROUP))?;
        room::make(&socket)?;
        for interface in interfaces {
            socket.join_multicast_v4(&group, interface)?;
        }
        answer(socket, &counters, |counters| &counters.group_datagrams);
    }
    Ok(counters)
}

/// Serves each connection in a separate thread.
fn accept(
    listener: TcpListener,
    counters: &Arc<Counters>,
    serve: fn(TcpStream, &Counters) -> io::Result<()>,
) {
    let counters = counters.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            counters.connections.fetch_add(1, Ordering::Relaxed);
            let counters = counters.clone();
            thread::spawn(move || {
                if stream.and_then(|stream| serve(stream, &counters)).is_err() {
                    counters.broken.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
}

fn send_back(mut stream: TcpStream, counters: &Counters) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => {
                stream.write_all(&buffer[..length])?;
                counters.bytes.fetch_add(length as u64, Ordering::Relaxed);
            }
        }
    }
}

/// Sends each datagram back to its source.
fn answer(socket: UdpSocket, counters: &Arc<Counters>, counter: fn(&Counters) -> &AtomicU64) {
    let counters = counters.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; BUFFER];
        loop {
            // A datagram that cannot be received or sent is lost, as on any network.
            let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            counter(&counters).fetch_add(1, Ordering::Relaxed);
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
}
