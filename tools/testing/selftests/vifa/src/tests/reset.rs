// SPDX-License-Identifier: GPL-2.0

//! Resets concurrent with other operations. A function-level reset takes effect immediately, and
//! the host then waits 100 ms before it notifies the driver. These tests act in that window.
//! Afterwards the driver's state must match the device's.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail, Context, Result};
use vifa_device::{
    opcode::{LOG_START, SET_RUN_STATE},
    Fault, Marks, RegisterFile,
};

use super::{
    fixture::{Guest, CHUNK, MEMORY},
    Test,
};
use crate::{
    bed::Bed,
    expect, hw,
    igb::Adapter,
    migration::{Segments, Session, State},
    process::all_at_once,
    region,
    vfio::{AddressSpace, Device, IovaRange},
};

const PAGE: u64 = 4096;

/// Maximum delay of a reset's start.
const BEGIN: Duration = Duration::from_secs(5);

/// Errors that a call may return because of a reset.
const ERRORS: [i32; 7] = [
    libc::EBUSY,
    libc::ECANCELED,
    libc::ENODEV,
    libc::EINVAL,
    libc::EIO,
    libc::EBADF,
    libc::ENOMSG,
];

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for phase in [State::Error].into_iter().chain(State::SUPPORTED) {
        tests.push(Test::new(
            format!("reset.calls_meet_a_reset_in_{}", phase.name()),
            move |bed| calls_meet_a_reset(bed, phase),
        ));
    }
    for (name, way) in WAYS {
        tests.push(Test::new(
            format!("reset.{name}_beside_all_else_at_once"),
            move |bed| concurrent_with_other_operations(bed, way),
        ));
    }
    tests.push(Test::new(
        "reset.command_that_hangs_is_overtaken",
        command_that_hangs_is_overtaken,
    ));
    tests.push(Test::new(
        "reset.vf_that_a_reset_leaves_stopped_runs",
        vf_that_a_reset_leaves_stopped_runs,
    ));
    tests.push(Test::new(
        "reset.vf_that_does_not_run_after_a_reset_is_in_ERROR",
        vf_that_does_not_run_after_a_reset_is_in_error,
    ));
    tests.push(Test::new(
        "reset.network_adapter_is_reset_beside_all_else",
        network_adapter,
    ));
    tests
}

/// A way to reset VF 0.
type Way = fn(&Bed, &Guest) -> Result<()>;

const WAYS: [(&str, Way); 3] = [
    ("VFIO_DEVICE_RESET", |_, guest| guest.vf.reset()),
    ("reset_by_the_guest", |_, guest| {
        guest.vf.function_level_reset()
    }),
    ("reset_by_the_administrator", |bed, _| {
        bed.vf(0)?.reset().context("sysfs reset")
    }),
];

fn tolerate<T>(what: &str, result: io::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            expect::refused(what, Err::<(), _>(error), &ERRORS)?;
            Ok(None)
        }
    }
}

/// Returns the memory of `guest` as a range for a log.
fn memory(guest: &Guest) -> IovaRange {
    IovaRange::new(guest.memory.iova, MEMORY)
}

/// Checks that the driver's state matches the device's: the run state, and whether writes are
/// logged.
fn agree(guest: &Guest, registers: &RegisterFile) -> Result<()> {
    let device = &guest.vf.device;
    let state = device.state()?;
    let expected = match state {
        State::Running | State::PreCopy => hw::VIFA_RUN_STATE_RUNNING,
        State::RunningP2p | State::PreCopyP2p => hw::VIFA_RUN_STATE_P2P,
        State::Stop | State::StopCopy | State::Resuming => hw::VIFA_RUN_STATE_STOPPED,
        State::Error => bail!("the driver is in ERROR"),
    };
    let run_state = registers.run_state(0);
    expect::equal(
        &format!(
            "run state of the device, whose driver is in {}",
            state.name()
        ),
        run_state,
        expected,
    )?;
    let logs = region::read(device)?.log_ranges != 0;
    let is_logged = registers.mark(0, Marks::all_of(memory(guest))).is_ok();
    expect::equal(
        "writes that the device logs, by the driver",
        logs,
        is_logged,
    )
}

