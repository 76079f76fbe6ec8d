// SPDX-License-Identifier: GPL-2.0

//! The contents of reports: exactly the pages that the device has written, with any ranges, page
//! sizes and order of reports.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use vfio_bindings::bindings::vfio;
use vifa_device::RegisterFile;
use vifa_vfio::Mapping;

use super::{
    random::Random,
    tracked::{Tracked, AREA, GIB, KIB, MIB, PAGE, RANGES, TIB},
};
use crate::{
    bed::Bed,
    engine::Command,
    expect, hw,
    tests::{
        claims,
        fixture::{Guest, CHUNK, MEMORY},
        Test,
    },
    vfio::{IovaRange, Operation, Place},
};

pub fn tests() -> Vec<Test> {
    claims!("logging":
        is_offered,
        is_not_offered_by_a_device_without_a_log,
        page_size_is_the_next_supported_one,
        every_page_of_a_range_is_logged,
        write_across_the_edge_of_a_range_is_logged_inside,
        report_with_smaller_and_larger_pages_is_exact,
        report_that_begins_and_ends_anywhere_is_exact,
        reports_out_of_order_twice_and_overlapping_are_exact,
        untracked_pages_are_reported_dirty,
        page_that_is_reported_in_part_is_reported_again,
        report_sets_no_bit_beyond_its_range_and_clears_none,
        report_ends_where_its_bitmap_has_no_memory,
        random_reports_of_4_kib_pages_are_exact,
        random_reports_of_64_kib_pages_are_exact,
        random_reports_of_2_mib_pages_are_exact,
        random_reports_across_summaries_are_exact,
        writes_of_the_device_are_logged_and_reads_are_not,
        the_maximum_number_of_ranges_is_logged_in_any_order,
        last_pages_of_the_address_space_are_logged,
        tebibyte_is_logged_page_by_page,
    )
}

fn is_offered(bed: &Bed) -> Result<()> {
    let tracked = Tracked::idle(bed, 0)?;
    let device = &tracked.guest.vf.device;
    for (there, missing, feature) in [
        (
            Operation::ProbeSet,
            Operation::ProbeGet,
            vfio::VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
        ),
        (
            Operation::ProbeSet,
            Operation::ProbeGet,
            vfio::VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
        ),
        (
            Operation::ProbeGet,
            Operation::ProbeSet,
            vfio::VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
        ),
    ] {
        device
            .probe(there, feature)
            .with_context(|| format!("{there:?} of feature {feature}"))?;
        expect::refused(
            &format!("{missing:?} of feature {feature}"),
            device.probe(missing, feature),
            &[libc::EINVAL],
        )?;
    }
    Ok(())
}

fn is_not_offered_by_a_device_without_a_log(bed: &Bed) -> Result<()> {
    let tracked = Tracked::idle(&bed.without_dirty_log()?, 0)?;
    let device = &tracked.guest.vf.device;
    for (operation, feature) in [
        (
            Operation::ProbeSet,
            vfio::VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
        ),
        (
            Operation::ProbeSet,
            vfio::VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
        ),
        (
            Operation::ProbeGet,
            vfio::VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
        ),
    ] {
        expect::refused(
            &format!("{operation:?} of feature {feature}"),
            device.probe(operation, feature),
            &[libc::ENOTTY],
        )?;
    }
    let result = device.start_logging(&RANGES, PAGE);
    expect::refused("START", result, &[libc::ENOTTY])?;
    expect::refused("STOP", device.stop_logging(), &[libc::ENOTTY])?;
    let result = device.report_to(Place::NULL, RANGES[0], PAGE);
    expect::refused("REPORT", result, &[libc::ENOTTY])
}

