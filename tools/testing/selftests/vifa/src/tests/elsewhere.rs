// SPDX-License-Identifier: GPL-2.0

//! Regression tests for bugs found in drivers of other devices and in their users.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{anyhow, Context, Result};
use vifa_device::{opcode::IDENTIFY, Fault, RegisterFile};
use vifa_vfio::pci::Function;

use super::{
    claims,
    close::{guest_in, has_ended},
    fixture::{both_work, Guest},
    Test,
};
use crate::{
    bed::{Bed, MODULE, VF_DRIVER},
    engine::Command,
    expect,
    hw::{self, vifa_hw_identity},
    injection::Injector,
    migration::{Segments, State},
    process::Victim,
    sys,
    vfio::{AddressSpace, Device, DmaMemory, IovaRange},
};

const PAGE: u64 = 4096;

pub fn tests() -> Vec<Test> {
    claims!("elsewhere":
        module_is_removed_after_refused_transfers_with_their_files_open,
        module_is_removed_after_killed_transfers_with_their_files_open,
        no_descriptor_is_left_at_any_transition,
        no_memory_is_left_at_any_transition,
        guest_resets_and_sets_up_its_device_in_pre_copy,
        memory_mapped_after_the_log_began_is_logged,
        log_meets_resets_and_transitions,
        resets_of_the_vf_and_the_pf_meet_in_each_state,
        identity_of_any_value_is_accepted_or_refused,
        capability_of_any_value_is_accepted_or_refused,
    )
}

/// hisi_acc: the module was removed while a file of a transfer was open.
fn module_is_removed_with_files_open(bed: &Bed, end: impl Fn(&Bed) -> Result<()>) -> Result<()> {
    bed.module_file()?;
    end(bed)?;
    bed.unload_module()?;
    bed.restore()?;
    both_work(bed)
}

