// SPDX-License-Identifier: GPL-2.0

//! Failures of the device while its local memory is read in PRE_COPY: the stream ends with the
//! error, the guest is not affected, and the next migration succeeds.

use std::{
    io,
    time::{Duration, Instant},
};

use anyhow::Result;
use vifa_device::{
    opcode::{LOCAL_BITMAP, LOCAL_READ},
    Fault, Opcode, RegisterFile,
};

use super::{
    super::{claims, Test},
    local_memory::Source,
};
use crate::{
    bed::Bed,
    expect, hw,
    kmsg::KernelLog,
    migration::{Session, State},
    region,
    stream::RELATIONS_END,
};

/// The user's action during which the fault occurs.
type Use = fn(&mut Source) -> io::Result<()>;

const FAILS: Fault = Fault::Status(hw::VIFA_STATUS_DEVICE_FAILURE);

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    // The driver queries the device's local memory for each of these requests.
    let uses: [(&str, Use); 3] = [
        ("read", |source| read_on(&source.session)),
        ("information", |source| {
            source.session.precopy_info(0).map(drop)
        }),
        ("data_size", |source| {
            source.guest.vf.device.data_size()?;
            source.session.read(1).map(drop)
        }),
    ];
    for (name, using) in uses {
        tests.push(Test::new(
            format!("pre_copy.bitmap_that_fails_at_a_{name}"),
            move |bed| breaks(bed, LOCAL_BITMAP, FAILS, &[libc::EIO], using),
        ));
    }
    let mut add = |what: &str, opcode: Opcode, fault: Fault, errors: &'static [i32]| {
        tests.push(Test::new(
            format!("pre_copy.{}_{what}", opcode.name),
            move |bed| {
                breaks(bed, opcode, fault, errors, |source| {
                    read_on(&source.session)
                })
            },
        ));
    };
    add(
        "withholds_bytes",
        LOCAL_BITMAP,
        Fault::ShortData(64),
        &[libc::EIO],
    );
    add("fails", LOCAL_READ, FAILS, &[libc::EIO]);
    add("hangs", LOCAL_READ, Fault::Hang, &[libc::ETIMEDOUT]);
    tests.extend(claims!("pre_copy":
        bitmap_that_fails_at_the_start,
        bitmap_that_fails_when_the_device_has_stopped,
        reset_ends_a_stuck_read,
        late_read_is_waited_for,
    ));
    tests
}

/// Reads until an error, including that of a pause.
fn read_on(session: &Session) -> io::Result<()> {
    loop {
        if session.read(1 << 20)?.is_empty() {
            return Ok(());
        }
    }
}

/// Checks that every operation on the stream of `source` fails with one of the `errors`.
fn is_broken(source: &Source, errors: &[i32]) -> Result<()> {
    let session = &source.session;
    expect::refused("read", session.read(1), errors)?;
    let information = session.precopy_info(0).map(drop);
    expect::refused("information", information, errors)?;
    let events = session.poll()?;
    expect::claim(
        &format!("poll to show an error, not {events:#x}"),
        events & libc::POLLERR != 0,
    )?;
    let text = region::error_text(&region::read(&source.guest.vf.device)?)?.to_owned();
    expect::claim(
        &format!("an error of saving, not {text:?}"),
        text.contains("failed to save"),
    )
}

/// Cancels the migration of `source` after its stream failed, and checks that the next one
/// succeeds.
fn succeeds_again(bed: &Bed, mut source: Source) -> Result<()> {
    source.guest.vf.device.change_state(State::Running)?;
    source.write([5], 0x55)?;
    source.session = source.guest.vf.device.start(State::PreCopy)?;
    source.stream.clear();
    source.read_on()?;
    source.write([6], 0x66)?;
    source.stop()?;
    source.arrives(bed, [])
}

