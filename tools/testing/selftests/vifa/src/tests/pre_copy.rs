// SPDX-License-Identifier: GPL-2.0

//! The states PRE_COPY and PRE_COPY_P2P, in which a stream begins while the device runs.

mod failures;
pub(super) mod local_memory;
mod numbers;
mod rounds;
mod tracked;

use std::{thread, time::Duration};

use anyhow::{Context, Result};
use local_memory::granule_of;
use vfio_bindings::bindings::vfio::vfio_precopy_info;
use vifa_device::{opcode::SET_RUN_STATE, Fault, RegisterFile};
use vifa_vfio::{ioctl, ioctl_number, Mapping, NumberRequest};

use super::{
    claims,
    fixture::{filled, Guest, CHUNK},
    Test,
};
use crate::{
    bed::Bed,
    engine::Command,
    expect,
    hw::{self, vifa_address_range, vifa_address_record, vifa_data_run, vifa_section_header},
    migration::{Segments, Session, State},
    process::alongside,
    stream::{Stream, RELATIONS_END},
    sys,
    vfio::request,
};

const BOTH: [State; 2] = [State::PreCopy, State::PreCopyP2p];

pub fn tests() -> Vec<Test> {
    let mut tests = claims!("pre_copy":
        stream_begins_with_identity_and_relations,
        stream_pauses_repeatedly,
        large_read_ends_at_the_pause,
        poll_shows_the_pause,
        poll_wakes_when_the_device_stops,
        poll_wakes_when_the_session_ends,
        information_in_version_1_does_not_change_the_flags,
        information_with_short_arguments_is_refused,
        information_at_a_bad_address_is_refused,
        information_in_other_states_is_refused,
        other_ioctls_are_unknown,
        restore_session_has_no_information,
        data_size_is_reported,
        device_works,
        device_without_p2p_works,
        quiesced_device_waits,
        device_follows_the_states,
        stream_continues_in_stop_copy,
        partly_read_stream_continues_in_stop_copy,
        stream_is_the_one_of_stop_copy,
        stream_is_the_same_after_moves_within_the_group,
        stream_of_a_device_without_p2p_continues_in_stop_copy,
        stop_copy_has_no_pause,
        cancel_loses_nothing,
        repeated_cancel,
        session_closed_early_does_not_bind_the_device,
        two_vfs_at_once,
        device_that_refuses_to_quiesce_stays,
        device_that_refuses_to_stop_stays_quiesced,
        device_that_hangs_ends_in_error,
        device_that_hangs_without_p2p_ends_in_error,
    );
    tests.extend(numbers::tests());
    tests.extend(rounds::tests());
    tests.extend(tracked::tests());
    tests.extend(failures::tests());
    tests
}

/// Returns a furnished guest in `state`, and its session.
fn begun(bed: &Bed, state: State) -> Result<(Guest, Session)> {
    let mut guest = Guest::new(bed, 0)?;
    guest.furnish(0x9_2ec0)?;
    let session = guest.vf.device.start(state)?;
    Ok((guest, session))
}

/// Checks that the stream of `session` has reached its temporary end.
fn pauses(session: &Session) -> Result<()> {
    expect::refused("read at the pause", session.read(1), &[libc::ENOMSG])
}

/// Returns the number of stream bytes of `count` ranges of one granule each, in one part.
fn part_of(count: usize, granule: u64) -> usize {
    let section = size_of::<vifa_section_header>();
    let address = section + size_of::<vifa_address_record>();
    let data = section + size_of::<vifa_data_run>() + granule as usize;
    address + count * (size_of::<vifa_address_range>() + data)
}

/// Returns the number of stream bytes of a furnished guest that can be read before any change.
fn pause_of(guest: &Guest) -> Result<usize> {
    Ok(RELATIONS_END + part_of(2, granule_of(guest)?))
}

fn stream_begins_with_identity_and_relations(bed: &Bed) -> Result<()> {
    for state in BOTH {
        let (_guest, session) = begun(bed, state)?;
        let stream = Stream::parse(&session.read_to_pause(Segments::Whole)?)?;
        let kinds: Vec<u32> = stream
            .sections
            .iter()
            .map(|section| section.kind())
            .collect();
        expect::equal(
            &format!("types of the sections in {}", state.name()),
            kinds,
            vec![
                hw::VIFA_SECTION_IDENTITY,
                hw::VIFA_SECTION_RELATIONS,
                hw::VIFA_SECTION_ADDRESS,
                hw::VIFA_SECTION_DATA,
                hw::VIFA_SECTION_DATA,
            ],
        )?;
    }
    Ok(())
}

