// SPDX-License-Identifier: GPL-2.0

//! The driver's own exchanges with the physical function, on behalf of a stopped guest.
//!
//! The bits of V2PMAILBOX that they read and clear concern only these exchanges, except for the
//! bits that indicate a reset of the physical function.

use super::{
    message::{
        Words,
        ANSWER_WORDS, //
    },
    replay::Post,
};
use crate::backend::igb::portable::{
    access::Access,
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
        vtctrl, //
    },
};

/// Polling interval of the mailbox in microseconds.
const INTERVAL: u32 = 100;

/// Timeouts in microseconds.
pub(crate) struct Patience {
    /// Timeout for the buffer.
    buffer: u32,
    /// Timeout for an answer.
    answer: u32,
    /// Timeout for the end of a reset of the physical function.
    reset: u32,
    /// Timeout for the whole exchange.
    total: u32,
}

/// Timeouts for requests that a guest depends on. An answer may take as long as `igbvf` waits.
pub(crate) const PATIENT: Patience = Patience {
    buffer: 100_000,
    answer: 1_000_000,
    reset: 2_000_000,
    total: 10_000_000,
};

/// Timeouts for optional requests.
pub(crate) const BRIEF: Patience = Patience {
    buffer: 100_000,
    answer: 100_000,
    reset: 100_000,
    total: 500_000,
};

/// Exclusive use of a function's mailbox.
pub(crate) struct Exchange<'a, D> {
    device: &'a mut D,
    patience: &'static Patience,
    /// The time at which the whole exchange times out.
    end: u64,
    resets: u32,
}

impl<'a, D: Access + Clock> Exchange<'a, D> {
    /// Begins an exchange in the mailbox of `device`.
    pub(crate) fn new(device: &'a mut D, patience: &'static Patience) -> Self {
        let end = device.now().saturating_add(patience.total.into());

        Self {
            device,
            patience,
            end,
            resets: 0,
        }
    }

    /// Returns `timeout`, limited to the time until [`Self::end`].
    fn within(&self, timeout: u32) -> u32 {
        let left = self.end.saturating_sub(self.device.now());

        timeout.min(u32::try_from(left).unwrap_or(u32::MAX))
    }

    /// Returns the bits of V2PMAILBOX that indicated a reset of the physical function since the
    /// last reset of this function.
    pub(crate) fn resets(&self) -> u32 {
        self.resets
    }

    /// Reads V2PMAILBOX. Fails if the physical function was reset.
    fn read_mailbox(&mut self) -> Result<u32, Fault> {
        let value = self.device.read(page0::V2PMAILBOX)?;

        self.resets |= value & (RSTI | RSTD);
        if self.resets == 0 {
            Ok(value)
        } else {
            Err(Fault::PhysicalFunctionResets)
        }
    }

    /// Polls V2PMAILBOX until `is_done` returns true. Returns `fault` on timeout.
    fn wait(
        &mut self,
        timeout: u32,
        fault: Fault,
        mut is_done: impl FnMut(u32) -> bool,
    ) -> Result<(), Fault> {
        match until(self, INTERVAL, timeout, |this| {
            Ok(is_done(this.read_mailbox()?))
        })? {
            true => Ok(()),
            false => Err(fault),
        }
    }

    /// Acquires the buffer.
    fn take(&mut self) -> Result<(), Fault> {
        let timeout = self.within(self.patience.buffer);
        let is_taken = until(self, INTERVAL, timeout, |this| {
            this.device.write(page0::V2PMAILBOX, VFU)?;
            Ok(this.read_mailbox()? & VFU != 0)
        })?;

        if is_taken {
            Ok(())
        } else {
            Err(Fault::MailboxTaken)
        }
    }

    /// Writes `words` to the buffer. The guest owns the buffer afterwards if it `is_kept`.
    /// Otherwise it has no owner.
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
        // This reset clears the indication of an earlier, completed reset of the physical function.
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
        // This write also releases the buffer.
        self.device.write(page0::V2PMAILBOX, ACK)?;
        Ok(answer)
    }

    fn leave(&mut self, message: &Words) -> Result<(), Fault> {
        self.put(message, true)?;
        // This write also releases the buffer.
        self.device.write(page0::V2PMAILBOX, REQ)
    }
}
