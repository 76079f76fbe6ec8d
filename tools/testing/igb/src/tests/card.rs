// SPDX-License-Identifier: GPL-2.0

//! The registers of a function as a card keeps them: the pages that a guest reaches directly, and
//! [`Port`] behind page 0. Time passes only while somebody sleeps.

use super::physical::{Administration, Port};
use crate::backend::igb::{
    clock::Clock,
    fault::Fault,
    registers::{interrupt::*, page0, queue::*, vtctrl, Access},
};
use std::collections::BTreeMap;

/// What a card does with a head that is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Heads {
    Kept,
    /// It cannot be written.
    ReadOnly,
    /// It is there until enabling the queue begins.
    Zeroed,
    /// It is there until the queue is enabled.
    ZeroedLate,
}

/// What a card does with a tail that is written while the queue is not enabled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Tails {
    Kept,
    Ignored,
}

/// What happens to packets that a queue was given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wire {
    /// One is sent in each sleep.
    Slow,
    Dead,
    /// As many come as go.
    Endless,
}

#[derive(Clone, Debug)]
pub(crate) struct Card {
    pub(crate) port: Port,
    registers: BTreeMap<u32, u32>,
    now: u64,
    /// What was written, beyond page 0.
    pub(crate) writes: Vec<(u32, u32)>,
    /// Causes that were sent.
    pub(crate) sent: u32,
    /// A queue that stays enabled, by its control.
    pub(crate) stays_enabled: Option<u32>,
    /// A queue that stays disabled, by its control.
    pub(crate) stays_disabled: Option<u32>,
    pub(crate) heads: Heads,
    pub(crate) tails: Tails,
    /// At each access, each queue that is enabled does one of its descriptors, if it has any: a
    /// frame has arrived, or is sent.
    pub(crate) is_busy: bool,
    /// Enabling a queue takes until the next sleep.
    pub(crate) enables_slowly: bool,
    /// Descriptors that were done, each with the first register of its queue.
    pub(crate) done: Vec<(u32, u32)>,
    /// Of those, the ones that were not written back.
    pub(crate) unwritten: Vec<(u32, u32)>,
    /// It is not on the bus any more.
    pub(crate) is_gone: bool,
    pub(crate) wire: Wire,
    /// Microseconds from one interrupt that the physical function takes to the next.
    pub(crate) interval: u64,
    interrupted: u64,
    /// As QEMU has it: EIMS reads as it was written last, and so does EICR, once; a cause that is
    /// there already is not sent again.
    pub(crate) is_model: bool,
    /// Accesses until one fails.
    pub(crate) fails_in: Option<usize>,
    /// First registers of queues that will be enabled.
    enabling: Vec<u32>,
    /// What EIMS was written last.
    unmasked: u32,
    /// What EICR was written last, until it is read.
    cleared: u32,
}

/// The first register of each direction of each queue.
fn all_queues() -> impl Iterator<Item = u32> {
    (0..QUEUES_MAX as u32).flat_map(|queue| [RDBAL, TDBAL].map(|first| first + queue * STRIDE))
}

/// Offset of the queue's register within its direction, and the direction's first offset.
fn of_queue(offset: u32) -> Option<(u32, u32)> {
    let direction = [RDBAL, TDBAL]
        .into_iter()
        .find(|first| (*first..first + QUEUES_MAX as u32 * STRIDE).contains(&offset))?;
    let within = (offset - direction) % STRIDE;

    Some((within, offset - within))
}

const HEAD: u32 = RDH - RDBAL;
const TAIL: u32 = RDT - RDBAL;
const LENGTH: u32 = RDLEN - RDBAL;
const CONTROL: u32 = RXDCTL - RDBAL;

impl Card {
    pub(crate) fn new(administration: &Administration) -> Self {
        Self {
            port: Port::new(administration),
            registers: BTreeMap::new(),
            now: 0,
            writes: Vec::new(),
            sent: 0,
            stays_enabled: None,
            stays_disabled: None,
            heads: Heads::Kept,
            tails: Tails::Kept,
            is_busy: false,
            enables_slowly: false,
            done: Vec::new(),
            unwritten: Vec::new(),
            is_gone: false,
            wire: Wire::Slow,
            interval: 0,
            interrupted: 0,
            is_model: false,
            fails_in: None,
            enabling: Vec::new(),
            unmasked: 0,
            cleared: 0,
        }
    }

    pub(crate) fn plain() -> Self {
        Self::new(&Administration::default())
    }

    pub(crate) fn get(&self, offset: u32) -> u32 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    /// Has a guest's driver put `value` in a register.
    pub(crate) fn set(&mut self, offset: u32, value: u32) {
        self.registers.insert(offset, value);
    }

    /// All registers behind page 0 that are not 0, but for the causes of interrupts.
    pub(crate) fn registers(&self) -> BTreeMap<u32, u32> {
        let mut registers = self.registers.clone();

        registers.retain(|&offset, value| *value != 0 && offset != EICR);
        registers
    }

    /// Has the queue whose first register is at `first` do its next descriptor, if it has any.
    fn work(&mut self, first: u32) {
        let descriptors = (self.get(first + LENGTH) / DESCRIPTOR).max(1);
        let (head, tail) = (self.get(first + HEAD), self.get(first + TAIL));
        let control = self.get(first + CONTROL);

        if control & ENABLE == 0 || head == tail {
            return;
        }
        self.set(first + HEAD, (head + 1) % descriptors);
        self.done.push((first, head));
        self.unwritten.push((first, head));
        let waiting = self.unwritten.iter().filter(|done| done.0 == first).count();
        if waiting as u32 >= ((control & WTHRESH) / WTHRESH_ONE).max(1) {
            self.write_back(first);
        }
    }

