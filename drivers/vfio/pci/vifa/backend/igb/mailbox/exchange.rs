// SPDX-License-Identifier: GPL-2.0

//! Exchanges of our own with the physical function, for a guest that does not run or not yet.
//!
//! The bits that they read of V2PMAILBOX concern them alone, but for those that tell of a reset of
//! the physical function.

use super::{
    message::{
        Words,
        ANSWER_WORDS, //
    },
    replay::Post,
};
use crate::backend::igb::{
    clock::{
        until,
        Clock, //
    },
    fault::Fault,
    registers::{
        buffer_word,
        mailbox::{
            ACK,
            PFACK,
            PFSTS,
            REQ,
            RSTD,
            RSTI,
            VFU, //
        },
        page0,
        vtctrl,
        Access, //
    },
};

/// Microseconds between two looks at the mailbox.
const INTERVAL: u32 = 100;

/// How long is waited for what, in microseconds.
pub(crate) struct Patience {
    /// For the buffer.
    buffer: u32,
    /// For an answer.
    answer: u32,
    /// For the end of a reset of the physical function.
    reset: u32,
    /// For all that is exchanged together.
    total: u32,
}

/// For what a guest needs: an answer may take as long as `igbvf` waits for one.
pub(crate) const PATIENT: Patience = Patience {
    buffer: 100_000,
    answer: 1_000_000,
    reset: 2_000_000,
    total: 10_000_000,
};

/// For what would be good to have.
pub(crate) const BRIEF: Patience = Patience {
    buffer: 100_000,
    answer: 100_000,
    reset: 100_000,
    total: 500_000,
};

/// A function's mailbox, while nobody else uses it.
pub(crate) struct Exchange<'a, D> {
    device: &'a mut D,
    patience: &'static Patience,
    /// When patience ends, whatever is waited for.
    end: u64,
    resets: u32,
}

impl<'a, D: Access + Clock> Exchange<'a, D> {
    /// Uses the mailbox of `device`.
    pub(crate) fn new(device: &'a mut D, patience: &'static Patience) -> Self {
        let end = device.now().saturating_add(patience.total.into());

        Self {
            device,
            patience,
            end,
            resets: 0,
        }
    }

    /// Returns how much of `timeout` is left before [`Self::end`].
    fn within(&self, timeout: u32) -> u32 {
        let left = self.end.saturating_sub(self.device.now());

        timeout.min(u32::try_from(left).unwrap_or(u32::MAX))
    }

    /// Returns which bits of V2PMAILBOX told of a reset of the physical function since the last
    /// reset of this one.
    pub(crate) fn resets(&self) -> u32 {
        self.resets
    }

    /// Reads V2PMAILBOX.
    fn look(&mut self) -> Result<u32, Fault> {
        let value = self.device.read(page0::V2PMAILBOX)?;

        self.resets |= value & (RSTI | RSTD);
        if self.resets == 0 {
            Ok(value)
        } else {
            Err(Fault::PhysicalFunctionResets)
        }
    }

    /// Looks at V2PMAILBOX until it `is_done`.
    fn wait(
        &mut self,
        timeout: u32,
        fault: Fault,
        mut is_done: impl FnMut(u32) -> bool,
    ) -> Result<(), Fault> {
        match until(self, INTERVAL, timeout, |this| Ok(is_done(this.look()?)))? {
            true => Ok(()),
            false => Err(fault),
        }
    }

    /// Takes the buffer.
    fn take(&mut self) -> Result<(), Fault> {
        let timeout = self.within(self.patience.buffer);
        let is_taken = until(self, INTERVAL, timeout, |this| {
            this.device.write(page0::V2PMAILBOX, VFU)?;
            Ok(this.look()? & VFU != 0)
        })?;

        if is_taken {
            Ok(())
        } else {
            Err(Fault::MailboxTaken)
        }
    }

    /// Puts `words` into the buffer. It is the guest's then if it `is_kept`, else nobody's.
    pub(crate) fn put(&mut self, words: &Words, is_kept: bool) -> Result<(), Fault> {
        self.take()?;
        for (index, &word) in words.iter().enumerate() {
            self.device.write(buffer_word(index), word)?;
        }
        if !is_kept {
            self.device.write(page0::V2PMAILBOX, 0)?;
        }
        Ok(())
    }
}

impl<D: Clock> Clock for Exchange<'_, D> {
    fn now(&self) -> u64 {
        self.device.now()
    }

    fn sleep(&mut self, microseconds: u32) {
        self.device.sleep(microseconds);
    }
}

impl<D: Access + Clock> Post for Exchange<'_, D> {
    fn reset(&mut self) -> Result<(), Fault> {
        self.device.write(page0::VTCTRL, vtctrl::RST)?;
        // A reset that was over before says nothing of what comes.
        let timeout = self.within(self.patience.reset);
        let is_over = until(self, INTERVAL, timeout, |this| {
            Ok(this.device.read(page0::V2PMAILBOX)? & (RSTI | RSTD) == 0)
        })?;

        // `igb` begins a reset when its interface is set down, and ends it when that is set up.
        if !is_over {
            self.resets |= RSTI;
            return Err(Fault::PhysicalFunctionSilent);
        }
        self.resets = 0;
        Ok(())
    }

    fn post(&mut self, message: &Words) -> Result<[u32; ANSWER_WORDS], Fault> {
        self.leave(message)?;
        let timeout = self.within(self.patience.answer);
        let mut seen = 0;
        self.wait(timeout, Fault::PhysicalFunctionSilent, |value| {
            seen |= value;
            seen & (PFACK | PFSTS) == PFACK | PFSTS
        })?;

        self.take()?;
        let mut answer = [0; ANSWER_WORDS];
        for (index, word) in answer.iter_mut().enumerate() {
            *word = self.device.read(buffer_word(index))?;
        }
        // This gives the buffer back as well.
        self.device.write(page0::V2PMAILBOX, ACK)?;
        Ok(answer)
    }

    fn leave(&mut self, message: &Words) -> Result<(), Fault> {
        self.put(message, true)?;
        // As does this.
        self.device.write(page0::V2PMAILBOX, REQ)
    }
}
