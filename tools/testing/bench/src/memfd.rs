// SPDX-License-Identifier: GPL-2.0

//! The floor: memory accessed through a file descriptor, without a device.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    time::{Duration, Instant},
};

use vifa_vfio::adopt;

/// A file in memory.
pub struct Memfd(File);

impl Memfd {
    /// Creates an empty file, without any allocated page.
    pub fn new() -> io::Result<Self> {
        // SAFETY: The name is a string with a NUL.
        let fd = unsafe { libc::memfd_create(c"vifa-bench".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: The descriptor is new.
        Ok(Self(unsafe { adopt(fd) }.into()))
    }

    /// Writes `content` from the start in pieces of `buffer` bytes. Returns the time.
    pub fn write(&mut self, content: &[u8], buffer: usize) -> io::Result<Duration> {
        self.0.rewind()?;
        let start = Instant::now();
        for piece in content.chunks(buffer) {
            self.0.write_all(piece)?;
        }
        Ok(start.elapsed())
    }

    /// Reads from the start to the end into `buffer`. Returns the number of bytes and the time.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Duration)> {
        self.0.rewind()?;
        read_to_end(&self.0, buffer)
    }
}

/// Reads `file` to its end into `buffer`. Returns the number of bytes and the time.
pub fn read_to_end(mut file: &File, buffer: &mut [u8]) -> io::Result<(usize, Duration)> {
    let start = Instant::now();
    let mut total = 0;
    loop {
        match file.read(buffer)? {
            0 => return Ok((total, start.elapsed())),
            length => total += length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_written_bytes() {
        let content: Vec<u8> = (0..100_000_u32).map(|at| (at / 7) as u8).collect();
        let mut memfd = Memfd::new().unwrap();
        for _ in 0..2 {
            memfd.write(&content, 4096).unwrap();
            let (length, _) = memfd.read(&mut [0; 5000]).unwrap();
            assert_eq!(length, content.len());
        }
        let mut whole = vec![0; content.len() + 1];
        memfd.read(&mut whole).unwrap();
        assert_eq!(whole[0], 0, "the last read was at the end");
    }
}
