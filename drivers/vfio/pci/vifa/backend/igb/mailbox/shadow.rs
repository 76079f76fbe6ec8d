// SPDX-License-Identifier: GPL-2.0

//! The guest's accesses to page 0, and what is learned from them.
//!
//! Each access is passed on. On its way, requests are taken from the mailbox, and their answers are
//! read before anything overwrites them; so it is known at any time what the guest has obtained, in
//! [`Configuration`]. Bits that a read clears are kept for the guest when they were read on its
//! behalf.
//!
//! An access that fails has changed nothing that the next would miss.

mod buffer;

use self::buffer::{
    buffer,
    Owned, //
};
use super::{
    configuration::Configuration,
    message::{
        address_given,
        is_answer,
        Answer,
        Request,
        Words,
        ANSWER_WORDS, //
    },
    statistics::{
        Counters,
        Statistics, //
    },
    throttle::Throttle,
};
use crate::backend::igb::{
    clock::Clock,
    fault::Fault,
    registers::{
        buffer_word,
        mailbox::{
            PFACK,
            PFSTS,
            PFU,
            READ_TO_CLEAR,
            RSTD,
            RSTI,
            VFU,
            WRITABLE, //
        },
        page0,
        statistics::{
            COUNTERS,
            OFFSETS, //
        },
        status,
        vtctrl,
        word_of_buffer,
        Access, //
    },
};
use core::mem::take;

/// A request whose answer was not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    /// What stands in the buffer.
    words: Words,
    /// The physical function has read it.
    is_read: bool,
    /// The physical function has put something into the buffer.
    is_answered: bool,
}

impl Asked {
    /// A request that stands in the buffer as `words` and was posted now.
    fn new(words: Words) -> Self {
        Self {
            words,
            is_read: false,
            is_answered: false,
        }
    }
}

/// What the mailbox is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing.
    Idle,
    /// The guest owns the buffer.
    Owned,
    /// The guest waits for an answer to what is in the buffer.
    Asked,
}

/// Page 0, as the guest has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page0 {
    /// What the mailbox is used for.
    pub(crate) phase: Phase,
    /// The mailbox's buffer; the request, if one waits for its answer.
    pub(crate) buffer: Words,
    /// Bits of V2PMAILBOX that the guest has yet to read.
    pub(crate) pending: u32,
    /// PSRTYPE.
    pub(crate) packet_split: u32,
    /// STATUS has said that the link is up.
    pub(crate) link: bool,
    /// The counters.
    pub(crate) counters: Counters,
}

/// What is known of page 0 besides what stands in it.
pub(crate) struct Shadow {
    configuration: Configuration,
    /// What was asked last, until it is answered.
    asked: Option<Asked>,
    /// The buffer, while the guest owns it.
    owned: Option<Owned>,
    throttle: Throttle,
    pending: u32,
    packet_split: u32,
    statistics: Statistics,
    generation: u32,
    presumed: u32,
}

impl Shadow {
    /// Makes the shadow of a function that nobody has used.
    pub(crate) const fn new() -> Self {
        Self {
            configuration: Configuration::NONE,
            asked: None,
            owned: None,
            throttle: Throttle::new(),
            pending: 0,
            packet_split: 0,
            statistics: Statistics::new(),
            generation: 0,
            presumed: 0,
        }
    }

    /// Returns what the guest has obtained.
    pub(crate) fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Returns how often that has changed, modulo 2^32.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// Returns how many answers were presumed, because another message stood in their place.
    pub(crate) fn presumed(&self) -> u32 {
        self.presumed
    }

    /// Returns the bits of V2PMAILBOX that the guest has yet to read.
    pub(crate) fn pending(&self) -> u32 {
        self.pending
    }

    /// Returns what the mailbox is used for.
    pub(crate) fn phase(&self) -> Phase {
        match (self.asked, self.owned) {
            (Some(_), _) => Phase::Asked,
            (None, Some(_)) => Phase::Owned,
            (None, None) => Phase::Idle,
        }
    }

