// SPDX-License-Identifier: GPL-2.0

//! Socket buffers for data that arrives while no process reads it: an emulated machine may pause
//! for seconds, and data lost in a full buffer would count as lost by the network.

use std::{io, os::fd::AsRawFd};

/// Size of a buffer in bytes, as the kernel counts them: a small datagram takes a multiple of its
/// size.
static ROOM: libc::c_int = 1 << 20;

/// Sets the buffers of `socket` to that size, or to the limit of an unprivileged process.
///
/// # Errors
///
/// Fails if the kernel rejects any size.
pub fn make(socket: &impl AsRawFd) -> io::Result<()> {
    set(socket, libc::SO_RCVBUFFORCE).or_else(|_| set(socket, libc::SO_RCVBUF))
}

fn set(socket: &impl AsRawFd, option: libc::c_int) -> io::Result<()> {
    // SAFETY: Both options take an integer, which has a static lifetime.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const ROOM).cast(),
            size_of_val(&ROOM) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    /// Returns the maximum number of waiting datagrams of 100 bytes.
    fn waiting(prepare: impl FnOnce(&UdpSocket)) -> usize {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        prepare(&socket);
        let address = socket.local_addr().unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..3000 {
            sender.send_to(&[0; 100], address).unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        (0..)
            .take_while(|_| socket.recv(&mut [0; 100]).is_ok())
            .count()
    }

    #[test]
    fn a_larger_buffer_holds_more() {
        let usual = waiting(|_| ());
        let more = waiting(|socket| make(socket).unwrap());
        // An unprivileged process gets the default limit.
        assert!(more >= usual, "{more} and {usual}");
        // SAFETY: The call has no arguments and cannot fail.
        if unsafe { libc::geteuid() } == 0 {
            assert!(more > usual, "{more} and {usual}");
        }
    }
}
