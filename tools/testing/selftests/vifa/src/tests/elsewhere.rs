// SPDX-License-Identifier: GPL-2.0

//! Faults that were found in drivers of other devices, and in what uses them.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{anyhow, Context, Result};

use super::{claims, fixture::Guest, Test};
use crate::{
    bed::{Bed, MODULE, VFS},
    engine::Command,
    expect,
    fault::{Fault, RegisterFile, IDENTIFY},
    hw::{self, vifa_hw_identity},
    injection::Injector,
    migration::{Segments, State},
    process::Victim,
    vfio::{AddressSpace, Device, DmaMemory, IovaRange},
};

const PAGE: u64 = 4096;

pub fn tests() -> Vec<Test> {
    let mut tests = claims!("elsewhere":
        module_goes_after_refused_transfers_with_their_files_open,
        module_goes_after_killed_transfers_with_their_files_open,
        no_memory_is_left_at_any_transition,
        guest_resets_and_sets_up_its_device_in_pre_copy,
        memory_mapped_after_the_log_began_is_logged,
        log_meets_resets_and_transitions,
    );
    let claim = "elsewhere.identity_of_any_value_is_taken_or_refused";
    tests.push(Test::new(claim, identity_of_any_value_is_taken_or_refused).within(120));
    tests
}

/// hisi_acc: the module went while a file of a transfer was open.
fn module_goes_with_files_open(bed: &Bed, end: impl Fn(&Bed) -> Result<()>) -> Result<()> {
    bed.module_file()?;
    end(bed)?;
    bed.unload_module()?;
    bed.restore()?;
    (0..VFS).try_for_each(|index| Guest::new(bed, index)?.work(1))
}

fn module_goes_after_refused_transfers_with_their_files_open(bed: &Bed) -> Result<()> {
    module_goes_with_files_open(bed, |bed| {
        let (guest, mut stream) = Guest::saved(bed, 0)?;
        stream[40] ^= 1;
        let session = guest.vf.device.start(State::Resuming)?;
        let written = session.write_all(&stream, Segments::Whole);
        let ended = guest.vf.device.request_state(State::Stop as u32);
        expect::claim("a refusal", written.is_err() || ended.is_err())?;
        drop(guest);
        expect::refused("removal of the module", MODULE.remove(), &[libc::EAGAIN])?;
        expect::refused("write", session.write(&[0]), &[libc::ENODEV])
    })
}

fn module_goes_after_killed_transfers_with_their_files_open(bed: &Bed) -> Result<()> {
    for state in [State::PreCopy, State::StopCopy, State::Resuming] {
        module_goes_with_files_open(bed, |bed| {
            let victim = Victim::holding(Duration::from_secs(10), || {
                let (guest, stream) = Guest::saved(bed, 0)?;
                let session = guest.vf.device.start(state)?;
                match state {
                    State::Resuming => drop(session.write(&stream[..stream.len() / 2])?),
                    _ => drop(session.read(100)?),
                }
                Ok((guest, session))
            })?;
            expect::refused("removal of the module", MODULE.remove(), &[libc::EAGAIN])?;
            victim.kill()
        })
        .context(state.name())?;
    }
    Ok(())
}

/// The transitions that begin a session, which need memory.
const BEGINNINGS: [(State, State); 4] = [
    (State::Running, State::PreCopy),
    (State::Running, State::StopCopy),
    (State::Stop, State::StopCopy),
    (State::Stop, State::Resuming),
];

/// xe, pds: a transition that ran out of something left the device where nobody expected it.
fn fails_at_each_transition(
    bed: &Bed,
    errors: &[i32],
    mut attempt: impl FnMut(&Device, State) -> Result<std::io::Result<()>>,
) -> Result<()> {
    let (mut guest, stream) = Guest::saved(bed, 0)?;
    for (from, to) in BEGINNINGS {
        let what = format!("{} to {}", from.name(), to.name());
        let device = &guest.vf.device;
        device.change_state(from)?;
        expect::refused(&what, attempt(device, to)?, errors)?;
        let state = device.state()?;
        expect::claim(
            &format!("a state before {} rather than {}", to.name(), state.name()),
            state != to && state != State::Error,
        )?;
        drop(
            device
                .start(to)
                .with_context(|| format!("{what} afterwards"))?,
        );
        if to != State::Resuming {
            device.change_state(State::Stop)?;
            expect::same_bytes("stream", &device.save()?, &stream)?;
        }
    }
    guest.recover()
}

fn no_memory_is_left_at_any_transition(bed: &Bed) -> Result<()> {
    let injector = Injector::of_this_thread()?;
    fails_at_each_transition(bed, &[libc::ENOMEM], |device, to| {
        injector.starve(|| device.request_state(to as u32).map(drop))
    })
}

