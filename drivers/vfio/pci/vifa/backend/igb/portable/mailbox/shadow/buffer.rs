// SPDX-License-Identifier: GPL-2.0

//! The guest's view of the mailbox's buffer.
//!
//! While a virtual function owns the buffer, `igb` waits for it: for up to 11 ms, with interrupts
//! disabled and the lock of all functions held. Therefore a guest owns a copy. The function owns
//! the buffer itself only while a request is written to it. A message that the physical function
//! writes while the guest owns its copy reaches the guest when it releases the copy, unless the
//! guest's own request replaces it.

use super::{
    Asked,
    Shadow, //
};
use crate::backend::igb::portable::{
    access::Access,
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
        BUFFER_WORDS, //
    },
};

/// Maximum number of attempts to copy the buffer without a change by the physical function.
const COPIES: u32 = 3;

/// Interval between attempts to own the buffer, in microseconds.
const INTERVAL: u32 = 100;

/// Timeout for the physical function to release the buffer, in microseconds.
const TIMEOUT: u32 = 10_000;

/// A copy of the buffer that the guest owns.
#[derive(Clone, Copy)]
pub(super) struct Owned {
    pub(super) words: Words,
    /// Whether the copy differs from the buffer.
    pub(super) is_changed: bool,
    /// Bits of V2PMAILBOX for a message that has arrived since the copy.
    pub(super) late: u32,
}

impl Owned {
    /// Returns a copy of a buffer with the content `words`.
    pub(super) fn new(words: Words) -> Self {
        Self {
            words,
            is_changed: false,
            late: 0,
        }
    }
}

impl Shadow {
    /// Writes V2PMAILBOX for the guest.
    pub(super) fn write_mailbox(
        &mut self,
        device: &mut (impl Access + Clock),
        value: u32,
    ) -> Result<(), Fault> {
        if value & (REQ | ACK) != 0 {
            self.throttle.pass(device);
        }
        if value & REQ != 0 {
            // A request releases the buffer.
            return self.request(device, value & (REQ | ACK));
        }
        match self.owned {
            Some(owned) if value & VFU == 0 => self.release(device, owned, value),
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

    /// Gives the guest a copy of the buffer, unless the physical function owns or changes it.
    fn lend(&mut self, device: &mut impl Access) -> Result<(), Fault> {
        for _ in 0..COPIES {
            if self.settle(device)? & PFU != 0 {
                break;
            }
            let words = buffer(device)?;

            if self.read_mailbox(device)? & (PFU | PFSTS) == 0 {
                self.owned = Some(Owned::new(words));
                break;
            }
        }
        Ok(())
    }

    /// Posts the request in the guest's copy, or else the request in the buffer. If the physical
    /// function does not release the buffer, the guest keeps its copy.
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

        // This write also releases the buffer.
        device.write(page0::V2PMAILBOX, value)?;
        self.asked = Some(Asked::new(words));
        self.owned = None;
        Ok(())
    }

    /// Releases the guest's copy `owned`. Writes its content to the buffer if the guest has changed
    /// it, unless a message has arrived since.
    fn release(
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
                // The physical function will read the new words of an unread request.
                if let Some(asked) = self.asked.as_mut().filter(|asked| !asked.is_read) {
                    asked.words = owned.words;
                }
            }
        }
        device.write(page0::V2PMAILBOX, value & ACK)?;
        self.pending |= self.owned.take().map_or(0, |owned| owned.late);
        Ok(())
    }

    /// Acquires the buffer and writes `words` to it. Returns `false` if the physical function does
    /// not release it.
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