fn stream_pauses_repeatedly(bed: &Bed) -> Result<()> {
    let (guest, session) = begun(bed, State::PreCopy)?;
    session.read_to_pause(Segments::Whole)?;
    for state in [State::PreCopyP2p, State::PreCopy, State::PreCopyP2p] {
        pauses(&session)?;
        guest.vf.device.change_state(state)?;
        pauses(&session)?;
    }
    Ok(())
}

fn large_read_ends_at_the_pause(bed: &Bed) -> Result<()> {
    let (guest, session) = begun(bed, State::PreCopy)?;
    let bytes = session.read(1 << 20)?;
    expect::equal("bytes of a large read", bytes.len(), pause_of(&guest)?)?;
    pauses(&session)
}

fn poll_shows_the_pause(bed: &Bed) -> Result<()> {
    let (mut guest, session) = begun(bed, State::PreCopy)?;
    let shows = |what: &str, expected: i16| expect::equal(what, session.poll()?, expected);
    shows("poll at the start", libc::POLLIN)?;
    session.read(pause_of(&guest)? - 1)?;
    shows("poll a byte before the pause", libc::POLLIN)?;
    session.read(1)?;
    pauses(&session)?;
    shows("poll at the pause", 0)?;
    guest.write_local(0, 5)?;
    // The device does not report changes by itself; the driver must ask.
    shows("poll after a write", 0)?;
    session.precopy_info(0)?;
    shows("poll after the information of a write", libc::POLLIN)?;
    session.read_to_pause(Segments::Whole)?;
    shows("poll at the next pause", 0)?;
    guest.vf.device.change_state(State::PreCopyP2p)?;
    shows("poll at the pause in PRE_COPY_P2P", 0)?;
    guest.vf.device.change_state(State::StopCopy)?;
    shows("poll in STOP_COPY", libc::POLLIN)?;
    session.read_all(Segments::Whole)?;
    shows("poll at the end", libc::POLLIN)
}

/// Checks that a waiter at the pause gets `expected` from poll() once the device has entered
/// `state`.
fn wakes(bed: &Bed, state: State, expected: i16) -> Result<()> {
    const WAIT: Duration = Duration::from_secs(10);
    let (guest, session) = begun(bed, State::PreCopy)?;
    session.read_to_pause(Segments::Whole)?;
    let waiting = session.file().try_clone()?;
    let events = alongside(
        WAIT,
        move || Ok(sys::poll(&waiting, libc::POLLIN, WAIT)?),
        || {
            thread::sleep(Duration::from_millis(200));
            guest.vf.device.change_state(state)
        },
    )?;
    expect::claim(
        &format!("events {expected:#x}, not {events:#x}"),
        events & expected == expected,
    )
}

fn poll_wakes_when_the_device_stops(bed: &Bed) -> Result<()> {
    wakes(bed, State::StopCopy, libc::POLLIN)
}

fn poll_wakes_when_the_session_ends(bed: &Bed) -> Result<()> {
    wakes(bed, State::Running, libc::POLLERR)
}

/// "Without this opt-in, the flags field of struct vfio_precopy_info is reserved": older users may
/// leave any value there.
fn information_in_version_1_does_not_change_the_flags(bed: &Bed) -> Result<()> {
    let (_guest, session) = begun(bed, State::PreCopy)?;
    let info = session.precopy_info(0x5a5a_5a5a)?;
    expect::equal("flags", info.flags, 0x5a5a_5a5a)
}

fn information_with_short_arguments_is_refused(bed: &Bed) -> Result<()> {
    let (guest, session) = begun(bed, State::PreCopy)?;
    for argsz in [0, 8, 16, 23] {
        let mut info = vfio_precopy_info {
            argsz,
            ..Default::default()
        };
        expect::refused(
            &format!("argsz {argsz}"),
            ioctl(&session, &request::MIG_GET_PRECOPY_INFO, &mut info),
            &[libc::EINVAL],
        )?;
    }
    expect::equal(
        "initial bytes after refusals",
        session.precopy_info(0)?.initial_bytes,
        RELATIONS_END as u64 + 2 * granule_of(&guest)?,
    )
}