/// A session of a phase, and the data that it has not yet written.
struct Held {
    session: Option<Session>,
    rest: Vec<u8>,
}

/// Brings the VF 0 to `phase`, with written local memory.
fn bring(bed: &Bed, guest: &mut Guest, phase: State) -> Result<Held> {
    if guest.vf.device.state()? != State::Running {
        guest.vf.reset()?;
    }
    guest.engine.enable(&guest.vf)?;
    guest.furnish(0x5eed)?;
    let device = &guest.vf.device;
    let none = Held {
        session: None,
        rest: Vec::new(),
    };
    match phase {
        State::Error => {
            guest.fail(bed, 0)?;
            Ok(none)
        }
        State::Resuming => {
            let mut stream = device.save()?;
            let session = device.start(phase)?;
            let rest = stream.split_off(stream.len() / 2);
            session.write_all(&stream, Segments::Whole)?;
            let session = Some(session);
            Ok(Held { session, rest })
        }
        _ => Ok(Held {
            session: device.enter(phase)?,
            ..none
        }),
    }
}

/// Waits until the device was reset and the driver was not yet notified.
fn wait_for_reset(registers: &RegisterFile) -> Result<()> {
    let deadline = Instant::now() + BEGIN;
    while registers.configurations(0) != 0 {
        if Instant::now() > deadline {
            bail!("the device was not reset after {BEGIN:?}");
        }
        thread::yield_now();
    }
    Ok(())
}

/// The operation in the window of a reset.
#[derive(Clone, Copy, Debug)]
enum Call {
    SetState(State),
    LogStart,
    LogStop,
    Read,
    Write,
    Close,
}

const CALLS: [Call; 11] = [
    Call::SetState(State::Stop),
    Call::SetState(State::Running),
    Call::SetState(State::RunningP2p),
    Call::SetState(State::StopCopy),
    Call::SetState(State::Resuming),
    Call::SetState(State::PreCopyP2p),
    Call::LogStart,
    Call::LogStop,
    Call::Read,
    Call::Write,
    Call::Close,
];

impl Call {
    /// Runs the operation; returns the session that it began, if any.
    fn meet(self, guest: &Guest, held: &mut Held) -> Result<Option<Session>> {
        let device = &guest.vf.device;
        match self {
            Self::SetState(state) => {
                let begun = tolerate("SET_STATE", device.request_state(state as u32))?;
                return Ok(begun.flatten());
            }
            Self::LogStart => {
                tolerate("LOG_START", device.start_logging(&[memory(guest)], PAGE))?;
            }
            Self::LogStop => {
                tolerate("LOG_STOP", device.stop_logging())?;
            }
            Self::Read => {
                if let Some(session) = &held.session {
                    tolerate("read", session.read(1 << 20))?;
                }
            }
            Self::Write => {
                if let Some(session) = &held.session {
                    tolerate("write", session.write_all(&held.rest, Segments::Whole))?;
                }
            }
            Self::Close => drop(held.session.take()),
        }
        Ok(None)
    }
}

