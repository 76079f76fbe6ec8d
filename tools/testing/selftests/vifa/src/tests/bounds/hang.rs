// SPDX-License-Identifier: GPL-2.0

//! Calls on a device that hangs in every command: the number of commands that each call issues.

use std::io;

use anyhow::Result;
use vifa_device::{
    opcode::{ANY, LOCAL_READ},
    Armed, Fault, RegisterFile,
};

use super::{claims, scattered, Source, PAGE};
use crate::{
    bed::{Bed, VF_DRIVER},
    engine::Vf,
    expect, hw,
    migration::{Segments, State},
    tests::{fixture::Guest, Test},
    vfio::{AddressSpace, DirtyBitmap, IovaRange},
};

pub fn tests() -> Vec<Test> {
    claims!("bounds":
        calls_end_with_the_first_command_that_hangs,
        logging_ends_with_the_first_command_that_hangs,
        open_ends_with_the_first_command_that_hangs,
        close_ends_with_the_first_command_that_hangs,
        reset_ends_with_the_first_command_that_hangs,
        unbinding_issues_no_command,
        close_of_data_fd_waits_for_no_command,
        reset_waits_for_no_command,
    )
}

/// Makes the device hang in every command of VF 0.
fn hang(registers: &RegisterFile) -> Result<Armed<'_>> {
    registers.arm(0, ANY, Fault::Hang, hw::VIFA_FAULT_ALWAYS)
}

/// Checks that `call` issues exactly one command, which hangs.
fn hangs_once<T: std::fmt::Debug>(
    what: &str,
    registers: &RegisterFile,
    call: impl FnOnce() -> io::Result<T>,
) -> Result<()> {
    let armed = hang(registers)?;
    expect::refused(what, call(), &[libc::ETIMEDOUT])?;
    expect::equal(&format!("commands of {what}"), armed.fired(), 1)
}

fn calls_end_with_the_first_command_that_hangs(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1, 3])?;
    let registers = RegisterFile::map(&bed.pf)?;
    source.read_on()?;
    let device = &source.guest.vf.device;
    hangs_once("read", &registers, || source.session.read(1).map(drop))?;
    device.change_state(State::Running)?;
    hangs_once("MIG_DATA_SIZE", &registers, || device.data_size())?;
    let session = device.start(State::PreCopy)?;
    hangs_once("MIG_GET_PRECOPY_INFO", &registers, || {
        session.precopy_info(0)
    })?;
    device.change_state(State::Running)?;
    let stream = device.save()?;
    let session = device.start(State::Resuming)?;
    hangs_once("write", &registers, || {
        session.write_all(&stream, Segments::Whole)
    })?;
    source.guest.vf.reset()?;
    let device = &source.guest.vf.device;
    hangs_once("RUNNING to STOP_COPY", &registers, || {
        device.request_state(State::StopCopy as u32)
    })?;
    source.guest.recover()
}

fn close_ends_with_the_first_command_that_hangs(bed: &Bed) -> Result<()> {
    let guest = Guest::new(bed, 0)?;
    let registers = RegisterFile::map(&bed.pf)?;
    let range = IovaRange::new(0x1000_0000, 16 * PAGE);
    guest.vf.device.start_logging(&[range], PAGE)?;
    let armed = hang(&registers)?;
    drop(guest);
    expect::equal("commands of a close", armed.fired(), 1)?;
    drop(armed);
    Guest::new(bed, 0)?.work(1)
}

fn unbinding_issues_no_command(bed: &Bed) -> Result<()> {
    let registers = RegisterFile::map(&bed.pf)?;
    let armed = registers.count(0, ANY)?;
    bed.vf(0)?.unbind()?;
    expect::equal("commands of an unbinding", armed.fired(), 0)?;
    bed.vf(0)?.bind(VF_DRIVER)?;
    Ok(())
}

