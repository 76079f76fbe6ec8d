// SPDX-License-Identifier: GPL-2.0

//! Removal of the PF, or of its driver, while a VF is open.

use std::{
    fs, io,
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use vifa_vfio::{pci::Bus, wait_for};

use super::{
    claims,
    fixture::{both_work, Guest},
    Test,
};
use crate::{bed::Bed, expect, migration::State, process::wait_for_event, vfio::Interrupt};

/// Maximum duration of any step.
const LONGEST: Duration = Duration::from_secs(20);

pub fn tests() -> Vec<Test> {
    claims!("removal":
        pf_unbind_waits_for_an_open_vf_and_stalls_no_rescan,
        removal_of_the_port_waits_for_an_open_vf,
        bound_vf_is_a_consumer_of_its_pf,
    )
}

/// A task that writes to sysfs, which may block for long.
struct Task {
    name: &'static str,
    id: libc::pid_t,
    result: Receiver<io::Result<()>>,
}

impl Task {
    fn new(
        name: &'static str,
        act: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<Self> {
        let (id_sender, id) = mpsc::channel();
        let (sender, result) = mpsc::channel();
        thread::spawn(move || {
            // SAFETY: The call has no requirements.
            let _ = id_sender.send(unsafe { libc::gettid() });
            let _ = sender.send(act());
        });
        let id = id.recv().context(name)?;
        Ok(Self { name, id, result })
    }

    /// Waits until the task is done.
    fn done(&self) -> Result<()> {
        self.result
            .recv_timeout(LONGEST)
            .with_context(|| format!("{} does not end", self.name))?
            .with_context(|| self.name.to_string())
    }

    /// Waits until the task sleeps uninterruptibly in the kernel.
    fn blocked(&self) -> Result<()> {
        let path = format!("/proc/self/task/{}/stat", self.id);
        wait_for(LONGEST, || {
            let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
            let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
            anyhow::Ok(state.starts_with('D').then_some(()))
        })?
        .with_context(|| format!("{} does not block", self.name))
    }
}

/// Checks that both VFs are bound and work.
fn works(bed: &Bed) -> Result<()> {
    bed.restore()?;
    both_work(bed)
}

/// Checks that the VMM of `guest` gets a `request` for the device, which stays in STOP_COPY.
fn gets_a_request(guest: &Guest, request: &fs::File) -> Result<()> {
    wait_for_event(request, LONGEST).context("request for the device")?;
    expect::equal(
        "state while it is asked for",
        guest.vf.device.state()?,
        State::StopCopy,
    )
}

fn pf_unbind_waits_for_an_open_vf_and_stalls_no_rescan(bed: &Bed) -> Result<()> {
    let guest = Guest::new(bed, 0)?;
    let session = guest.vf.device.enter(State::StopCopy)?;
    let request = guest.vf.device.signal(Interrupt::Request)?;
    let pf = bed.pf.clone();
    let unbind = Task::new("unbind of the PF", move || pf.unbind())?;
    gets_a_request(&guest, &request)?;
    Task::new("rescan", || Bus::default().rescan())?.done()?;

    // The VFs are removed first: unbinding a PF that has VFs warns under lockdep.
    let pf = bed.pf.clone();
    let removal = Task::new("sriov_numvfs = 0", move || pf.set_virtual_functions(0))?;
    removal.blocked()?;
    drop((guest, session));
    removal.done()?;
    unbind.done()?;
    expect::equal("driver of the PF", bed.pf.driver(), None)?;
    works(bed)
}

fn removal_of_the_port_waits_for_an_open_vf(bed: &Bed) -> Result<()> {
    let guest = Guest::new(bed, 0)?;
    let session = guest.vf.device.enter(State::StopCopy)?;
    let request = guest.vf.device.signal(Interrupt::Request)?;
    let port = bed.pf.port().context("the PF has no port")?;
    let removal = Task::new("removal of the port", move || port.remove())?;
    gets_a_request(&guest, &request)?;
    drop(guest);
    removal.done()?;
    if let Some(session) = session {
        expect::refused("use of the session", session.read(1), &[libc::ENODEV])?;
    }
    Task::new("rescan", || Bus::default().rescan())?.done()?;
    works(bed)
}

fn bound_vf_is_a_consumer_of_its_pf(bed: &Bed) -> Result<()> {
    // The device link with which the driver core unbinds a VF before its PF.
    let vf = bed.vf(0)?;
    let link = vf.attribute(&format!("supplier:pci:{}", bed.pf));
    expect::equal("link to the PF while bound", link.exists(), true)?;
    vf.unbind()?;
    expect::equal("link to the PF after unbind", link.exists(), false)?;
    works(bed)
}
