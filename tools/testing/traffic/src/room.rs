// SPDX-License-Identifier: GPL-2.0

//! Room for what arrives while nobody takes it: an emulated machine may stand for seconds, and what
//! is lost in a full buffer looks as if the network had lost it.

use std::io;
use std::os::fd::AsRawFd;

/// Bytes of it, as the kernel counts them: a small datagram takes a multiple of its size.
static ROOM: libc::c_int = 1 << 20;

/// Gives `socket` that room, or what the kernel grants to those who may not have as much.
///
/// # Errors
///
/// When the kernel grants nothing.
pub fn make(socket: &impl AsRawFd) -> io::Result<()> {
    set(socket, libc::SO_RCVBUFFORCE).or_else(|_| set(socket, libc::SO_RCVBUF))
}

fn set(socket: &impl AsRawFd, option: libc::c_int) -> io::Result<()> {
    // SAFETY: Both options take an integer, which lives for ever.
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

    /// How many datagrams of 100 bytes wait at most.
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
    fn more_can_wait_where_there_is_room() {
        let usual = waiting(|_| ());
        let more = waiting(|socket| make(socket).unwrap());
        // Who may not have more than usual has what there is.
        assert!(more >= usual, "{more} and {usual}");
        // SAFETY: The call has no arguments and cannot fail.
        if unsafe { libc::geteuid() } == 0 {
            assert!(more > usual, "{more} and {usual}");
        }
    }
}
