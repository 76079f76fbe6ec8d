// SPDX-License-Identifier: GPL-2.0

//! Two VFs in parallel: neither affects the other.

use std::{
    io,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, Context, Result};
use vifa_device::{opcode::SET_RUN_STATE, Fault, RegisterFile};

use super::{claims, fixture::Guest, Test};
use crate::{
    bed::Bed,
    expect,
    migration::{Session, State},
    process::all_at_once,
};

const ROUNDS: u64 = 5;

pub fn tests() -> Vec<Test> {
    claims!("parallel":
        two_vfs_migrate_at_once,
        two_threads_change_one_vf_s_state,
        resets_meet_sessions_in_use,
        hanging_vf_does_not_delay_the_other,
    )
}

/// Saves and loads the VF `index`, and works in between.
fn rounds(bed: &Bed, index: u32) -> Result<()> {
    let mut guest = Guest::new(bed, index)?;
    for round in 0..ROUNDS {
        guest.furnish(round)?;
        let stream = guest.vf.device.save()?;
        guest.vf.device.load(&stream)?;
        expect::same_bytes("stream", &guest.vf.device.save()?, &stream)?;
        guest.vf.device.change_state(State::Running)?;
        guest.work(round)?;
    }
    Ok(())
}

fn two_vfs_migrate_at_once(bed: &Bed) -> Result<()> {
    all_at_once(vec![
        Box::new(|| rounds(bed, 0).context("VF 0")),
        Box::new(|| rounds(bed, 1).context("VF 1")),
    ])
}

fn two_threads_change_one_vf_s_state(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    let device = &guest.vf.device;
    let toggle = |state: State| -> Result<()> {
        for _ in 0..50 {
            device.request_state(state as u32)?;
            device.request_state(State::Running as u32)?;
        }
        Ok(())
    };
    all_at_once(vec![
        Box::new(move || toggle(State::StopCopy)),
        Box::new(move || toggle(State::RunningP2p)),
    ])?;
    guest.vf.device.request_state(State::Running as u32)?;
    guest.work(1)
}

/// Concurrent resets, transitions, and sessions for a while.
fn resets_meet_sessions_in_use(bed: &Bed) -> Result<()> {
    const WHILE: Duration = Duration::from_secs(3);
    /// Errors that each of them may get because of the others.
    const ERRORS: [i32; 7] = [
        libc::EBUSY,
        libc::ENODEV,
        libc::EINVAL,
        libc::EIO,
        libc::ECANCELED,
        libc::EAGAIN,
        libc::EBADF,
    ];
    const STATES: [State; 4] = [
        State::StopCopy,
        State::Resuming,
        State::Running,
        State::RunningP2p,
    ];
    let mut guest = Guest::new(bed, 0)?;
    guest.furnish(1)?;
    let device = &guest.vf.device;
    let current: Mutex<Option<Arc<Session>>> = Mutex::default();
    let lock = || current.lock().expect("no thread panics with it");
    let tolerate = |what: &str, result: io::Result<()>| match result {
        Ok(()) => Ok(()),
        error => expect::refused(what, error, &ERRORS),
    };
    let until = Instant::now() + WHILE;
    let going_on = || Instant::now() < until;
    let change = || -> Result<()> {
        for state in STATES.into_iter().cycle().take_while(|_| going_on()) {
            let result = device.request_state(state as u32);
            let result = result.map(|session| *lock() = session.map(Arc::new));
            tolerate(&state.name(), result)?;
        }
        Ok(())
    };
    let transfer = || -> Result<()> {
        while going_on() {
            let session = lock().clone();
            if let Some(session) = session {
                tolerate("read", session.read(1000).map(drop))?;
                tolerate("write", session.write(&[0; 100]).map(drop))?;
                session.poll()?;
            }
        }
        Ok(())
    };
    let reset = || -> Result<()> {
        while going_on() {
            device.reset()?;
        }
        Ok(())
    };
    all_at_once(vec![Box::new(change), Box::new(transfer), Box::new(reset)])?;
    guest.recover()
}

fn hanging_vf_does_not_delay_the_other(bed: &Bed) -> Result<()> {
    let mut hanging = Guest::new(bed, 0)?;
    let registers = RegisterFile::map(&bed.pf)?;
    let armed = registers.arm(0, SET_RUN_STATE, Fault::Hang, 1)?;
    let start = Instant::now();
    let device = &hanging.vf.device;
    let mut alone = Duration::ZERO;
    thread::scope(|scope| -> Result<()> {
        let hang = scope.spawn(|| {
            let result = device.request_state(State::Stop as u32);
            (result, start.elapsed())
        });
        while armed.fired() == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        let during = Instant::now();
        let mut other = Guest::new(bed, 1)?;
        other.furnish(1)?;
        let stream = other.vf.device.save()?;
        other.vf.device.load(&stream)?;
        other.vf.device.change_state(State::Running)?;
        other.work(2)?;
        alone = during.elapsed();
        let (result, _) = hang.join().map_err(|_| anyhow!("a thread panicked"))?;
        expect::refused("state of the VF that hangs", result, &[libc::ETIMEDOUT])
    })?;
    expect::claim(
        &format!(
            "the other VF's work, {alone:?}, to end before the timeout of {:?}",
            registers.timeout
        ),
        alone < registers.timeout,
    )?;
    drop(armed);
    hanging.recover()
}
