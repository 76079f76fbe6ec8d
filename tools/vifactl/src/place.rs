// SPDX-License-Identifier: GPL-2.0

//! The place of a virtual function: its host and its physical function.

use std::fs;

use anyhow::{Context, Result};
use vifa_vfio::pci::Address;

use crate::{host::Host, save_set};

/// A virtual function and its surroundings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: Address,
    pub(crate) host: save_set::Host,
    pub(crate) physical_function: Address,
    /// Index in the physical function, from 0.
    pub(crate) index: u32,
}

impl Place {
    /// Returns the place of the virtual function at `address`.
    ///
    /// # Errors
    ///
    /// The function does not exist, is not a virtual function, or the host's name cannot be read.
    pub(crate) fn of(address: Address, host: &Host) -> Result<Self> {
        let physical_function = host
            .function(address)?
            .physical_function()
            .with_context(|| format!("{address} is not a virtual function"))?;
        let index = host
            .function(physical_function)?
            .virtual_functions()
            .position(|function| function.address() == address)
            .with_context(|| {
                format!("{physical_function} does not list its virtual function {address}")
            })?;
        let read = |name: &str| {
            let path = host.processes().join("sys/kernel").join(name);

            fs::read_to_string(&path)
                .map(|text| text.trim_end().to_owned())
                .with_context(|| path.display().to_string())
        };

        Ok(Self {
            address,
            host: save_set::Host {
                name: read("hostname")?,
                kernel: read("osrelease")?,
            },
            physical_function,
            index: u32::try_from(index)?,
        })
    }
}
