// SPDX-License-Identifier: GPL-2.0

//! The migration region of a virtual function, read from debugfs without opening the device.

use std::{fs, mem::offset_of};

use anyhow::{ensure, Context, Result};
use vifa_vfio::pci::Function;

use crate::{hw, identity::Identity};

const DIRECTORY: &str = "/sys/kernel/debug/vifa";

/// A snapshot of the region.
pub struct Region {
    /// The identity of the function.
    pub identity: Identity,
    /// The text of the last error; empty if there is none.
    pub error: String,
    /// The counters of its log since its driver was bound.
    pub log: Log,
}

/// The counters of a log of writes to guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Number of requested reports.
    pub reports: u64,
    /// Number of bytes reported dirty.
    pub dirty_bytes: u64,
    /// Number of reports that included more than the written pages.
    pub lost: u64,
}

impl Region {
    /// Reads the region of `function`, to which the driver is bound.
    pub fn read(function: &Function) -> Result<Self> {
        let path = format!("{DIRECTORY}/{function}/region");
        let bytes = fs::read(&path).with_context(|| format!("failed to read {path}"))?;
        Self::parse(&bytes).with_context(|| path)
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let magic = &hw::VIFA_REGION_MAGIC[..8];
        ensure!(
            bytes.starts_with(magic),
            "invalid magic of the migration region"
        );
        let identity = Identity::in_region(bytes)?;
        // The identity follows the text, so the text is complete.
        let text =
            &bytes[offset_of!(hw::vifa_region, error_text)..][..hw::VIFA_REGION_TEXT as usize];
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let number = |offset: usize| {
            let bytes = bytes[offset..offset + 8].try_into();
            u64::from_le_bytes(bytes.expect("the length of a u64"))
        };
        ensure!(
            bytes.len() >= size_of::<hw::vifa_region>(),
            "the region has no counters of the log"
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
