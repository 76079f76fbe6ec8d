// SPDX-License-Identifier: GPL-2.0

//! VFs whose PF is reset or fails, and system sleep.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use vifa_device::{RegisterFile, Reporter, UncorrectableError, FATAL, NON_FATAL};
use vifa_vfio::pci::Function;

use super::{
    claims,
    close::{guest_in, has_ended},
    fixture::{both_work, Guest},
    Test,
};
use crate::{bed::Bed, expect, hw, kmsg::KernelLog, migration::State, region};

/// Maximum time for the kernel's own actions, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn tests() -> Vec<Test> {
    let mut tests: Vec<Test> = State::SUPPORTED
        .into_iter()
        .map(|state| {
            Test::new(
                format!("physical.reset_of_the_pf_in_{}_is_an_error", state.name()),
                move |bed| reset_of_the_pf(bed, state),
            )
        })
        .collect();
    tests.extend(claims!("physical":
        reset_of_the_pf_while_the_vfs_are_closed_leaves_them_usable,
        non_fatal_error_of_the_pf_is_recovered_and_ends_a_migration,
        fatal_error_of_the_pf_is_recovered_and_ends_a_migration,
        non_fatal_error_of_a_vf_is_recovered_and_ends_a_migration,
        system_sleep_is_refused_while_a_vf_is_open,
    ));
    tests
}

/// Checks that the VF of `guest` is in ERROR because of an event described by `words`.
pub(super) fn is_in_error(guest: &Guest, words: &str) -> Result<()> {
    let device = &guest.vf.device;
    expect::equal("state", device.state()?, State::Error)?;
    let text = region::error_text(&region::read(device)?)?.to_owned();
    expect::claim(
        &format!("an error with {words:?}, not {text:?}"),
        text.contains(words),
    )
}

/// Checks that the VF of `guest`, which is in ERROR, runs after a reset, and works after it is
/// reopened.
pub(super) fn works_again(bed: &Bed, guest: Guest) -> Result<()> {
    guest.vf.reset()?;
    expect::equal(
        "state after a reset",
        guest.vf.device.state()?,
        State::Running,
    )?;
    expect::equal(
        "run state after a reset",
        RegisterFile::map(&bed.pf)?.run_state(0),
        hw::VIFA_RUN_STATE_RUNNING,
    )?;
    drop(guest);
    both_work(bed)
}

fn reset_of_the_pf(bed: &Bed, state: State) -> Result<()> {
    let (guest, session) = guest_in(bed, state)?;
    bed.pf.reset().context("reset of the PF")?;
    is_in_error(&guest, "physical function was reset")?;
    has_ended(session, state)?;
    works_again(bed, guest)
}

fn reset_of_the_pf_while_the_vfs_are_closed_leaves_them_usable(bed: &Bed) -> Result<()> {
    bed.pf.reset().context("reset of the PF")?;
    both_work(bed)
}

/// Returns the error registers of `function`, which must be its first extended capability.
fn error_registers(function: &Function) -> Result<Vec<u8>> {
    const ADVANCED_ERROR_REPORTING: u8 = 0x01;
    let config = fs::read(function.attribute("config")).context("configuration space")?;
    let capability = config.get(0x100..0x12c).context("extended capability")?;
    expect::equal(
        "first extended capability",
        capability[0],
        ADVANCED_ERROR_REPORTING,
    )?;
    Ok(capability.to_vec())
}

/// Makes `reporter` report `error` while VF 0 is being saved. Its registers must not keep the
/// error: a VMM compares those of a VF with the destination's.
fn error_ends_a_migration(bed: &Bed, reporter: Reporter, error: UncorrectableError) -> Result<()> {
    let (guest, session) = guest_in(bed, State::PreCopy)?;
    let function = match reporter {
        Reporter::Physical => bed.pf.clone(),
        Reporter::Virtual(index) => bed.vf(index)?,
    };
    let before = error_registers(&function)?;
    let mut log = KernelLog::from_now()?;
    RegisterFile::map(&bed.pf)?.report_error(reporter, error);
    log.expect_within(PATIENCE, &["device recovery successful"])?;
    is_in_error(&guest, "uncorrectable PCI error")?;
    has_ended(session, State::PreCopy)?;
    expect::same_bytes("error registers", &error_registers(&function)?, &before)?;
    works_again(bed, guest)
}

fn non_fatal_error_of_the_pf_is_recovered_and_ends_a_migration(bed: &Bed) -> Result<()> {
    error_ends_a_migration(bed, Reporter::Physical, NON_FATAL)
}

fn fatal_error_of_the_pf_is_recovered_and_ends_a_migration(bed: &Bed) -> Result<()> {
    error_ends_a_migration(bed, Reporter::Physical, FATAL)
}

fn non_fatal_error_of_a_vf_is_recovered_and_ends_a_migration(bed: &Bed) -> Result<()> {
    error_ends_a_migration(bed, Reporter::Virtual(0), NON_FATAL)
}

fn system_sleep_is_refused_while_a_vf_is_open(bed: &Bed) -> Result<()> {
    // The refusal under test occurs before any task is frozen.
    fs::write("/sys/power/pm_test", "freezer").context("/sys/power/pm_test")?;
    let delay = "/sys/module/suspend/parameters/pm_test_delay";
    fs::write(delay, "0").context(delay)?;
    let sleep = || fs::write("/sys/power/state", "freeze");

    let guest = Guest::new(bed, 0)?;
    let mut log = KernelLog::from_now()?;
    expect::refused("sleep with an open VF", sleep(), &[libc::EBUSY])?;
    log.expect(&["failed to enter system sleep", "1 VFs are open"])?;
    drop(guest);
    sleep().context("sleep with no VF open")?;
    both_work(bed)
}
