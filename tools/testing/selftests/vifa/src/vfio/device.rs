// SPDX-License-Identifier: GPL-2.0

//! An open VFIO device.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{bail, Context, Result};
use vfio_bindings::bindings::vfio::{
    self, vfio_device_attach_iommufd_pt, vfio_device_info, vfio_device_ioeventfd, vfio_irq_info,
    vfio_region_info,
};
use vifa_vfio::{
    bind_iommufd, ioctl, ioctl_number, pci::Function, request, while_resetting, Interrupt,
    InterruptSet, Mapping, RegionInfo,
};

use super::AddressSpace;
use crate::sys;

/// An open VFIO device; closed when dropped.
#[derive(Debug)]
pub struct Device {
    file: File,
    // Must outlive the device: a legacy device needs its container.
    _space: Arc<AddressSpace>,
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Device {
    /// Opens `function` for DMA in `space`, through the interface of that space.
    pub fn open(function: &Function, space: &Arc<AddressSpace>) -> Result<Self> {
        let file = match &**space {
            AddressSpace::Iommufd { file, ioas } => {
                Self::node(function).and_then(|node| Self::open_device(&node, file, *ioas))
            }
            AddressSpace::Container { .. } => Self::open_in_group(function, space),
        }
        .with_context(|| format!("open of {function}"))?;
        Ok(Self {
            file,
            _space: space.clone(),
        })
    }

    /// Returns the VFIO node of `function`.
    pub fn node(function: &Function) -> Result<PathBuf> {
        let name = function
            .vfio_device()
            .with_context(|| format!("{function} is not a VFIO device"))?;
        Ok(Path::new("/dev/vfio/devices").join(name))
    }

    /// Opens the device with the VFIO node `node` for DMA in `space`, which must be in an iommufd.
    pub fn open_node(node: &Path, space: &Arc<AddressSpace>) -> Result<Self> {
        let AddressSpace::Iommufd { file, ioas } = &**space else {
            bail!("{} needs an iommufd", node.display());
        };
        Ok(Self {
            file: Self::open_device(node, file, *ioas)?,
            _space: space.clone(),
        })
    }

    fn open_device(path: &Path, iommufd: &File, ioas: u32) -> Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| path.display().to_string())?;
        bind_iommufd(&file, iommufd).context("VFIO_DEVICE_BIND_IOMMUFD")?;
        let mut attach = vfio_device_attach_iommufd_pt {
            argsz: 12,
            pt_id: ioas,
            ..Default::default()
        };
        ioctl(&file, &request::DEVICE_ATTACH_IOMMUFD_PT, &mut attach)
            .context("VFIO_DEVICE_ATTACH_IOMMUFD_PT")?;
        Ok(file)
    }

    fn open_in_group(function: &Function, space: &AddressSpace) -> Result<File> {
        let group = function
            .iommu_group()
            .with_context(|| format!("{function} is not in an IOMMU group"))?;
        let group = space.add_group(&group)?;
        let device =
            vifa_vfio::open_in_group(&group, function).context("VFIO_GROUP_GET_DEVICE_FD")?;
        Ok(device.into())
    }

    /// Issues `VFIO_DEVICE_GET_INFO`.
    pub fn info(&self) -> io::Result<vfio_device_info> {
        let mut info = vfio_device_info {
            argsz: size_of::<vfio_device_info>() as u32,
            ..Default::default()
        };
        ioctl(self, &request::DEVICE_GET_INFO, &mut info)?;
        Ok(info)
    }

    /// Issues `VFIO_DEVICE_GET_REGION_INFO`.
    pub fn region(&self, index: u32) -> io::Result<vfio_region_info> {
        let mut info = vfio_region_info {
            argsz: size_of::<vfio_region_info>() as u32,
            index,
            ..Default::default()
        };
        ioctl(self, &request::DEVICE_GET_REGION_INFO, &mut info)?;
        Ok(info)
    }

    /// Returns type and subtype of the region `index`, if it is device-specific.
    pub fn region_kind(&self, index: u32) -> io::Result<Option<(u32, u32)>> {
        Ok(self.region_with_capabilities(index)?.kind())
    }

    /// Returns the ids of the capabilities of the region `index`.
    pub fn region_capabilities(&self, index: u32) -> io::Result<Vec<u32>> {
        Ok(self.region_with_capabilities(index)?.capabilities())
    }

    /// Returns offset and size of each mappable area of the region `index`, if the kernel lists
    /// areas.
    pub fn sparse_areas(&self, index: u32) -> io::Result<Option<Vec<(u64, u64)>>> {
        Ok(self.region_with_capabilities(index)?.areas())
    }

    fn region_with_capabilities(&self, index: u32) -> io::Result<RegionInfo> {
        let mut argument = RegionInfo::of(index);
        ioctl(
            self,
            &request::DEVICE_GET_REGION_CAPABILITIES,
            &mut argument,
        )?;
        Ok(argument)
    }

    /// Issues `VFIO_DEVICE_GET_IRQ_INFO`.
    pub fn interrupt(&self, interrupt: Interrupt) -> io::Result<vfio_irq_info> {
        let mut info = vfio_irq_info {
            argsz: size_of::<vfio_irq_info>() as u32,
            index: interrupt as u32,
            ..Default::default()
        };
        ioctl(self, &request::DEVICE_GET_IRQ_INFO, &mut info)?;
        Ok(info)
    }

    /// Connects the first vector of `interrupt` to an event counter, which is returned.
    pub fn signal(&self, interrupt: Interrupt) -> io::Result<File> {
        let event = sys::eventfd()?;
        let mut set = InterruptSet::signal(interrupt, event.as_fd());
        ioctl(self, &request::DEVICE_SET_IRQS, &mut set)?;
        Ok(event)
    }

    /// Reads `length` bytes at `offset` of the region `index`.
    pub fn read(&self, index: u32, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, self.region(index)?.offset + offset)?;
        Ok(bytes)
    }

    /// Writes `bytes` at `offset` of the region `index`.
    pub fn write(&self, index: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file
            .write_all_at(bytes, self.region(index)?.offset + offset)
    }

    /// Reads a 16-bit register of configuration space.
    pub fn read_config(&self, offset: u64) -> io::Result<u16> {
        let bytes = self.read(vfio::VFIO_PCI_CONFIG_REGION_INDEX, offset, 2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    /// Writes a 16-bit register of configuration space.
    pub fn write_config(&self, offset: u64, value: u16) -> io::Result<()> {
        self.write(
            vfio::VFIO_PCI_CONFIG_REGION_INDEX,
            offset,
            &value.to_le_bytes(),
        )
    }

    /// Maps the region `index`.
    pub fn map(&self, index: u32) -> io::Result<Mapping> {
        let region = self.region(index)?;
        let length = usize::try_from(region.size).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Mapping::of_file(&self.file, region.offset, length)
    }

    /// Maps `length` bytes at `offset` of the region `index`.
    pub fn map_part(&self, index: u32, offset: u64, length: u64) -> io::Result<Mapping> {
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Mapping::of_file(&self.file, self.region(index)?.offset + offset, length)
    }

    /// Creates an event counter that makes the kernel write 0 to the 32 bits at `offset` of the
    /// region `index` (`VFIO_DEVICE_IOEVENTFD`).
    pub fn ioeventfd(&self, index: u32, offset: u64) -> io::Result<File> {
        let event = sys::eventfd()?;
        let mut argument = vfio_device_ioeventfd {
            argsz: size_of::<vfio_device_ioeventfd>() as u32,
            flags: vfio::VFIO_DEVICE_IOEVENTFD_32,
            offset: self.region(index)?.offset + offset,
            fd: event.as_raw_fd(),
            ..Default::default()
        };
        ioctl(self, &request::DEVICE_IOEVENTFD, &mut argument)?;
        Ok(event)
    }

    /// Issues `VFIO_DEVICE_RESET`.
    pub fn reset(&self) -> io::Result<()> {
        while_resetting(|| ioctl_number(self, &request::DEVICE_RESET, 0)).map(drop)
    }
}
