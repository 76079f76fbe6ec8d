// SPDX-License-Identifier: GPL-2.0

//! The origin of a save set, for its manifest.

use std::{fs, time::SystemTime};

use anyhow::{Context, Result};
use vifa_vfio::pci::Address;

use crate::{
    decode::walk::Source,
    host::Host,
    place::Place,
    save_set::{timestamp, Driver, Interfaces, Manifest, Stream, VirtualFunction},
};

/// A virtual function, its place and its driver.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) place: Place,
    pub(super) driver: Driver,
}

impl Origin {
    /// Collects the origin of the virtual function at `address`.
    ///
    /// # Errors
    ///
    /// The function does not exist, has no driver, or the host's name cannot be read.
    pub(super) fn of(address: Address, host: &Host) -> Result<Self> {
        let name = host
            .function(address)?
            .driver()
            .with_context(|| format!("{address} is bound to no driver"))?;
        // Some modules have no version.
        let version = host.pci().driver(&name).join("module/version");
        let version = fs::read_to_string(version).ok();

        Ok(Self {
            place: Place::of(address, host)?,
            driver: Driver {
                name,
                version: version.map(|version| version.trim_end().to_owned()),
            },
        })
    }

    /// Returns the manifest of a set saved at `time`, with this `stream` of this `source`.
    pub(super) fn manifest(&self, time: SystemTime, source: &Source, stream: Stream) -> Manifest {
        Manifest {
            manifest: Manifest::VERSION,
            saved: timestamp(time),
            host: self.place.host.clone(),
            driver: self.driver.clone(),
            physical_function: self.place.physical_function,
            virtual_function: VirtualFunction {
                address: self.place.address,
                index: self.place.index,
            },
            interfaces: Interfaces::of(self.place.address),
            configuration: (&source.identity).into(),
            stream,
        }
    }
}