    /// Has the guest read the register at `offset`.
    pub(crate) fn read(&mut self, device: &mut impl Access, offset: u32) -> Result<u32, Fault> {
        if offset == page0::V2PMAILBOX {
            let value = self.settle(device)? & !(READ_TO_CLEAR | VFU);
            let value = match self.owned {
                Some(_) => (value & !PFU) | VFU,
                None => value,
            };
            return Ok(value | take(&mut self.pending));
        }
        if offset == page0::PBACL {
            return Ok(0);
        }
        if let Some(word) = word_of_buffer(offset) {
            if let Some(&word) = self.owned.as_ref().and_then(|owned| owned.words.get(word)) {
                return Ok(word);
            }
            if self.asked.is_some() {
                self.settle(device)?;
            }
        }
        let value = device.read(offset)?;

        Ok(match Statistics::counter(offset) {
            Some(counter) => self.statistics.visible(counter, value),
            None => value,
        })
    }

    /// Has the guest write the register at `offset`.
    pub(crate) fn write(
        &mut self,
        device: &mut (impl Access + Clock),
        offset: u32,
        value: u32,
    ) -> Result<(), Fault> {
        match offset {
            page0::V2PMAILBOX => return self.write_mailbox(device, value & WRITABLE),
            page0::VTCTRL if value & vtctrl::RST != 0 => {
                self.throttle.pass(device);
                self.settle(device)?;
                device.write(offset, value)?;
                // The mailbox stays as it is, and a request that was posted is still there.
                self.change(|configuration| configuration.granted = None);
                return Ok(());
            }
            page0::PBACL => return Ok(()),
            page0::PSRTYPE => {
                device.write(offset, value)?;
                self.packet_split = value;
                return Ok(());
            }
            _ => {}
        }
        match word_of_buffer(offset) {
            Some(word) => self.write_buffer(device, word, value),
            None => device.write(offset, value),
        }
    }

    /// Has the guest write a word of the mailbox's buffer.
    fn write_buffer(
        &mut self,
        device: &mut impl Access,
        word: usize,
        value: u32,
    ) -> Result<(), Fault> {
        if let Some(owned) = &mut self.owned {
            if let Some(word) = owned.words.get_mut(word) {
                owned.is_changed |= *word != value;
                *word = value;
            }
            return Ok(());
        }
        if self.asked.is_some() {
            self.settle(device)?;
        }
        device.write(buffer_word(word), value)?;
        // What is not read yet will be read as it stands then.
        if let Some(asked) = self.asked.as_mut().filter(|asked| !asked.is_read) {
            if let Some(word) = asked.words.get_mut(word) {
                *word = value;
            }
        }
        Ok(())
    }

    /// Looks whether there is an answer. Returns whether there is nothing left to wait for.
    pub(crate) fn poll(&mut self, device: &mut impl Access) -> Result<bool, Fault> {
        self.settle(device)?;
        Ok(self.asked.is_none())
    }

    /// Returns whether the physical function is being reset, or was since the guest last looked.
    pub(crate) fn was_reset(&mut self, device: &mut impl Access) -> Result<bool, Fault> {
        let value = self.settle(device)?;

        Ok((value & RSTI) | (self.pending & RSTD) != 0)
    }

    /// Reads V2PMAILBOX and keeps what the read cleared.
    fn look(&mut self, device: &mut impl Access) -> Result<u32, Fault> {
        let value = device.read(page0::V2PMAILBOX)?;

        match &mut self.owned {
            Some(owned) => {
                owned.late |= value & PFSTS;
                self.pending |= value & READ_TO_CLEAR & !PFSTS;
            }
            None => self.pending |= value & READ_TO_CLEAR,
        }
        if let Some(asked) = &mut self.asked {
            asked.is_read |= value & PFACK != 0;
            asked.is_answered |= value & PFSTS != 0;
        }
        self.note_reset(value);
        Ok(value)
    }

