// SPDX-License-Identifier: GPL-2.0

//! DMA logging: reports of the pages that a device has written.

use std::{io, marker::PhantomData};

use vfio_bindings::bindings::vfio::{
    self, vfio_device_feature_dma_logging_control, vfio_device_feature_dma_logging_range,
    vfio_device_feature_dma_logging_report,
};
use vifa_vfio::Mapping;

use super::{Device, Feature, IovaRange, Operation};

const START: u32 = vfio::VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
const STOP: u32 = vfio::VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP;
const REPORT: u32 = vfio::VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT;

/// The argument of `VFIO_DEVICE_FEATURE_DMA_LOGGING_START`.
pub type Start = Feature<vfio_device_feature_dma_logging_control>;

/// Bytes per unit of a bitmap.
const WORD: usize = size_of::<u64>();
const WORD_BITS: u64 = u64::BITS as u64;

/// The address at which the kernel writes a bitmap.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    address: u64,
    memory: PhantomData<&'a Mapping>,
}

impl<'a> Place<'a> {
    /// Returns address 0.
    pub const NULL: Place<'static> = Place {
        address: 0,
        memory: PhantomData,
    };
    /// Returns a kernel address, which no process may use.
    pub const KERNEL: Place<'static> = Place {
        address: 0xffff_8880_0000_0000,
        memory: PhantomData,
    };

    /// Returns the address as a number.
    pub fn address(self) -> u64 {
        self.address
    }

    /// Returns the address at `offset` of `memory`. The kernel checks the accessible range itself.
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

/// The bitmap of a report: one bit per page of a range, from the range's first byte.
#[derive(Debug)]
pub struct DirtyBitmap {
    memory: Mapping,
    range: IovaRange,
    page_size: u64,
}

impl DirtyBitmap {
    /// Creates a clear bitmap for `range` with one bit per `page_size` bytes; the last page may be
    /// shorter.
    pub fn new(range: IovaRange, page_size: u64) -> io::Result<Self> {
        let words = range.length.div_ceil(page_size).div_ceil(WORD_BITS);
        let bytes = usize::try_from(words).map_err(|_| io::ErrorKind::OutOfMemory)? * WORD;
        Ok(Self {
            memory: Mapping::anonymous(bytes.max(WORD))?,
            range,
            page_size,
        })
    }

    /// Returns the range of the bitmap.
    pub fn range(&self) -> IovaRange {
        self.range
    }

    /// Returns the number of bytes per bit.
    pub fn page_size(&self) -> u64 {
        self.page_size
    }

    /// Returns the words; bit 0 of the first word is the first page.
    pub fn words(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.memory.length() / WORD).map(|word| u64::from_le(self.memory.read(word * WORD)))
    }

    /// Clears all bits, without writing to clear words.
    pub fn clear(&mut self) {
        for offset in (0..self.memory.length()).step_by(WORD) {
            if self.memory.read::<u64>(offset) != 0 {
                self.memory.write(offset, 0u64);
            }
        }
    }

    /// Returns the number of set bits.
    pub fn count(&self) -> u64 {
        self.words().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Returns the IOVA of each page with a set bit, in ascending order.
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
    /// Returns whether the driver offers DMA logging, which requires a kernel with iommufd.
    pub fn can_log(&self) -> bool {
        self.probe(Operation::ProbeSet, START).is_ok()
    }

    /// Starts logging of `ranges` in pages of `page_size` bytes; returns the page size that the
    /// device uses.
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

    /// Stops logging.
    pub fn stop_logging(&self) -> io::Result<()> {
        self.feature(Feature::new(Operation::Set, STOP, ()))
    }

    /// Sets the bits of the pages written since their last report.
    pub fn report(&self, bitmap: &mut DirtyBitmap) -> io::Result<()> {
        let place = Place::of(&bitmap.memory, 0);
        self.report_to(place, bitmap.range, bitmap.page_size)
    }

    /// Like [`Self::report`], with a bitmap at `place`.
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

    /// Returns the pages of `page_size` bytes in `range` that were written since their last report.
    pub fn dirty_pages(&self, range: IovaRange, page_size: u64) -> io::Result<DirtyBitmap> {
        let mut bitmap = DirtyBitmap::new(range, page_size)?;
        self.report(&mut bitmap)?;
        Ok(bitmap)
    }
}
