// SPDX-License-Identifier: GPL-2.0

//! A function: what is known of it, and what is done with it on the way from one host to another.

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

/// Microseconds between two looks for an answer that the guest waits for.
const INTERVAL: u32 = 100;

/// Microseconds in which the guest has to have an answer: as long as `igbvf` waits for it.
const ANSWER_TIMEOUT: u32 = 1_000_000;

/// A function that somebody uses.
pub(crate) struct State {
    /// Its queue pairs.
    queues: u8,
    shadow: Shadow,
    /// What it had when it was stopped, if it is.
    frozen: Option<Frozen>,
    /// What it had is what it was given: it never had it while it ran.
    is_loaded: bool,
    /// Another function may have what the guest obtained.
    is_saved: bool,
    /// The physical function was asked for something.
    is_used: bool,
}

impl State {
    /// Takes a function with so many queue pairs that was just reset.
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

    /// Returns what is known of page 0.
    pub(crate) fn shadow(&self) -> &Shadow {
        &self.shadow
    }

    /// Takes note that the function was reset: it runs.
    pub(crate) fn reset(&mut self) {
        self.shadow.reset();
        self.frozen = None;
        self.is_loaded = false;
        self.is_saved = false;
    }

    /// Has the guest read a register of page 0: all ones where the function is gone, as any other
    /// page reads.
    pub(crate) fn read(&mut self, device: &mut impl Access, offset: u32) -> Result<u32, Fault> {
        match self.shadow.read(device, offset) {
            Err(Fault::Gone) => Ok(u32::MAX),
            read => read,
        }
    }

    /// Has the guest write a register of page 0; nothing is written where the function is gone.
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

    /// Has the function do nothing more by itself. Done again, it takes note of what was changed
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// It cannot be stopped. It runs as before, if it did.
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

    /// Has the function go on. Returns why the guest lacks a unicast address that it had, if so.
    ///
    /// Where the physical function was reset meanwhile, the queues stay off, as that reset leaves
    /// those of a function that runs, and the guest sees the reset in the mailbox.
    ///
    /// # Errors
    ///
    /// It cannot go on, and does nothing.
    pub(crate) fn resume(
        &mut self,
        device: &mut (impl Access + Clock),
    ) -> Result<Option<Fault>, Fault> {
        let Some(mut frozen) = self.frozen else {
            return Ok(None);
        };
        let lacks = self.take_back(device)?;

        if !self.is_loaded {
            frozen.refresh(device)?;
        }
        if self.shadow.was_reset(device)? {
            frozen.wake(device)?;
        } else if let Err(fault) = frozen.thaw(device, self.shadow.pending() != 0) {
            // A reset of the physical function may have taken the queues in between.
            if !self.shadow.was_reset(device)? {
                return Err(fault);
            }
            frozen.wake(device)?;
        }
        self.frozen = None;
        self.is_loaded = false;
        self.is_saved = false;
        Ok(lacks)
    }

    /// Takes the unicast addresses back that a destination on the same card may have taken. Returns
    /// why not, if so.
    fn take_back(&mut self, device: &mut (impl Access + Clock)) -> Result<Option<Fault>, Fault> {
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

    /// Takes all that a function has which was stopped.
    ///
    /// # Errors
    ///
    /// It was not stopped, or its guest has left it in a state that none takes over.
    pub(crate) fn save(
        &mut self,
        device: &mut (impl Access + Clock),
    ) -> Result<ControlPlane, Fault> {
        let frozen = self.frozen.ok_or(Fault::Runs)?;

        // A destination asks anew for what is not answered.
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

    /// Learns whether a stopped function would be granted `configuration`; keeps nothing.
    ///
    /// # Errors
    ///
    /// What would be refused, or why it is not known.
    pub(crate) fn rehearse(
        &mut self,
        device: &mut (impl Access + Clock),
        configuration: &Configuration,
    ) -> Result<(), Fault> {
        self.is_used = true;
        rehearse(&mut Exchange::new(device, &PATIENT), configuration)
    }

    /// Gives a stopped function all that another had; it then has to [`Self::adopt`] it.
    ///
    /// # Errors
    ///
    /// What was refused, or what the function does not do. It has a part of what it needs.
    pub(crate) fn prepare(
        &mut self,
        device: &mut (impl Access + Clock),
        plane: &ControlPlane,
    ) -> Result<(), Fault> {
        let page = &plane.page0;
        let frozen = Frozen::from(plane);

        self.is_used = true;
        // It begins with a reset, which takes the registers.
        replay(&mut Exchange::new(device, &PATIENT), &plane.configuration)?;
        device.write(page0::PSRTYPE, page.packet_split)?;
        frozen.put(device)?;
        // A request is answered at any time; the interrupt of its answer must not be cleared.
        let mut exchange = Exchange::new(device, &PATIENT);
        match page.phase {
            Phase::Idle | Phase::Owned => exchange.put(&page.buffer, false),
            Phase::Asked => exchange.leave(&page.buffer),
        }
    }

    /// Goes on where another function stopped, whose all this one was given.
    ///
    /// # Errors
    ///
    /// A register is not reached.
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

    /// Leaves nothing behind at the physical function that would draw frames here, as far as it
    /// takes part in that; a reset has to follow.
    ///
    /// # Errors
    ///
    /// Why something may be left.
    pub(crate) fn close(&mut self, device: &mut (impl Access + Clock)) -> Result<(), Fault> {
        if self.is_used {
            tidy(&mut Exchange::new(device, &BRIEF))
        } else {
            Ok(())
        }
    }
}
