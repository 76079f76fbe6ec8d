// SPDX-License-Identifier: GPL-2.0

//! The guest's accesses to page 0, and the configuration derived from them.
//!
//! Each access is forwarded. The shadow records requests in the mailbox, and reads their answers
//! before anything overwrites them. The [`Configuration`] therefore always contains the resources
//! that the guest has obtained. If the driver reads bits that are cleared by a read, the shadow
//! keeps them for the guest.
//!
//! A failed access can be repeated: it loses no information.

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
use crate::backend::igb::portable::{
    access::Access,
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
        word_of_buffer, //
    },
};
use core::mem::take;

/// A request whose answer is not yet read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    /// The content of the buffer.
    words: Words,
    /// Whether the physical function has read the request.
    is_read: bool,
    /// Whether the physical function has written the buffer.
    is_answered: bool,
}

impl Asked {
    /// Returns a newly posted request with the buffer content `words`.
    fn new(words: Words) -> Self {
        Self {
            words,
            is_read: false,
            is_answered: false,
        }
    }
}

/// The state of the mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The mailbox is not used.
    Idle,
    /// The guest owns the buffer.
    Owned,
    /// The guest waits for the answer to the request in the buffer.
    Asked,
}

/// The guest's view of page 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page0 {
    /// The state of the mailbox.
    pub(crate) phase: Phase,
    /// The mailbox's buffer, or the unanswered request.
    pub(crate) buffer: Words,
    /// Bits of V2PMAILBOX that the guest has not yet read.
    pub(crate) pending: u32,
    /// PSRTYPE.
    pub(crate) packet_split: u32,
    /// Whether STATUS has reported that the link is up.
    pub(crate) link: bool,
    /// The counters.
    pub(crate) counters: Counters,
}

/// The state of page 0 that is not in its registers.
pub(crate) struct Shadow {
    configuration: Configuration,
    /// The last request, until it is answered.
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
    /// Returns the shadow of an unused function.
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

    /// Returns the resources that the guest has obtained.
    pub(crate) fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Returns the number of changes of the configuration, modulo 2^32.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// Returns the number of answers that were presumed because another message had overwritten
    /// them.
    pub(crate) fn presumed(&self) -> u32 {
        self.presumed
    }

    /// Returns the bits of V2PMAILBOX that the guest has not yet read.
    pub(crate) fn pending(&self) -> u32 {
        self.pending
    }

    /// Returns the state of the mailbox.
    pub(crate) fn phase(&self) -> Phase {
        match (self.asked, self.owned) {
            (Some(_), _) => Phase::Asked,
            (None, Some(_)) => Phase::Owned,
            (None, None) => Phase::Idle,
        }
    }

    /// Reads the register at `offset` for the guest.
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

    /// Writes the register at `offset` for the guest.
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
                // The reset does not change the mailbox, and a posted request is still there.
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

    /// Writes a word of the mailbox's buffer for the guest.
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
        // The physical function will read the new words of an unread request.
        if let Some(asked) = self.asked.as_mut().filter(|asked| !asked.is_read) {
            if let Some(word) = asked.words.get_mut(word) {
                *word = value;
            }
        }
        Ok(())
    }

    /// Processes an answer, if any. Returns whether no request is unanswered.
    pub(crate) fn poll(&mut self, device: &mut impl Access) -> Result<bool, Fault> {
        self.settle(device)?;
        Ok(self.asked.is_none())
    }

    /// Returns whether the physical function is being reset, or was reset since the guest last read
    /// V2PMAILBOX.
    pub(crate) fn was_reset(&mut self, device: &mut impl Access) -> Result<bool, Fault> {
        let value = self.settle(device)?;

        Ok((value & RSTI) | (self.pending & RSTD) != 0)
    }

    /// Reads V2PMAILBOX, and keeps the bits that the read clears.
    fn read_mailbox(&mut self, device: &mut impl Access) -> Result<u32, Fault> {
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

    /// Clears the configuration if `value` of V2PMAILBOX indicates a reset of the physical
    /// function, which releases the resources of all functions.
    pub(crate) fn note_reset(&mut self, value: u32) {
        self.pending |= value & RSTD;
        if value & (RSTI | RSTD) != 0 {
            self.change(|configuration| *configuration = Configuration::NONE);
        }
    }

    /// Processes an answer, if any. Returns V2PMAILBOX.
    fn settle(&mut self, device: &mut impl Access) -> Result<u32, Fault> {
        let value = self.read_mailbox(device)?;

        // The physical function treats a message with answer bits as answered when it has read it,
        // and sends no answer.
        self.asked = self
            .asked
            .filter(|asked| !(asked.is_read && is_answer(asked.words[0])));
        let Some(asked) = self.asked.filter(|asked| asked.is_answered) else {
            return Ok(value);
        };
        let mut answer = [0; ANSWER_WORDS];

        for (index, word) in answer.iter_mut().enumerate() {
            *word = device.read(buffer_word(index))?;
        }
        self.conclude(&asked, answer);
        Ok(value)
    }

    /// Processes `answer`, the buffer's content after the request `asked`.
    fn conclude(&mut self, asked: &Asked, answer: [u32; ANSWER_WORDS]) {
        let request = Request::decode(&asked.words);

        self.asked = None;
        match Answer::decode(asked.words[0], answer[0]) {
            Answer::Done => {
                self.change(|configuration| configuration.done(request, address_given(answer)));
            }
            Answer::Refused => self.change(|configuration| configuration.refused(request)),
            Answer::NotClearToSend => self.change(|configuration| configuration.granted = None),
            // The guest does not see the answer, either, and assumes success.
            Answer::Overwritten if asked.is_read => {
                self.presumed = self.presumed.wrapping_add(1);
                self.change(|configuration| configuration.done(request, address_given(answer)));
            }
            // The message replaced the request before the physical function read it.
            Answer::Overwritten => {}
            Answer::None => {
                self.asked = Some(Asked {
                    is_answered: false,
                    ..*asked
                });
            }
        }
    }

    /// Calls `f` on the configuration, and counts a change.
    fn change(&mut self, f: impl FnOnce(&mut Configuration)) {
        let before = self.configuration;

        f(&mut self.configuration);
        if self.configuration != before {
            self.generation = self.generation.wrapping_add(1);
        }
    }

    /// Records a reset of the function, after which the mailbox is empty.
    pub(crate) fn reset(&mut self) {
        self.change(|configuration| configuration.granted = None);
        self.asked = None;
        self.owned = None;
        self.pending = 0;
        self.packet_split = 0;
    }

    /// Reads page 0 of a stopped function.
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

    /// Continues from the `configuration` and the `page` of another function. Does not write
    /// registers. `counters` are the current values of this function's counters.
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