fn module_is_removed_after_refused_transfers_with_their_files_open(bed: &Bed) -> Result<()> {
    module_is_removed_with_files_open(bed, |bed| {
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

fn module_is_removed_after_killed_transfers_with_their_files_open(bed: &Bed) -> Result<()> {
    for state in [State::PreCopy, State::StopCopy, State::Resuming] {
        module_is_removed_with_files_open(bed, |bed| {
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

/// The transitions that begin a session, which need a descriptor and memory.
const BEGINNINGS: [(State, State); 4] = [
    (State::Running, State::PreCopy),
    (State::Running, State::StopCopy),
    (State::Stop, State::StopCopy),
    (State::Stop, State::Resuming),
];

/// xe, pds: a transition that ran out of a resource left the device in an unexpected state.
fn fails_at_each_transition(
    bed: &Bed,
    error: i32,
    mut attempt: impl FnMut(&Device, State) -> Result<std::io::Result<()>>,
) -> Result<()> {
    let (mut guest, stream) = Guest::saved(bed, 0)?;
    for (from, to) in BEGINNINGS {
        let what = format!("{} to {}", from.name(), to.name());
        let device = &guest.vf.device;
        device.change_state(from)?;
        expect::refused(&what, attempt(device, to)?, &[error])?;
        let state = device.state()?;
        // VFIO allocates a descriptor after the driver has finished, and closes the file on
        // failure.
        let arrived = error == libc::EMFILE && state == to;
        expect::claim(
            &format!("a state before {} rather than {}", to.name(), state.name()),
            arrived || (state != to && state != State::Error),
        )?;
        if state == State::Resuming {
            // The missing data will never be written.
            device.reset()?;
        }
        device.change_state(from)?;
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

fn no_descriptor_is_left_at_any_transition(bed: &Bed) -> Result<()> {
    fails_at_each_transition(bed, libc::EMFILE, |device, to| {
        let open = fs::read_dir("/proc/self/fd")?.count() as u64;
        let mut fill = Vec::new();
        // The directory used one of them. All lower numbers are in use, or soon will be.
        let before = sys::limit_descriptors(open + 8)?;
        while let Ok(event) = sys::eventfd() {
            fill.push(event);
        }
        let result = device.request_state(to as u32).map(drop);
        sys::limit_descriptors(before)?;
        Ok(result)
    })
}

fn no_memory_is_left_at_any_transition(bed: &Bed) -> Result<()> {
    let injector = Injector::of_this_thread()?;
    fails_at_each_transition(bed, libc::ENOMEM, |device, to| {
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
    // The VMM starts over; the guest disables and enables its engine.
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

/// libvfio-user: memory that is mapped after the log started.
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
        expect::equal("pages of unmapped memory", dirty.count(), 0)?;
    }
    guest.recover()
}

/// mlx5: concurrent log starts and stops, resets and transitions.
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
    // Device and driver agree that logging is off.
    guest.vf.device.start_logging(&[range], PAGE)?;
    guest.work(3)?;
    let dirty = guest.vf.device.dirty_pages(range, PAGE)?;
    expect::claim("pages that the guest wrote", dirty.count() >= 3)?;
    guest.vf.device.stop_logging()?;
    guest.recover()
}

/// hisi_acc: concurrent resets of a VF and of its PF.
fn resets_of_the_vf_and_the_pf_meet_in_each_state(bed: &Bed) -> Result<()> {
    // If a function level reset fails because the PF is being reset, the PCI core tries the next
    // method. For a VF below a hot-plug port this is a slot reset, in which the PF loses its
    // configuration.
    let methods = bed.vf(0)?.attribute("reset_method");
    fs::write(&methods, "flr").with_context(|| methods.display().to_string())?;
    let mut states = [State::Error].into_iter().chain(State::SUPPORTED);
    let result = states.try_for_each(|state| resets_meet(bed, state).context(state.name()));
    fs::write(&methods, "default").with_context(|| methods.display().to_string())?;
    result?;
    both_work(bed)
}

fn resets_meet(bed: &Bed, state: State) -> Result<()> {
    let (guest, session) = guest_in(bed, state)?;
    let device = &guest.vf.device;
    thread::scope(|scope| {
        let pf = scope.spawn(|| bed.pf.reset());
        // The result depends on the progress of the PF's reset.
        while !pf.is_finished() {
            let _ = device.reset();
            let _ = guest.vf.function_level_reset();
        }
        let result = pf.join().map_err(|_| anyhow!("a thread panicked"))?;
        result.context("reset of the PF")
    })?;
    // The state is that of the last reset.
    let after = device.state()?;
    expect::claim(
        &format!("ERROR or RUNNING rather than {}", after.name()),
        matches!(after, State::Error | State::Running),
    )?;
    has_ended(session, state)?;
    guest.vf.reset()?;
    expect::equal("state after a reset", device.state()?, State::Running)
}

/// Returns 0, the maximum, and each power of two of a field of `width` bytes.
fn limits(width: usize) -> impl Iterator<Item = u64> {
    let bits = 8 * width as u32;
    let powers = (0..bits).map(|bit| 1 << bit);
    [0, u64::MAX >> (64 - bits)].into_iter().chain(powers)
}

/// The driver's use of a field of the identity.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    /// The field is compared with that of another device; any value is valid.
    Any,
    /// The field is validated.
    Checked,
    /// The field is validated and used in computations.
    Size,
}

/// A field of the identity.
#[derive(Clone, Copy)]
struct Field {
    offset: usize,
    width: usize,
    kind: Use,
}

fn fields() -> Vec<Field> {
    use std::mem::offset_of;
    macro_rules! fields {
        ($($name:ident: $width:literal * $count:literal, $kind:ident;)*) => {
            vec![$((offset_of!(vifa_hw_identity, $name), $width, $count, Use::$kind)),*]
        };
    }
    let all: Vec<(usize, usize, usize, Use)> = fields!(
        vendor: 2 * 1, Checked;
        device: 2 * 1, Checked;
        subsystem_vendor: 2 * 1, Any;
        subsystem: 2 * 1, Any;
        revision_id: 1 * 1, Any;
        vifa_revision: 2 * 1, Checked;
        features: 4 * 1, Size;
        bar_size: 8 * 6, Checked;
        interrupt_vectors: 2 * 1, Checked;
        queues: 2 * 1, Any;
        granule: 4 * 1, Size;
        local_memory: 8 * 1, Size;
        control_plane_max: 4 * 1, Size;
        record_version: 2 * 2, Any;
    );
    let each = |(offset, width, count, kind)| {
        (0..count).map(move |number| Field {
            offset: offset + number * width,
            width,
            kind,
        })
    };
    all.into_iter().flat_map(each).collect()
}

/// Binds the VF with `value` in `fields` of its identity. Returns whether it is bound.
fn bind_with(vf: &Function, file: &RegisterFile, fields: &[Field], value: u64) -> Result<bool> {
    vf.unbind()?;
    let patch = |field: &Field| {
        let patch = Fault::Patch {
            offset: field.offset as u32,
            width: field.width as u32,
            value: value & (u64::MAX >> (64 - 8 * field.width)),
        };
        file.arm(0, IDENTIFY, patch, hw::VIFA_FAULT_ALWAYS)
    };
    let _armed = fields.iter().map(patch).collect::<Result<Vec<_>>>()?;
    match vf.bind(VF_DRIVER) {
        Ok(()) => Ok(true),
        result => expect::refused("bind", result, &[libc::ENODEV]).map(|()| false),
    }
}

/// mlx5: a capability of 0, or of an invalid size.
///
/// Checks that the VF is bound and migrates to itself, or is not bound, and that the next identity
/// is valid.
fn identity_of_any_value_is_accepted_or_refused(bed: &Bed) -> Result<()> {
    let vf = bed.vf(0)?;
    let file = RegisterFile::map(&bed.pf)?;
    let (any, checked): (Vec<_>, Vec<_>) = fields()
        .into_iter()
        .partition(|field| field.kind == Use::Any);
    for value in limits(2) {
        let bound = bind_with(&vf, &file, &any, value)?;
        expect::claim(&format!("a VF that is bound with {value:#x}"), bound)?;
    }
    for field in checked {
        for value in limits(field.width) {
            let what = || format!("{value:#x} at {}", field.offset);
            let bound = bind_with(&vf, &file, &[field], value).with_context(what)?;
            if bound && field.kind == Use::Size {
                saves_and_loads(&vf).with_context(what)?;
            }
        }
    }
    vf.unbind()?;
    bed.restore()?;
    let (mut guest, stream) = Guest::saved(bed, 0)?;
    guest.vf.device.load(&stream)?;
    guest.recover()
}

/// A device with a wrong identity fails, but runs after a reset.
fn saves_and_loads(vf: &Function) -> Result<()> {
    let device = Device::open(vf, &AddressSpace::iommufd()?)?;
    let _ = device.data_size();
    if let Ok(stream) = device.save() {
        let _ = device.load(&stream);
    }
    device.reset()?;
    expect::equal("state after a reset", device.state()?, State::Running)
}

/// Does the same for the capability in configuration space, which identifies a PF.
fn capability_of_any_value_is_accepted_or_refused(bed: &Bed) -> Result<()> {
    const FIELDS: [(u32, usize); 5] = [
        (hw::VIFA_DVSEC_REVISION, 2),
        (hw::VIFA_DVSEC_FEATURES, 4),
        (hw::VIFA_DVSEC_LOCATION, 4),
        (hw::VIFA_DVSEC_TIMEOUT, 4),
        (hw::VIFA_DVSEC_FRAMES, 4),
    ];
    let registers = RegisterFile::map(&bed.pf)?;
    let driver = bed.pf_driver()?;
    // Unbinding a PF that has VFs warns under lockdep.
    bed.pf.set_virtual_functions(0)?;
    bed.pf.unbind()?;
    for (field, width) in FIELDS {
        for value in limits(width) {
            let changed = registers.change_capability(field, width, value as u32);
            let bound = bed.pf.bind(&driver);
            drop(changed);
            if bound.is_ok() {
                bed.pf.unbind()?;
            }
            let result = bound.map(drop);
            let what = format!("{value:#x} at {field}");
            result.or_else(|error| expect::refused(&what, Err::<(), _>(error), &[libc::ENODEV]))?;
        }
    }
    bed.restore()?;
    both_work(bed)
}
