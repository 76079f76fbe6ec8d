// SPDX-License-Identifier: GPL-2.0

//! The state of a function, and its migration from one host to another.

use super::{
    access::Access,
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
        }, //
    },
};

/// Polling interval for an answer that the guest waits for, in microseconds.
const INTERVAL: u32 = 100;

/// Timeout for an answer to the guest, in microseconds: that of `igbvf`.
const ANSWER_TIMEOUT: u32 = 1_000_000;

/// The function that owns the unicast addresses that the guest obtained from its physical function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// This function.
    This,
    /// Unknown: the function was saved, and a destination on the same card may have taken them.
    Unknown,
}

/// The activity of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activity {
    /// The function runs, or was reset.
    Running,
    /// The function was stopped. These registers were read from it.
    Stopped(Frozen, Owner),
    /// The function is stopped. These registers of another function were written to it.
    Loaded(Frozen, Owner),
}

impl Activity {
    /// Returns the registers of a stopped function.
    fn frozen(&self) -> Option<&Frozen> {
        match self {
            Self::Running => None,
            Self::Stopped(frozen, _) | Self::Loaded(frozen, _) => Some(frozen),
        }
    }

    /// Returns the owner of the guest's unicast addresses.
    fn owner(&self) -> Owner {
        match self {
            Self::Running => Owner::This,
            Self::Stopped(_, owner) | Self::Loaded(_, owner) => *owner,
        }
    }

    /// Records that a stopped function was saved.
    fn saved(self) -> Self {
        match self {
            Self::Running => Self::Running,
            Self::Stopped(frozen, _) => Self::Stopped(frozen, Owner::Unknown),
            Self::Loaded(frozen, _) => Self::Loaded(frozen, Owner::Unknown),
        }
    }
}

/// The state of an open function.
pub(crate) struct State {
    /// Number of queue pairs.
    queues: u8,
    shadow: Shadow,
    activity: Activity,
    /// Whether a request was made to the physical function.
    is_used: bool,
}

impl State {
    /// Returns the state of a function with `queues` queue pairs after a reset.
    pub(crate) fn new(queues: u8) -> Self {
        Self {
            queues,
            shadow: Shadow::new(),
            activity: Activity::Running,
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
        self.activity = Activity::Running;
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
        match self.activity {
            Activity::Running => {
                let mut frozen = Frozen::new(device, self.queues)?;

                frozen
                    .quiesce(device)
                    .inspect_err(|_| frozen.undo(device))?;
                self.activity = Activity::Stopped(frozen, Owner::This);
            }
            Activity::Stopped(mut frozen, owner) => {
                frozen.quiesce(device)?;
                self.activity = Activity::Stopped(frozen, owner);
            }
            Activity::Loaded(..) => {}
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
        let Some(mut frozen) = self.activity.frozen().copied() else {
            return Ok(None);
        };
        let missing = self.reclaim_unicast(device)?;

        if let Activity::Stopped(..) = self.activity {
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
        self.activity = Activity::Running;
        Ok(missing)
    }

    /// Reclaims the guest's unicast addresses if their owner is unknown. Returns the reason if that
    /// failed.
    fn reclaim_unicast(
        &mut self,
        device: &mut (impl Access + Clock),
    ) -> Result<Option<Fault>, Fault> {
        let configuration = *self.shadow.configuration();
        let is_owner = self.activity.owner() == Owner::This;
        let is_idle = self.shadow.phase() == Phase::Idle;

        if is_owner || !is_idle || configuration.unicast.as_slice().is_empty() {
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
        let frozen = *self.activity.frozen().ok_or(Fault::Runs)?;

        // A destination repeats an unanswered request.
        until(device, INTERVAL, ANSWER_TIMEOUT, |device| {
            self.shadow.poll(device)
        })?;
        self.activity = self.activity.saved();
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
        self.activity = Activity::Loaded(Frozen::from(plane), self.activity.owner());
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