fn page_size_is_the_next_supported_one(bed: &Bed) -> Result<()> {
    /// Page sizes of the reference device.
    const SUPPORTED: [u64; 3] = [4 * KIB, 64 * KIB, 2 * MIB];
    let mut tracked = Tracked::idle(bed, 0)?;
    for hint in (0..)
        .map(|doubled| PAGE << doubled)
        .take_while(|hint| *hint <= GIB)
    {
        let below = SUPPORTED.into_iter().rfind(|size| *size <= hint);
        let expected = below.context("a page size")?;
        let page_size = tracked.start(&[IovaRange::new(GIB, 2 * GIB)], hint)?;
        expect::equal(
            &format!("page size for the hint {hint:#x}"),
            page_size,
            expected,
        )?;
        tracked.touch(AREA.iova + 5 * MIB)?;
        tracked.reports(AREA, PAGE)?;
        tracked.reports(AREA, PAGE)?;
        tracked.stop()?;
    }
    Ok(())
}

fn every_page_of_a_range_is_logged(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::new(bed, 0)?;
    tracked.reports_all().context("before any write")?;
    tracked.write(&[AREA])?;
    tracked.reports_all().context("of all pages")?;
    tracked.reports_all().context("of none")?;
    // Each page of a range separately and once.
    let range = RANGES[1];
    let pages = (range.iova..range.end()).step_by(PAGE as usize);
    for (page, number) in pages.zip(0..) {
        // Across the page: its first bytes, its last ones, some in between.
        let offset = [0, 8, 2048, PAGE - 8][number % 4];
        tracked.write(&[IovaRange::new(page + offset, 8)])?;
        if number % 64 == 63 {
            tracked.reports(range, PAGE)?;
        }
    }
    tracked.reports_all()
}

fn write_across_the_edge_of_a_range_is_logged_inside(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::new(bed, 0)?;
    for range in RANGES {
        for edge in [range.iova, range.end()] {
            for (before, length) in [
                (8, 8),
                (4, 8),
                (0, 8),
                (PAGE, 2 * PAGE),
                (8, 16),
                (PAGE + 8, PAGE + 8),
            ] {
                tracked.write(&[IovaRange::new(edge - before, length)])?;
                tracked.reports_all().with_context(|| {
                    format!("after a write of {length:#x} bytes at {:#x}", edge - before)
                })?;
            }
        }
    }
    Ok(())
}

fn report_with_smaller_and_larger_pages_is_exact(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::idle(bed, 0)?;
    for hint in [PAGE, 64 * KIB, 2 * MIB] {
        tracked.start(&RANGES, hint)?;
        for size in [
            4 * KIB,
            8 * KIB,
            64 * KIB,
            256 * KIB,
            2 * MIB,
            16 * MIB,
            GIB,
            1 << 62,
        ] {
            tracked.write(&[
                IovaRange::new(RANGES[0].iova + 5 * PAGE, 8),
                IovaRange::new(RANGES[0].iova + MIB, 9 * PAGE),
                IovaRange::new(RANGES[0].end() - 8, 16),
                IovaRange::new(RANGES[1].end() - 8, 8),
                IovaRange::new(RANGES[2].iova, 8),
            ])?;
            for range in RANGES {
                tracked
                    .reports(range, size)
                    .with_context(|| format!("hint {hint:#x}"))?;
            }
        }
        tracked.stop()?;
    }
    Ok(())
}

fn report_that_begins_and_ends_anywhere_is_exact(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::new(bed, 0)?;
    let middle = RANGES[0].iova + 64 * PAGE;
    for page in middle / PAGE - 3..middle / PAGE + 4 {
        tracked.touch(page * PAGE)?;
    }
    for before in [0, 1, 8, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE + 512] {
        for length in [1, 7, 8, 512, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE + 77] {
            for size in [PAGE, 8 * KIB, 64 * KIB] {
                tracked.reports(IovaRange::new(middle - before, length), size)?;
            }
        }
    }
    tracked.reports_all()
}

fn reports_out_of_order_twice_and_overlapping_are_exact(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::new(bed, 0)?;
    let [first, second, third] = RANGES;
    for _ in 0..4 {
        tracked.write(&[first, IovaRange::new(third.iova + 3 * PAGE, PAGE)])?;
        tracked.touch(second.iova)?;
        let half = first.length / 2;
        for range in [
            third,
            IovaRange::new(first.iova + half, half),
            IovaRange::new(first.iova + half / 2, half),
            IovaRange::new(first.iova + half, half),
            first,
            // Across adjoining ranges.
            IovaRange::new(second.iova - 4 * PAGE, 8 * PAGE),
            second,
            IovaRange::new(first.iova, second.end() - first.iova),
            third,
        ] {
            tracked.reports(range, PAGE)?;
        }
    }
    Ok(())
}

