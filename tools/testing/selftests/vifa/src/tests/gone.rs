// SPDX-License-Identifier: GPL-2.0

//! A device that is gone, like one pulled out: its registers read as all ones, but configuration
//! space is still present. Calls must fail with ENODEV without waiting for it.

use std::{
    fmt::Debug,
    io,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use vifa_device::{opcode::LOCAL_READ, Fault, RegisterFile};

use super::{
    claims,
    close::{guest_in, has_ended},
    fixture::{both_work, Guest},
    physical::{is_in_error, works_again},
    pre_copy::local_memory::Source,
    Test,
};
use crate::{
    bed::{Bed, VF_DRIVER},
    expect,
    kmsg::KernelLog,
    migration::{Session, State},
    vfio::IovaRange,
};

const PAGE: u64 = 4096;
/// Number of consecutive calls, each of which would wait for a command to time out.
const CALLS: u32 = 32;
/// Number of commands that may time out before the driver detects the removal: one per frame.
const COMMANDS: u32 = 2;

pub fn tests() -> Vec<Test> {
    claims!("gone":
        calls_fail_with_enodev_and_do_not_wait,
        transition_of_each_state_is_an_error,
        command_in_progress_fails_with_enodev,
        device_can_be_closed_and_unbound,
        reset_of_a_vf_is_an_error_until_the_device_is_back,
        reset_of_the_pf_brings_the_device_back,
    )
}

/// Checks that `act` waits for at most [`COMMANDS`] commands. The limit doubles the time for a busy
/// machine and is a fraction of the time for [`CALLS`] commands.
fn waits_little(registers: &RegisterFile, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let limit = 4 * COMMANDS * registers.timeout;
    let start = Instant::now();
    act()?;
    let elapsed = start.elapsed();
    expect::claim(
        &format!("an end within {limit:?}, not after {elapsed:?}"),
        elapsed < limit,
    )
}

/// Checks that `call` fails with ENODEV.
fn fails<T: Debug>(what: &str, result: io::Result<T>) -> Result<()> {
    expect::refused(what, result, &[libc::ENODEV])
}

/// Checks that `session` fails with ENODEV after the data that the driver has already read.
fn read_fails(session: &Session) -> Result<()> {
    loop {
        match session.read(1 << 20) {
            Ok(bytes) => expect::claim("the stream to continue", !bytes.is_empty())?,
            result => return fails("read", result),
        }
    }
}

fn calls_fail_with_enodev_and_do_not_wait(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1, 3])?;
    let device = &source.guest.vf.device;
    let registers = RegisterFile::map(&bed.pf)?;
    let range = IovaRange::new(0x1000_0000, 16 * PAGE);
    device.start_logging(&[range], PAGE)?;
    let mut log = KernelLog::from_now()?;
    let gone = registers.pull_out();
    waits_little(&registers, || {
        for _ in 0..CALLS {
            read_fails(&source.session)?;
            fails(
                "MIG_GET_PRECOPY_INFO",
                source.session.precopy_info(0).map(drop),
            )?;
            fails("MIG_DATA_SIZE", device.data_size())?;
            // Unknown pages are dirty.
            let dirty = device.dirty_pages(range, PAGE)?.count();
            expect::equal("pages reported dirty", dirty, range.length / PAGE)?;
        }
        fails("DMA_LOGGING_STOP", device.stop_logging())?;
        fails(
            "DMA_LOGGING_START",
            device.start_logging(&[range], PAGE).map(drop),
        )
    })?;
    log.expect(&["no such device, registers read as all ones"])?;
    drop(gone);
    source.guest.recover()
}

fn transition_of_each_state_is_an_error(bed: &Bed) -> Result<()> {
    let registers = RegisterFile::map(&bed.pf)?;
    for (from, to) in [
        (State::Running, State::RunningP2p),
        (State::RunningP2p, State::Stop),
        (State::PreCopy, State::StopCopy),
        (State::Stop, State::Running),
    ] {
        let (mut guest, session) = guest_in(bed, from)?;
        let device = &guest.vf.device;
        let gone = registers.pull_out();
        waits_little(&registers, || {
            let what = format!("{} to {}", from.name(), to.name());
            fails(&what, device.request_state(to as u32))?;
            expect::equal(&what, device.state()?, State::Error)
        })?;
        has_ended(session, from)?;
        drop(gone);
        guest.recover()?;
    }
    Ok(())
}

fn command_in_progress_fails_with_enodev(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1, 3])?;
    let registers = RegisterFile::map(&bed.pf)?;
    // The driver reads one run of local memory ahead.
    let _first = registers.arm(0, LOCAL_READ, Fault::Delay(Duration::ZERO), 1)?;
    let ahead = registers.arm(0, LOCAL_READ, Fault::Hang, 1)?;
    while ahead.fired() == 0 {
        expect::claim("the stream to continue", source.read(256)?)?;
    }
    let gone = registers.pull_out();
    waits_little(&registers, || read_fails(&source.session))?;
    drop(gone);
    source.guest.recover()
}

fn device_can_be_closed_and_unbound(bed: &Bed) -> Result<()> {
    let (guest, session) = guest_in(bed, State::PreCopy)?;
    let range = IovaRange::new(0x1000_0000, 16 * PAGE);
    guest.vf.device.start_logging(&[range], PAGE)?;
    let registers = RegisterFile::map(&bed.pf)?;
    let gone = registers.pull_out();
    let vf = bed.vf(0)?;
    waits_little(&registers, || {
        drop(guest);
        has_ended(session, State::PreCopy)?;
        let error = Guest::new(bed, 0).err().map(|error| format!("{error:#}"));
        expect::claim(
            &format!("ENODEV of an open, not {error:?}"),
            error.is_some_and(|error| error.contains("No such device")),
        )?;
        vf.unbind().context("unbind of the VF")?;
        fails("bind of the VF", vf.bind(VF_DRIVER))
    })?;
    let driver = bed.pf_driver()?;
    bed.pf.set_virtual_functions(0)?;
    bed.pf.unbind().context("unbind of the PF")?;
    fails("bind of the PF", bed.pf.bind(&driver))?;
    drop(gone);
    bed.restore()?;
    both_work(bed)
}

fn reset_of_a_vf_is_an_error_until_the_device_is_back(bed: &Bed) -> Result<()> {
    let (mut guest, session) = guest_in(bed, State::StopCopy)?;
    let registers = RegisterFile::map(&bed.pf)?;
    let gone = registers.pull_out();
    guest.vf.reset()?;
    is_in_error(&guest, "failed to enter RUNNING after a reset")?;
    has_ended(session, State::StopCopy)?;
    drop(gone);
    guest.recover()
}

fn reset_of_the_pf_brings_the_device_back(bed: &Bed) -> Result<()> {
    let (guest, session) = guest_in(bed, State::StopCopy)?;
    let registers = RegisterFile::map(&bed.pf)?;
    let gone = registers.pull_out();
    read_fails(session.as_ref().context("session")?)?;
    bed.pf.reset().context("reset of the PF")?;
    is_in_error(&guest, "physical function was reset")?;
    has_ended(session, State::StopCopy)?;
    works_again(bed, guest)?;
    drop(gone);
    Ok(())
}
