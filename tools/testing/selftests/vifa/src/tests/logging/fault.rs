// SPDX-License-Identifier: GPL-2.0

//! A device that fails, hangs, lies or has lost its log: everything requested is then reported
//! dirty, counted, and logged once. A log that failed to start or stop can be started again.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use vifa_device::{
    opcode::{LOG_READ_AND_CLEAR, LOG_START, LOG_STOP, LOG_SUMMARY},
    Armed, Fault, Marks, Opcode, RegisterFile,
};

use super::tracked::{Tracked, AREA, GIB, MIB, PAGE};
use crate::{
    bed::Bed,
    expect,
    hw::{self, vifa_region},
    kmsg::KernelLog,
    region,
    tests::{claims, Test},
    vfio::IovaRange,
};

/// More than one summary bit, so that reports begin with LOG_SUMMARY.
const LARGE: IovaRange = IovaRange::new(AREA.iova, 512 * MIB);

/// Longer than any timeout of the device in a test, with a margin for a slow machine.
const SLACK: Duration = Duration::from_secs(3);

const FAILURES: [Fault; 3] = [
    Fault::Status(hw::VIFA_STATUS_DEVICE_FAILURE),
    Fault::Status(hw::VIFA_STATUS_DMA_FAULT),
    Fault::Status(0x4242),
];
/// Page counts that do not match the request.
const LIES: [Fault; 3] = [
    Fault::ShortResult(1),
    Fault::Result(0),
    Fault::Result(u64::MAX),
];
/// Invalid page sizes, or larger than requested.
const PAGE_SIZES: [Fault; 6] = [
    Fault::Result(0),
    Fault::Result(2048),
    Fault::Result(12 << 10),
    Fault::Result(128 << 10),
    Fault::Result((1 << 32) + PAGE),
    Fault::Result(u64::MAX),
];
/// More bytes than the buffer has.
const WITHHELD: [Fault; 1] = [Fault::ShortData(1 << 20)];
const TAG: [Fault; 1] = [Fault::Tag(0x8001)];
const HANG: [Fault; 1] = [Fault::Hang];
const HANG_ABORT: [Fault; 1] = [Fault::HangAbort];
const LOST: [Fault; 1] = [Fault::LogLost];

pub fn tests() -> Vec<Test> {
    type Body = fn(&Bed, Opcode, Fault) -> Result<()>;
    let mut tests = Vec::new();
    let mut add = |opcode: Opcode, what: &str, faults: &'static [Fault], body: Body| {
        tests.push(Test::new(
            format!("logging.{}_{what}", opcode.name),
            move |bed| {
                faults.iter().try_for_each(|fault| {
                    body(bed, opcode, *fault).with_context(|| format!("{fault:?}"))
                })
            },
        ));
    };
    for opcode in [LOG_SUMMARY, LOG_READ_AND_CLEAR] {
        add(opcode, "fails", &FAILURES, is_reported_dirty);
        add(opcode, "lies_about_its_pages", &LIES, is_reported_dirty);
        add(opcode, "has_another_tag", &TAG, is_reported_dirty);
        add(opcode, "hangs", &HANG, is_reported_dirty);
        add(
            opcode,
            "withholds_its_bitmap",
            &WITHHELD,
            withholds_its_bitmap,
        );
        add(opcode, "tells_of_a_lost_log", &LOST, is_reported_dirty);
    }
    add(
        LOG_READ_AND_CLEAR,
        "hangs_and_its_abort_too",
        &HANG_ABORT,
        is_reported_dirty,
    );
    add(LOG_START, "fails", &FAILURES, does_not_start);
    add(
        LOG_START,
        "lies_about_its_page_size",
        &PAGE_SIZES,
        does_not_start,
    );
    add(LOG_START, "has_another_tag", &TAG, does_not_start);
    add(LOG_START, "hangs", &HANG, does_not_start);
    add(
        LOG_START,
        "hangs_and_its_abort_too",
        &HANG_ABORT,
        does_not_start,
    );
    add(LOG_STOP, "fails", &FAILURES, does_not_stop);
    add(LOG_STOP, "hangs", &HANG, does_not_stop);
    add(
        LOG_STOP,
        "hangs_and_its_abort_too",
        &HANG_ABORT,
        does_not_stop,
    );
    tests.extend(claims!("logging":
        device_that_refuses_the_ranges_names_them,
        partly_failed_report_is_all_dirty,
        stop_that_fails_at_close_does_not_bind_the_next_user,
    ));
    tests
}

