// SPDX-License-Identifier: GPL-2.0

//! The lifetime of a log: through all states of a migration, until a stop, a reset or the end of
//! use; and its report in the migration region.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{bail, Context, Result};
use vifa_device::{
    opcode::{LOG_READ_AND_CLEAR, LOG_START, LOG_STOP},
    Fault, Marks, RegisterFile,
};

use super::tracked::{Tracked, AREA, MIB, PAGE, RANGES, TIB};
use crate::{
    bed::{Bed, VF_DRIVER},
    engine::{Command, COMPLETION_TIMEOUT},
    expect,
    hw::{self, vifa_region},
    migration::State,
    process::Victim,
    region,
    tests::{
        claims,
        close::{available_memory, costs_no_memory},
        fixture::Guest,
        Test,
    },
    vfio::IovaRange,
};

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    type Way = fn(&Bed, &Guest) -> Result<()>;
    let ways: [(&str, Way); 3] = [
        ("reset", |_, guest| guest.vf.reset()),
        ("reset_by_the_guest", |_, guest| {
            guest.vf.function_level_reset()
        }),
        ("reset_by_the_administrator", |bed, _| {
            Ok(bed.vf(0)?.reset()?)
        }),
    ];
    for (name, way) in ways {
        tests.push(Test::new(
            format!("logging.{name}_ends_the_log"),
            move |bed| reset_ends_the_log(bed, way),
        ));
    }
    tests.extend(claims!("logging":
        continues_through_the_states_of_a_migration,
        continues_after_a_cancelled_migration,
        continues_while_a_state_is_loaded,
        stop_and_start_clear_the_log,
        close_ends_the_log,
        death_of_the_process_ends_the_log,
        killed_process_does_not_finish_a_long_report,
        unbinding_the_driver_ends_the_log,
        two_vfs_log_independently,
        region_shows_the_log,
        many_logs_leak_no_memory,
        many_logs_that_end_with_a_reset_leak_no_memory,
        log_of_a_tebibyte_uses_less_than_a_mebibyte,
    ));
    tests
}

/// Checks that a write is reported, and reported only once.
fn is_exact(tracked: &mut Tracked) -> Result<()> {
    for range in RANGES {
        tracked.touch(range.iova)?;
        tracked.touch(range.end() - PAGE)?;
    }
    tracked.reports_all()?;
    tracked.reports_all()
}

/// Checks that logging is off and can be started.
fn has_no_log(tracked: &mut Tracked) -> Result<()> {
    let device = &tracked.guest.vf.device;
    let report = device.dirty_pages(RANGES[0], PAGE);
    expect::refused("REPORT", report.map(drop), &[libc::EINVAL])?;
    expect::equal("page size in the region", log(&region::read(device)?)[0], 0)?;
    tracked.stop()?;
    tracked.start(&RANGES, PAGE)?;
    tracked.reports_all().context("of a new log")?;
    is_exact(tracked)
}

fn continues_through_the_states_of_a_migration(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::new(bed, 0)?;
    tracked.guest.furnish(1)?;
    let mut page = AREA.iova;
    let mut sessions = Vec::new();
    for state in [
        State::PreCopy,
        State::PreCopyP2p,
        State::StopCopy,
        State::Stop,
        State::Running,
    ] {
        let runs = tracked.guest.vf.device.state()?;
        if matches!(runs, State::Running | State::PreCopy) {
            // Written in one state, reported in the next.
            for range in RANGES {
                page += PAGE;
                tracked.touch(range.iova + page % MIB)?;
            }
        }
        sessions.extend(tracked.guest.vf.device.enter(state)?);
        tracked.reports_all().context(state.name())?;
        tracked.reports_all().context(state.name())?;
    }
    is_exact(&mut tracked)
}

/// A write that a quiesced device defers is logged when it is executed.
fn continues_after_a_cancelled_migration(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::new(bed, 0)?;
    let destination = RANGES[1].iova + 5 * PAGE;
    for state in [State::PreCopyP2p, State::RunningP2p] {
        let _session = tracked.guest.vf.device.enter(state)?;
        let fill = Command::Fill {
            destination,
            length: 8,
            pattern: 1,
        };
        tracked.guest.engine.submit(&tracked.guest.vf, fill)?;
        thread::sleep(Duration::from_millis(20));
        tracked.reports_all().context(state.name())?;
        tracked.guest.vf.device.change_state(State::Running)?;
        let Guest { engine, vf, .. } = &mut tracked.guest;
        engine.wait(vf, COMPLETION_TIMEOUT)?;
        tracked.wrote(IovaRange::new(destination, 8))?;
        tracked.reports_all().context("after the cancel")?;
    }
    Ok(())
}

