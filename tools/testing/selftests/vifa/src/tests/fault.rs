// SPDX-License-Identifier: GPL-2.0

//! A device that fails, hangs, answers short or lies: the driver reports it, ends in a state that
//! the specification allows, and a reset recovers the device.

use std::{
    io,
    mem::offset_of,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use vifa_device::{
    opcode::{
        IDENTIFY, LOAD, LOCAL_BITMAP, LOCAL_CLEAR, LOCAL_READ, LOCAL_WRITE, SAVE, SET_RUN_STATE,
    },
    Fault, Opcode, RegisterFile,
};

use super::{claims, fixture::Guest, Test};
use crate::{
    bed::{Bed, VF_DRIVER},
    expect, hw,
    kmsg::KernelLog,
    migration::{Segments, State},
    stream::Stream,
    vfio::Device,
};

/// The user's action during which the fault occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Enters STOP.
    Stop,
    /// Saves.
    Save,
    /// Loads.
    Load,
}

impl Action {
    /// Returns the action in which the driver issues the command `opcode`.
    fn with(opcode: Opcode) -> Self {
        match opcode {
            SET_RUN_STATE => Self::Stop,
            SAVE | LOCAL_BITMAP | LOCAL_READ => Self::Save,
            _ => Self::Load,
        }
    }

    fn perform(self, device: &Device, stream: &[u8]) -> Result<io::Result<()>> {
        Ok(match self {
            Self::Stop => device.request_state(State::Stop as u32).map(drop),
            Self::Save => match device.request_state(State::StopCopy as u32) {
                Ok(session) => session
                    .context("a session")?
                    .read_all(Segments::Whole)
                    .map(drop),
                Err(error) => Err(error),
            },
            Self::Load => device.try_load(stream, Segments::Whole)?,
        })
    }

    /// Returns the allowed states after a failed action: those on its way, and ERROR.
    fn states_after_failure(self) -> &'static [State] {
        match self {
            Self::Stop => &[State::Running, State::RunningP2p, State::Error],
            Self::Save => &[
                State::Running,
                State::RunningP2p,
                State::Stop,
                State::StopCopy,
                State::Error,
            ],
            Self::Load => &[State::Resuming, State::Error],
        }
    }
}

const COMMANDS: [Opcode; 7] = [
    SET_RUN_STATE,
    SAVE,
    LOAD,
    LOCAL_BITMAP,
    LOCAL_READ,
    LOCAL_WRITE,
    LOCAL_CLEAR,
];

/// Faults that concern one command, by the name of the test, with the allowed errors.
const CASES: [(&str, Opcode, Fault, &[i32]); 10] = [
    (
        "meets_a_DMA_fault",
        SAVE,
        Fault::Status(hw::VIFA_STATUS_DMA_FAULT),
        &[libc::EIO],
    ),
    (
        "has_an_unknown_status",
        SAVE,
        Fault::Status(0x4242),
        &[libc::EIO],
    ),
    (
        "refuses_a_record",
        LOAD,
        Fault::Status(hw::VIFA_STATUS_INVALID_RECORD),
        &[libc::EINVAL, libc::EIO],
    ),
    ("answers_short", SAVE, Fault::ShortResult(8), &[libc::EIO]),
    ("answers_nothing", SAVE, Fault::Result(0), &[libc::EIO]),
    (
        "lies_about_its_size",
        SAVE,
        Fault::Result(1 << 40),
        &[libc::EIO],
    ),
    (
        "lies_about_a_record_s_length",
        SAVE,
        Fault::Patch {
            offset: offset_of!(hw::vifa_hw_record, length) as u32,
            width: 4,
            value: 0xffff_fff0,
        },
        &[libc::EIO],
    ),
    (
        "lies_about_a_record_s_type",
        SAVE,
        Fault::Patch {
            offset: 0,
            width: 2,
            value: 0xffff,
        },
        &[libc::EIO],
    ),
    (
        "lies_about_its_count",
        LOCAL_BITMAP,
        Fault::Result(1 << 33),
        &[libc::EIO],
    ),
    // The furnished guest has data at the start and in the middle of its local memory.
    (
        "withholds_bytes",
        LOCAL_BITMAP,
        Fault::ShortData(1 << 6),
        &[libc::EIO],
    ),
];

