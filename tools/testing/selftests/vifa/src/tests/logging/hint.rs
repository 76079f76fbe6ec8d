// SPDX-License-Identifier: GPL-2.0

//! User space's parameters of a log are hints: any page size is valid, and a device may support
//! fewer ranges.

use anyhow::{Context, Result};

use super::tracked::{Tracked, AREA, GIB, KIB, MIB, PAGE, RANGES};
use crate::{
    bed::Bed,
    expect,
    tests::{claims, memory::Limits, Test},
    vfio::IovaRange,
};

pub fn tests() -> Vec<Test> {
    claims!("logging":
        any_page_size_is_a_hint,
        ranges_off_the_page_size_are_logged_in_whole_pages,
        more_ranges_than_the_device_accepts_are_combined,
    )
}

/// The VFIO core requires ranges aligned to the hint, rounded to a power of two.
fn any_page_size_is_a_hint(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::idle(bed, 0)?;
    let range = IovaRange::new(AREA.iova, 16 * MIB);
    for (hint, page_size) in [
        (1, PAGE),
        (2, PAGE),
        (512, PAGE),
        (2 * KIB, PAGE),
        (4097, PAGE),
        (12 * KIB, PAGE),
        (96 * KIB, 64 * KIB),
        (3 * MIB, 2 * MIB),
    ] {
        let chosen = tracked.start(&[range], hint)?;
        expect::equal(&format!("page size for {hint:#x}"), chosen, page_size)?;
        for offset in [0, 3 * MIB + 17 * PAGE, 16 * MIB - PAGE] {
            tracked.touch(range.iova + offset)?;
        }
        tracked
            .reports(range, PAGE)
            .with_context(|| format!("hint {hint:#x}"))?;
        tracked.stop()?;
    }
    let largest = IovaRange::new(0, 1 << 40);
    let chosen = tracked.start(&[largest], 1 << 40)?;
    expect::equal("page size for a tebibyte", chosen, 2 * MIB)?;
    tracked.touch(AREA.iova)?;
    tracked.reports(IovaRange::new(GIB, GIB), 2 * MIB)?;
    tracked.stop()
}

/// With a hint below a page, ranges begin and end anywhere, and several share a page.
fn ranges_off_the_page_size_are_logged_in_whole_pages(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::idle(bed, 0)?;
    let at = |offset| AREA.iova + offset;
    let device = &tracked.guest.vf.device;
    let ranges = [
        IovaRange::new(at(512), 1024),
        IovaRange::new(at(2048), 512),
        IovaRange::new(at(3 * PAGE - 512), 1024),
    ];
    expect::equal("page size", device.start_logging(&ranges, 512)?, PAGE)?;
    tracked.touch(at(0))?;
    tracked.touch(at(3 * PAGE))?;
    let device = &tracked.guest.vf.device;
    for (page, count) in [(0, 1), (2, 0), (3, 1)] {
        let range = IovaRange::new(at(page * PAGE), PAGE);
        let dirty = device.dirty_pages(range, PAGE)?.count();
        expect::equal(&format!("dirty pages at page {page}"), dirty, count)?;
    }
    Ok(device.stop_logging()?)
}

fn more_ranges_than_the_device_accepts_are_combined(bed: &Bed) -> Result<()> {
    let limits = Limits::new(bed, 512, 3)?;
    let mut tracked = Tracked::idle(bed, 0)?;
    // Clusters with wide gaps, which three ranges can exclude.
    let ranges: Vec<_> = (0..240)
        .map(|number| {
            let cluster = number / 80 * 5 * MIB;
            IovaRange::new(AREA.iova + cluster + number % 80 * 4 * PAGE, PAGE)
        })
        .collect();
    tracked.start(&ranges, PAGE)?;
    for range in ranges.iter().step_by(7) {
        tracked.touch(range.iova)?;
    }
    for range in &ranges {
        tracked.reports(*range, PAGE)?;
    }
    let gap = IovaRange::new(AREA.iova + 3 * MIB, MIB);
    tracked.reports(gap, PAGE)?;
    tracked.stop()?;
    tracked.start(&RANGES, PAGE)?;
    tracked.touch(RANGES[0].iova)?;
    tracked.reports_all()?;
    drop(tracked);
    limits.lift()
}