/// The expected reports about the log besides the pages.
struct Counts {
    log: KernelLog,
    vf: String,
    before: vifa_region,
    lost: u64,
    logged: usize,
}

impl Counts {
    fn from_now(bed: &Bed, tracked: &Tracked) -> Result<Self> {
        Ok(Self {
            log: KernelLog::from_now()?,
            vf: bed.vf(0)?.to_string(),
            before: region::read(&tracked.guest.vf.device)?,
            lost: 0,
            logged: 0,
        })
    }

    /// Begins counting.
    fn rebase(&mut self, tracked: &Tracked) -> Result<()> {
        self.before = region::read(&tracked.guest.vf.device)?;
        self.lost = 0;
        Ok(())
    }

    /// Checks that a report on [`LARGE`] is all dirty and counted, and logged if it is the first of
    /// its log.
    fn all_is_dirty(&mut self, tracked: &Tracked, word: &str, first: bool) -> Result<()> {
        let device = &tracked.guest.vf.device;
        let reported = device.dirty_pages(LARGE, PAGE).context("REPORT")?;
        expect::equal("pages reported", reported.count(), LARGE.length / PAGE)?;
        self.lost += 1;
        let now = region::read(device)?;
        expect::equal(
            "reports, bytes reported dirty, and reports without a valid log",
            [
                now.log_reports - self.before.log_reports,
                now.log_dirty_bytes - self.before.log_dirty_bytes,
                now.log_lost - self.before.log_lost,
            ],
            [self.lost, self.lost * LARGE.length, self.lost],
        )?;
        let text = region::error_text(&now)?;
        expect::claim(
            &format!("an error in the region with {word:?}, not {text:?}"),
            text.contains(word) && now.error != 0,
        )?;
        if first {
            self.logged += 1;
            self.log.expect(&[&self.vf, word])?;
        }
        expect::equal(
            "messages that everything is dirty",
            self.log.count(&[&self.vf, "dirty"])?,
            self.logged,
        )
    }
}

/// The device detects no loss: nothing is lost, and nothing is reported repeatedly.
fn is_reported_dirty(bed: &Bed, opcode: Opcode, fault: Fault) -> Result<()> {
    bed.rebind(0)?;
    let registers = RegisterFile::map(&bed.pf)?;
    let mut tracked = Tracked::idle(bed, 0)?;
    let mut counts = Counts::from_now(bed, &tracked)?;
    let word = match fault {
        Fault::LogLost => "lost",
        _ => opcode.name,
    };
    tracked.start(&[LARGE], PAGE)?;
    let armed = registers.arm(0, opcode, fault, 2)?;
    // Each hang costs a timeout of one second.
    let hangs = matches!(fault, Fault::Hang | Fault::HangAbort);
    let times: &[bool] = if hangs { &[true] } else { &[true, false] };
    for first in times {
        // A clean log is not read.
        tracked.touch(LARGE.iova)?;
        let start = Instant::now();
        counts.all_is_dirty(&tracked, word, *first)?;
        let (took, limit) = (start.elapsed(), 2 * registers.timeout + SLACK);
        expect::claim(
            &format!("the report within {limit:?}, not after {took:?}"),
            took < limit,
        )?;
    }
    expect::claim("the fault to have happened", armed.fired() > 0)?;
    drop(armed);
    match fault {
        Fault::HangAbort => {
            counts.all_is_dirty(&tracked, word, false)?;
            return recovers(&mut tracked);
        }
        Fault::LogLost => {
            counts.all_is_dirty(&tracked, word, false)?;
            tracked.stop()?;
            tracked.start(&[LARGE], PAGE)?;
        }
        _ => goes_on(&mut tracked)?,
    }
    is_exact(&mut tracked)?;
    if hangs {
        return Ok(());
    }

    // The message appears once per log.
    tracked.stop()?;
    tracked.start(&[LARGE], PAGE)?;
    tracked.touch(LARGE.iova)?;
    let _armed = registers.arm(0, opcode, fault, 1)?;
    counts.rebase(&tracked)?;
    counts
        .all_is_dirty(&tracked, word, true)
        .context("of a second log")
}

