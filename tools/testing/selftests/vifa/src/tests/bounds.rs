// SPDX-License-Identifier: GPL-2.0

//! Limits of a call's duration on a device that hangs, floods or is slow, counted in commands with
//! a stated timeout (`Documentation/vifa/driver.rst`). Also the data that a call must not modify.

mod hang;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use vifa_device::{
    opcode::{ANY, LOCAL_BITMAP, LOCAL_READ, LOCAL_WRITE, SET_RUN_STATE},
    Armed, Fault, RegisterFile,
};
use vifa_vfio::{wait_for, Mapping};

use super::{claims, fixture::Guest, pre_copy::local_memory::Source, Test};
use crate::{
    bed::Bed,
    engine::Vf,
    expect, hw,
    kmsg::KernelLog,
    migration::State,
    process::{alongside, Victim},
    sys,
    vfio::AddressSpace,
};

const PAGE: u64 = 4096;
/// Maximum time for a process to begin its work.
const SET_UP: Duration = Duration::from_secs(20);

pub fn tests() -> Vec<Test> {
    let mut tests = claims!("bounds":
        flooding_device_gets_no_more_time,
        busy_status_of_another_command_is_an_error,
        poll_issues_no_command,
        killed_reader_issues_no_more_commands,
        killed_writer_issues_no_more_commands,
        nonblocking_read_does_not_wait_for_another,
        read_leaves_the_rest_of_the_buffer,
        failures_are_logged_at_a_limited_rate,
    );
    tests.extend(hang::tests());
    tests
}

fn flooding_device_gets_no_more_time(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    let registers = RegisterFile::map(&bed.pf)?;
    let armed = registers.arm(0, SET_RUN_STATE, Fault::Flood, 1)?;
    let start = Instant::now();
    let result = guest.vf.device.request_state(State::RunningP2p as u32);
    let elapsed = start.elapsed();
    expect::equal("times that the fault happened", armed.fired(), 1)?;
    expect::refused("RUNNING_P2P", result, &[libc::ETIMEDOUT])?;
    let limit = 8 * registers.timeout;
    expect::claim(
        &format!("the error within {limit:?}, not after {elapsed:?}"),
        elapsed < limit,
    )?;
    guest.recover()
}

fn busy_status_of_another_command_is_an_error(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    let registers = RegisterFile::map(&bed.pf)?;
    let armed = registers.arm(0, LOCAL_BITMAP, Fault::BusyWithTag(0x8001), 1)?;
    let result = guest.vf.device.data_size();
    expect::equal("times that the fault happened", armed.fired(), 1)?;
    expect::refused("MIG_DATA_SIZE", result, &[libc::EIO])?;
    guest.work(1)
}

fn poll_issues_no_command(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1])?;
    let registers = RegisterFile::map(&bed.pf)?;
    source.read_on()?;
    source.write([1], 5)?;
    let armed = registers.count(0, ANY)?;
    expect::equal("poll at the pause", source.session.poll()?, 0)?;
    expect::equal("commands of poll", armed.fired(), 0)?;
    source.session.precopy_info(0)?;
    expect::claim("the information to be asked for", armed.fired() > 0)?;
    let shown = source.session.poll()?;
    expect::equal("poll after a request", shown, libc::POLLIN)
}

/// Granules that do not adjoin, so that each needs its own command.
fn scattered() -> impl Iterator<Item = u64> {
    (0..40).map(|number| 2 * number)
}

/// Delay of a command whose caller is killed.
const LATE: Fault = Fault::Delay(Duration::from_millis(100));

/// Waits until two of the commands were issued.
fn wait_for_two(armed: &Armed<'_>) -> Result<()> {
    wait_for(Duration::from_secs(10), || {
        anyhow::Ok((armed.fired() >= 2).then_some(()))
    })?
    .with_context(|| format!("expected two commands, got {}", armed.fired()))
}

/// Checks that the process of `victim`, which has issued two slow commands, issues few more after
/// it is killed.
fn stops_when_killed(victim: Victim, armed: &Armed<'_>) -> Result<()> {
    victim.kill()?;
    let given = armed.fired();
    expect::claim(
        &format!("less than 20 commands rather than {given}"),
        given < 20,
    )
}

fn killed_reader_issues_no_more_commands(bed: &Bed) -> Result<()> {
    let registers = RegisterFile::map(&bed.pf)?;
    let armed = registers.arm(0, LOCAL_READ, LATE, hw::VIFA_FAULT_ALWAYS)?;
    let victim = Victim::holding(SET_UP, || {
        let source = Source::begin(bed, State::PreCopy, scattered())?;
        let file = source.session.file().try_clone()?;
        thread::spawn(move || {
            let memory = Mapping::anonymous(4 << 20)?;
            memory.fill_from(&file)
        });
        wait_for_two(&armed)?;
        Ok(source)
    })?;
    stops_when_killed(victim, &armed)?;
    drop(armed);
    Guest::new(bed, 0)?.work(1)
}