fn untracked_pages_are_reported_dirty(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::new(bed, 0)?;
    for range in [
        AREA,
        IovaRange::new(AREA.iova, 2 * MIB),
        IovaRange::new(RANGES[0].iova - PAGE, 2 * PAGE),
        IovaRange::new(RANGES[1].end() - PAGE, 2 * PAGE),
        IovaRange::new(RANGES[1].end() - 8, 16),
        IovaRange::new(0, PAGE),
        IovaRange::new(u64::MAX - 2 * PAGE + 1, PAGE),
        IovaRange::new(1 << 60, 16 * PAGE + 1),
    ] {
        tracked.reports(range, PAGE)?;
        tracked.touch(RANGES[0].iova)?;
        tracked.reports(range, 64 * KIB)?;
    }
    tracked.reports_all()
}

fn page_that_is_reported_in_part_is_reported_again(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::idle(bed, 0)?;
    for hint in [64 * KIB, 2 * MIB] {
        tracked.start(&RANGES, hint)?;
        tracked.touch(RANGES[2].iova + hint)?;
        let page = IovaRange::new(RANGES[2].iova + hint, hint);
        // A partial report of each part does not clear the page.
        for part in 0..4 {
            let part = IovaRange::new(page.iova + part * hint / 4, hint / 4);
            tracked.reports(part, PAGE)?;
            tracked.reports(part, PAGE)?;
        }
        tracked.reports(page, PAGE)?;
        tracked.reports(page, PAGE)?;
        tracked.stop()?;
    }
    Ok(())
}

fn report_sets_no_bit_beyond_its_range_and_clears_none(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::new(bed, 0)?;
    let device = &tracked.guest.vf.device;
    let memory = Mapping::anonymous(2 * PAGE as usize)?;
    let around = |memory: &Mapping| memory.copy_out(0, memory.length());
    // A quarter of the bits are set before the report.
    memory.copy_in(0, &[0x11; 2 * PAGE as usize]);
    let before = around(&memory);
    device.report_to(Place::of(&memory, 1024), RANGES[0], PAGE)?;
    expect::same_bytes("bitmap of a clean range", &around(&memory), &before)?;

    // 100 pages need 12.5 bytes.
    tracked.write(&[RANGES[0]])?;
    let range = IovaRange::new(RANGES[0].iova, 100 * PAGE);
    tracked
        .guest
        .vf
        .device
        .report_to(Place::of(&memory, 1024), range, PAGE)?;
    let mut expected = before;
    expected[1024..1036].fill(0xff);
    expected[1036] |= 0x0f;
    expect::same_bytes("bitmap of 100 dirty pages", &around(&memory), &expected)
}

/// Random writes and reports, each report compared with the model.
fn random_reports_are_exact(bed: &Bed, hint: u64) -> Result<()> {
    const ROUNDS: u64 = 80;
    let mut tracked = Tracked::idle(bed, 0)?;
    tracked.start(&RANGES, hint)?;
    let mut random = Random::new(hint);
    for round in 0..ROUNDS {
        let writes: Vec<_> = (0..random.below(12))
            .map(|_| random.range_in(AREA, 8))
            .collect();
        tracked.write(&writes)?;
        let range = match random.below(3) {
            0 => RANGES[random.below(3) as usize],
            // Whole pages, or single bytes.
            1 => random.range_in(AREA, PAGE),
            _ => random.range_in(AREA, 1),
        };
        let size = PAGE << random.below(12);
        tracked
            .reports(range, size)
            .with_context(|| format!("round {round}, after {writes:x?}"))?;
    }
    tracked.reports_all()
}