fn continues_while_a_state_is_loaded(bed: &Bed) -> Result<()> {
    let (_, stream) = Guest::saved(bed, 1)?;
    let mut tracked = Tracked::new(bed, 0)?;
    tracked.touch(RANGES[0].iova)?;
    tracked.guest.vf.device.load(&stream)?;
    tracked.reports_all().context("in STOP")?;
    tracked.guest.vf.device.change_state(State::Running)?;
    tracked.guest.engine.enable(&tracked.guest.vf)?;
    is_exact(&mut tracked)
}

fn stop_and_start_clear_the_log(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::new(bed, 0)?;
    for hint in [PAGE, 2 * MIB, PAGE] {
        tracked.touch(RANGES[0].iova)?;
        tracked.stop()?;
        tracked.touch(RANGES[1].iova)?;
        tracked.start(&RANGES, hint)?;
        tracked.reports_all()?;
    }
    is_exact(&mut tracked)
}

fn reset_ends_the_log(bed: &Bed, way: fn(&Bed, &Guest) -> Result<()>) -> Result<()> {
    let mut tracked = Tracked::new(bed, 0)?;
    tracked.touch(RANGES[0].iova)?;
    way(bed, &tracked.guest).context("reset")?;
    tracked.guest.works_after_a_reset()?;
    has_no_log(&mut tracked)
}

/// Checks that the device stops logging at `end`, which ends the use of a logging device, and logs
/// again for the next user.
fn ends_the_log(bed: &Bed, end: impl FnOnce() -> Result<()>) -> Result<()> {
    let registers = RegisterFile::map(&bed.pf)?;
    let stops = registers.count(0, LOG_STOP)?;
    end()?;
    expect::equal("LOG_STOP commands", stops.fired(), 1)?;
    let starts = registers.count(0, LOG_START)?;
    let mut tracked = Tracked::idle(bed, 0)?;
    has_no_log(&mut tracked)?;
    // A device that still logs would have rejected the first one.
    expect::equal("LOG_START commands", starts.fired(), 1)
}

fn close_ends_the_log(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::new(bed, 0)?;
    tracked.touch(RANGES[0].iova)?;
    ends_the_log(bed, || {
        drop(tracked);
        Ok(())
    })
}

fn death_of_the_process_ends_the_log(bed: &Bed) -> Result<()> {
    let victim = Victim::holding(Duration::from_secs(10), || {
        let mut tracked = Tracked::new(bed, 0)?;
        tracked.touch(RANGES[0].iova)?;
        Ok(tracked)
    })?;
    ends_the_log(bed, || victim.kill())
}

