// SPDX-License-Identifier: GPL-2.0

//! The debugfs files of a device, in the directory `vifa/` and the device's name.
//!
//! The files can be read whether or not the device is open. A read returns a snapshot of the
//! device's status, and does not wait for the device.

use super::status::{
    Role,
    Status, //
};
use crate::{
    layer::interface::Plane,
    vfio::{
        debugfs,
        region::Region, //
    },
    VifaModule, //
};
use kernel::{
    debugfs::{
        BinaryWriter,
        Writer, //
    },
    fmt,
    fs::file::Offset,
    pci,
    prelude::*,
    sync::Arc,
    uaccess::UserSliceWriter, //
};

/// The files of a device. Dropping this removes them.
pub(crate) struct Files {
    // Removed before their directory.
    _region: debugfs::File<RegionFile>,
    _relations: debugfs::File<RelationsFile>,
    _directory: debugfs::Directory,
}

impl Files {
    pub(crate) fn new(device: &pci::Device, status: &Arc<Status>) -> Result<Self> {
        let directory = debugfs::directory(device.as_ref().name()).ok_or(ENODEV)?;
        Ok(Self {
            _region: directory
                .binary_file::<VifaModule, _>(c"region", RegionFile(status.clone()))?,
            _relations: directory
                .text_file::<VifaModule, _>(c"relations", RelationsFile(status.clone()))?,
            _directory: directory,
        })
    }
}

/// `region`: the content of the migration region.
struct RegionFile(Arc<Status>);

impl BinaryWriter for RegionFile {
    fn write_to_slice(&self, writer: &mut UserSliceWriter, offset: &mut Offset) -> Result<usize> {
        writer.write_slice_file(self.0.content().as_ref(), offset)
    }
}

/// `relations`: one line for each transfer relationship of the device.
struct RelationsFile(Arc<Status>);

impl Writer for RelationsFile {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((role, progress)) = self.0.moment().transfer else {
            return Ok(());
        };
        let Some(relations) = progress.relations else {
            return Ok(());
        };
        let role = match role {
            Role::Output => "output party",
            Role::Receiver => "receiver",
        };
        for (name, plane) in [("control", Plane::Control), ("data", Plane::Data)] {
            let relation = relations.plane(plane);
            write!(
                f,
                "{name} plane, {role}: {:#x} -> ",
                relation.output.as_raw()
            )?;
            match relation.receiver {
                Some(receiver) => writeln!(f, "{:#x}", receiver.as_raw())?,
                None => writeln!(f, "unknown")?,
            }
        }
        Ok(())
    }
}
