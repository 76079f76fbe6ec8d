// SPDX-License-Identifier: GPL-2.0

//! The state of a function, and its migration from one host to another.

use super::{
    clock::{
        until,
        Clock, //
    },
    fault::Fault,
    frozen::Frozen,
    mailbox::{
        configuration::Configuration,
        exchange::{
            Exchange,
            BRIEF,
            PATIENT, //
        },
        replay::{
            reassert,
            rehearse,
            replay,
            tidy,
            Post, //
        },
        shadow::{
            Page0,
            Phase,
            Shadow, //
        },
    },
    records::ControlPlane,
    registers::{
        page0,
        statistics::{
            COUNTERS,
            OFFSETS, //
        },
        Access, //
    },
};

/// Polling interval for an answer that the guest waits for, in microseconds.
const INTERVAL: u32 = 100;

/// Timeout for an answer to the guest, in microseconds: that of `igbvf`.
const ANSWER_TIMEOUT: u32 = 1_000_000;

/// The state of an open function.
pub(crate) struct State {
    /// Number of queue pairs.
    queues: u8,
    shadow: Shadow,
    /// The registers of a stopped function.
    frozen: Option<Frozen>,
    /// Whether `frozen` was loaded from another function, rather than read from this one.
    is_loaded: bool,
    /// Whether the function was saved, so that another one may own the guest's resources.
    is_saved: bool,
    /// Whether a request was made to the physical function.
    is_used: bool,
}

impl State {
    /// Returns the state of a function with `queues` queue pairs after a reset.
    pub(crate) fn new(queues: u8) -> Self {
        Self {
            queues,
            shadow: Shadow::new(),
            frozen: None,
            is_loaded: false,
            is_saved: false,
            is_used: false,
        }
    }

    /// Returns the shadow of page 0.
    pub(crate) fn shadow(&self) -> &Shadow {
        &self.shadow
    }

    /// Records that the function was reset, and therefore runs.
    pub(crate) fn reset(&mut self) {
        self.shadow.reset();
        self.frozen = None;
        self.is_loaded = false;
        self.is_saved = false;
    }

    /// Reads a register of page 0 for the guest. Returns all ones if the function is gone, as reads
    /// of the other pages do.
    pub(crate) fn read(&mut self, device: &mut impl Access, offset: u32) -> Result<u32, Fault> {
        match self.shadow.read(device, offset) {
            Err(Fault::Gone) => Ok(u32::MAX),
            read => read,
        }
    }

    /// Writes a register of page 0 for the guest. Does nothing if the function is gone.
    pub(crate) fn write(
        &mut self,
        device: &mut (impl Access + Clock),
        offset: u32,
        value: u32,
    ) -> Result<(), Fault> {
        self.is_used |= offset == page0::V2PMAILBOX;
        match self.shadow.write(device, offset, value) {
            Err(Fault::Gone) => Ok(()),
            written => written,
        }
    }

    /// Stops all activity of the function. A repeated call reads the guest's changes since then.
    ///
    /// # Errors
    ///
    /// Returns an error if the function cannot be stopped. It then continues to run, if it did.
    pub(crate) fn quiesce(&mut self, device: &mut (impl Access + Clock)) -> Result<(), Fault> {
        if self.is_loaded {
            return Ok(());
        }
        let mut frozen = match self.frozen {
            Some(frozen) => frozen,
            None => Frozen::new(device, self.queues)?,
        };

        match frozen.quiesce(device) {
            Ok(()) => self.frozen = Some(frozen),
            Err(fault) => {
                if self.frozen.is_none() {
                    frozen.undo(device);
                }
                return Err(fault);
            }
        }
        Ok(())
    }

    /// Resumes the function. If a unicast address of the guest could not be reclaimed, returns the
    /// reason.
    ///
    /// If the physical function was reset meanwhile, the queues stay disabled, as for a running
    /// function after this reset. The guest sees the reset in the mailbox.
    ///
    /// # Errors
    ///
    /// Returns an error if the function cannot be resumed. It then stays stopped.
    pub(crate) fn resume(
        &mut self,
        device: &mut (impl Access + Clock),
    ) -> Result<Option<Fault>, Fault> {
        let Some(mut frozen) = self.frozen else {
            return Ok(None);
        };
        let missing = self.reclaim_unicast(device)?;

        if !self.is_loaded {
            frozen.refresh(device)?;
        }
        if self.shadow.was_reset(device)? {
            frozen.wake(device)?;
        } else if let Err(fault) = frozen.thaw(device, self.shadow.pending() != 0) {
            // A reset of the physical function may have disabled the queues in between.
            if !self.shadow.was_reset(device)? {
                return Err(fault);
            }
            frozen.wake(device)?;
        }
        self.frozen = None;
        self.is_loaded = false;
        self.is_saved = false;
        Ok(missing)
    }

