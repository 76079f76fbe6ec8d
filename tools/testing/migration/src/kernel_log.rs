// SPDX-License-Identifier: GPL-2.0

//! Messages that this machine's kernel logs during an action.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
};

use anyhow::{bail, Context, Result};

const PATH: &str = "/dev/kmsg";

/// The maximum length of a record that the kernel returns (`PRINTK_MESSAGE_MAX`).
const RECORD_MAX: usize = 2048;

/// The kernel's log, starting at a given moment.
pub struct KernelLog(File);

impl KernelLog {
    /// Opens the log for messages from now on.
    pub fn from_now() -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(PATH)
            .context(PATH)?;
        file.seek(SeekFrom::End(0)).context(PATH)?;
        Ok(Self(file))
    }

    /// Returns the messages since the last call.
    pub fn take(&mut self) -> Result<Vec<String>> {
        let mut messages = Vec::new();
        let mut record = [0; RECORD_MAX];
        loop {
            match self.0.read(&mut record) {
                Ok(length) => messages.extend(message(&record[..length])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(messages),
                // The oldest records were overwritten; reading continues after them.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {
                    bail!("{PATH}: messages were lost")
                }
                Err(error) => return Err(error).context(PATH),
            }
        }
    }
}

/// Returns the text of a record, `PRIORITY,SEQUENCE,TIME,FLAGS;TEXT` and further lines of
/// properties.
fn message(record: &[u8]) -> Option<String> {
    let record = String::from_utf8_lossy(record);
    let (_, text) = record.lines().next()?.split_once(';')?;
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_text_of_a_record() {
        let record = b"6,339,5140900,-;vifa 0000:01:10.0: refused; so\n SUBSYSTEM=pci\n";
        assert_eq!(message(record).unwrap(), "vifa 0000:01:10.0: refused; so");
        assert!(message(b"").is_none());
    }
}