/// Longer than any timeout of the device in a test, with a margin for a slow machine.
const SLACK: Duration = Duration::from_secs(3);

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    let mut add = |what: &str, opcode: Opcode, fault: Fault, errors: &'static [i32]| {
        tests.push(Test::new(
            format!("fault.{}_{what}", opcode.name),
            move |bed| fails(bed, opcode, fault, errors),
        ));
    };
    for opcode in COMMANDS {
        add(
            "fails",
            opcode,
            Fault::Status(hw::VIFA_STATUS_DEVICE_FAILURE),
            &[libc::EIO],
        );
        add("hangs", opcode, Fault::Hang, &[libc::ETIMEDOUT]);
        add(
            "has_another_tag",
            opcode,
            Fault::Tag(0x8001),
            &[libc::EIO, libc::ETIMEDOUT],
        );
    }
    for opcode in [SET_RUN_STATE, SAVE, LOAD, LOCAL_READ] {
        add(
            "hangs_and_its_abort_too",
            opcode,
            Fault::HangAbort,
            &[libc::ETIMEDOUT],
        );
    }
    for (what, opcode, fault, errors) in CASES {
        add(what, opcode, fault, errors);
    }
    for (what, fault) in [
        ("fails", Fault::Status(hw::VIFA_STATUS_DEVICE_FAILURE)),
        ("hangs", Fault::Hang),
        ("hangs_and_its_abort_too", Fault::HangAbort),
    ] {
        tests.push(Test::new(format!("fault.IDENTIFY_{what}"), move |bed| {
            is_not_bound(bed, fault, IDENTIFY.name)
        }));
    }
    for lie in LIES {
        tests.push(Test::new(
            format!("fault.IDENTIFY_lies_about_{}", lie.field),
            move |bed| is_not_bound(bed, lie.fault(), lie.field),
        ));
    }
    tests.extend(claims!("fault":
        late_command_succeeds,
        lost_interrupt_ends_within_the_timeout,
        bytes_that_the_device_withholds_are_zeroes,
        data_size_fails_if_the_bitmap_fails,
        pf_driver_is_unbound_while_a_command_is_stuck,
        other_vf_is_untouched,
    ));
    tests
}

fn fails(bed: &Bed, opcode: Opcode, fault: Fault, errors: &[i32]) -> Result<()> {
    bed.rebind(0)?;
    let action = Action::with(opcode);
    let (mut guest, stream) = Guest::saved(bed, 0)?;
    if action != Action::Load {
        guest.vf.device.change_state(State::Running)?;
    }
    let device = &guest.vf.device;
    let registers = RegisterFile::map(&bed.pf)?;
    let mut log = KernelLog::from_now()?;
    let armed = registers.arm(0, opcode, fault, 1)?;
    let start = Instant::now();
    let result = action.perform(device, &stream)?;
    let elapsed = start.elapsed();
    expect::equal("times that the fault happened", armed.fired(), 1)?;
    expect::refused(&format!("{action:?}"), result, errors)?;
    // An abort has the same timeout as the command.
    let limit = 2 * registers.timeout + SLACK;
    expect::claim(
        &format!("the error within {limit:?}, not after {elapsed:?}"),
        elapsed < limit,
    )?;
    let state = device.state()?;
    let states = match fault {
        Fault::HangAbort if action != Action::Save => &[State::Error],
        _ => action.states_after_failure(),
    };
    expect::claim(
        &format!("one of the states {states:?} rather than {state:?}"),
        states.contains(&state),
    )?;
    drop(armed);
    log.expect(&[&bed.vf(0)?.to_string()])?;
    if names_its_command(fault) {
        log.expect(&[&bed.vf(0)?.to_string(), opcode.name])?;
    }
    guest.recover()?;
    guest.furnish(7)?;
    let stream = guest.vf.device.save().context("save after the fault")?;
    guest
        .vf
        .device
        .load(&stream)
        .context("load after the fault")
}

/// A field of the identity with an impossible value.
#[derive(Clone, Copy)]
struct Lie {
    field: &'static str,
    offset: usize,
    width: u32,
    value: u64,
}

impl Lie {
    fn fault(self) -> Fault {
        Fault::Patch {
            offset: self.offset as u32,
            width: self.width,
            value: self.value,
        }
    }
}

const LIES: [Lie; 7] = [
    Lie {
        field: "vendor",
        offset: offset_of!(hw::vifa_hw_identity, vendor),
        width: 2,
        value: 0x8086,
    },
    Lie {
        field: "vifa_revision",
        offset: offset_of!(hw::vifa_hw_identity, vifa_revision),
        width: 2,
        value: 0,
    },
    Lie {
        field: "bar_size",
        offset: offset_of!(hw::vifa_hw_identity, bar_size),
        width: 8,
        value: 3000,
    },
    Lie {
        field: "interrupt_vectors",
        offset: offset_of!(hw::vifa_hw_identity, interrupt_vectors),
        width: 2,
        value: 0xffff,
    },
    Lie {
        field: "granule",
        offset: offset_of!(hw::vifa_hw_identity, granule),
        width: 4,
        value: 0x3000,
    },
    Lie {
        field: "local_memory",
        offset: offset_of!(hw::vifa_hw_identity, local_memory),
        width: 8,
        value: 1 << 60,
    },
    Lie {
        field: "control_plane_max",
        offset: offset_of!(hw::vifa_hw_identity, control_plane_max),
        width: 4,
        value: 0xffff_ffff,
    },
];

