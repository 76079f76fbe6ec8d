// SPDX-License-Identifier: GPL-2.0

//! Saves a VFIO device that another process has open, through a shared file descriptor.
//!
//! The device is brought to STOP_COPY, read to the end and left in STOP. From there its owner can
//! bring it to any state, even if the owner assumes that it is in RESUMING.

use std::{
    fs::{self, File},
    io::Read,
    os::fd::OwnedFd,
};

use anyhow::{bail, ensure, Context, Result};
use vifa_headers as headers;
use vifa_vfio::{duplicate_descriptor, pci::Function, set_migration_state};

const STATE_STOP: u32 = headers::VFIO_DEVICE_STATE_STOP;
const STATE_STOP_COPY: u32 = headers::VFIO_DEVICE_STATE_STOP_COPY;

/// The open device.
pub struct Device(OwnedFd);

impl Device {
    /// Returns the device of `function` that `process` has open.
    pub fn of(process: u32, function: &Function) -> Result<Self> {
        let address = format!("/{function}/");
        for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
            let name = entry?.file_name();
            let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // A descriptor may be closed in the meantime.
            let text = fs::read_to_string(format!("/proc/{process}/fdinfo/{number}"));
            let is_it = |line: &str| {
                line.strip_prefix("vfio-device-syspath:")
                    .is_some_and(|path| format!("{}/", path.trim()).contains(&address))
            };
            if text.is_ok_and(|text| text.lines().any(is_it)) {
                return duplicate_descriptor(process, number)
                    .map(Self)
                    .with_context(|| format!("failed to share {function} with process {process}"));
            }
        }
        bail!("process {process} does not have {function} open")
    }

    /// Returns the whole stream and leaves the device in STOP.
    pub fn save(&self) -> Result<Vec<u8>> {
        self.set_state(STATE_STOP)?;
        let mut data = self
            .set_state(STATE_STOP_COPY)?
            .context("STOP_COPY returned no file")?;
        let mut stream = Vec::new();
        data.read_to_end(&mut stream)
            .context("failed to read the state")?;
        ensure!(!stream.is_empty(), "the state is empty");
        self.set_state(STATE_STOP)?;
        Ok(stream)
    }

    fn set_state(&self, state: u32) -> Result<Option<File>> {
        set_migration_state(&self.0, state)
            .map(|session| session.map(File::from))
            .with_context(|| format!("failed to change the migration state to {state}"))
    }
}
