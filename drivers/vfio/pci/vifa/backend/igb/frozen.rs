// SPDX-License-Identifier: GPL-2.0

//! What a function has in the pages that its guest reaches directly, while it does not run.
//!
//! Receive is stopped before transmit: there is no new work for a guest that is not there, but what
//! it gave the function is still sent. It goes on in the opposite order of what depends on what:
//! queues are enabled, then given work, then may interrupt.

use super::{
    clock::Clock,
    fault::Fault,
    interrupts::{
        self,
        Interrupts, //
    },
    queues::{
        self,
        Half,
        RECEIVE,
        TRANSMIT, //
    },
    records::{
        ControlPlane,
        Queue,
        Ring,
        Routes, //
    },
    registers::{
        page0,
        queue::QUEUES_MAX,
        status,
        Access, //
    },
};

/// Registers of a function that does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frozen {
    /// The queue pairs. The I350 has one.
    pub(crate) queues: [Option<Queue>; QUEUES_MAX],
    /// The vectors.
    pub(crate) interrupts: Interrupts,
    /// Which vector each cause has.
    pub(crate) routes: Routes,
    /// The link was up.
    pub(crate) link: bool,
}

impl From<&ControlPlane> for Frozen {
    fn from(plane: &ControlPlane) -> Self {
        Self {
            queues: plane.queues,
            interrupts: plane.interrupts,
            routes: plane.routes,
            link: plane.page0.link,
        }
    }
}

impl Frozen {
    /// Nothing yet, of a function with so many queue pairs, which runs.
    pub(crate) fn new(device: &mut impl Access, queues: u8) -> Result<Self, Fault> {
        let mut frozen = Self {
            queues: [None; QUEUES_MAX],
            interrupts: Interrupts::default(),
            routes: Routes::default(),
            link: link(device)?,
        };

        for queue in frozen.queues.iter_mut().take(queues.into()) {
            *queue = Some(Queue::default());
        }
        Ok(frozen)
    }

    fn count(&self) -> u8 {
        self.queues.iter().flatten().count() as u8
    }

    /// Each queue pair with its number.
    fn pairs(&mut self) -> impl Iterator<Item = (u8, &mut Queue)> {
        (0..).zip(self.queues.iter_mut().flatten())
    }

    /// Each queue pair with its number, to look at.
    fn rings(&self) -> impl Iterator<Item = (u8, &Queue)> {
        (0..).zip(self.queues.iter().flatten())
    }

    /// Stops the function, and takes all that it has. What was stopped before stays noted as what
    /// has to be started.
    ///
    /// # Errors
    ///
    /// A queue does not stop. Those before it have, and are noted.
    pub(crate) fn quiesce(&mut self, device: &mut (impl Access + Clock)) -> Result<(), Fault> {
        for (number, queue) in self.pairs() {
            let receive = Half::new(&RECEIVE, number);

            if receive.is_enabled(device)? {
                queue.receive.is_enabled = true;
                receive.stop(device)?;
            }
        }
        for (number, queue) in self.pairs() {
            let transmit = Half::new(&TRANSMIT, number);

            if transmit.is_enabled(device)? {
                queue.transmit.is_enabled = true;
                transmit.drain(device)?;
                transmit.stop(device)?;
            }
        }
        queues::flush(device, self.count())?;
        (self.interrupts, self.routes) = interrupts::take(device, &self.interrupts)?;
        self.refresh(device)
    }

    /// Takes the rings as they are now: while the function is only P2P-quiesced, what it is told
    /// still changes them.
    pub(crate) fn refresh(&mut self, device: &mut impl Access) -> Result<(), Fault> {
        for (number, queue) in self.pairs() {
            *queue = queues::take(device, number, queue)?;
        }
        Ok(())
    }

    /// Starts the queues again that [`Self::quiesce`] has stopped before it failed.
    pub(crate) fn undo(&self, device: &mut (impl Access + Clock)) {
        for (half, _) in self.enabled() {
            // One of them does not do what it is told, which is known; the others may.
            let _ = half.restart(device);
        }
    }

    /// Gives the registers to a function that does not run.
    ///
    /// # Errors
    ///
    /// A queue does not do what it was told.
    pub(crate) fn put(&self, device: &mut (impl Access + Clock)) -> Result<(), Fault> {
        interrupts::clear(device)?;
        interrupts::put(device, &self.interrupts, &self.routes)?;
        self.rings()
            .try_for_each(|(number, queue)| queues::put(device, number, queue))
    }

    /// Has the function go on. `has_mail`: there is something in the mailbox for the guest.
    ///
    /// # Errors
    ///
    /// A queue does not start. The function does not run then.
    pub(crate) fn thaw(
        &self,
        device: &mut (impl Access + Clock),
        has_mail: bool,
    ) -> Result<(), Fault> {
        let started = self.start(device, has_mail);

        if started.is_err() {
            // The error that is returned says more than those of the way back.
            let mut stopped = *self;
            let _ = stopped.quiesce(device);
            let _ = self.kick(device);
        }
        started
    }

    /// Has the function go on without its queues, which a reset of the physical function has taken:
    /// the interrupt of the mailbox tells the guest.
    pub(crate) fn wake(&self, device: &mut impl Access) -> Result<(), Fault> {
        // The reset has taken these, too.
        interrupts::put(device, &self.interrupts, &self.routes)?;
        interrupts::resume(device, &self.interrupts, &self.routes, [].iter(), true)
    }

    /// The halves that are to be enabled, with their rings: receive, then transmit.
    fn enabled(&self) -> impl Iterator<Item = (Half, &Ring)> {
        let receive = self
            .rings()
            .map(|(number, queue)| (Half::new(&RECEIVE, number), &queue.receive));
        let transmit = self
            .rings()
            .map(|(number, queue)| (Half::new(&TRANSMIT, number), &queue.transmit));

        receive.chain(transmit).filter(|(_, ring)| ring.is_enabled)
    }

    /// Gives the queues that are to be enabled what the guest had given them.
    fn kick(&self, device: &mut impl Access) -> Result<(), Fault> {
        self.enabled()
            .try_for_each(|(half, ring)| half.kick(device, ring))
    }

    fn start(&self, device: &mut (impl Access + Clock), has_mail: bool) -> Result<(), Fault> {
        for (half, ring) in self.enabled() {
            half.enable(device, ring)?;
        }
        self.kick(device)?;
        let is_news = has_mail || self.link != link(device)?;
        let queues = self.queues.iter().flatten();

        interrupts::resume(device, &self.interrupts, &self.routes, queues, is_news)
    }
}

/// Returns whether the link is up.
fn link(device: &mut impl Access) -> Result<bool, Fault> {
    Ok(device.read(page0::STATUS)? & status::LU != 0)
}
