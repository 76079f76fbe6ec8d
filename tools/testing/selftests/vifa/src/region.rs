// SPDX-License-Identifier: GPL-2.0

//! The migration region, through the device's descriptor and through debugfs.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{bail, Context, Result};
use vfio_bindings::bindings::vfio;
use vifa_vfio::pci::Function;

use crate::{
    hw::{self, value_of, vifa_region},
    vfio::Device,
};

/// Length of the region in bytes.
pub const SIZE: usize = size_of::<vifa_region>();

/// Returns the index of `device`'s migration region.
pub fn index(device: &Device) -> Result<u32> {
    let kind = (
        vfio::VFIO_REGION_TYPE_PCI_VENDOR_TYPE | hw::VIFA_REGION_VENDOR,
        hw::VIFA_REGION_SUBTYPE,
    );
    for index in 0..device.info()?.num_regions {
        // Some of the fixed regions do not exist.
        if matches!(device.region_kind(index), Ok(Some(found)) if found == kind) {
            return Ok(index);
        }
    }
    bail!(
        "expected a region of type {:#x}, subtype {}, got none",
        kind.0,
        kind.1
    )
}

/// Reads `device`'s migration region in one read.
pub fn read(device: &Device) -> Result<vifa_region> {
    decode(&device.read(index(device)?, 0, SIZE)?)
}

/// Returns the region in `bytes`.
pub fn decode(bytes: &[u8]) -> Result<vifa_region> {
    value_of(bytes).context("the region is too short")
}

/// Returns the text of the last error.
pub fn error_text(region: &vifa_region) -> Result<&str> {
    let end = region.error_text.iter().position(|byte| *byte == 0);
    let text = &region.error_text[..end.context("the text does not end")?];
    std::str::from_utf8(text).context("the text is not UTF-8")
}

/// Returns the debugfs file with the same content.
pub fn debugfs_file(function: &Function) -> PathBuf {
    Path::new("/sys/kernel/debug/vifa")
        .join(function.to_string())
        .join("region")
}

/// Reads the region of `function` through debugfs.
pub fn of_function(function: &Function) -> Result<vifa_region> {
    let path = debugfs_file(function);
    let mut bytes = [0; SIZE];
    // One read returns a consistent region.
    File::open(&path)
        .and_then(|file| file.read_at(&mut bytes, 0))
        .with_context(|| path.display().to_string())
        .and_then(|length| decode(&bytes[..length]))
}
