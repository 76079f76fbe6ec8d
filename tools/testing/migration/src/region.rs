// SPDX-License-Identifier: GPL-2.0

//! The migration region of a virtual function, as debugfs shows it without the device being opened.

use std::fs;
use std::mem::offset_of;

use anyhow::{ensure, Context, Result};

use crate::hw;
use crate::identity::Identity;
use crate::sriov::Function;

const DIRECTORY: &str = "/sys/kernel/debug/vifa";

/// A copy of the region: one moment.
pub struct Region {
    /// What the function is.
    pub identity: Identity,
    /// What the last error was about; empty without one.
    pub error: String,
    /// What its log came to since its driver was bound.
    pub log: Log,
}

/// What a log of writes to guest memory came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Reports that were asked for.
    pub reports: u64,
    /// Bytes reported dirty.
    pub dirty_bytes: u64,
    /// Reports of more than was written.
    pub lost: u64,
}

impl Region {
    /// Reads the region of `function`, which its driver is bound to.
    pub fn read(function: &Function) -> Result<Self> {
        let path = format!("{DIRECTORY}/{function}/region");
        let bytes = fs::read(&path).with_context(|| format!("reading {path}"))?;
        Self::parse(&bytes).with_context(|| path)
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let magic = &hw::VIFA_REGION_MAGIC[..8];
        ensure!(bytes.starts_with(magic), "this is no migration region");
        let identity = Identity::in_region(bytes)?;
        // The identity stands behind the text, so the text is there.
        let text =
            &bytes[offset_of!(hw::vifa_region, error_text)..][..hw::VIFA_REGION_TEXT as usize];
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let number = |offset: usize| {
            let bytes = bytes[offset..offset + 8].try_into();
            u64::from_le_bytes(bytes.expect("as many bytes as there are in a u64"))
        };
        ensure!(
            bytes.len() >= size_of::<hw::vifa_region>(),
            "the region says nothing of the log"
        );
        Ok(Self {
            identity,
            error: String::from_utf8_lossy(text).into_owned(),
            log: Log {
                reports: number(offset_of!(hw::vifa_region, log_reports)),
                dirty_bytes: number(offset_of!(hw::vifa_region, log_dirty_bytes)),
                lost: number(offset_of!(hw::vifa_region, log_lost)),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_text_up_to_its_end() {
        let mut bytes = vec![0; std::mem::size_of::<hw::vifa_region>()];
        assert!(Region::parse(&bytes).is_err());
        bytes[..8].copy_from_slice(b"VIFAREGN");
        assert_eq!(Region::parse(&bytes).unwrap().error, "");
        let start = offset_of!(hw::vifa_region, error_text);
        bytes[start..start + 12].copy_from_slice(b"queues: no\0x");
        assert_eq!(Region::parse(&bytes).unwrap().error, "queues: no");
    }
}
