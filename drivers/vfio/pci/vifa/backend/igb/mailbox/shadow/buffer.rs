// SPDX-License-Identifier: GPL-2.0

//! The mailbox's buffer, as the guest has it.
//!
//! While a virtual function owns the buffer, `igb` waits for it: for 11 ms, with interrupts off and
//! the lock of all functions held. So a guest owns a copy. The function owns the buffer itself only
//! while a request is put there; a message that the physical function puts there meanwhile reaches
//! the guest when it gives its copy back, unless a request of its own takes its place.

use super::{
    Asked,
    Shadow, //
};
use crate::backend::igb::{
    clock::{
        until,
        Clock, //
    },
    fault::Fault,
    mailbox::message::Words,
    registers::{
        buffer_word,
        mailbox::{
            ACK,
            PFSTS,
            PFU,
            REQ,
            VFU, //
        },
        page0,
        Access,
        BUFFER_WORDS, //
    },
};

/// Tries to copy the buffer while the physical function does not change it.
const COPIES: u32 = 3;

/// Microseconds between two tries to own the buffer.
const INTERVAL: u32 = 100;

/// Microseconds in which the physical function gives the buffer back.
const TIMEOUT: u32 = 10_000;

/// A copy of the buffer that the guest owns.
#[derive(Clone, Copy)]
pub(super) struct Owned {
    pub(super) words: Words,
    /// It differs from the buffer.
    pub(super) is_changed: bool,
    /// Bits of V2PMAILBOX of a message that came meanwhile.
    pub(super) late: u32,
}

impl Owned {
    /// A copy of a buffer that holds `words`.
    pub(super) fn new(words: Words) -> Self {
        Self {
            words,
            is_changed: false,
            late: 0,
        }
    }
}

impl Shadow {
    /// Has the guest write V2PMAILBOX.
    pub(super) fn write_mailbox(
        &mut self,
        device: &mut (impl Access + Clock),
        value: u32,
    ) -> Result<(), Fault> {
        if value & (REQ | ACK) != 0 {
            self.throttle.pass(device);
        }
        if value & REQ != 0 {
            // Whoever has made a request owns the buffer no more.
            return self.request(device, value & (REQ | ACK));
        }
        match self.owned {
            Some(owned) if value & VFU == 0 => self.give_back(device, owned, value),
            Some(_) => device.write(page0::V2PMAILBOX, value & ACK),
            None => {
                device.write(page0::V2PMAILBOX, value & ACK)?;
                if value & VFU != 0 {
                    self.lend(device)?;
                }
                Ok(())
            }
        }
    }

    /// Gives the guest a copy of the buffer, unless the physical function owns or changes that.
    fn lend(&mut self, device: &mut impl Access) -> Result<(), Fault> {
        for _ in 0..COPIES {
            if self.settle(device)? & PFU != 0 {
                break;
            }
            let words = buffer(device)?;

            if self.look(device)? & (PFU | PFSTS) == 0 {
                self.owned = Some(Owned::new(words));
                break;
            }
        }
        Ok(())
    }

    /// Posts the request of which the guest has the copy, or which stands in the buffer. Where the
    /// physical function does not give the buffer back, the guest keeps its copy.
    fn request(&mut self, device: &mut (impl Access + Clock), value: u32) -> Result<(), Fault> {
        let words = match self.owned {
            Some(owned) => {
                if !self.put(device, &owned.words)? {
                    return device.write(page0::V2PMAILBOX, value & ACK);
                }
                owned.words
            }
            None => {
                self.settle(device)?;
                buffer(device)?
            }
        };

        // This gives the buffer back as well.
        device.write(page0::V2PMAILBOX, value)?;
        self.asked = Some(Asked::new(words));
        self.owned = None;
        Ok(())
    }

    /// Takes back the copy `owned`. What the guest has put there is in the buffer then, unless
    /// there is a message since.
    fn give_back(
        &mut self,
        device: &mut (impl Access + Clock),
        owned: Owned,
        value: u32,
    ) -> Result<(), Fault> {
        if owned.is_changed {
            if value & ACK == 0 {
                self.throttle.pass(device);
            }
            self.settle(device)?;
            let is_newer = self.owned.is_some_and(|owned| owned.late != 0);
            if !is_newer && self.put(device, &owned.words)? {
                // What is not read yet will be read as it stands then.
                if let Some(asked) = self.asked.as_mut().filter(|asked| !asked.is_read) {
                    asked.words = owned.words;
                }
            }
        }
        device.write(page0::V2PMAILBOX, value & ACK)?;
        self.pending |= self.owned.take().map_or(0, |owned| owned.late);
        Ok(())
    }

    /// Puts `words` into the buffer, which is the function's then; `false` if the physical function
    /// does not give that back.
    fn put(&mut self, device: &mut (impl Access + Clock), words: &Words) -> Result<bool, Fault> {
        let is_owned = until(device, INTERVAL, TIMEOUT, |device| {
            device.write(page0::V2PMAILBOX, VFU)?;
            Ok(self.settle(device)? & VFU != 0)
        })?;

        if is_owned {
            for (index, &word) in words.iter().enumerate() {
                device.write(buffer_word(index), word)?;
            }
        }
        Ok(is_owned)
    }
}

/// Reads the mailbox's buffer.
pub(super) fn buffer(device: &mut impl Access) -> Result<Words, Fault> {
    let mut words = [0; BUFFER_WORDS];

    for (index, word) in words.iter_mut().enumerate() {
        *word = device.read(buffer_word(index))?;
    }
    Ok(words)
}