/// Runs each call in the window of a reset, with the VF in `phase` and its writes logged.
fn calls_meet_a_reset(bed: &Bed, phase: State) -> Result<()> {
    let bed = bed.slow_to_reset()?;
    let registers = RegisterFile::map(&bed.pf)?;
    let mut guest = Guest::new(&bed, 0)?;
    let logs = guest.vf.device.can_log();
    for call in CALLS {
        if !logs && matches!(call, Call::LogStart | Call::LogStop) {
            continue;
        }
        let mut held = bring(&bed, &mut guest, phase).with_context(|| format!("{call:?}"))?;
        if logs && !matches!(call, Call::LogStart) {
            let device = &guest.vf.device;
            device.start_logging(&[memory(&guest)], PAGE)?;
        }
        let met = thread::scope(|scope| {
            let reset = scope.spawn(|| guest.vf.device.reset());
            wait_for_reset(&registers)?;
            let met = call.meet(&guest, &mut held);
            let reset = reset.join().map_err(|_| anyhow!("a thread panicked"))?;
            reset.context("VFIO_DEVICE_RESET")?;
            met
        });
        let check = || -> Result<()> {
            let _session = met?;
            agree(&guest, &registers)
        };
        check().with_context(|| format!("{call:?} in the window of a reset"))?;
        is_as_new(&mut guest).with_context(|| format!("{call:?} in the window of a reset"))?;
    }
    Ok(())
}

/// A running VF has no data from before its reset; it can be saved and restored.
fn is_as_new(guest: &mut Guest) -> Result<()> {
    if guest.vf.device.state()? == State::Running {
        guest.engine.enable(&guest.vf)?;
        let local = guest.read_local(0, 0)?;
        let expected = vec![0; CHUNK as usize];
        expect::same_bytes("local memory after a reset", &local, &expected)?;
    }
    tolerate("LOG_STOP", guest.vf.device.stop_logging()).map(drop)
}

/// Concurrent transitions, logs, transfers and resets for a while.
fn concurrent_with_other_operations(bed: &Bed, way: Way) -> Result<()> {
    const WHILE: Duration = Duration::from_secs(2);
    const STATES: [State; 6] = [
        State::StopCopy,
        State::Resuming,
        State::Running,
        State::PreCopyP2p,
        State::RunningP2p,
        State::Stop,
    ];
    let bed = bed.slow_to_reset()?;
    let registers = RegisterFile::map(&bed.pf)?;
    let mut guest = Guest::new(&bed, 0)?;
    guest.furnish(3)?;
    let stream = guest.vf.device.save()?;
    let device = &guest.vf.device;
    let until = Instant::now() + WHILE;
    let going_on = || Instant::now() < until;
    let change = || -> Result<()> {
        for state in STATES.into_iter().cycle().take_while(|_| going_on()) {
            let begun = tolerate(&state.name(), device.request_state(state as u32))?;
            if let Some(session) = begun.flatten() {
                tolerate("write", session.write_all(&stream, Segments::Of(4096)))?;
                tolerate("read", session.read(100_000))?;
            }
        }
        Ok(())
    };
    let log = || -> Result<()> {
        while device.can_log() && going_on() {
            tolerate("LOG_START", device.start_logging(&[memory(&guest)], PAGE))?;
            tolerate("LOG_REPORT", device.dirty_pages(memory(&guest), PAGE))?;
            tolerate("LOG_STOP", device.stop_logging())?;
        }
        Ok(())
    };
    let ask = || -> Result<()> {
        while going_on() {
            tolerate("MIG_DATA_SIZE", device.data_size())?;
            device.state()?;
        }
        Ok(())
    };
    let reset = || -> Result<()> {
        while going_on() {
            way(&bed, &guest)?;
        }
        Ok(())
    };
    all_at_once(vec![
        Box::new(change),
        Box::new(log),
        Box::new(ask),
        Box::new(reset),
    ])?;
    // The last transition may have come after the last reset, and failed.
    if device.state()? == State::Error {
        device.reset()?;
    }
    agree(&guest, &registers)?;
    guest.recover()?;
    agree(&guest, &registers)
}