/// Injects `fault` into the first command `opcode` during a `using` of the stream, which has more
/// data.
fn breaks(bed: &Bed, opcode: Opcode, fault: Fault, errors: &[i32], using: Use) -> Result<()> {
    bed.rebind(0)?;
    let mut source = Source::begin(bed, State::PreCopy, [1, 2])?;
    source.read_on()?;
    source.write([2, 1000], 0x22)?;
    let registers = RegisterFile::map(&bed.pf)?;
    let mut log = KernelLog::from_now()?;
    let armed = registers.arm(0, opcode, fault, 1)?;
    let start = Instant::now();
    expect::refused("use of the stream", using(&mut source), errors)?;
    let limit = 2 * registers.timeout + Duration::from_secs(3);
    let elapsed = start.elapsed();
    expect::claim(
        &format!("the error within {limit:?}, not after {elapsed:?}"),
        elapsed < limit,
    )?;
    expect::equal("times that the fault happened", armed.fired(), 1)?;
    drop(armed);
    is_broken(&source, errors)?;
    log.expect(&[&bed.vf(0)?.to_string(), opcode.name])?;
    let state = source.guest.vf.device.state()?;
    expect::equal("state", state, State::PreCopy)?;
    source.write([3], 0x33)?;
    succeeds_again(bed, source)
}

fn bitmap_that_fails_at_the_start(bed: &Bed) -> Result<()> {
    let source = Source::begin(bed, State::PreCopy, [1, 2])?;
    let registers = RegisterFile::map(&bed.pf)?;
    let armed = registers.arm(0, LOCAL_BITMAP, FAILS, 1)?;
    // The identity and relations sections are sent nevertheless.
    source.session.read(RELATIONS_END - 1)?;
    expect::equal("times that the fault happened", armed.fired(), 0)?;
    expect::refused("read", read_on(&source.session), &[libc::EIO])?;
    expect::equal("times that the fault happened", armed.fired(), 1)?;
    is_broken(&source, &[libc::EIO])?;
    succeeds_again(bed, source)
}

fn bitmap_that_fails_when_the_device_has_stopped(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1, 2])?;
    source.read_on()?;
    source.write([2], 0x22)?;
    let registers = RegisterFile::map(&bed.pf)?;
    source.guest.vf.device.change_state(State::StopCopy)?;
    let armed = registers.arm(0, LOCAL_BITMAP, FAILS, 1)?;
    expect::refused("read", read_on(&source.session), &[libc::EIO])?;
    expect::equal("times that the fault happened", armed.fired(), 1)?;
    drop(armed);
    expect::refused("read", source.session.read(1), &[libc::EIO])?;
    succeeds_again(bed, source)
}

fn reset_ends_a_stuck_read(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1, 2])?;
    let registers = RegisterFile::map(&bed.pf)?;
    let armed = registers.arm(0, LOCAL_READ, Fault::HangAbort, 1)?;
    let errors = [libc::ETIMEDOUT];
    expect::refused("read", read_on(&source.session), &errors)?;
    drop(armed);
    is_broken(&source, &errors)?;
    // The engine is not involved.
    source.write([3], 0x33)?;
    source.guest.vf.device.change_state(State::Running)?;
    source.guest.recover()?;
    drop(source);
    let mut source = Source::begin(bed, State::PreCopy, [1, 2])?;
    source.read_on()?;
    source.stop()?;
    source.arrives(bed, [])
}

/// A change during a slow read of the same memory is transferred.
fn late_read_is_waited_for(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1, 5, 9])?;
    let registers = RegisterFile::map(&bed.pf)?;
    let late = Fault::Delay(Duration::from_millis(50));
    let armed = registers.arm(0, LOCAL_READ, late, hw::VIFA_FAULT_ALWAYS)?;
    // The run of the granule 5 is announced after that of the granule 1 was read.
    source.read(RELATIONS_END + 1000)?;
    source.write([1, 5, 9], 0x99)?;
    expect::claim("reads to be late", armed.fired() >= 2)?;
    source.read_on()?;
    source.write([5], 0x95)?;
    source.stop()?;
    drop(armed);
    source.arrives(bed, [])
}