fn information_at_a_bad_address_is_refused(bed: &Bed) -> Result<()> {
    const PAGE: usize = 4096;
    let (_guest, session) = begun(bed, State::PreCopy)?;
    let memory = Mapping::anonymous(2 * PAGE)?;
    memory.forbid_from(PAGE)?;
    for offset in [PAGE, PAGE - 8, PAGE - 16] {
        if offset < PAGE {
            memory.write(offset, size_of::<vfio_precopy_info>() as u32);
        }
        expect::refused(
            &format!("argument at {offset:#x} of a page"),
            memory.ioctl(&session, &request::MIG_GET_PRECOPY_INFO, offset),
            &[libc::EFAULT],
        )?;
    }
    session.precopy_info(0).map(drop).context("after refusals")
}

fn information_in_other_states_is_refused(bed: &Bed) -> Result<()> {
    let (guest, session) = begun(bed, State::PreCopy)?;
    let device = &guest.vf.device;
    device.change_state(State::StopCopy)?;
    for what in ["before the end", "at the end"] {
        expect::refused(
            &format!("information in STOP_COPY {what}"),
            session.precopy_info(0).map(drop),
            &[libc::EINVAL],
        )?;
        session.read_all(Segments::Whole)?;
    }
    device.change_state(State::Stop)?;
    expect::refused(
        "information after the session",
        session.precopy_info(0).map(drop),
        &[libc::ENODEV, libc::EINVAL],
    )?;
    let session = device.start(State::StopCopy)?;
    expect::refused(
        "information in a session that began with STOP_COPY",
        session.precopy_info(0).map(drop),
        &[libc::EINVAL],
    )
}

fn other_ioctls_are_unknown(bed: &Bed) -> Result<()> {
    let (_guest, session) = begun(bed, State::PreCopy)?;
    let answer = |number| {
        // SAFETY: A migration file has no request with one of these numbers, so that no handler
        // uses the argument as an address.
        let request = unsafe { NumberRequest::new(number) };
        ioctl_number(&session, &request, 0)
    };
    for number in [0x3b78, 0x3b7a, 0x3bff, 0, u64::from(u32::MAX)] {
        let what = format!("ioctl {number:#x}");
        expect::refused(&what, answer(number), &[libc::ENOTTY])?;
    }
    Ok(())
}

fn restore_session_has_no_information(bed: &Bed) -> Result<()> {
    let guest = Guest::new(bed, 0)?;
    let session = guest.vf.device.start(State::Resuming)?;
    expect::refused(
        "VFIO_MIG_GET_PRECOPY_INFO",
        session.precopy_info(0).map(drop),
        &[libc::ENOTTY],
    )
}

fn data_size_is_reported(bed: &Bed) -> Result<()> {
    let (guest, session) = begun(bed, State::PreCopy)?;
    let size = guest.vf.device.data_size()?;
    guest.vf.device.change_state(State::StopCopy)?;
    let stream = session.read_all(Segments::Whole)?.len() as u64;
    expect::claim(
        &format!("size {size} to cover the stream's {stream} bytes"),
        size >= stream,
    )
}

fn device_works(bed: &Bed) -> Result<()> {
    let (mut guest, session) = begun(bed, State::PreCopy)?;
    let event = guest.vf.interrupt()?;
    guest.work(1)?;
    session.read(10)?;
    guest.engine.submit(&guest.vf, Command::Nop)?;
    guest.engine.wait_for_interrupt(&guest.vf, &event)?;
    session.read_to_pause(Segments::Whole)?;
    guest.work(2)?;
    guest.vf.device.change_state(State::PreCopyP2p)?;
    guest.vf.device.change_state(State::PreCopy)?;
    guest.work(3)
}

fn device_without_p2p_works(bed: &Bed) -> Result<()> {
    let (mut guest, session) = begun(&bed.without_p2p()?, State::PreCopy)?;
    guest.work(1)?;
    session.read_to_pause(Segments::Whole)?;
    guest.work(2)
}

fn quiesced_device_waits(bed: &Bed) -> Result<()> {
    let (mut guest, _session) = begun(bed, State::PreCopyP2p)?;
    guest.doorbell_is_kept_until(State::PreCopy)
}