    fn write_back(&mut self, first: u32) {
        self.unwritten.retain(|done| done.0 != first);
    }

    fn access(&mut self) -> Result<(), Fault> {
        if self.is_busy {
            all_queues().for_each(|first| self.work(first));
        }
        match &mut self.fails_in {
            Some(0) => Err(Fault::Reset),
            Some(accesses) => {
                *accesses -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Sends what has a cause that was not there `before`.
    fn send(&mut self, before: u32) {
        let before = if self.is_model { before } else { 0 };
        let sent = self.get(EICR) & self.get(EIMS) & !before;

        self.sent |= sent;
        self.set(EICR, self.get(EICR) & !(sent & self.get(EIAC)));
    }

    /// The physical function is being reset, which takes the registers of all functions.
    pub(crate) fn begin_reset(&mut self) {
        self.port.begin_reset();
        self.registers.clear();
    }

    fn write_queue(&mut self, within: u32, first: u32, value: u32) {
        let control = first + CONTROL;
        let is_enabled = self.get(control) & ENABLE != 0;

        match within {
            CONTROL => {
                // A virtual function of the 82576 takes no other threshold for a reason to flush.
                if is_enabled && value & SWFLUSH != 0 && value & WTHRESH == WTHRESH_ONE {
                    self.write_back(first);
                }
                let mut value = value & !SWFLUSH;

                if self.stays_enabled == Some(control) && is_enabled {
                    value |= ENABLE;
                }
                if self.stays_disabled == Some(control) {
                    value &= !ENABLE;
                }
                if !is_enabled && value & ENABLE != 0 && self.heads == Heads::Zeroed {
                    self.set(first + HEAD, 0);
                }
                if !is_enabled && value & ENABLE != 0 && self.enables_slowly {
                    self.enabling.push(first);
                    value &= !ENABLE;
                }
                self.set(control, value);
            }
            TAIL if self.tails == Tails::Ignored && !is_enabled => {}
            TAIL => self.set(first + TAIL, value),
            HEAD if self.heads == Heads::ReadOnly => {}
            _ => {
                let is_cache = within == RXCTL - RDBAL;

                assert!(
                    !is_enabled || is_cache,
                    "{first:x} + {within:x} of a queue that runs"
                );
                self.set(first + within, value);
            }
        }
    }
}

impl Access for Card {
    fn load(&mut self, offset: u32) -> Result<u32, Fault> {
        self.access()?;
        if self.is_gone {
            return Ok(u32::MAX);
        }
        if offset < page0::LENGTH {
            return self.port.load(offset);
        }
        if offset == EICR {
            let causes = self.get(EICR);

            if self.is_model {
                return Ok(std::mem::take(&mut self.cleared));
            }
            self.set(EICR, 0);
            return Ok(causes);
        }
        if offset == EIMS && self.is_model {
            return Ok(self.unmasked);
        }
        Ok(self.get(offset))
    }

    fn write(&mut self, offset: u32, value: u32) -> Result<(), Fault> {
        self.access()?;
        if self.is_gone {
            return Ok(());
        }
        if offset == page0::VTCTRL && value & vtctrl::RST != 0 && !self.is_model {
            self.registers.clear();
        }
        if offset < page0::LENGTH {
            return self.port.write(offset, value);
        }
        self.writes.push((offset, value));
        let before = self.get(EICR);
        match offset {
            EIMS => {
                self.unmasked = value;
                self.set(EIMS, self.get(EIMS) | value);
            }
            EIMC => self.set(EIMS, self.get(EIMS) & !value),
            EICR => {
                self.cleared = value;
                self.set(EICR, self.get(EICR) & !value);
            }
            EICS => self.set(EICR, self.get(EICR) | value),
            _ => match of_queue(offset) {
                Some((within, first)) => self.write_queue(within, first, value),
                None if (EITR..EITR + 12).contains(&offset) => {
                    self.set(offset, value & EITR_INTERVAL);
                }
                None => self.set(offset, value),
            },
        }
        self.send(before);
        Ok(())
    }
}

impl Clock for Card {
    fn now(&self) -> u64 {
        self.now
    }

    fn sleep(&mut self, microseconds: u32) {
        self.now += u64::from(microseconds);
        if !self.port.silent && self.now - self.interrupted >= self.interval {
            self.interrupted = self.now;
            self.port.interrupt();
        }
        for first in all_queues().filter(|&first| first >= TDBAL) {
            let (head, tail) = (self.get(first + HEAD), self.get(first + TAIL));
            let descriptors = (self.get(first + LENGTH) / DESCRIPTOR).max(1);

            if self.wire == Wire::Dead {
                continue;
            }
            self.work(first);
            if self.wire == Wire::Endless && self.get(first + HEAD) != head {
                self.set(first + TAIL, (tail + 1) % descriptors);
            }
        }
        for first in std::mem::take(&mut self.enabling) {
            if self.heads == Heads::ZeroedLate {
                self.set(first + HEAD, 0);
            }
            self.set(first + CONTROL, self.get(first + CONTROL) | ENABLE);
        }
    }
}