fn logging_ends_with_the_first_command_that_hangs(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    let registers = RegisterFile::map(&bed.pf)?;
    let device = &guest.vf.device;
    // Each range costs a report one command.
    let ranges = [1, 2, 3].map(|place| IovaRange::new(place << 28, 16 * PAGE));
    let all = IovaRange::new(1 << 28, 3 << 28);
    hangs_once("DMA_LOGGING_START", &registers, || {
        device.start_logging(&ranges, PAGE)
    })?;
    device.start_logging(&ranges, PAGE)?;
    let armed = hang(&registers)?;
    let mut bitmap = DirtyBitmap::new(all, PAGE)?;
    device.report(&mut bitmap)?;
    expect::equal("commands of DMA_LOGGING_REPORT", armed.fired(), 1)?;
    expect::equal("dirty pages", bitmap.count(), all.length / PAGE)?;
    drop(armed);
    hangs_once("DMA_LOGGING_STOP", &registers, || device.stop_logging())?;
    guest.work(1)
}

fn open_ends_with_the_first_command_that_hangs(bed: &Bed) -> Result<()> {
    let registers = RegisterFile::map(&bed.pf)?;
    let (vf, space) = (bed.vf(0)?, AddressSpace::iommufd()?);
    // Opening the device resets it.
    let spoilt = registers.spoil_reset(0, hw::VIFA_RUN_STATE_STOPPED)?;
    hangs_once("open", &registers, || {
        Vf::open(&vf, &space).map_err(|error| match error.downcast::<io::Error>() {
            Ok(error) => error,
            Err(error) => io::Error::other(error),
        })
    })?;
    expect::equal("resets that left the VF stopped", spoilt.fired(), 1)?;
    drop(spoilt);
    Guest::new(bed, 0)?.work(1)
}

fn reset_ends_with_the_first_command_that_hangs(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    let registers = RegisterFile::map(&bed.pf)?;
    let spoilt = registers.spoil_reset(0, hw::VIFA_RUN_STATE_STOPPED)?;
    let armed = hang(&registers)?;
    guest.vf.reset()?;
    expect::equal("resets that left the VF stopped", spoilt.fired(), 1)?;
    expect::equal("commands of a reset", armed.fired(), 1)?;
    drop(armed);
    expect::equal("state", guest.vf.device.state()?, State::Error)?;
    guest.recover()
}

/// Reads from the stream of `source` until the device hangs in a run that the driver reads ahead.
fn read_until_the_device_hangs<'a>(
    source: &Source,
    registers: &'a RegisterFile,
) -> Result<Armed<'a>> {
    let count = registers.count(0, LOCAL_READ)?;
    while count.fired() == 0 {
        source.session.read(PAGE as usize)?;
    }
    drop(count);
    let armed = hang(registers)?;
    while armed.fired() == 0 {
        source.session.read(PAGE as usize)?;
    }
    expect::claim("a command in progress", registers.data_frame_is_busy(0))?;
    Ok(armed)
}

fn close_of_data_fd_waits_for_no_command(bed: &Bed) -> Result<()> {
    let source = Source::begin(bed, State::PreCopy, scattered())?;
    let registers = RegisterFile::map(&bed.pf)?;
    let armed = read_until_the_device_hangs(&source, &registers)?;
    let Source {
        mut guest, session, ..
    } = source;
    drop(session);
    expect::claim("a command in progress", registers.data_frame_is_busy(0))?;
    expect::equal("commands", armed.fired(), 1)?;
    drop(armed);
    guest.vf.device.change_state(State::Running)?;
    guest.work(1)
}

fn reset_waits_for_no_command(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, scattered())?;
    let registers = RegisterFile::map(&bed.pf)?;
    let armed = read_until_the_device_hangs(&source, &registers)?;
    source.guest.vf.reset()?;
    expect::claim("no command in progress", !registers.data_frame_is_busy(0))?;
    expect::equal("commands", armed.fired(), 1)?;
    drop(armed);
    source.guest.works_after_a_reset()
}