/// Reports that end at any byte, with bitmaps of any size.
fn report_ends_where_its_bitmap_has_no_memory(bed: &Bed) -> Result<()> {
    const BITS: u64 = u64::BITS as u64;
    let tracked = Tracked::new(bed, 0)?;
    let memory = Mapping::anonymous(2 * PAGE as usize)?;
    memory.forbid_from(PAGE as usize)?;
    let last_word = PAGE as usize - size_of::<u64>();
    for page_size in [PAGE, 64 * KIB, 2 * MIB, 1 << 62] {
        let whole = page_size.saturating_mul(2 * BITS).min(1 << 62);
        for length in [whole, whole + 1, whole + PAGE, whole + page_size - 1] {
            // The range is untracked, so all of it is dirty.
            for iova in [0, 8, PAGE, 4 * GIB + 37] {
                let what = format!("REPORT of {length:#x} bytes at {iova:#x}");
                memory.write(last_word, 0u64);
                let range = IovaRange::new(iova, length);
                tracked
                    .guest
                    .vf
                    .device
                    .report_to(Place::of(&memory, last_word), range, page_size)
                    .with_context(|| what.clone())?;
                let pages = length.div_ceil(page_size).min(BITS);
                let expected = u64::MAX >> (BITS - pages);
                expect::equal(&what, memory.read::<u64>(last_word), expected)?;
            }
        }
    }
    Ok(())
}

fn random_reports_of_4_kib_pages_are_exact(bed: &Bed) -> Result<()> {
    random_reports_are_exact(bed, 4 * KIB)
}

fn random_reports_of_64_kib_pages_are_exact(bed: &Bed) -> Result<()> {
    random_reports_are_exact(bed, 64 * KIB)
}

fn random_reports_of_2_mib_pages_are_exact(bed: &Bed) -> Result<()> {
    random_reports_are_exact(bed, 2 * MIB)
}

/// Windows of the device's bitmap begin and end at units of its summary: every 32768 pages from the
/// start of a range.
fn random_reports_across_summaries_are_exact(bed: &Bed) -> Result<()> {
    const UNIT: u64 = hw::VIFA_LOG_SUMMARY_PAGES as u64 * PAGE;
    const ROUNDS: u64 = 60;
    let mut tracked = Tracked::idle(bed, 0)?;
    let first = IovaRange::new(4 * GIB + 3 * PAGE, 5 * UNIT + 7 * PAGE);
    let second = IovaRange::new(first.end() + 16 * MIB, 3 * UNIT);
    // Across all borders of units and of ranges.
    let borders = (0..6).map(|unit| first.iova + unit * UNIT);
    let borders = borders.chain([second.iova + UNIT, second.end()]);
    let areas = borders.map(|border| tracked.also_at(border - 8 * MIB - 3 * PAGE));
    let areas = areas.collect::<Result<Vec<_>>>()?;
    tracked.start(&[first, second], PAGE)?;
    let mut random = Random::new(UNIT);
    for round in 0..ROUNDS {
        let mut writes = Vec::new();
        for _ in 0..random.below(4) {
            let area = areas[random.below(areas.len() as u64) as usize];
            writes.push(random.range_in(area, 8));
        }
        tracked.write(&writes)?;
        let range = [first, second][random.below(2) as usize];
        let range = match random.below(4) {
            0 => range,
            1 => IovaRange::new(first.iova, second.end() - first.iova),
            2 => random.range_in(range, PAGE),
            _ => random.range_in(range, 1),
        };
        let size = PAGE << random.below(8);
        tracked
            .reports(range, size)
            .with_context(|| format!("round {round}, after {writes:x?}"))?;
    }
    tracked.reports(first, PAGE)?;
    tracked.reports(second, PAGE)
}

/// Returns commands of all kinds, each with the address of the page that it writes, if any.
fn commands(source: u64, destination: u64) -> [(Command, Option<u64>); 7] {
    let length = CHUNK;

    [
        (Command::Nop, None),
        (
            Command::Fill {
                destination,
                length,
                pattern: 1,
            },
            Some(destination),
        ),
        (
            Command::Copy {
                source,
                destination,
                length,
            },
            Some(destination),
        ),
        (Command::Checksum { source, length }, None),
        (
            Command::LocalWrite {
                source,
                local: 0,
                length,
            },
            None,
        ),
        (
            Command::LocalRead {
                local: 0,
                destination,
                length,
            },
            Some(destination),
        ),
        (
            Command::LocalDiscard {
                local: 0,
                length: 64 * KIB,
            },
            None,
        ),
    ]
}