/// Checks that the first report after the fault contains all writes since then and no unwritten
/// pages.
fn goes_on(tracked: &mut Tracked) -> Result<()> {
    tracked.touch(LARGE.iova + 3 * PAGE)?;
    let reported = tracked.guest.vf.device.dirty_pages(LARGE, PAGE)?;
    let reported: BTreeSet<_> = reported.dirty().collect();
    let written = tracked.expected(LARGE, PAGE)?;
    expect::claim(
        "writes after the fault to be reported",
        reported.contains(&(LARGE.iova + 3 * PAGE)),
    )?;
    expect::claim(
        "only written pages to be reported",
        reported.is_subset(&written),
    )
}

fn is_exact(tracked: &mut Tracked) -> Result<()> {
    tracked.reports(LARGE, PAGE)?;
    tracked.touch(LARGE.iova + 5 * PAGE)?;
    tracked.reports(LARGE, PAGE)?;
    tracked.reports(LARGE, PAGE)
}

/// Checks that the device logs correctly after a reset.
fn recovers(tracked: &mut Tracked) -> Result<()> {
    tracked.guest.recover()?;
    tracked.start(&[LARGE], PAGE)?;
    is_exact(tracked)
}

/// Returns the allowed errors of a command that meets `fault`.
fn errors(fault: Fault) -> &'static [i32] {
    match fault {
        Fault::Hang | Fault::HangAbort => &[libc::ETIMEDOUT],
        Fault::Tag(_) => &[libc::EIO, libc::ETIMEDOUT],
        _ => &[libc::EIO],
    }
}

/// Checks that logging is off and that the region names the reason.
fn is_off(tracked: &Tracked, word: &str) -> Result<()> {
    let device = &tracked.guest.vf.device;
    let region = region::read(device)?;
    expect::equal("page size in the region", region.log_page_size, 0)?;
    let text = region::error_text(&region)?;
    expect::claim(
        &format!("an error in the region with {word:?}, not {text:?}"),
        text.contains(word),
    )?;
    let report = device.dirty_pages(LARGE, PAGE).map(drop);
    expect::refused("REPORT", report, &[libc::EINVAL])
}

fn does_not_start(bed: &Bed, opcode: Opcode, fault: Fault) -> Result<()> {
    let registers = RegisterFile::map(&bed.pf)?;
    let mut tracked = Tracked::idle(bed, 0)?;
    let stops = registers.count(0, LOG_STOP)?;
    let armed = registers.arm(0, opcode, fault, 1)?;
    let result = tracked.guest.vf.device.start_logging(&[LARGE], 64 << 10);
    expect::refused("START", result, errors(fault))?;
    expect::equal("times that the fault happened", armed.fired(), 1)?;
    drop(armed);
    if matches!(fault, Fault::Result(_)) {
        expect::equal("LOG_STOP of the started log", stops.fired(), 1)?;
    }
    is_off(&tracked, opcode.name)?;
    if fault == Fault::HangAbort {
        return recovers(&mut tracked);
    }
    tracked.start(&[LARGE], PAGE).context("after the fault")?;
    is_exact(&mut tracked)
}

fn does_not_stop(bed: &Bed, opcode: Opcode, fault: Fault) -> Result<()> {
    let registers = RegisterFile::map(&bed.pf)?;
    let mut tracked = Tracked::idle(bed, 0)?;
    tracked.start(&[LARGE], PAGE)?;
    tracked.touch(LARGE.iova)?;
    let armed = registers.arm(0, opcode, fault, 1)?;
    let result = tracked.guest.vf.device.stop_logging();
    expect::refused("STOP", result, errors(fault))?;
    expect::equal("times that the fault happened", armed.fired(), 1)?;
    drop(armed);
    is_off(&tracked, opcode.name)?;
    if fault == Fault::HangAbort {
        return recovers(&mut tracked);
    }
    // Pages that the device still logs do not affect the next log.
    tracked.start(&[LARGE], PAGE).context("after the fault")?;
    is_exact(&mut tracked)
}

