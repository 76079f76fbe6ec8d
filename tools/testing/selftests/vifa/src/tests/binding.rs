// SPDX-License-Identifier: GPL-2.0

//! Binding and unbinding, creating and removing VFs, loading and unloading: orderly and under load,
//! and rejected requests.

use std::{io, time::Duration};

use anyhow::{Context, Result};
use vifa_vfio::pci::Function;

use super::{
    claims,
    fixture::{both_work, Guest},
    Test,
};
use crate::{
    bed::{Bed, MODULE, VFS, VF_DRIVER},
    engine::Command,
    expect,
    kmsg::KernelLog,
    migration::State,
    module::Module,
    process::{alongside, wait_for_event, Victim},
    vfio::Interrupt,
};

const TEARDOWN: Duration = Duration::from_secs(15);

pub fn tests() -> Vec<Test> {
    claims!("binding":
        modinfo_lets_only_an_override_bind_a_vf,
        pf_is_not_bound_as_a_vf,
        vf_needs_the_pf_s_driver,
        more_vfs_than_the_maximum_are_refused,
        vf_binds_and_unbinds_repeatedly,
        device_opens_and_closes_repeatedly,
        vfs_are_created_and_removed,
        unbind_with_an_open_session_waits_for_close,
        removal_of_the_vfs_waits_for_close,
        module_in_use_is_not_removed,
        session_keeps_the_module,
        module_is_reloaded_under_load,
        the_maximum_number_of_vfs_works,
    )
}

/// Returns a guest with a long-running engine command, whose VF is also being saved.
fn busy_guest(bed: &Bed, index: u32) -> Result<Guest> {
    let mut guest = Guest::new(bed, index)?;
    guest.furnish(u64::from(index) + 1)?;
    guest.vf.set_speed(1);
    let command = Command::Fill {
        destination: guest.at(0),
        length: 32 << 10,
        pattern: 0,
    };
    guest.engine.submit(&guest.vf, command)?;
    Ok(guest)
}

fn modinfo_lets_only_an_override_bind_a_vf(bed: &Bed) -> Result<()> {
    let vf = bed.vf(0)?;
    vf.unbind()?;
    vf.set_driver_override(None)?;
    expect::refused(
        "bind without driver_override",
        vf.bind(VF_DRIVER),
        &[libc::ENODEV],
    )?;
    Ok(vf.ensure_bound(VF_DRIVER)?)
}

fn pf_is_not_bound_as_a_vf(bed: &Bed) -> Result<()> {
    let driver = bed.pf_driver()?;
    bed.pf.set_virtual_functions(0)?;
    bed.pf.unbind()?;
    bed.pf.set_driver_override(Some(VF_DRIVER))?;
    let mut log = KernelLog::from_now()?;
    let result = bed.pf.bind(VF_DRIVER);
    let message = log.expect(&[&bed.pf.to_string(), "not an SR-IOV virtual function"]);
    bed.pf.set_driver_override(None)?;
    bed.pf.bind(&driver)?;
    expect::refused("bind of the PF to the VFs' driver", result, &[libc::ENODEV])?;
    message?;
    bed.restore()?;
    both_work(bed)
}

fn vf_needs_the_pf_s_driver(bed: &Bed) -> Result<()> {
    let driver = bed.pf_driver()?;
    bed.pf.set_virtual_functions(0)?;
    // vfio-pci creates VFs for a PF, too.
    let vfio_pci = Module("vfio_pci");
    if !vfio_pci.is_loaded() {
        vfio_pci.probe()?;
    }
    let parameter = std::path::Path::new("/sys/module/vfio_pci/parameters/enable_sriov");
    std::fs::write(parameter, "Y").context("enable_sriov of vfio-pci")?;
    bed.pf.unbind()?;
    bed.pf.set_driver_override(Some("vfio-pci"))?;
    let mut log = KernelLog::from_now()?;
    let attempt = || -> Result<(Function, io::Result<()>)> {
        bed.pf
            .bind("vfio-pci")
            .context("bind of the PF to vfio-pci")?;
        bed.pf
            .set_virtual_functions(1)
            .context("sriov_numvfs with vfio-pci")?;
        let vf = bed.vf(0)?;
        vf.unbind()?;
        vf.set_driver_override(Some(VF_DRIVER))?;
        let result = vf.bind(VF_DRIVER);
        Ok((vf, result))
    };
    let attempted = attempt();
    let _ = bed.pf.set_virtual_functions(0);
    bed.pf.unbind()?;
    bed.pf.set_driver_override(None)?;
    bed.pf.bind(&driver)?;
    let (vf, result) = attempted?;
    expect::refused(
        "bind of a VF without the PF's driver",
        result,
        &[libc::ENODEV],
    )?;
    log.expect(&[&vf.to_string(), "physical function"])?;
    bed.restore()?;
    both_work(bed)
}

fn more_vfs_than_the_maximum_are_refused(bed: &Bed) -> Result<()> {
    let most = u32::try_from(bed.pf.number("sriov_totalvfs")?)?;
    bed.pf.set_virtual_functions(0)?;
    expect::refused(
        "more VFs than the maximum",
        bed.pf.set_virtual_functions(most + 1),
        &[libc::ERANGE, libc::EINVAL],
    )?;
    bed.restore()?;
    expect::refused(
        "another number of VFs while VFs exist",
        bed.pf.set_virtual_functions(1),
        &[libc::EBUSY],
    )?;
    both_work(bed)
}