fn killed_writer_issues_no_more_commands(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, scattered())?;
    source.stop()?;
    let stream = source.stream.clone();
    drop(source);
    let registers = RegisterFile::map(&bed.pf)?;
    let armed = registers.arm(1, LOCAL_WRITE, LATE, hw::VIFA_FAULT_ALWAYS)?;
    let victim = Victim::holding(SET_UP, || {
        let vf = Vf::open(&bed.vf(1)?, &AddressSpace::iommufd()?)?;
        let session = vf.device.start(State::Resuming)?;
        let file = session.file().try_clone()?;
        thread::spawn(move || {
            let memory = Mapping::anonymous(stream.len())?;
            memory.copy_in(0, &stream);
            memory.drain_to(&file)
        });
        wait_for_two(&armed)?;
        Ok((vf, session))
    })?;
    stops_when_killed(victim, &armed)?;
    drop(armed);
    Guest::new(bed, 1)?.work(1)
}

fn nonblocking_read_does_not_wait_for_another(bed: &Bed) -> Result<()> {
    let source = Source::begin(bed, State::PreCopy, scattered())?;
    let registers = RegisterFile::map(&bed.pf)?;
    let armed = registers.arm(0, LOCAL_READ, LATE, hw::VIFA_FAULT_ALWAYS)?;
    let file = source.session.file().try_clone()?;
    let reading = move || {
        let memory = Mapping::anonymous(4 << 20)?;
        Ok(memory.fill_from(&file)?)
    };
    let got = alongside(SET_UP, reading, || {
        wait_for_two(&armed)?;
        sys::set_nonblocking(&source.session)?;
        expect::refused("read", source.session.read(1), &[libc::EAGAIN])
    })?;
    expect::claim("the other read to continue", got as u64 > 40 * PAGE)?;
    expect::refused("read at the pause", source.session.read(1), &[libc::ENOMSG])
}

fn read_leaves_the_rest_of_the_buffer(bed: &Bed) -> Result<()> {
    const LENGTH: usize = 64 << 10;
    const MARK: u8 = 0xa5;
    let source = Source::begin(bed, State::PreCopy, [1])?;
    let check = |what: &str, expected: Option<i32>| -> Result<()> {
        let memory = Mapping::anonymous(LENGTH)?;
        memory.copy_in(0, &[MARK; LENGTH]);
        let result = memory.fill_from(&source.session);
        let got = match expected {
            Some(error) => {
                expect::refused(what, result, &[error])?;
                0
            }
            None => result.context(what.to_owned())?,
        };
        expect::claim("a short read", got < LENGTH)?;
        let rest = memory.copy_out(got, LENGTH - got);
        expect::same_bytes(what, &rest, &vec![MARK; LENGTH - got])
    };
    check("rest after a short read", None)?;
    check("buffer after ENOMSG", Some(libc::ENOMSG))?;
    source.guest.vf.device.change_state(State::StopCopy)?;
    while !source.session.read(1 << 20)?.is_empty() {}
    check("buffer after the end", None)?;
    source.guest.vf.device.change_state(State::Stop)?;
    check("buffer after ENODEV", Some(libc::ENODEV))
}

fn failures_are_logged_at_a_limited_rate(bed: &Bed) -> Result<()> {
    const TIMES: usize = 200;
    let registers = RegisterFile::map(&bed.pf)?;
    for fault in [
        Fault::Status(hw::VIFA_STATUS_DEVICE_FAILURE),
        Fault::Result(u64::MAX / 2),
    ] {
        // What was logged before counts no more.
        bed.rebind(0)?;
        let mut guest = Guest::new(bed, 0)?;
        let mut log = KernelLog::from_now()?;
        let armed = registers.arm(0, LOCAL_BITMAP, fault, hw::VIFA_FAULT_ALWAYS)?;
        for _ in 0..TIMES {
            expect::refused("MIG_DATA_SIZE", guest.vf.device.data_size(), &[libc::EIO])?;
        }
        expect::equal("times that it failed", armed.fired(), TIMES as u32)?;
        drop(armed);
        let logged = log.count(&["LOCAL_BITMAP"])?;
        expect::claim(
            &format!("1 to {} messages of {fault:?}, not {logged}", TIMES / 2),
            (1..TIMES / 2).contains(&logged),
        )?;
        guest.work(1)?;
    }
    Ok(())
}