fn device_follows_the_states(bed: &Bed) -> Result<()> {
    Guest::new(bed, 0)?.follows(
        &RegisterFile::map(&bed.pf)?,
        &[
            (State::PreCopy, hw::VIFA_RUN_STATE_RUNNING),
            (State::PreCopyP2p, hw::VIFA_RUN_STATE_P2P),
            (State::PreCopy, hw::VIFA_RUN_STATE_RUNNING),
            (State::StopCopy, hw::VIFA_RUN_STATE_STOPPED),
            (State::Running, hw::VIFA_RUN_STATE_RUNNING),
            (State::PreCopyP2p, hw::VIFA_RUN_STATE_P2P),
            (State::RunningP2p, hw::VIFA_RUN_STATE_P2P),
            (State::PreCopyP2p, hw::VIFA_RUN_STATE_P2P),
            (State::Running, hw::VIFA_RUN_STATE_RUNNING),
        ],
    )
}

/// Continues from `state` to STOP_COPY after `before` bytes of the stream. The whole stream must
/// equal that of STOP_COPY alone, and load.
fn goes_on(bed: &Bed, state: State, before: usize) -> Result<()> {
    let (mut guest, session) = begun(bed, state)?;
    let device = &guest.vf.device;
    let mut stream = session.read(before)?;
    device.change_state(State::StopCopy)?;
    stream.extend(session.read_all(Segments::Of(4097))?);
    device.change_state(State::Stop)?;
    let expected = device.save()?;
    expect::same_bytes("stream", &stream, &expected)?;
    device.load(&stream)?;
    expect::same_bytes("stream of the loaded state", &device.save()?, &stream)?;
    guest.recover()
}

fn stream_continues_in_stop_copy(bed: &Bed) -> Result<()> {
    goes_on(bed, State::PreCopyP2p, 1 << 20)
}

/// Reads different parts of the stream while the device runs.
fn partly_read_stream_continues_in_stop_copy(bed: &Bed) -> Result<()> {
    let middle_of_data = RELATIONS_END + part_of(0, 0) + 1000;
    [
        0,
        1,
        20,
        RELATIONS_END - 1,
        RELATIONS_END + 1,
        middle_of_data,
    ]
    .into_iter()
    .try_for_each(|before| goes_on(bed, State::PreCopy, before))
}

fn stream_is_the_one_of_stop_copy(bed: &Bed) -> Result<()> {
    goes_on(bed, State::PreCopy, RELATIONS_END)
}

fn stream_is_the_same_after_moves_within_the_group(bed: &Bed) -> Result<()> {
    let (guest, session) = begun(bed, State::PreCopy)?;
    let device = &guest.vf.device;
    let mut stream = Vec::new();
    for number in 0..10 {
        device.change_state(BOTH[(number + 1) % 2])?;
        stream.extend(session.read(number)?);
    }
    device.change_state(State::StopCopy)?;
    stream.extend(session.read_all(Segments::Whole)?);
    device.change_state(State::Stop)?;
    expect::same_bytes("stream", &stream, &device.save()?)
}

fn stream_of_a_device_without_p2p_continues_in_stop_copy(bed: &Bed) -> Result<()> {
    goes_on(&bed.without_p2p()?, State::PreCopy, 1 << 20)
}

fn stop_copy_has_no_pause(bed: &Bed) -> Result<()> {
    let (guest, session) = begun(bed, State::PreCopy)?;
    session.read_to_pause(Segments::Whole)?;
    guest.vf.device.change_state(State::StopCopy)?;
    session.read_all(Segments::Of(999))?;
    for _ in 0..3 {
        expect::equal("bytes after the end", session.read(1)?.len(), 0)?;
    }
    Ok(())
}

fn cancel_loses_nothing(bed: &Bed) -> Result<()> {
    for (state, back) in [
        (State::PreCopy, State::Running),
        (State::PreCopyP2p, State::RunningP2p),
    ] {
        let (mut guest, session) = begun(bed, state)?;
        session.read_to_pause(Segments::Whole)?;
        guest.vf.device.change_state(back)?;
        expect::refused("read after a cancel", session.read(1), &[libc::ENODEV])?;
        guest.vf.device.change_state(State::Running)?;
        let middle = guest.vf.local_memory() / 2;
        expect::same_bytes(
            "local memory",
            &guest.read_local(middle, 0)?,
            &filled(!0x9_2ec0, CHUNK),
        )?;
        guest.work(5)?;
        let stream = guest.vf.device.save().context("save after a cancel")?;
        guest.vf.device.load(&stream)?;
    }
    Ok(())
}