fn vf_binds_and_unbinds_repeatedly(bed: &Bed) -> Result<()> {
    let vf = bed.vf(0)?;
    for _ in 0..10 {
        vf.unbind()?;
        vf.bind(VF_DRIVER)?;
    }
    both_work(bed)
}

fn device_opens_and_closes_repeatedly(bed: &Bed) -> Result<()> {
    (0..10).try_for_each(|_| Guest::new(bed, 0).map(drop))?;
    both_work(bed)
}

fn vfs_are_created_and_removed(bed: &Bed) -> Result<()> {
    for _ in 0..3 {
        bed.pf.set_virtual_functions(0)?;
        expect::equal("VFs", bed.pf.number("sriov_numvfs")?, 0)?;
        bed.restore()?;
        expect::equal("VFs", bed.pf.number("sriov_numvfs")?, VFS.into())?;
    }
    both_work(bed)
}

fn the_maximum_number_of_vfs_works(bed: &Bed) -> Result<()> {
    let most = u32::try_from(bed.pf.number("sriov_totalvfs")?)?;
    bed.pf.set_virtual_functions(0)?;
    bed.pf.set_virtual_functions(most)?;
    let all = (0..most).try_for_each(|index| -> Result<()> {
        bed.vf(index)?.ensure_bound(VF_DRIVER)?;
        let mut guest = Guest::new(bed, index)?;
        guest.work(index.into())?;
        let stream = guest.vf.device.save()?;
        guest.vf.device.load(&stream)?;
        guest.vf.device.change_state(State::Running)?;
        guest.work(index.into())
    });
    bed.pf.set_virtual_functions(0)?;
    all
}

/// Runs `take_away`, which unbinds the VF 0 while it is in use with an open session. Checks that it
/// requests the device, waits, and succeeds once the VF is closed.
fn waits_for_close(
    bed: &Bed,
    state: State,
    take_away: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<()> {
    let guest = busy_guest(bed, 0)?;
    let session = guest.vf.device.enter(state)?;
    let request = guest.vf.device.signal(Interrupt::Request)?;
    alongside(
        TEARDOWN,
        move || take_away().context("taking the VF away"),
        || {
            wait_for_event(&request, TEARDOWN).context("request for the device")?;
            // The device is still usable.
            expect::equal(
                "state while it is asked for",
                guest.vf.device.state()?,
                state,
            )?;
            drop(guest);
            Ok(())
        },
    )?;
    if let Some(session) = session {
        expect::refused(
            "use of the session",
            session.read(1),
            &[libc::ENODEV, libc::EBADF],
        )?;
    }
    Ok(())
}

fn unbind_with_an_open_session_waits_for_close(bed: &Bed) -> Result<()> {
    for state in [State::Running, State::StopCopy, State::Resuming] {
        let vf = bed.vf(0)?;
        let unbound = vf.clone();
        waits_for_close(bed, state, move || unbound.unbind())?;
        expect::equal("driver of the VF", vf.driver(), None)?;
        bed.restore()?;
    }
    both_work(bed)
}

fn removal_of_the_vfs_waits_for_close(bed: &Bed) -> Result<()> {
    for state in [State::Running, State::StopCopy, State::Resuming] {
        let pf = bed.pf.clone();
        waits_for_close(bed, state, move || pf.set_virtual_functions(0))?;
        expect::equal("VFs", bed.pf.number("sriov_numvfs")?, 0)?;
        bed.restore()?;
    }
    both_work(bed)
}

fn module_in_use_is_not_removed(bed: &Bed) -> Result<()> {
    let mut guest = busy_guest(bed, 0)?;
    expect::refused("removal of the module", MODULE.remove(), &[libc::EAGAIN])?;
    guest.recover()
}

fn session_keeps_the_module(bed: &Bed) -> Result<()> {
    bed.module_file()?;
    let guest = busy_guest(bed, 0)?;
    let session = guest.vf.device.start(State::StopCopy)?;
    drop(guest);
    expect::refused("removal of the module", MODULE.remove(), &[libc::EAGAIN])?;
    expect::refused("use of the session", session.read(1), &[libc::ENODEV])?;
    drop(session);
    bed.unload_module()?;
    bed.restore()?;
    both_work(bed)
}

fn module_is_reloaded_under_load(bed: &Bed) -> Result<()> {
    bed.module_file()?;
    for round in 0..3 {
        let states = [State::StopCopy, State::Resuming, State::Running];
        let state = states[round % states.len()];
        let victim = Victim::holding(TEARDOWN, || {
            let guest = busy_guest(bed, 0)?;
            let session = guest.vf.device.enter(state)?;
            let idle = busy_guest(bed, 1)?;
            Ok((guest, session, idle))
        })?;
        expect::refused("removal of the module", MODULE.remove(), &[libc::EAGAIN])?;
        victim.kill()?;
        bed.unload_module()
            .with_context(|| format!("round {round}"))?;
        expect::equal("driver of the PF", bed.pf.driver(), None)?;
        bed.restore().with_context(|| format!("round {round}"))?;
    }
    both_work(bed)
}
