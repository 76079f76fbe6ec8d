// SPDX-License-Identifier: GPL-2.0

//! The check whether an unused function can be migrated.

use super::{
    hardware::{
        Watch,
        BAR, //
    },
    portable::{
        access::Access,
        clock::Clock,
        fault::Fault,
        queues, //
    }, //
};
use crate::{
    seam::Shown,
    vfio::pci::MemoryEnabled, //
};
use kernel::{
    device::Core,
    io::Io,
    pci,
    prelude::*, //
};

/// A function during binding. Its registers are used exclusively.
struct Unused<'a> {
    bar: pci::Bar<'a>,
    watch: Watch,
}

impl Access for Unused<'_> {
    fn load(&mut self, offset: u32) -> Result<u32, Fault> {
        Ok(self.bar.try_read32(offset as usize)?)
    }

    fn write(&mut self, offset: u32, value: u32) -> Result<(), Fault> {
        Ok(self.bar.try_write32(value, offset as usize)?)
    }
}

impl Clock for Unused<'_> {
    fn now(&self) -> u64 {
        self.watch.now()
    }

    fn sleep(&mut self, microseconds: u32) {
        Watch::sleep(microseconds);
    }
}

/// Returns the reason for which the queues of `device` cannot be restored, or `None` if they can.
///
/// # Errors
///
/// Returns an error, and logs it, if the function does not respond.
pub(super) fn probe(device: &pci::Device<Core<'_>>, queues: u8) -> Result<Option<Fault>> {
    let _enabled = MemoryEnabled::new(device)?;
    let mut function = Unused {
        bar: device.iomap_region(BAR.into(), c"vifa-vfio-pci")?,
        watch: Watch::new(),
    };

    match queues::probe(&mut function, queues) {
        Ok(()) => Ok(None),
        Err(fault @ Fault::Queue { .. }) => Ok(Some(fault)),
        Err(fault) => {
            dev_err!(device, "failed to probe queues: {}\n", Shown(fault));
            Err(fault.into())
        }
    }
}