fn writes_of_the_device_are_logged_and_reads_are_not(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    let rings = guest.engine.completion_ring();
    let rings = IovaRange::new(rings.iova - rings.iova % PAGE, PAGE);
    let memory = IovaRange::new(guest.memory.iova, MEMORY);
    guest.vf.device.start_logging(&[memory, rings], PAGE)?;
    let [source, destination] = [memory.iova + 2 * PAGE, memory.iova + 7 * PAGE];
    for (command, expected) in commands(source, destination) {
        guest.run(command)?;
        let dirty = |range| -> Result<BTreeSet<u64>> {
            Ok(guest.vf.device.dirty_pages(range, PAGE)?.dirty().collect())
        };
        expect::equal(
            &format!("memory written by {command:x?}"),
            dirty(memory)?,
            expected.into_iter().collect(),
        )?;
        expect::equal(
            &format!("rings written by {command:x?}"),
            dirty(rings)?,
            BTreeSet::from([rings.iova]),
        )?;
    }
    Ok(())
}

fn the_maximum_number_of_ranges_is_logged_in_any_order(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::idle(bed, 0)?;
    let mut ranges: Vec<_> = (0..256)
        .map(|number| IovaRange::new(AREA.iova + 3 * number * PAGE, (1 + number % 3) * PAGE))
        .collect();
    let mut random = Random::new(256);
    for last in (1..ranges.len()).rev() {
        ranges.swap(last, random.below(last as u64 + 1) as usize);
    }
    tracked.start(&ranges, PAGE)?;
    tracked.reports(AREA, PAGE)?;
    for page in [0, 1, 3, 5, 6, 9, 300, 764, 765, 766] {
        tracked.touch(AREA.iova + page * PAGE)?;
    }
    tracked.reports(AREA, PAGE)?;
    tracked.write(&[AREA])?;
    for range in &ranges {
        tracked.reports(*range, PAGE)?;
    }
    tracked.reports(AREA, 64 * KIB)
}

fn last_pages_of_the_address_space_are_logged(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::idle(bed, 0)?;
    let registers = RegisterFile::map(&bed.pf)?;
    // VFIO rejects ranges that end at 2^64.
    let range = IovaRange::new(u64::MAX - 10 * PAGE + 1, 9 * PAGE);
    tracked.start(&[IovaRange::new(0, PAGE), range], PAGE)?;
    for (first, pages) in [(0, 1), (8, 1), (0, 9), (3, 2)] {
        let part = IovaRange::new(range.iova + first * PAGE, pages * PAGE);
        tracked.mark(&registers, part)?;
        tracked.reports(range, PAGE)?;
    }
    let first = IovaRange::new(0, PAGE);
    tracked.mark(&registers, first)?;
    tracked.reports(IovaRange::new(0, u64::MAX), 1 << 63)?;
    tracked.reports(first, PAGE)
}

fn tebibyte_is_logged_page_by_page(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::idle(bed, 0)?;
    let registers = RegisterFile::map(&bed.pf)?;
    // Two ranges; the second begins at an offset that is unaligned for a summary.
    let split = 300 * GIB + 5 * PAGE;
    let ranges = [
        IovaRange::new(0, split),
        IovaRange::new(split + PAGE, TIB - split - PAGE),
    ];
    tracked.start(&ranges, PAGE)?;
    let mut random = Random::new(TIB);
    for range in ranges {
        for _ in 0..40 {
            let part = random.range_in(range, PAGE);
            let length = part.length.min(32 * PAGE);
            tracked.mark(&registers, IovaRange::new(part.iova, length))?;
        }
        for edge in [range.iova, range.end() - PAGE] {
            tracked.mark(&registers, IovaRange::new(edge, PAGE))?;
        }
    }
    for range in ranges {
        tracked.reports(range, PAGE)?;
        tracked.reports(range, MIB).context("of a clean range")?;
    }
    Ok(())
}
