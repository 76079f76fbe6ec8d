// SPDX-License-Identifier: GPL-2.0

//! An open VFIO device.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::FileExt,
    },
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{bail, Context, Result};
use vfio_bindings::bindings::vfio::{
    self, vfio_device_attach_iommufd_pt, vfio_device_bind_iommufd, vfio_device_info,
    vfio_device_ioeventfd, vfio_irq_info, vfio_region_info,
};

use super::{request, AddressSpace};
use crate::{
    sys::{self, Argument, Mapping},
    sysfs::PciFunction,
};

/// How long the kernel may answer that the device is busy with a reset.
const BUSY: Duration = Duration::from_secs(2);

/// An interrupt of a PCI device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Interrupt {
    Intx = vfio::VFIO_PCI_INTX_IRQ_INDEX,
    Msi = vfio::VFIO_PCI_MSI_IRQ_INDEX,
    Msix = vfio::VFIO_PCI_MSIX_IRQ_INDEX,
    Error = vfio::VFIO_PCI_ERR_IRQ_INDEX,
    /// The kernel wants the device back.
    Request = vfio::VFIO_PCI_REQ_IRQ_INDEX,
}

/// The argument of `VFIO_DEVICE_SET_IRQS` with one descriptor.
#[repr(C)]
pub struct InterruptSet {
    argsz: u32,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
    descriptor: i32,
}

impl Argument for InterruptSet {
    fn stated_size(&self) -> usize {
        self.argsz as usize
    }
}

/// The argument of `VFIO_DEVICE_GET_REGION_INFO`, with room for capabilities.
#[repr(C)]
pub struct RegionWithCapabilities {
    info: vfio_region_info,
    capabilities: [u8; 512],
}

impl Argument for RegionWithCapabilities {
    fn stated_size(&self) -> usize {
        self.info.argsz as usize
    }
}

