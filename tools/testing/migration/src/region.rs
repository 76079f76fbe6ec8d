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
    pub identity: Identity,
    /// What the last error was about; empty without one.
    pub error: String,
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
        Ok(Self {
            identity,
            error: String::from_utf8_lossy(text).into_owned(),
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