/// A reset ends a hanging command, and the call that issued it.
fn command_that_hangs_is_overtaken(bed: &Bed) -> Result<()> {
    let bed = bed.slow_to_reset()?;
    let registers = RegisterFile::map(&bed.pf)?;
    let mut guest = Guest::new(&bed, 0)?;
    let opcodes = [SET_RUN_STATE, LOG_START];
    let possible = if guest.vf.device.can_log() { 2 } else { 1 };
    for opcode in opcodes.into_iter().take(possible) {
        let armed = registers.arm(0, opcode, Fault::Hang, 1)?;
        let device = &guest.vf.device;
        thread::scope(|scope| -> Result<()> {
            let call = scope.spawn(|| match opcode {
                LOG_START => device.start_logging(&[memory(&guest)], PAGE).map(drop),
                _ => device.request_state(State::Stop as u32).map(drop),
            });
            while armed.fired() == 0 {
                thread::yield_now();
            }
            device.reset()?;
            let result = call.join().map_err(|_| anyhow!("a thread panicked"))?;
            expect::refused(opcode.name, result, &[libc::ECANCELED])
        })?;
        expect::equal("state", guest.vf.device.state()?, State::Running)?;
        agree(&guest, &registers)?;
        guest.works_after_a_reset()?;
    }
    Ok(())
}

fn vf_that_a_reset_leaves_stopped_runs(bed: &Bed) -> Result<()> {
    let registers = RegisterFile::map(&bed.pf)?;
    let mut guest = Guest::new(bed, 0)?;
    for run_state in [hw::VIFA_RUN_STATE_STOPPED, hw::VIFA_RUN_STATE_P2P] {
        let armed = registers.spoil_reset(0, run_state)?;
        guest.vf.reset()?;
        expect::equal("resets that were spoilt", armed.fired(), 1)?;
        agree(&guest, &registers)?;
        guest.works_after_a_reset()?;
    }
    Ok(())
}

fn vf_that_does_not_run_after_a_reset_is_in_error(bed: &Bed) -> Result<()> {
    let registers = RegisterFile::map(&bed.pf)?;
    let mut guest = Guest::new(bed, 0)?;
    let spoilt = registers.spoil_reset(0, hw::VIFA_RUN_STATE_STOPPED)?;
    let failing = registers.arm(
        0,
        SET_RUN_STATE,
        Fault::Status(hw::VIFA_STATUS_DEVICE_FAILURE),
        1,
    )?;
    guest.vf.reset()?;
    expect::equal("resets that were spoilt", spoilt.fired(), 1)?;
    expect::equal("commands that failed", failing.fired(), 1)?;
    let device = &guest.vf.device;
    expect::equal("state", device.state()?, State::Error)?;
    let region = region::read(device)?;
    let text = region::error_text(&region)?;
    expect::claim(
        &format!("an error that names the reset, not {text:?}"),
        text.contains("after a reset"),
    )?;
    guest.recover()?;
    agree(&guest, &registers)
}

/// Transitions and resets of a network adapter's VF, whose resets always take 100 ms.
fn network_adapter(_: &Bed) -> Result<()> {
    const RESETS: u32 = 8;
    const STATES: [State; 4] = [
        State::Stop,
        State::StopCopy,
        State::RunningP2p,
        State::Running,
    ];
    let vf = Adapter::set_up()?.vf(0)?;
    let device = Device::open(&vf, &AddressSpace::iommufd()?)?;
    let is_over = AtomicBool::new(false);
    let changes = AtomicU32::new(0);
    let change = || -> Result<()> {
        for state in STATES.into_iter().cycle() {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            if tolerate(&state.name(), device.request_state(state as u32))?.is_some() {
                changes.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    };
    let reset = || -> Result<()> {
        let all = (0..RESETS).try_for_each(|number| match number % 2 {
            0 => device.reset().context("VFIO_DEVICE_RESET"),
            _ => vf.reset().context("sysfs reset"),
        });
        is_over.store(true, Ordering::Relaxed);
        all
    };
    all_at_once(vec![Box::new(change), Box::new(reset)])?;
    expect::claim("a transition during the resets", changes.into_inner() > 0)?;
    device.reset()?;
    expect::equal("state after a reset", device.state()?, State::Running)?;
    let stream = device.save().context("save afterwards")?;
    device.load(&stream).context("load afterwards")?;
    device.change_state(State::Running)
}