impl RegionWithCapabilities {
    /// The little-endian word at `offset` from the start of the argument.
    fn word(&self, offset: usize) -> Option<u32> {
        let at = offset.checked_sub(size_of::<vfio_region_info>())?;
        let bytes = self.capabilities.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    /// The capabilities: the id of each, and where it stands from the start of the argument.
    fn capabilities(&self) -> Vec<(u32, usize)> {
        let mut found = Vec::new();
        let mut offset = self.info.cap_offset as usize;
        // struct vfio_info_cap_header: 16-bit id and version, offset of the next.
        while let (Some(header), Some(next)) = (self.word(offset), self.word(offset + 4)) {
            found.push((header & 0xffff, offset));
            offset = next as usize;
        }
        found
    }

    /// Offset and size of each area of `VFIO_REGION_INFO_CAP_SPARSE_MMAP`, if it is there.
    fn areas(&self) -> Option<Vec<(u64, u64)>> {
        let capabilities = self.capabilities();
        let (_, offset) = capabilities
            .iter()
            .find(|(id, _)| *id == vfio::VFIO_REGION_INFO_CAP_SPARSE_MMAP)?;
        let long = |at| Some(u64::from(self.word(at)?) | (u64::from(self.word(at + 4)?) << 32));
        // struct vfio_region_info_cap_sparse_mmap: header, number of areas, reserved.
        (0..self.word(offset + 8)? as usize)
            .map(|index| offset + 16 + 16 * index)
            .map(|area| Some((long(area)?, long(area + 8)?)))
            .collect()
    }

    /// Type and subtype of a device-specific region.
    fn kind(&self) -> Option<(u32, u32)> {
        let capabilities = self.capabilities();
        let (_, offset) = capabilities
            .iter()
            .find(|(id, _)| *id == vfio::VFIO_REGION_INFO_CAP_TYPE)?;
        Some((self.word(offset + 8)?, self.word(offset + 12)?))
    }
}

/// An open VFIO device; closed when dropped.
#[derive(Debug)]
pub struct Device {
    file: File,
    // Lives as long as the device: by the group's way, the container must.
    _space: Arc<AddressSpace>,
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Repeats `call` as long as the kernel answers EAGAIN: somebody else resets the device.
fn while_busy<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + BUSY;
    loop {
        match call() {
            Err(error)
                if error.raw_os_error() == Some(libc::EAGAIN) && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

impl Device {
    /// Opens `function` for DMA in `space`, by the way that the space is for.
    pub fn open(function: &PciFunction, space: &Arc<AddressSpace>) -> Result<Self> {
        let file = match &**space {
            AddressSpace::Iommufd { file, ioas } => function
                .vfio_device()
                .and_then(|path| Self::open_device(&path, file, *ioas)),
            AddressSpace::Container { .. } => Self::open_in_group(function, space),
        }
        .with_context(|| format!("open of {function}"))?;
        Ok(Self {
            file,
            _space: space.clone(),
        })
    }

    /// Opens the device that VFIO shows as `node` for DMA in `space`, which has to be an iommufd's.
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
        let mut bind = vfio_device_bind_iommufd {
            // Without the token, which older kernels do not know.
            argsz: 16,
            iommufd: iommufd.as_raw_fd(),
            ..Default::default()
        };
        while_busy(|| sys::ioctl(&file, &request::DEVICE_BIND_IOMMUFD, &mut bind))
            .context("VFIO_DEVICE_BIND_IOMMUFD")?;
        let mut attach = vfio_device_attach_iommufd_pt {
            argsz: 12,
            pt_id: ioas,
            ..Default::default()
        };
        sys::ioctl(&file, &request::DEVICE_ATTACH_IOMMUFD_PT, &mut attach)
            .context("VFIO_DEVICE_ATTACH_IOMMUFD_PT")?;
        Ok(file)
    }

    fn open_in_group(function: &PciFunction, space: &AddressSpace) -> Result<File> {
        let group = space.add_group(&function.iommu_group()?)?;
        let name = CString::new(function.to_string())?;
        let fd = while_busy(|| {
            // SAFETY: the request reads the device's name.
            unsafe { sys::ioctl_string(&group, request::GROUP_GET_DEVICE_FD, &name) }
        })
        .context("VFIO_GROUP_GET_DEVICE_FD")?;
        Ok(sys::adopt(fd).into())
    }

    /// `VFIO_DEVICE_GET_INFO`
    pub fn info(&self) -> io::Result<vfio_device_info> {
        let mut info = vfio_device_info {
            argsz: size_of::<vfio_device_info>() as u32,
            ..Default::default()
        };
        sys::ioctl(self, &request::DEVICE_GET_INFO, &mut info)?;
        Ok(info)
    }

    /// `VFIO_DEVICE_GET_REGION_INFO`
    pub fn region(&self, index: u32) -> io::Result<vfio_region_info> {
        let mut info = vfio_region_info {
            argsz: size_of::<vfio_region_info>() as u32,
            index,
            ..Default::default()
        };
        sys::ioctl(self, &request::DEVICE_GET_REGION_INFO, &mut info)?;
        Ok(info)
    }

    /// Type and subtype of the region `index`, where it is a device-specific one.
    pub fn region_kind(&self, index: u32) -> io::Result<Option<(u32, u32)>> {
        Ok(self.region_with_capabilities(index)?.kind())
    }

    /// The ids of the capabilities of the region `index`.
    pub fn region_capabilities(&self, index: u32) -> io::Result<Vec<u32>> {
        let capabilities = self.region_with_capabilities(index)?.capabilities();
        Ok(capabilities.into_iter().map(|(id, _)| id).collect())
    }

    /// Offset and size of each area of the region `index` that can be mapped, where the kernel tells
    /// of areas at all.
    pub fn sparse_areas(&self, index: u32) -> io::Result<Option<Vec<(u64, u64)>>> {
        Ok(self.region_with_capabilities(index)?.areas())
    }

    fn region_with_capabilities(&self, index: u32) -> io::Result<RegionWithCapabilities> {
        let mut argument = RegionWithCapabilities {
            info: vfio_region_info {
                argsz: size_of::<RegionWithCapabilities>() as u32,
                index,
                ..Default::default()
            },
            capabilities: [0; 512],
        };
        sys::ioctl(
            self,
            &request::DEVICE_GET_REGION_CAPABILITIES,
            &mut argument,
        )?;
        Ok(argument)
    }

    /// `VFIO_DEVICE_GET_IRQ_INFO`
    pub fn interrupt(&self, interrupt: Interrupt) -> io::Result<vfio_irq_info> {
        let mut info = vfio_irq_info {
            argsz: size_of::<vfio_irq_info>() as u32,
            index: interrupt as u32,
            ..Default::default()
        };
        sys::ioctl(self, &request::DEVICE_GET_IRQ_INFO, &mut info)?;
        Ok(info)
    }

    /// Lets the first vector of `interrupt` signal an event counter, which is returned.
    pub fn signal(&self, interrupt: Interrupt) -> io::Result<File> {
        let event = sys::eventfd()?;
        let mut set = InterruptSet {
            argsz: size_of::<InterruptSet>() as u32,
            flags: vfio::VFIO_IRQ_SET_DATA_EVENTFD | vfio::VFIO_IRQ_SET_ACTION_TRIGGER,
            index: interrupt as u32,
            start: 0,
            count: 1,
            descriptor: event.as_raw_fd(),
        };
        sys::ioctl(self, &request::DEVICE_SET_IRQS, &mut set)?;
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

    /// Has an event counter, which is returned, write 0 to the 32 bits at `offset` of the region
    /// `index` (`VFIO_DEVICE_IOEVENTFD`).
    pub fn ioeventfd(&self, index: u32, offset: u64) -> io::Result<File> {
        let event = sys::eventfd()?;
        let mut argument = vfio_device_ioeventfd {
            argsz: size_of::<vfio_device_ioeventfd>() as u32,
            flags: vfio::VFIO_DEVICE_IOEVENTFD_32,
            offset: self.region(index)?.offset + offset,
            fd: event.as_raw_fd(),
            ..Default::default()
        };
        sys::ioctl(self, &request::DEVICE_IOEVENTFD, &mut argument)?;
        Ok(event)
    }

    /// `VFIO_DEVICE_RESET`
    pub fn reset(&self) -> io::Result<()> {
        // SAFETY: the request has no argument.
        while_busy(|| unsafe { sys::ioctl_value(self, request::DEVICE_RESET, 0) }).map(drop)
    }
}
