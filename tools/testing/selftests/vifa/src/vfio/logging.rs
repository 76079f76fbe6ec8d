// SPDX-License-Identifier: GPL-2.0

//! DMA logging: the kernel tells which pages a device has written.

use std::{io, marker::PhantomData};

use vfio_bindings::bindings::vfio::{
    self, vfio_device_feature_dma_logging_control, vfio_device_feature_dma_logging_range,
    vfio_device_feature_dma_logging_report,
};

use super::{Device, Feature, Operation};
use crate::sys::Mapping;

const START: u32 = vfio::VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
const STOP: u32 = vfio::VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP;
const REPORT: u32 = vfio::VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT;

/// The argument of `VFIO_DEVICE_FEATURE_DMA_LOGGING_START`.
pub type Start = Feature<vfio_device_feature_dma_logging_control>;

/// Bytes of a bitmap's unit.
const WORD: usize = size_of::<u64>();
const WORD_BITS: u64 = u64::BITS as u64;

/// Memory that devices may write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IovaRange {
    /// The first byte.
    pub iova: u64,
    /// In bytes.
    pub length: u64,
}

impl IovaRange {
    /// The `length` bytes at `iova`.
    pub const fn new(iova: u64, length: u64) -> Self {
        Self { iova, length }
    }

    /// The IOVA behind the last byte.
    pub const fn end(self) -> u64 {
        self.iova + self.length
    }

    /// Whether `iova` is in it.
    pub const fn contains(self, iova: u64) -> bool {
        self.iova <= iova && iova - self.iova < self.length
    }
}

/// Where the kernel is to put a bitmap.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    address: u64,
    memory: PhantomData<&'a Mapping>,
}

impl<'a> Place<'a> {
    /// Nowhere: address 0.
    pub const NULL: Place<'static> = Place {
        address: 0,
        memory: PhantomData,
    };
    /// An address of the kernel's, which no process may name.
    pub const KERNEL: Place<'static> = Place {
        address: 0xffff_8880_0000_0000,
        memory: PhantomData,
    };

    /// The place as a number.
    pub fn address(self) -> u64 {
        self.address
    }

    /// `offset` bytes into `memory`. The kernel finds the end of what is accessible by itself.
    pub fn of(memory: &'a Mapping, offset: usize) -> Self {
        assert!(
            offset < memory.length(),
            "{offset:#x} bytes into {memory:?}"
        );
        Self {
            address: memory.address() + offset as u64,
            memory: PhantomData,
        }
    }
}

/// The bitmap of a report: a bit for each page of a range, from the range's first byte on.
#[derive(Debug)]
pub struct DirtyBitmap {
    memory: Mapping,
    range: IovaRange,
    page_size: u64,
}

impl DirtyBitmap {
    /// A clear one for `range`, with a bit for each `page_size` bytes, the last of which may be less.
    pub fn new(range: IovaRange, page_size: u64) -> io::Result<Self> {
        let words = range.length.div_ceil(page_size).div_ceil(WORD_BITS);
        let bytes = usize::try_from(words).map_err(|_| io::ErrorKind::OutOfMemory)? * WORD;
        Ok(Self {
            memory: Mapping::anonymous(bytes.max(WORD))?,
            range,
            page_size,
        })
    }

    /// What it is about.
    pub fn range(&self) -> IovaRange {
        self.range
    }

    /// Bytes that a bit stands for.
    pub fn page_size(&self) -> u64 {
        self.page_size
    }

    /// Its words: bit 0 of the first is the first page.
    pub fn words(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.memory.length() / WORD).map(|word| u64::from_le(self.memory.read(word * WORD)))
    }

    /// Clears all bits, without a write to those that are clear.
    pub fn clear(&mut self) {
        for offset in (0..self.memory.length()).step_by(WORD) {
            if self.memory.read::<u64>(offset) != 0 {
                self.memory.write(offset, 0u64);
            }
        }
    }

    /// How many bits are set.
    pub fn count(&self) -> u64 {
        self.words().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The IOVA of each page whose bit is set, ascending.
    pub fn dirty(&self) -> impl Iterator<Item = u64> + '_ {
        let bits = self.words().zip(0..).flat_map(|(mut word, number)| {
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| u64::from(word.trailing_zeros()))?;
                word &= word - 1;
                Some(number * WORD_BITS + bit)
            })
        });
        bits.map(|bit| self.range.iova + bit * self.page_size)
    }
}

impl Device {
    /// Whether the driver offers DMA logging, for which it needs a kernel with iommufd.
    pub fn can_log(&self) -> bool {
        self.probe(Operation::ProbeSet, START).is_ok()
    }

    /// Logs the writes to `ranges` in pages of `page_size` bytes, or what the device has instead;
    /// returns that.
    pub fn start_logging(&self, ranges: &[IovaRange], page_size: u64) -> io::Result<u64> {
        let ranges: Vec<_> = ranges
            .iter()
            .map(|range| vfio_device_feature_dma_logging_range {
                iova: range.iova,
                length: range.length,
            })
            .collect();
        let num_ranges = u32::try_from(ranges.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let control = vfio_device_feature_dma_logging_control {
            page_size,
            num_ranges,
            __reserved: 0,
            ranges: ranges.as_ptr() as u64,
        };
        let control = self.feature(Start::new(Operation::Set, START, control))?;
        Ok(control.page_size)
    }

    /// Logs no longer.
    pub fn stop_logging(&self) -> io::Result<()> {
        self.feature(Feature::new(Operation::Set, STOP, ()))
    }

    /// Sets the bits of the pages that were written since they were last reported.
    pub fn report(&self, bitmap: &mut DirtyBitmap) -> io::Result<()> {
        let place = Place::of(&bitmap.memory, 0);
        self.report_to(place, bitmap.range, bitmap.page_size)
    }

    /// As [`Self::report`], with a bitmap wherever `place` is.
    pub fn report_to(&self, place: Place, range: IovaRange, page_size: u64) -> io::Result<()> {
        let report = vfio_device_feature_dma_logging_report {
            iova: range.iova,
            length: range.length,
            page_size,
            bitmap: place.address,
        };
        self.feature(Feature::new(Operation::Get, REPORT, report))
            .map(drop)
    }

    /// What was written in `range` since it was last reported, in pages of `page_size` bytes.
    pub fn dirty_pages(&self, range: IovaRange, page_size: u64) -> io::Result<DirtyBitmap> {
        let mut bitmap = DirtyBitmap::new(range, page_size)?;
        self.report(&mut bitmap)?;
        Ok(bitmap)
    }
}