/// Checks that a VF whose IDENTIFY meets `fault` is not bound, that the log reports it with `word`,
/// and that the VF is bound after the fault.
fn is_not_bound(bed: &Bed, fault: Fault, word: &str) -> Result<()> {
    let vf = bed.vf(0)?;
    vf.unbind()?;
    let registers = RegisterFile::map(&bed.pf)?;
    let armed = registers.arm(0, IDENTIFY, fault, 1)?;
    let mut log = KernelLog::from_now()?;
    let result = vf.bind(VF_DRIVER);
    expect::equal("times that the fault happened", armed.fired(), 1)?;
    drop(armed);
    expect::refused("bind", result, &[libc::ENODEV, libc::EIO, libc::ETIMEDOUT])?;
    log.expect(&[&vf.to_string(), word])?;
    if fault == Fault::HangAbort {
        // Only a reset helps.
        vf.reset().context("reset of a VF without a driver")?;
    }
    vf.bind(VF_DRIVER).context("bind after the fault")?;
    Guest::new(bed, 0)?.work(1)
}

fn data_size_fails_if_the_bitmap_fails(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    let registers = RegisterFile::map(&bed.pf)?;
    for (fault, error) in [
        (Fault::Status(hw::VIFA_STATUS_DEVICE_FAILURE), libc::EIO),
        (Fault::Hang, libc::ETIMEDOUT),
    ] {
        let armed = registers.arm(0, LOCAL_BITMAP, fault, 1)?;
        expect::refused("MIG_DATA_SIZE", guest.vf.device.data_size(), &[error])?;
        expect::equal("times that the fault happened", armed.fired(), 1)?;
    }
    guest.vf.device.data_size()?;
    guest.work(1)
}

/// The target of a stuck command's DMA outlives the PF's driver.
fn pf_driver_is_unbound_while_a_command_is_stuck(bed: &Bed) -> Result<()> {
    let vf = bed.vf(0)?;
    vf.unbind()?;
    let registers = RegisterFile::map(&bed.pf)?;
    let armed = registers.arm(0, IDENTIFY, Fault::HangAbort, 1)?;
    expect::refused("bind", vf.bind(VF_DRIVER), &[libc::ETIMEDOUT, libc::ENODEV])?;
    drop(armed);
    drop(registers);
    bed.pf.set_virtual_functions(0)?;
    bed.pf.unbind()?;
    bed.restore()?;
    Guest::new(bed, 0)?.work(1)
}

/// Returns whether the command itself failed, rather than returning a wrong answer.
fn names_its_command(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::Status(_) | Fault::Hang | Fault::HangAbort | Fault::Tag(_)
    )
}

fn late_command_succeeds(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    guest.furnish(1)?;
    let registers = RegisterFile::map(&bed.pf)?;
    let late = Fault::Delay(registers.timeout / 4);
    for opcode in [SET_RUN_STATE, SAVE, LOCAL_READ] {
        let armed = registers.arm(0, opcode, late, 1)?;
        guest.vf.device.save().context(opcode.name)?;
        expect::equal("times that the command was late", armed.fired(), 1)?;
        guest.vf.device.change_state(State::Running)?;
    }
    guest.work(1)
}

fn lost_interrupt_ends_within_the_timeout(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    let registers = RegisterFile::map(&bed.pf)?;
    let armed = registers.arm(0, SET_RUN_STATE, Fault::NoInterrupt, 1)?;
    let start = Instant::now();
    // The status reports success: the driver may accept it or time out.
    let result = guest.vf.device.request_state(State::RunningP2p as u32);
    expect::claim(
        "an answer within the timeout",
        start.elapsed() < registers.timeout + SLACK,
    )?;
    expect::equal("times that the interrupt was lost", armed.fired(), 1)?;
    if let Err(error) = result {
        expect::refused::<()>("RUNNING_P2P", Err(error), &[libc::ETIMEDOUT, libc::EIO])?;
    }
    guest.recover()
}

/// No kernel memory leaks into the stream if the device writes less than it reports.
fn bytes_that_the_device_withholds_are_zeroes(bed: &Bed) -> Result<()> {
    const WITHHELD: usize = 1000;
    let mut guest = Guest::new(bed, 0)?;
    guest.furnish(0x0101_0101_0101_0101)?;
    let registers = RegisterFile::map(&bed.pf)?;
    let armed = registers.arm(0, LOCAL_READ, Fault::ShortData(WITHHELD as u64), 1)?;
    let stream = Stream::parse(&guest.vf.device.save()?)?;
    expect::equal("times that the fault happened", armed.fired(), 1)?;
    let data = stream.of_kind(hw::VIFA_SECTION_DATA).next();
    let bytes = &data.context("a data section")?.payload;
    let withheld = &bytes[bytes.len() - WITHHELD..];
    expect::same_bytes("withheld bytes", withheld, &[0; WITHHELD])
}

fn other_vf_is_untouched(bed: &Bed) -> Result<()> {
    let mut other = Guest::new(bed, 1)?;
    other.furnish(4)?;
    let failing = Guest::new(bed, 0)?;
    failing.fail(bed, 0)?;
    other.work(5)?;
    other.vf.device.save()?;
    other.vf.device.change_state(State::Running)?;
    expect::equal(
        "state of the VF that failed",
        failing.vf.device.state()?,
        State::Error,
    )
}
