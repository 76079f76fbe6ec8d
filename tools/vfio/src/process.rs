// SPDX-License-Identifier: GPL-2.0

//! Descriptors of other processes.

use std::{
    io,
    os::fd::{OwnedFd, RawFd},
};

use rustix::process::{pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags};

/// Duplicates the descriptor `fd` of the process `pid`.
///
/// # Errors
///
/// Returns `ESRCH` if there is no such process, `EBADF` if it has no such descriptor, and `EPERM`
/// if the caller is not permitted to trace it.
pub fn duplicate_descriptor(pid: u32, fd: RawFd) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = pidfd_open(pid.ok_or(rustix::io::Errno::SRCH)?, PidfdFlags::empty())?;

    Ok(pidfd_getfd(process, fd, PidfdGetfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::File,
        io::{Read, Seek, Write},
        os::fd::AsRawFd,
    };

    #[test]
    fn a_duplicated_descriptor_is_the_same_open_file() {
        let mut file = tempfile::tempfile().unwrap();
        let copy = duplicate_descriptor(std::process::id(), file.as_raw_fd()).unwrap();
        let mut text = String::new();

        file.write_all(b"abc").unwrap();
        file.rewind().unwrap();
        File::from(copy).read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
    }

    #[test]
    fn a_missing_descriptor_is_an_error() {
        let error = duplicate_descriptor(std::process::id(), RawFd::MAX).unwrap_err();

        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }
}