fn device_that_refuses_the_ranges_names_them(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::idle(bed, 0)?;
    // More pages than any current device can log.
    let range = IovaRange::new(0, 1 << 62);
    let result = tracked.guest.vf.device.start_logging(&[range], PAGE);
    expect::refused("START", result, &[libc::EINVAL])?;
    is_off(&tracked, LOG_START.name)?;
    tracked.start(&[LARGE], PAGE)?;
    is_exact(&mut tracked)
}

/// Exempts the next `times` commands `opcode` from faults armed after this.
fn spare(registers: &RegisterFile, opcode: Opcode, times: u32) -> Result<Armed<'_>> {
    registers.arm(0, opcode, Fault::Delay(Duration::ZERO), times)
}

fn partly_failed_report_is_all_dirty(bed: &Bed) -> Result<()> {
    /// Several windows of the log, independent of their size.
    const HUGE: IovaRange = IovaRange::new(0, 256 * GIB);
    let registers = RegisterFile::map(&bed.pf)?;
    let tracked = Tracked::idle(bed, 0)?;
    let device = &tracked.guest.vf.device;
    device.start_logging(&[HUGE], PAGE)?;
    for before in [1, 3] {
        registers.mark(0, Marks::all_of(IovaRange::new(0, 200 * GIB)))?;
        let spared = spare(&registers, LOG_READ_AND_CLEAR, before)?;
        let failure = Fault::Status(hw::VIFA_STATUS_DEVICE_FAILURE);
        let armed = registers.arm(0, LOG_READ_AND_CLEAR, failure, 1)?;
        let reported = device.dirty_pages(HUGE, PAGE)?;
        expect::equal(
            "commands that succeeded, and that failed",
            [spared.fired(), armed.fired()],
            [before, 1],
        )?;
        expect::equal("pages reported", reported.count(), HUGE.length / PAGE)?;
        drop((spared, armed));
        // The log still has the pages that the failed report did not read.
        device.dirty_pages(HUGE, MIB)?;
        let reported = device.dirty_pages(HUGE, MIB)?;
        expect::equal("pages reported in the end", reported.count(), 0)?;
    }
    Ok(())
}

/// Pages that the device fails to report are dirty: it claims to have reported them.
fn withholds_its_bitmap(bed: &Bed, opcode: Opcode, fault: Fault) -> Result<()> {
    let registers = RegisterFile::map(&bed.pf)?;
    let mut tracked = Tracked::idle(bed, 0)?;
    tracked.start(&[LARGE], PAGE)?;
    // Previous contents of the buffers do not matter.
    for _ in 0..2 {
        tracked.reports(LARGE, PAGE)?;
        tracked.touch(LARGE.iova)?;
        let armed = registers.arm(0, opcode, fault, 1)?;
        let reported = tracked.guest.vf.device.dirty_pages(LARGE, PAGE)?;
        expect::equal("times that the fault happened", armed.fired(), 1)?;
        expect::claim(
            "the page to be reported whose bit was withheld",
            reported.dirty().next() == Some(LARGE.iova),
        )?;
        drop(armed);
        // The device has dropped the pages that it claims to have reported; they may be reported
        // once more.
        tracked.guest.vf.device.dirty_pages(LARGE, PAGE)?;
        tracked.expected(LARGE, PAGE)?;
    }
    is_exact(&mut tracked)
}

fn stop_that_fails_at_close_does_not_bind_the_next_user(bed: &Bed) -> Result<()> {
    let registers = RegisterFile::map(&bed.pf)?;
    for fault in [Fault::Status(hw::VIFA_STATUS_DEVICE_FAILURE), Fault::Hang] {
        let tracked = Tracked::new(bed, 0)?;
        let armed = registers.arm(0, LOG_STOP, fault, 1)?;
        drop(tracked);
        expect::equal("times that the fault happened", armed.fired(), 1)?;
        drop(armed);
        let mut tracked = Tracked::idle(bed, 0)?;
        tracked.start(&[LARGE], PAGE)?;
        is_exact(&mut tracked).context("of the next user")?;
    }
    Ok(())
}