/// libvfio-user: a guest that resets or reboots in PRE_COPY.
fn guest_resets_and_sets_up_its_device_in_pre_copy(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    guest.furnish(1)?;
    let session = guest.vf.device.start(State::PreCopy)?;
    session.read_to_pause(Segments::Whole)?;
    guest.vf.function_level_reset()?;
    guest.works_after_a_reset()?;
    expect::refused("read", session.read(1), &[libc::ENODEV])?;
    // The VMM begins anew; the guest takes its engine down and up again.
    let session = guest.vf.device.start(State::PreCopy)?;
    let mut stream = session.read_to_pause(Segments::Whole)?;
    guest.engine.enable(&guest.vf)?;
    guest.furnish(2)?;
    guest.vf.device.change_state(State::StopCopy)?;
    stream.extend(session.read_all(Segments::Whole)?);
    guest.vf.device.change_state(State::Stop)?;
    let destination = Guest::new(bed, 1)?;
    destination.vf.device.load(&stream)?;
    expect::same_bytes(
        "state of the destination",
        &destination.vf.device.save()?[..],
        &{
            destination.vf.device.load(&guest.vf.device.save()?)?;
            destination.vf.device.save()?
        },
    )
}

/// libvfio-user: memory that comes after the log began.
fn memory_mapped_after_the_log_began_is_logged(bed: &Bed) -> Result<()> {
    let range = IovaRange::new(0x8000_0000, 1 << 20);
    let mut guest = Guest::new(bed, 0)?;
    guest.vf.device.start_logging(&[range], PAGE)?;
    for offset in [0, 64 * PAGE, 0] {
        let iova = range.iova + offset;
        let memory = DmaMemory::new(&guest.space, iova, 16 * PAGE as usize)?;
        guest.run(Command::Fill {
            destination: iova + 3 * PAGE,
            length: 8,
            pattern: 1,
        })?;
        let dirty = guest.vf.device.dirty_pages(range, PAGE)?;
        expect::equal("pages", dirty.dirty().collect(), vec![iova + 3 * PAGE])?;
        drop(memory);
        let dirty = guest.vf.device.dirty_pages(range, PAGE)?;
        expect::equal("pages of memory that went", dirty.count(), 0)?;
    }
    guest.recover()
}

/// mlx5: a log that starts and stops, resets and transitions, all at once.
fn log_meets_resets_and_transitions(bed: &Bed) -> Result<()> {
    const ROUNDS: usize = 20;
    let mut guest = Guest::new(bed, 0)?;
    let range = IovaRange::new(guest.memory.iova, super::fixture::MEMORY);
    let device = &guest.vf.device;
    let done = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let log = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let _ = device.start_logging(&[range], PAGE);
                let _ = device.dirty_pages(range, PAGE);
                let _ = device.stop_logging();
            }
        });
        let change = scope.spawn(|| {
            for state in State::SUPPORTED.into_iter().cycle() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let _ = device.request_state(state as u32);
            }
        });
        let resets = (0..ROUNDS).try_for_each(|_| device.reset());
        done.store(true, Ordering::Relaxed);
        for thread in [log, change] {
            thread.join().map_err(|_| anyhow!("a thread panicked"))?;
        }
        resets.context("reset")
    })?;
    guest.recover()?;
    // The device and the driver agree that nothing is logged.
    guest.vf.device.start_logging(&[range], PAGE)?;
    guest.work(3)?;
    let dirty = guest.vf.device.dirty_pages(range, PAGE)?;
    expect::claim("pages that the guest wrote", dirty.count() >= 3)?;
    guest.vf.device.stop_logging()?;
    guest.recover()
}

/// A field of the identity by its place and width.
fn fields() -> Vec<(usize, usize)> {
    use std::mem::offset_of;
    macro_rules! fields {
        ($($name:ident: $width:literal * $count:literal),* $(,)?) => {
            vec![$((offset_of!(vifa_hw_identity, $name), $width, $count)),*]
        };
    }
    let all: Vec<(usize, usize, usize)> = fields!(
        vendor: 2 * 4,
        revision_id: 1 * 2,
        vifa_revision: 2 * 1,
        features: 4 * 1,
        bar_size: 8 * 2,
        interrupt_vectors: 2 * 2,
        granule: 4 * 1,
        local_memory: 8 * 1,
        control_plane_max: 4 * 2,
        record_version: 2 * 2,
    );
    all.into_iter()
        .flat_map(|(offset, width, count)| (0..count).map(move |n| (offset + n * width, width)))
        .collect()
}

/// mlx5: a capability of 0, or of a size that nobody has.
///
/// The VF is bound and migrates to itself, or is not bound; the next one is sound.
fn identity_of_any_value_is_taken_or_refused(bed: &Bed) -> Result<()> {
    let vf = bed.vf(0)?;
    let registers = RegisterFile::map(&bed.pf)?;
    for (offset, width) in fields() {
        let bits = 8 * width as u32;
        let most = u64::MAX >> (64 - bits);
        for value in [0, most, 1, 1 << (bits - 1)] {
            vf.unbind()?;
            let patch = Fault::Patch {
                offset: offset as u32,
                width: width as u32,
                value,
            };
            let armed = registers.arm(0, IDENTIFY, patch, hw::VIFA_FAULT_ALWAYS)?;
            if vf.bind(crate::bed::VF_DRIVER).is_err() {
                continue;
            }
            let device = Device::open(&vf, &AddressSpace::iommufd()?)?;
            let _ = device.data_size();
            if let Ok(stream) = device.save() {
                let _ = device.load(&stream);
            }
            let reset = device.reset();
            drop(armed);
            reset.with_context(|| format!("{value:#x} at {offset}"))?;
        }
    }
    bed.restore()?;
    vf.unbind()?;
    bed.restore()?;
    let (mut guest, stream) = Guest::saved(bed, 0)?;
    guest.vf.device.load(&stream)?;
    guest.recover()
}
