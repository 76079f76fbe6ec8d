// SPDX-License-Identifier: GPL-2.0

//! The registers of a stopped function in the pages that its guest accesses directly.
//!
//! Receive queues are stopped before transmit queues: the stopped guest needs no new frames, but
//! its queued frames are still sent. Resuming follows the dependencies: queues are enabled, then
//! their tails are written, then their interrupts are unmasked.

use super::{
    access::Access,
    clock::Clock,
    fault::Fault,
    interrupts::{
        self,
        Interrupts, //
    },
    queues::{
        self,
        HardwareRing, //
    },
    records::{
        ControlPlane,
        Routes, //
    },
    registers::{
        page0,
        queue::QUEUES_MAX,
        status, //
    },
    saved::{
        Queue,
        Ring,
        RECEIVE,
        TRANSMIT, //
    },
};

/// Registers of a stopped function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frozen {
    /// The queue pairs. The I350 has one.
    pub(crate) queues: [Option<Queue>; QUEUES_MAX],
    /// The vectors.
    pub(crate) interrupts: Interrupts,
    /// The vector of each cause.
    pub(crate) routes: Routes,
    /// Whether the link was up.
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
    /// Returns empty registers for a running function with `queues` queue pairs.
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

    /// Returns each queue pair with its number, mutably.
    fn pairs(&mut self) -> impl Iterator<Item = (u8, &mut Queue)> {
        (0..).zip(self.queues.iter_mut().flatten())
    }

    /// Returns each queue pair with its number.
    fn rings(&self) -> impl Iterator<Item = (u8, &Queue)> {
        (0..).zip(self.queues.iter().flatten())
    }

    /// Stops the function, and reads its registers. Rings that were stopped by an earlier call stay
    /// marked for restart.
    ///
    /// # Errors
    ///
    /// Returns an error if a ring does not stop. The earlier ones are stopped, and marked.
    pub(crate) fn quiesce(&mut self, device: &mut (impl Access + Clock)) -> Result<(), Fault> {
        for (number, queue) in self.pairs() {
            let receive = HardwareRing::new(&RECEIVE, number);

            if receive.is_enabled(device)? {
                queue.receive.is_enabled = true;
                receive.stop(device)?;
            }
        }
        for (number, queue) in self.pairs() {
            let transmit = HardwareRing::new(&TRANSMIT, number);

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

    /// Reads the rings' current registers. While the function is P2P-quiesced, the guest can still
    /// change them.
    pub(crate) fn refresh(&mut self, device: &mut impl Access) -> Result<(), Fault> {
        for (number, queue) in self.pairs() {
            *queue = queues::take(device, number, queue)?;
        }
        Ok(())
    }

    /// Restarts the rings that [`Self::quiesce`] stopped before it failed.
    pub(crate) fn undo(&self, device: &mut (impl Access + Clock)) {
        for (ring, _) in self.enabled() {
            // Ignore errors: one of the rings has already failed, but the others may work.
            let _ = ring.restart(device);
        }
    }

    /// Writes the registers to a stopped function.
    ///
    /// # Errors
    ///
    /// Returns an error if a queue stays enabled, or if its head cannot be written.
    pub(crate) fn put(&self, device: &mut (impl Access + Clock)) -> Result<(), Fault> {
        interrupts::clear(device)?;
        interrupts::put(device, &self.interrupts, &self.routes)?;
        self.rings()
            .try_for_each(|(number, queue)| queues::put(device, number, queue))
    }

    /// Resumes the function. `has_mail` states whether the mailbox has a message for the guest.
    ///
    /// # Errors
    ///
    /// Returns an error if a queue does not start. The function then stays stopped.
    pub(crate) fn thaw(
        &self,
        device: &mut (impl Access + Clock),
        has_mail: bool,
    ) -> Result<(), Fault> {
        let started = self.start(device, has_mail);

        if started.is_err() {
            // Ignore errors of the rollback, and return the first one.
            let mut stopped = *self;
            let _ = stopped.quiesce(device);
            let _ = self.kick(device);
        }
        started
    }

    /// Resumes the function without its queues, which a reset of the physical function has
    /// disabled. The mailbox interrupt notifies the guest.
    pub(crate) fn wake(&self, device: &mut impl Access) -> Result<(), Fault> {
        // The reset has cleared these registers, too.
        interrupts::put(device, &self.interrupts, &self.routes)?;
        interrupts::resume(device, &self.interrupts, &self.routes, [].iter(), true)
    }

    /// Returns the hardware rings to enable, with their saved state: receive, then transmit.
    fn enabled(&self) -> impl Iterator<Item = (HardwareRing, &Ring)> {
        let receive = self
            .rings()
            .map(|(number, queue)| (HardwareRing::new(&RECEIVE, number), &queue.receive));
        let transmit = self
            .rings()
            .map(|(number, queue)| (HardwareRing::new(&TRANSMIT, number), &queue.transmit));

        receive.chain(transmit).filter(|(_, ring)| ring.is_enabled)
    }

    /// Writes the saved tails of the enabled rings.
    fn kick(&self, device: &mut impl Access) -> Result<(), Fault> {
        self.enabled()
            .try_for_each(|(hardware, ring)| hardware.kick(device, ring))
    }

    fn start(&self, device: &mut (impl Access + Clock), has_mail: bool) -> Result<(), Fault> {
        for (hardware, ring) in self.enabled() {
            hardware.enable(device, ring)?;
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
