// SPDX-License-Identifier: GPL-2.0

//! The kernel's log, beginning at a given time.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    time::Duration,
};

use anyhow::{Context, Result};
use vifa_vfio::wait_for;

/// Maximum delay of a message.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The kernel's messages since this was created.
pub struct KernelLog {
    file: File,
    messages: Vec<String>,
}

impl KernelLog {
    /// Begins to record messages.
    pub fn from_now() -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))
            .context("end of the kernel's log")?;
        Ok(Self {
            file,
            messages: Vec::new(),
        })
    }

    /// Reads new messages.
    fn collect(&mut self) -> Result<()> {
        let mut buffer = [0; 8192];
        loop {
            match self.file.read(&mut buffer) {
                Ok(length) => {
                    let record = String::from_utf8_lossy(&buffer[..length]);
                    // "priority,sequence,time,flags;text", then lines of " KEY=value".
                    let text = record.split_once(';').map_or("", |(_, text)| text);
                    self.messages.extend(text.lines().next().map(str::to_owned));
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(()),
                    // Messages were overwritten before they were read; continue with the oldest
                    // remaining one.
                    Some(libc::EPIPE) => {}
                    _ => return Err(error).context("read of the kernel's log"),
                },
            }
        }
    }

    /// Returns the number of messages that contain all of `words`.
    pub fn count(&mut self, words: &[&str]) -> Result<usize> {
        self.collect()?;
        let holds = |message: &&String| words.iter().all(|word| message.contains(word));
        Ok(self.messages.iter().filter(holds).count())
    }

    /// Waits for a message that contains all of `words`.
    pub fn expect(&mut self, words: &[&str]) -> Result<()> {
        self.expect_within(TIMEOUT, words)
    }

    /// Waits for a message that contains all of `words`, at most for `timeout`.
    pub fn expect_within(&mut self, timeout: Duration, words: &[&str]) -> Result<()> {
        wait_for(timeout, || {
            anyhow::Ok((self.count(words)? > 0).then_some(()))
        })?
        .with_context(|| {
            format!(
                "expected a message in the kernel's log with {words:?}, got {:#?}",
                self.messages
            )
        })
    }
}