fn repeated_cancel(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    guest.furnish(7)?;
    let expected = guest.vf.device.save()?;
    guest.vf.device.change_state(State::Running)?;
    for round in 0..20 {
        let session = guest.vf.device.start(BOTH[round % 2])?;
        session.read(round * 17)?;
        guest.vf.device.change_state(State::Running)?;
    }
    expect::same_bytes("stream", &guest.vf.device.save()?, &expected)
}

fn session_closed_early_does_not_bind_the_device(bed: &Bed) -> Result<()> {
    let (mut guest, session) = begun(bed, State::PreCopy)?;
    drop(session);
    guest.work(1)?;
    guest.vf.device.change_state(State::StopCopy)?;
    guest.vf.device.change_state(State::Running)?;
    guest.work(2)
}

fn two_vfs_at_once(bed: &Bed) -> Result<()> {
    let (mut guest, session) = begun(bed, State::PreCopy)?;
    let mut other = Guest::new(bed, 1)?;
    other.furnish(1)?;
    let other_session = other.vf.device.start(State::PreCopy)?;
    session.read_to_pause(Segments::Whole)?;
    other_session.read_to_pause(Segments::Whole)?;
    guest.vf.device.change_state(State::StopCopy)?;
    pauses(&other_session)?;
    other.work(2)?;
    session.read_all(Segments::Whole)?;
    guest.vf.device.change_state(State::Running)?;
    other.vf.device.change_state(State::StopCopy)?;
    guest.work(3)?;
    other_session.read_all(Segments::Whole).map(drop)?;
    Ok(())
}

/// The device rejects the first run state on the way to `to`, and its session continues at the same
/// position.
fn refuses_and_stays(bed: &Bed, from: State, to: State) -> Result<()> {
    let (mut guest, session) = begun(bed, from)?;
    let device = &guest.vf.device;
    let registers = RegisterFile::map(&bed.pf)?;
    let status = Fault::Status(hw::VIFA_STATUS_DEVICE_FAILURE);
    let armed = registers.arm(0, SET_RUN_STATE, status, 1)?;
    let result = device.request_state(to as u32);
    expect::refused(&to.name(), result, &[libc::EIO])?;
    expect::equal("times that the fault happened", armed.fired(), 1)?;
    drop(armed);
    expect::equal("state after the refusal", device.state()?, from)?;
    let mut stream = session.read_to_pause(Segments::Whole)?;
    device.change_state(State::StopCopy)?;
    stream.extend(session.read_all(Segments::Whole)?);
    device.change_state(State::Stop)?;
    expect::same_bytes("stream", &stream, &device.save()?)?;
    guest.vf.device.change_state(State::Running)?;
    guest.work(1)
}

fn device_that_refuses_to_quiesce_stays(bed: &Bed) -> Result<()> {
    refuses_and_stays(bed, State::PreCopy, State::StopCopy)
}

fn device_that_refuses_to_stop_stays_quiesced(bed: &Bed) -> Result<()> {
    refuses_and_stays(bed, State::PreCopyP2p, State::StopCopy)
}

/// A device that does not respond on the way to `to` enters ERROR, its session ends, and a reset
/// recovers it.
fn hangs(bed: &Bed, from: State, to: State) -> Result<()> {
    let (mut guest, session) = begun(bed, from)?;
    let device = &guest.vf.device;
    let registers = RegisterFile::map(&bed.pf)?;
    let armed = registers.arm(0, SET_RUN_STATE, Fault::Hang, 1)?;
    let result = device.request_state(to as u32);
    expect::refused(&to.name(), result, &[libc::ETIMEDOUT])?;
    expect::equal("times that the fault happened", armed.fired(), 1)?;
    drop(armed);
    expect::equal("state", device.state()?, State::Error)?;
    expect::refused("read in ERROR", session.read(1), &[libc::ENODEV])?;
    expect::refused(
        "information in ERROR",
        session.precopy_info(0).map(drop),
        &[libc::ENODEV, libc::EINVAL],
    )?;
    guest.recover()
}

fn device_that_hangs_ends_in_error(bed: &Bed) -> Result<()> {
    hangs(bed, State::PreCopy, State::PreCopyP2p)?;
    hangs(bed, State::PreCopyP2p, State::StopCopy)
}

fn device_that_hangs_without_p2p_ends_in_error(bed: &Bed) -> Result<()> {
    hangs(&bed.without_p2p()?, State::PreCopy, State::StopCopy)
}