fn killed_process_does_not_finish_a_long_report(bed: &Bed) -> Result<()> {
    /// Duration of each window of the log.
    const LATE: Duration = Duration::from_millis(200);
    let registers = RegisterFile::map(&bed.pf)?;
    let range = IovaRange::new(0, TIB);
    let late = registers.arm(
        0,
        LOG_READ_AND_CLEAR,
        Fault::Delay(LATE),
        hw::VIFA_FAULT_ALWAYS,
    )?;
    let victim = Victim::holding(Duration::from_secs(10), || {
        let mut tracked = Tracked::idle(bed, 0)?;
        tracked.start(&[range], PAGE)?;
        registers.mark(0, Marks::all_of(range))?;
        let report = thread::spawn(move || {
            // Ends with the process.
            let _ = tracked.guest.vf.device.dirty_pages(range, PAGE);
        });
        let deadline = Instant::now() + Duration::from_secs(5);
        while late.fired() == 0 {
            if report.is_finished() || Instant::now() > deadline {
                bail!("expected a report in progress, got none");
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(report)
    })?;
    // The whole report reads 70. One is being read, and one may follow.
    let mut more = 0;
    ends_the_log(bed, || {
        let before = late.fired();
        victim.kill()?;
        more = late.fired() - before;
        Ok(())
    })?;
    expect::claim(
        &format!("at most 2 windows read after the kill, not {more}"),
        more <= 2,
    )
}

fn unbinding_the_driver_ends_the_log(bed: &Bed) -> Result<()> {
    let function = bed.vf(0)?;
    let tracked = Tracked::new(bed, 0)?;
    ends_the_log(bed, || {
        drop(tracked);
        function.unbind()?;
        function.bind(VF_DRIVER).context("bind")
    })
}

fn two_vfs_log_independently(bed: &Bed) -> Result<()> {
    let mut first = Tracked::new(bed, 0)?;
    let mut second = Tracked::new(bed, 1)?;
    first.touch(RANGES[0].iova)?;
    second.reports_all().context("VF 1 after a write of VF 0")?;
    second.touch(RANGES[1].iova)?;
    first.reports_all().context("VF 0 after writes of both")?;
    first.touch(RANGES[2].iova)?;
    first.stop()?;
    second.reports_all().context("VF 1 after a stop of VF 0")?;
    second.touch(RANGES[2].iova)?;
    first.guest.vf.reset()?;
    second.reports_all().context("VF 1 after a reset of VF 0")?;
    is_exact(&mut second)
}

/// Checks the log in `region`: page size, ranges and bytes now; reports, bytes reported dirty and
/// reports without a valid log since the driver was bound.
fn log(region: &vifa_region) -> [u64; 6] {
    [
        region.log_page_size,
        region.log_ranges,
        region.log_bytes,
        region.log_reports,
        region.log_dirty_bytes,
        region.log_lost,
    ]
}

fn region_shows_the_log(bed: &Bed) -> Result<()> {
    let function = bed.vf(0)?;
    function.unbind()?;
    function.bind(VF_DRIVER)?;
    let mut tracked = Tracked::idle(bed, 0)?;
    let mut generation = 0;
    let mut shows = |tracked: &Tracked, what: &str, expected: [u64; 6]| -> Result<()> {
        let region = region::read(&tracked.guest.vf.device)?;
        expect::equal(&format!("log in the region {what}"), log(&region), expected)?;
        expect::claim(
            &format!("a generation {what} greater than the previous one"),
            region.generation > generation,
        )?;
        generation = region.generation;
        Ok(())
    };
    shows(&tracked, "at first", [0; 6])?;
    // Two of the ranges adjoin.
    let bytes = RANGES.iter().map(|range| range.length).sum();
    tracked.start(&RANGES, PAGE)?;
    shows(&tracked, "after a start", [PAGE, 2, bytes, 0, 0, 0])?;
    tracked.reports(RANGES[0], PAGE)?;
    shows(&tracked, "after an empty report", [PAGE, 2, bytes, 1, 0, 0])?;
    tracked.write(&[IovaRange::new(RANGES[0].iova, 3 * PAGE)])?;
    tracked.reports(RANGES[0], PAGE)?;
    shows(&tracked, "after a report", [PAGE, 2, bytes, 2, 3 * PAGE, 0])?;
    tracked.stop()?;
    shows(&tracked, "after a stop", [0, 0, 0, 2, 3 * PAGE, 0])?;
    tracked.start(&RANGES[2..], 64 << 10)?;
    let length = RANGES[2].length;
    shows(
        &tracked,
        "after another start",
        [64 << 10, 1, length, 2, 3 * PAGE, 0],
    )?;
    tracked.guest.vf.reset()?;
    shows(&tracked, "after a reset", [0, 0, 0, 2, 3 * PAGE, 0])?;
    drop(tracked);
    let expected = [0, 0, 0, 2, 3 * PAGE, 0];
    expect::equal(
        "log after a close",
        log(&region::of_function(&function)?),
        expected,
    )
}

fn many_logs_leak_no_memory(bed: &Bed) -> Result<()> {
    let tracked = Tracked::idle(bed, 0)?;
    let device = &tracked.guest.vf.device;
    // Buffers of half a mebibyte each.
    costs_no_memory(24, || {
        for _ in 0..4 {
            device.start_logging(&RANGES, PAGE)?;
            device.dirty_pages(AREA, PAGE)?;
            device.stop_logging()?;
        }
        Ok(())
    })
}

fn many_logs_that_end_with_a_reset_leak_no_memory(bed: &Bed) -> Result<()> {
    let tracked = Tracked::idle(bed, 0)?;
    let device = &tracked.guest.vf.device;
    costs_no_memory(12, || {
        for _ in 0..3 {
            device.start_logging(&RANGES, PAGE)?;
            device.dirty_pages(AREA, PAGE)?;
            device.reset()?;
        }
        Ok(())
    })
}

fn log_of_a_tebibyte_uses_less_than_a_mebibyte(bed: &Bed) -> Result<()> {
    const ROUNDS: u64 = 4;
    let mut tracked = Tracked::idle(bed, 0)?;
    // Other activity is less likely to repeat in each round.
    let mut least = u64::MAX;
    for _ in 0..ROUNDS {
        let before = available_memory()?;
        tracked.start(&[IovaRange::new(0, TIB)], PAGE)?;
        least = least.min(before.saturating_sub(available_memory()?));
        tracked.stop()?;
    }
    expect::claim(
        &format!("less than 1 MiB of memory for a log, not {least} bytes"),
        least < MIB,
    )
}
