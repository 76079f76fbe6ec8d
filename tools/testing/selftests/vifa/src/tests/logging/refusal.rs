// SPDX-License-Identifier: GPL-2.0

//! Requests that START, STOP and REPORT reject, without any other effect.

use std::{io, mem::offset_of};

use anyhow::{Context, Result};
use vfio_bindings::bindings::vfio::{
    self, vfio_device_feature_dma_logging_control, vfio_device_feature_dma_logging_range,
    vfio_device_feature_dma_logging_report,
};
use vifa_vfio::Mapping;

use super::tracked::{Tracked, AREA, GIB, KIB, MIB, PAGE, RANGES};
use crate::{
    bed::Bed,
    expect, region,
    tests::{claims, Test},
    vfio::{request, Device, Feature, IovaRange, Operation, Place, Start},
};

pub fn tests() -> Vec<Test> {
    claims!("logging":
        second_start_is_refused_and_the_first_continues,
        report_without_start_is_refused,
        stop_without_start_changes_nothing,
        start_with_invalid_ranges_is_refused,
        start_with_more_ranges_than_fit_in_a_page_is_refused,
        start_with_bad_pointers_is_refused,
        report_with_an_invalid_page_size_is_refused,
        report_on_an_invalid_range_is_refused,
        report_with_bad_pointers_fails_without_other_effects,
        wrong_operations_and_sizes_are_refused,
    )
}

const START: u32 = vfio::VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
const STOP: u32 = vfio::VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP;
const REPORT: u32 = vfio::VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT;

/// Checks that logging is off: reports fail, and a START succeeds.
fn is_not_logging(tracked: &mut Tracked) -> Result<()> {
    let report = tracked.guest.vf.device.dirty_pages(RANGES[0], PAGE);
    expect::refused("REPORT after a refusal", report.map(drop), &[libc::EINVAL])?;
    tracked.start(&RANGES, PAGE)?;
    tracked.touch(RANGES[0].iova)?;
    tracked.reports_all()?;
    tracked.stop()
}

/// Checks that the log continues and is exact.
fn goes_on(tracked: &mut Tracked) -> Result<()> {
    tracked.touch(RANGES[2].iova)?;
    tracked.reports_all()
}

fn second_start_is_refused_and_the_first_continues(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::new(bed, 0)?;
    tracked.touch(RANGES[0].iova)?;
    for ranges in [&RANGES[..], &[IovaRange::new(0, PAGE)]] {
        let result = tracked.guest.vf.device.start_logging(ranges, PAGE);
        expect::refused("second START", result, &[libc::EINVAL])?;
    }
    goes_on(&mut tracked)
}

fn report_without_start_is_refused(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::idle(bed, 0)?;
    is_not_logging(&mut tracked)?;
    let report = tracked.guest.vf.device.dirty_pages(RANGES[0], PAGE);
    expect::refused("REPORT after STOP", report.map(drop), &[libc::EINVAL])
}

fn stop_without_start_changes_nothing(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::idle(bed, 0)?;
    for _ in 0..2 {
        tracked.stop().context("before START")?;
    }
    is_not_logging(&mut tracked)?;
    tracked.stop().context("after STOP")?;
    is_not_logging(&mut tracked)
}

/// Checks that the driver rejects `act`, with a check that the VFIO core lacks, and that the
/// migration region names the field.
fn refuses_naming(
    device: &Device,
    field: &str,
    what: &str,
    act: impl FnOnce() -> io::Result<()>,
) -> Result<()> {
    let before = region::read(device)?.generation;
    expect::refused(what, act(), &[libc::EINVAL])?;
    let region = region::read(device)?;
    let text = region::error_text(&region)?;
    expect::claim(&format!("{what}: a new error"), region.generation > before)?;
    expect::claim(
        &format!("{what}: an error that names {field}, not {text:?}"),
        text.contains(field),
    )
}

/// Returns the range of `count` pages from the page `first` on.
const fn pages(first: u64, count: u64) -> IovaRange {
    IovaRange::new(first * PAGE, count * PAGE)
}