    /// Reclaims the unicast addresses that a destination on the same card may have taken. Returns
    /// the reason if that failed.
    fn reclaim_unicast(
        &mut self,
        device: &mut (impl Access + Clock),
    ) -> Result<Option<Fault>, Fault> {
        let configuration = *self.shadow.configuration();
        let is_idle = self.shadow.phase() == Phase::Idle;

        if !self.is_saved || !is_idle || configuration.unicast.as_slice().is_empty() {
            return Ok(None);
        }
        let page = self.shadow.save(device)?;
        let mut exchange = Exchange::new(device, &PATIENT);
        let reasserted = reassert(&mut exchange, &configuration);
        let put = exchange.put(&page.buffer, false);

        self.shadow.note_reset(exchange.resets());
        Ok(reasserted.and(put).err())
    }

    /// Reads the control plane of a stopped function.
    ///
    /// # Errors
    ///
    /// Returns an error if the function is not stopped, or if a register cannot be accessed.
    pub(crate) fn save(
        &mut self,
        device: &mut (impl Access + Clock),
    ) -> Result<ControlPlane, Fault> {
        let frozen = self.frozen.ok_or(Fault::Runs)?;

        // A destination repeats an unanswered request.
        until(device, INTERVAL, ANSWER_TIMEOUT, |device| {
            self.shadow.poll(device)
        })?;
        self.is_saved = true;
        let page0 = self.shadow.save(device)?;
        Ok(ControlPlane {
            configuration: *self.shadow.configuration(),
            queues: frozen.queues,
            interrupts: frozen.interrupts,
            routes: frozen.routes,
            page0: Page0 {
                link: frozen.link,
                ..page0
            },
        })
    }

    /// Checks whether the physical function grants `configuration` to a stopped function, and
    /// keeps none of it.
    ///
    /// # Errors
    ///
    /// Returns the refused request, or the reason for which the check failed.
    pub(crate) fn rehearse(
        &mut self,
        device: &mut (impl Access + Clock),
        configuration: &Configuration,
    ) -> Result<(), Fault> {
        self.is_used = true;
        rehearse(&mut Exchange::new(device, &PATIENT), configuration)
    }

    /// Loads the control plane of another function to a stopped function. [`Self::adopt`] must
    /// follow.
    ///
    /// # Errors
    ///
    /// Returns the refused request, or the failure of the function. The control plane is then
    /// partially loaded.
    pub(crate) fn prepare(
        &mut self,
        device: &mut (impl Access + Clock),
        plane: &ControlPlane,
    ) -> Result<(), Fault> {
        let page = &plane.page0;
        let frozen = Frozen::from(plane);

        self.is_used = true;
        // `replay` begins with a reset, which clears the registers.
        replay(&mut Exchange::new(device, &PATIENT), &plane.configuration)?;
        device.write(page0::PSRTYPE, page.packet_split)?;
        frozen.put(device)?;
        // Post a pending request last: its answer may arrive at any time, and nothing may clear the
        // interrupt of the answer.
        let mut exchange = Exchange::new(device, &PATIENT);
        match page.phase {
            Phase::Idle | Phase::Owned => exchange.put(&page.buffer, false),
            Phase::Asked => exchange.leave(&page.buffer),
        }
    }

    /// Adopts the state of another function, after [`Self::prepare`].
    ///
    /// # Errors
    ///
    /// Returns an error if a register cannot be accessed.
    pub(crate) fn adopt(
        &mut self,
        device: &mut impl Access,
        plane: &ControlPlane,
    ) -> Result<(), Fault> {
        let mut counters = [0; COUNTERS];

        for (counter, offset) in counters.iter_mut().zip(OFFSETS) {
            *counter = device.read(offset)?;
        }
        self.shadow
            .restore(&plane.configuration, &plane.page0, counters);
        self.frozen = Some(Frozen::from(plane));
        self.is_loaded = true;
        Ok(())
    }

    /// Releases the resources of the physical function that direct frames to this function, as far
    /// as the physical function responds. A reset must follow.
    ///
    /// # Errors
    ///
    /// Returns the reason for which resources may remain.
    pub(crate) fn close(&mut self, device: &mut (impl Access + Clock)) -> Result<(), Fault> {
        if self.is_used {
            tidy(&mut Exchange::new(device, &BRIEF))
        } else {
            Ok(())
        }
    }
}
