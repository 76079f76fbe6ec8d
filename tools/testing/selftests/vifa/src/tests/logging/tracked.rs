// SPDX-License-Identifier: GPL-2.0

//! A guest whose writes are logged, and the model of its log.

use std::collections::BTreeSet;

use anyhow::{bail, Context, Result};
use vifa_device::{Marks, RegisterFile};

use super::model::Model;
use crate::{
    bed::Bed,
    engine::{Command, COMPLETION_TIMEOUT},
    tests::fixture::Guest,
    vfio::{DirtyBitmap, DmaMemory, IovaRange},
};

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;
pub const TIB: u64 = 1 << 40;
/// The smallest page size of a log.
pub const PAGE: u64 = 4 * KIB;

/// The memory to which the guest can make the device write.
pub const AREA: IovaRange = IovaRange::new(GIB, 16 * MIB);
/// The default tracked parts: two that adjoin, and a separate one.
pub const RANGES: [IovaRange; 3] = [
    IovaRange::new(AREA.iova + 2 * MIB, 4 * MIB),
    IovaRange::new(AREA.iova + 6 * MIB, 2 * MIB),
    IovaRange::new(AREA.iova + 10 * MIB, 4 * MIB),
];

/// A guest with memory at [`AREA`], and a model of its log.
pub struct Tracked {
    pub guest: Guest,
    /// The memory at [`AREA`], and its other mappings.
    areas: Vec<DmaMemory>,
    model: Option<Model>,
    writes: u64,
}

impl Tracked {
    /// Creates a guest on the VF `index` whose writes are not yet logged.
    pub fn idle(bed: &Bed, index: u32) -> Result<Self> {
        let guest = Guest::new(bed, index)?;
        let area = DmaMemory::new(&guest.space, AREA.iova, AREA.length as usize)?;
        Ok(Self {
            guest,
            areas: vec![area],
            model: None,
            writes: 0,
        })
    }

    /// Creates a guest on the VF `index` whose writes to [`RANGES`] are logged in pages of 4 KiB.
    pub fn new(bed: &Bed, index: u32) -> Result<Self> {
        let mut tracked = Self::idle(bed, index)?;
        tracked.start(&RANGES, PAGE)?;
        Ok(tracked)
    }

    /// Also maps the same memory at `iova`; returns the range.
    pub fn also_at(&mut self, iova: u64) -> Result<IovaRange> {
        let area = self.areas[0].again(iova)?;
        self.areas.push(area);
        Ok(IovaRange::new(iova, AREA.length))
    }

    /// Starts logging of `ranges` with the page size `hint`; returns the device's page size.
    pub fn start(&mut self, ranges: &[IovaRange], hint: u64) -> Result<u64> {
        let page_size = self
            .guest
            .vf
            .device
            .start_logging(ranges, hint)
            .with_context(|| format!("START with pages of {hint:#x} bytes"))?;
        self.model = Some(Model::new(ranges, page_size));
        Ok(page_size)
    }

    /// Stops logging.
    pub fn stop(&mut self) -> Result<()> {
        self.model = None;
        self.guest.vf.device.stop_logging().context("STOP")
    }

    /// Makes the device write each of `ranges`, whose lengths are multiples of 8.
    pub fn write(&mut self, ranges: &[IovaRange]) -> Result<()> {
        for some in ranges.chunks(self.guest.engine.room() as usize) {
            let first = self.writes;
            let commands = some
                .iter()
                .zip(first..)
                .map(|(range, pattern)| Command::Fill {
                    destination: range.iova,
                    length: range.length,
                    pattern,
                });
            self.guest.engine.submit_all(&self.guest.vf, commands)?;
            self.writes += some.len() as u64;
            for range in some {
                let completion = self.guest.engine.wait(&self.guest.vf, COMPLETION_TIMEOUT)?;
                if completion.status != 0 {
                    bail!("write of {range:x?}: status {}", completion.status);
                }
                if let Some(model) = &mut self.model {
                    model.write(*range);
                }
            }
        }
        Ok(())
    }

    /// Makes the device write 8 bytes of the page at `iova`.
    pub fn touch(&mut self, iova: u64) -> Result<()> {
        self.write(&[IovaRange::new(iova + 8, 8)])
    }

    /// Marks `range` in the log of the VF, which has the index 0, without writes.
    pub fn mark(&mut self, registers: &RegisterFile, range: IovaRange) -> Result<()> {
        registers.mark(0, Marks::all_of(range))?;
        self.wrote(range)
    }

    /// Records a write of the device to `range` by other means.
    pub fn wrote(&mut self, range: IovaRange) -> Result<()> {
        self.model()?.write(range);
        Ok(())
    }

    fn model(&mut self) -> Result<&mut Model> {
        self.model.as_mut().context("a log that is modelled")
    }

    /// Returns the model's expectation of a report on `range` with `page_size`.
    pub fn expected(&mut self, range: IovaRange, page_size: u64) -> Result<BTreeSet<u64>> {
        Ok(self.model()?.report(range, page_size))
    }

    /// Checks that a report on `range` with `page_size` matches the model.
    pub fn reports(&mut self, range: IovaRange, page_size: u64) -> Result<()> {
        let expected = self.expected(range, page_size)?;
        let reported = self
            .guest
            .vf
            .device
            .dirty_pages(range, page_size)
            .with_context(|| format!("REPORT of {range:x?} in pages of {page_size:#x} bytes"))?;
        same_pages(&reported, &expected)
    }

    /// Checks the reports of all tracked ranges.
    pub fn reports_all(&mut self) -> Result<()> {
        RANGES
            .iter()
            .try_for_each(|range| self.reports(*range, PAGE))
    }
}

/// Checks that `reported` has exactly the pages `expected`.
pub fn same_pages(reported: &DirtyBitmap, expected: &BTreeSet<u64>) -> Result<()> {
    let reported_pages: BTreeSet<_> = reported.dirty().collect();
    if reported_pages == *expected {
        return Ok(());
    }
    let first = |pages: Vec<&u64>| -> Option<String> {
        let page = pages.first()?;
        Some(format!("{} such as {page:#x}", pages.len()))
    };
    let lost = first(expected.difference(&reported_pages).collect());
    let spurious = first(reported_pages.difference(expected).collect());
    bail!(
        "report on {:x?} in pages of {:#x} bytes: expected {} dirty pages, got {}; missing: {}; unexpected: {}",
        reported.range(),
        reported.page_size(),
        expected.len(),
        reported_pages.len(),
        lost.as_deref().unwrap_or("none"),
        spurious.as_deref().unwrap_or("none"),
    )
}