/// Invalid arguments of START, ranges and page size, with the error.
const REFUSED: [(&str, &[IovaRange], u64, i32); 11] = [
    ("no range", &[], PAGE, libc::EINVAL),
    (
        "an unaligned IOVA",
        &[IovaRange::new(GIB + 8, PAGE)],
        PAGE,
        libc::EINVAL,
    ),
    (
        "an unaligned length",
        &[IovaRange::new(GIB, PAGE + 512)],
        PAGE,
        libc::EINVAL,
    ),
    (
        "an IOVA off the page size",
        &[pages(1, 512)],
        2 * MIB,
        libc::EINVAL,
    ),
    (
        "a length off the page size",
        &[pages(512, 511)],
        2 * MIB,
        libc::EINVAL,
    ),
    (
        "a range twice",
        &[pages(8, 8), pages(8, 8)],
        PAGE,
        libc::EINVAL,
    ),
    (
        "overlapping ranges",
        &[pages(8, 8), pages(15, 2)],
        PAGE,
        libc::EINVAL,
    ),
    (
        "a range in another",
        &[pages(8, 8), pages(10, 1)],
        PAGE,
        libc::EINVAL,
    ),
    (
        "an overlap that descends",
        &[pages(15, 2), pages(30, 1), pages(8, 8)],
        PAGE,
        libc::EINVAL,
    ),
    (
        "a range that wraps",
        &[IovaRange::new(u64::MAX - PAGE + 1, 2 * PAGE)],
        PAGE,
        libc::EOVERFLOW,
    ),
    (
        "a range that ends the space",
        &[IovaRange::new(u64::MAX - PAGE + 1, PAGE)],
        PAGE,
        libc::EOVERFLOW,
    ),
];

fn start_with_invalid_ranges_is_refused(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::idle(bed, 0)?;
    let device = &tracked.guest.vf.device;
    for (what, ranges, page_size, error) in REFUSED {
        expect::refused(
            &format!("START with {what}"),
            device.start_logging(ranges, page_size),
            &[error],
        )?;
    }
    for empty in [IovaRange::new(0, 0), IovaRange::new(GIB, 0)] {
        refuses_naming(device, "length", &format!("START with {empty:x?}"), || {
            device.start_logging(&[empty], PAGE).map(drop)
        })?;
    }
    refuses_naming(
        device,
        "length",
        "START with an empty range among others",
        || {
            let ranges = [pages(8, 8), IovaRange::new(GIB, 0), pages(20, 4)];
            device.start_logging(&ranges, PAGE).map(drop)
        },
    )?;
    is_not_logging(&mut tracked)
}

fn start_with_more_ranges_than_fit_in_a_page_is_refused(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::idle(bed, 0)?;
    let apart: Vec<_> = (0..257)
        .map(|number| IovaRange::new(AREA.iova + 2 * number * PAGE, PAGE))
        .collect();
    let device = &tracked.guest.vf.device;
    expect::refused(
        "START with 257 ranges",
        device.start_logging(&apart, PAGE),
        &[libc::E2BIG],
    )?;
    is_not_logging(&mut tracked)
}

/// An accessible page followed by an inaccessible one.
fn end_of_memory() -> Result<(Mapping, usize)> {
    let memory = Mapping::anonymous(2 * PAGE as usize)?;
    memory.forbid_from(PAGE as usize)?;
    Ok((memory, PAGE as usize))
}

fn start_with_bad_pointers_is_refused(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::idle(bed, 0)?;
    let device = &tracked.guest.vf.device;
    let (memory, end) = end_of_memory()?;
    let size = size_of::<vfio_device_feature_dma_logging_range>();
    let end_address = memory.address() + end as u64;
    for (what, ranges, num_ranges) in [
        ("at NULL", 0, 1),
        ("at an address of the kernel's", 0xffff_8880_0000_0000, 1),
        ("after the end of memory", end_address, 1),
        ("across the end of memory", end_address - size as u64, 2),
        ("that end the address space", u64::MAX - 15, 1),
    ] {
        let control = vfio_device_feature_dma_logging_control {
            page_size: PAGE,
            num_ranges,
            __reserved: 0,
            ranges,
        };
        // The first range is valid if it can be read.
        memory.write(end - size, AREA.iova);
        memory.write(end - size + 8, PAGE);
        let mut start = Start::new(Operation::Set, START, control);
        expect::refused(
            &format!("START with ranges {what}"),
            device.raw_feature(&mut start),
            &[libc::EFAULT],
        )?;
    }
    // The argument itself ends before its last field.
    let start = Start::new(Operation::Set, START, Default::default());
    let at = end - offset_of!(vfio_device_feature_dma_logging_control, ranges) - 8;
    memory.write(at, start.argsz);
    memory.write(at + 4, start.flags);
    expect::refused(
        "START with an argument across the end of memory",
        memory.ioctl(
            device,
            &request::device_feature::<vfio_device_feature_dma_logging_control>(),
            at,
        ),
        &[libc::EFAULT],
    )?;
    is_not_logging(&mut tracked)
}

fn report_with_an_invalid_page_size_is_refused(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::new(bed, 0)?;
    tracked.touch(RANGES[0].iova)?;
    for page_size in [0, 1, 512, 2 * KIB, 4095, 4097, 12 * KIB, u64::MAX] {
        expect::refused(
            &format!("REPORT in pages of {page_size:#x} bytes"),
            tracked
                .guest
                .vf
                .device
                .report_to(Place::NULL, RANGES[0], page_size),
            &[libc::EINVAL],
        )?;
    }
    goes_on(&mut tracked)
}

