// SPDX-License-Identifier: GPL-2.0

//! The debugfs files of a device: `vifa/`, then the device's name.
//!
//! They can be read whether or not somebody has the device open, and take nothing but a moment of
//! its status.

use super::status::{
    Role,
    Status, //
};
use crate::{
    layer::interface::Plane,
    vfio::{
        debugfs,
        region::Region, //
    }, //
};
use kernel::{
    debugfs::{
        BinaryWriter,
        Dir,
        File,
        Writer, //
    },
    fmt,
    fs::file::Offset,
    pci,
    prelude::*,
    sync::Arc,
    uaccess::UserSliceWriter, //
};

/// The files of a device; they go with this.
pub(crate) struct Files {
    _region: Pin<KBox<File<RegionFile>>>,
    _relations: Pin<KBox<File<RelationsFile>>>,
    _directory: Dir,
}

impl Files {
    pub(super) fn new(device: &pci::Device, status: &Arc<Status>) -> Result<Self> {
        let directory = debugfs::directory(device.as_ref().name()).ok_or(ENODEV)?;
        let region = directory.read_binary_file(c"region", RegionFile(status.clone()));
        let relations = directory.read_only_file(c"relations", RelationsFile(status.clone()));
        Ok(Self {
            _region: KBox::pin_init(region, GFP_KERNEL)?,
            _relations: KBox::pin_init(relations, GFP_KERNEL)?,
            _directory: directory,
        })
    }
}

/// `region`: the bytes of the migration region.
struct RegionFile(Arc<Status>);

impl BinaryWriter for RegionFile {
    fn write_to_slice(&self, writer: &mut UserSliceWriter, offset: &mut Offset) -> Result<usize> {
        writer.write_slice_file(self.0.content().as_ref(), offset)
    }
}

/// `relations`: a line for each transfer relationship that the device is a party of.
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