    /// Takes note of a reset of the physical function, where `value` of V2PMAILBOX says so: all
    /// that functions obtained is gone.
    pub(crate) fn note_reset(&mut self, value: u32) {
        self.pending |= value & RSTD;
        if value & (RSTI | RSTD) != 0 {
            self.change(|configuration| *configuration = Configuration::NONE);
        }
    }

    /// Looks whether there is an answer, and takes note of it. Returns V2PMAILBOX.
    fn settle(&mut self, device: &mut impl Access) -> Result<u32, Fault> {
        let value = self.look(device)?;
        let Some(asked) = self.asked.filter(|asked| asked.is_answered) else {
            // The physical function has read it, and takes it for an answer of its own.
            self.asked = self
                .asked
                .filter(|asked| !(asked.is_read && is_answer(asked.words[0])));
            return Ok(value);
        };
        let mut answer = [0; ANSWER_WORDS];

        for (index, word) in answer.iter_mut().enumerate() {
            *word = device.read(buffer_word(index))?;
        }
        self.conclude(&asked, answer);
        Ok(value)
    }

    /// Takes note of `answer`, which stands where `asked` stood.
    fn conclude(&mut self, asked: &Asked, answer: [u32; ANSWER_WORDS]) {
        let request = Request::decode(&asked.words);

        self.asked = None;
        match Answer::decode(asked.words[0], answer[0]) {
            Answer::Done => {
                self.change(|configuration| configuration.done(request, address_given(answer)));
            }
            Answer::Refused => self.change(|configuration| configuration.refused(request)),
            Answer::NotClearToSend => self.change(|configuration| configuration.granted = None),
            // The guest will not see the answer, either, and takes it for a good one.
            Answer::Overwritten if asked.is_read => {
                self.presumed = self.presumed.wrapping_add(1);
                self.change(|configuration| configuration.done(request, address_given(answer)));
            }
            // A message that comes before a request was read takes its place.
            Answer::Overwritten => {}
            Answer::None => {
                self.asked = Some(Asked {
                    is_answered: false,
                    ..*asked
                });
            }
        }
    }

    /// Changes the configuration by `f`.
    fn change(&mut self, f: impl FnOnce(&mut Configuration)) {
        let before = self.configuration;

        f(&mut self.configuration);
        if self.configuration != before {
            self.generation = self.generation.wrapping_add(1);
        }
    }

    /// Takes note that the function was reset, by whomever, and that the mailbox is empty.
    pub(crate) fn reset(&mut self) {
        self.change(|configuration| configuration.granted = None);
        self.asked = None;
        self.owned = None;
        self.pending = 0;
        self.packet_split = 0;
    }

    /// Takes page 0 of a function that runs no more.
    pub(crate) fn save(&mut self, device: &mut impl Access) -> Result<Page0, Fault> {
        self.settle(device)?;
        let mut counters = [0; COUNTERS];

        for (counter, offset) in counters.iter_mut().zip(OFFSETS) {
            *counter = self.read(device, offset)?;
        }
        Ok(Page0 {
            phase: self.phase(),
            buffer: match (self.asked, self.owned) {
                (Some(asked), _) => asked.words,
                (None, Some(owned)) => owned.words,
                (None, None) => buffer(device)?,
            },
            pending: self.pending,
            packet_split: self.packet_split,
            link: device.read(page0::STATUS)? & status::LU != 0,
            counters,
        })
    }

    /// Goes on where a function stopped that had this `configuration` and this `page`; the
    /// registers themselves are the matter of others. `counters` are what the function's own hold
    /// now.
    pub(crate) fn restore(
        &mut self,
        configuration: &Configuration,
        page: &Page0,
        counters: Counters,
    ) {
        self.change(|current| *current = *configuration);
        self.asked = (page.phase == Phase::Asked).then_some(Asked::new(page.buffer));
        self.owned = (page.phase == Phase::Owned).then_some(Owned::new(page.buffer));
        self.pending = page.pending;
        self.packet_split = page.packet_split;
        self.statistics.continue_from(page.counters, counters);
    }
}
