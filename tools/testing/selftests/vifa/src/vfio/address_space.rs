// SPDX-License-Identifier: GPL-2.0

//! The address space for devices' DMA, through either of VFIO's interfaces: an iommufd, or a legacy
//! container.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::Path,
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result};
use iommufd_bindings::iommufd::{self, iommu_ioas_alloc, iommu_ioas_map, iommu_ioas_unmap};
use vfio_bindings::bindings::vfio::{self, vfio_iommu_type1_dma_map, vfio_iommu_type1_dma_unmap};
use vifa_vfio::{ioctl, ioctl_number, request, Descriptor, Mapping};

const IOMMUFD: &str = "/dev/iommu";

/// An address space for DMA.
#[derive(Debug)]
pub enum AddressSpace {
    /// An IOAS in its own iommufd.
    Iommufd {
        /// `/dev/iommu`
        file: File,
        /// The IOAS.
        ioas: u32,
    },
    /// A container with the IOMMU type 1v2.
    Container {
        /// `/dev/vfio/vfio`
        file: File,
        /// The groups in the container, which must stay open with it.
        groups: Mutex<Vec<File>>,
    },
}

fn open(path: &str) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .context(path.to_owned())
}

impl AddressSpace {
    /// Creates an empty address space in an iommufd, or in a container if the kernel has no
    /// iommufd.
    pub fn iommufd() -> Result<Arc<Self>> {
        if !Path::new(IOMMUFD).exists() {
            return Self::container();
        }
        let file = open(IOMMUFD)?;
        let mut argument = iommu_ioas_alloc {
            size: size_of::<iommu_ioas_alloc>() as u32,
            ..Default::default()
        };
        ioctl(&file, &request::IOAS_ALLOC, &mut argument).context("IOMMU_IOAS_ALLOC")?;
        Ok(Arc::new(Self::Iommufd {
            file,
            ioas: argument.out_ioas_id,
        }))
    }

    /// Creates an empty address space in a container, which becomes usable with its first group.
    pub fn container() -> Result<Arc<Self>> {
        Ok(Arc::new(Self::Container {
            file: open("/dev/vfio/vfio")?,
            groups: Mutex::default(),
        }))
    }

    fn file(&self) -> BorrowedFd<'_> {
        match self {
            Self::Iommufd { file, .. } | Self::Container { file, .. } => file.as_fd(),
        }
    }

    /// Maps `memory` at `iova`, readable and writable for devices.
    fn map(&self, memory: &Mapping, iova: u64) -> io::Result<()> {
        match self {
            Self::Iommufd { file, ioas } => {
                let mut argument = iommu_ioas_map {
                    size: size_of::<iommu_ioas_map>() as u32,
                    flags: iommufd::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA
                        | iommufd::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE
                        | iommufd::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE,
                    ioas_id: *ioas,
                    user_va: memory.address(),
                    length: memory.length() as u64,
                    iova,
                    ..Default::default()
                };
                ioctl(file, &request::IOAS_MAP, &mut argument)?;
            }
            Self::Container { file, .. } => {
                let mut argument = vfio_iommu_type1_dma_map {
                    argsz: size_of::<vfio_iommu_type1_dma_map>() as u32,
                    flags: vfio::VFIO_DMA_MAP_FLAG_READ | vfio::VFIO_DMA_MAP_FLAG_WRITE,
                    vaddr: memory.address(),
                    iova,
                    size: memory.length() as u64,
                };
                ioctl(file, &request::IOMMU_MAP_DMA, &mut argument)?;
            }
        }
        Ok(())
    }

    /// Unmaps the `length` bytes at `iova`, which were mapped as one range.
    fn unmap(&self, iova: u64, length: u64) -> io::Result<()> {
        match self {
            Self::Iommufd { file, ioas } => {
                let mut argument = iommu_ioas_unmap {
                    size: size_of::<iommu_ioas_unmap>() as u32,
                    ioas_id: *ioas,
                    iova,
                    length,
                };
                ioctl(file, &request::IOAS_UNMAP, &mut argument)?;
            }
            Self::Container { file, .. } => {
                let mut argument = vfio_iommu_type1_dma_unmap {
                    argsz: 24,
                    iova,
                    size: length,
                    ..Default::default()
                };
                ioctl(file, &request::IOMMU_UNMAP_DMA, &mut argument)?;
            }
        }
        Ok(())
    }

    /// Adds the group `name` to the container and returns the group's file.
    ///
    /// # Panics
    ///
    /// If this is not a container.
    pub(super) fn add_group(&self, name: &str) -> Result<File> {
        let Self::Container { file, groups } = self else {
            panic!("a group can only be added to a container");
        };
        let group = open(&format!("/dev/vfio/{name}"))?;
        let mut groups = groups.lock().expect("no thread panics with the list");
        ioctl(
            &group,
            &request::GROUP_SET_CONTAINER,
            &mut Descriptor(self.file().as_raw_fd()),
        )
        .context("VFIO_GROUP_SET_CONTAINER")?;
        if groups.is_empty() {
            ioctl_number(file, &request::SET_IOMMU, vfio::VFIO_TYPE1v2_IOMMU.into())
                .context("VFIO_SET_IOMMU")?;
        }
        groups.push(group.try_clone()?);
        Ok(group)
    }
}

/// Zeroed memory of this process that devices of an address space access at an IOVA.
#[derive(Debug)]
pub struct DmaMemory {
    /// The memory in this process.
    pub memory: Arc<Mapping>,
    /// The IOVA of the memory.
    pub iova: u64,
    space: Arc<AddressSpace>,
}

impl DmaMemory {
    /// Maps `length` bytes, a multiple of the page size, at `iova`.
    pub fn new(space: &Arc<AddressSpace>, iova: u64, length: usize) -> Result<Self> {
        let memory = Arc::new(Mapping::anonymous(length).context("mmap")?);
        Self::of(memory, space, iova)
    }

    /// Also maps the same memory at `iova`.
    pub fn again(&self, iova: u64) -> Result<Self> {
        Self::of(self.memory.clone(), &self.space, iova)
    }

    fn of(memory: Arc<Mapping>, space: &Arc<AddressSpace>, iova: u64) -> Result<Self> {
        let length = memory.length();
        space
            .map(&memory, iova)
            .with_context(|| format!("DMA mapping of {length:#x} bytes at {iova:#x}"))?;
        Ok(Self {
            memory,
            iova,
            space: space.clone(),
        })
    }
}

impl Drop for DmaMemory {
    fn drop(&mut self) {
        // Fails if the container has lost its groups and their mappings.
        let _ = self.space.unmap(self.iova, self.memory.length() as u64);
    }
}