fn report_on_an_invalid_range_is_refused(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::new(bed, 0)?;
    tracked.touch(RANGES[0].iova)?;
    let device = &tracked.guest.vf.device;
    for (iova, length) in [
        (u64::MAX, 1),
        (u64::MAX - PAGE + 1, PAGE),
        (RANGES[0].iova, u64::MAX - RANGES[0].iova + 1),
        (PAGE, u64::MAX),
    ] {
        let range = IovaRange::new(iova, length);
        expect::refused(
            &format!("REPORT on {length:#x} bytes at {iova:#x}"),
            device.report_to(Place::NULL, range, PAGE),
            &[libc::EOVERFLOW],
        )?;
    }
    for iova in [0, RANGES[0].iova, RANGES[0].iova + 8] {
        refuses_naming(
            device,
            "length",
            &format!("REPORT on 0 bytes at {iova:#x}"),
            || device.report_to(Place::NULL, IovaRange::new(iova, 0), PAGE),
        )?;
    }
    goes_on(&mut tracked)
}

/// The VFIO core writes the bitmap without reporting failed writes: such a report may be lost or
/// rejected.
fn report_with_bad_pointers_fails_without_other_effects(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::new(bed, 0)?;
    let (memory, end) = end_of_memory()?;
    // Half of the first range's bitmap.
    let half = (RANGES[0].length / PAGE / 16) as usize;
    for (what, place) in [
        ("at NULL", Place::NULL),
        ("at an address of the kernel's", Place::KERNEL),
        ("after the end of memory", Place::of(&memory, end)),
        ("across the end of memory", Place::of(&memory, end - half)),
    ] {
        let ends = [RANGES[0].iova, RANGES[0].end() - PAGE];
        for page in ends {
            tracked.touch(page)?;
        }
        let result = tracked.guest.vf.device.report_to(place, RANGES[0], PAGE);
        if result.is_err() {
            expect::refused(
                &format!("REPORT with a bitmap {what}"),
                result,
                &[libc::EFAULT],
            )?;
        }
        // The pages may have been reported or not.
        for page in ends {
            tracked.touch(page)?;
        }
        tracked.reports_all().context(what)?;
    }
    // The argument itself ends before its last field.
    let device = &tracked.guest.vf.device;
    let report = Feature::new(
        Operation::Get,
        REPORT,
        vfio_device_feature_dma_logging_report::default(),
    );
    let at = end - offset_of!(vfio_device_feature_dma_logging_report, bitmap) - 8;
    memory.write(at, report.argsz);
    memory.write(at + 4, report.flags);
    expect::refused(
        "REPORT with an argument across the end of memory",
        memory.ioctl(
            device,
            &request::device_feature::<vfio_device_feature_dma_logging_report>(),
            at,
        ),
        &[libc::EFAULT],
    )?;
    goes_on(&mut tracked)
}

/// Issues `feature` with the given `argsz` and `flags`.
fn ask<T>(device: &Device, argsz: usize, flags: u32, data: T) -> io::Result<()> {
    let argsz = argsz as u32;
    device.raw_feature(&mut Feature { argsz, flags, data })
}

fn wrong_operations_and_sizes_are_refused(bed: &Bed) -> Result<()> {
    const GET: u32 = vfio::VFIO_DEVICE_FEATURE_GET;
    const SET: u32 = vfio::VFIO_DEVICE_FEATURE_SET;
    let mut tracked = Tracked::idle(bed, 0)?;
    let device = &tracked.guest.vf.device;
    let control = vfio_device_feature_dma_logging_control::default();
    let report = vfio_device_feature_dma_logging_report::default();
    let is_refused = |what: &str, result| expect::refused(what, result, &[libc::EINVAL]);
    is_refused("GET of START", ask(device, 32, GET | START, control))?;
    is_refused("GET of STOP", ask(device, 8, GET | STOP, ()))?;
    is_refused("SET of REPORT", ask(device, 40, SET | REPORT, report))?;
    for argsz in [0, 7, 8, 16, 31] {
        let what = format!("START with argsz {argsz}");
        is_refused(&what, ask(device, argsz, SET | START, control))?;
    }
    for argsz in [0, 7] {
        let what = format!("STOP with argsz {argsz}");
        is_refused(&what, ask(device, argsz, SET | STOP, ()))?;
    }
    for argsz in [0, 7, 8, 32, 39] {
        let what = format!("REPORT with argsz {argsz}");
        is_refused(&what, ask(device, argsz, GET | REPORT, report))?;
    }
    is_not_logging(&mut tracked)
}
