// SPDX-License-Identifier: GPL-2.0

//! A model of a function's registers in a card: the pages that a guest accesses directly, and page
//! 0, which is connected to [`Port`]. Time passes only during sleep.

use std::collections::BTreeMap;

use super::physical::{Administration, Port};
use crate::backend::igb::portable::{
    access::Access,
    clock::Clock,
    fault::Fault,
    registers::{interrupt::*, page0, queue::*, vtctrl},
};

/// The effect of a written head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Heads {
    Kept,
    /// The write is ignored.
    ReadOnly,
    /// The head is cleared when enabling of the queue begins.
    Zeroed,
    /// The head is cleared when the queue is enabled.
    ZeroedLate,
}

/// The effect of a tail that is written while the queue is disabled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Tails {
    Kept,
    Ignored,
}

/// The transmission of queued packets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wire {
    /// One packet is sent in each sleep.
    Slow,
    Dead,
    /// For each sent packet another one is queued.
    Endless,
}

#[derive(Clone, Debug)]
pub(crate) struct Card {
    pub(crate) port: Port,
    registers: BTreeMap<u32, u32>,
    now: u64,
    /// Written offsets and values, except in page 0.
    pub(crate) writes: Vec<(u32, u32)>,
    /// Causes whose interrupts were sent.
    pub(crate) sent: u32,
    /// The control register of a ring that stays enabled.
    pub(crate) stays_enabled: Option<u32>,
    /// The control register of a ring that stays disabled.
    pub(crate) stays_disabled: Option<u32>,
    pub(crate) heads: Heads,
    pub(crate) tails: Tails,
    /// Whether each enabled ring processes one descriptor, if any, at each access: a frame has
    /// arrived, or is sent.
    pub(crate) is_busy: bool,
    /// Whether a ring is enabled only at the next sleep.
    pub(crate) enables_slowly: bool,
    /// Completed descriptors, each with the first register of its ring.
    pub(crate) done: Vec<(u32, u32)>,
    /// Completed descriptors that are not written back.
    pub(crate) unwritten: Vec<(u32, u32)>,
    /// Whether the card was removed from the bus.
    pub(crate) is_gone: bool,
    pub(crate) wire: Wire,
    /// Interval between interrupts that the physical function handles, in microseconds.
    pub(crate) interval: u64,
    interrupted: u64,
    /// Whether the card behaves as QEMU's model: EIMS reads as last written, and so does EICR,
    /// once. A cause that is already pending is not sent again.
    pub(crate) is_model: bool,
    /// Number of accesses before a failure.
    pub(crate) fails_in: Option<usize>,
    /// First registers of rings that will be enabled.
    enabling: Vec<u32>,
    /// The last value written to EIMS.
    unmasked: u32,
    /// The last value written to EICR, until it is read.
    cleared: u32,
}

/// Returns the first register of each ring.
fn all_queues() -> impl Iterator<Item = u32> {
    (0..QUEUES_MAX as u32).flat_map(|queue| [RDBAL, TDBAL].map(|first| first + queue * STRIDE))
}

/// Returns the offset of a register within its ring, and the first register of the ring.
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

    /// Sets a register to `value`, as a guest's driver does.
    pub(crate) fn set(&mut self, offset: u32, value: u32) {
        self.registers.insert(offset, value);
    }

    /// Returns all nonzero registers after page 0, except the causes of interrupts.
    pub(crate) fn registers(&self) -> BTreeMap<u32, u32> {
        let mut registers = self.registers.clone();

        registers.retain(|&offset, value| *value != 0 && offset != EICR);
        registers
    }

    /// Processes the next descriptor, if any, of the ring with its first register at `first`.
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

    /// Sends interrupts of causes that were not pending in `before`.
    fn send(&mut self, before: u32) {
        let before = if self.is_model { before } else { 0 };
        let sent = self.get(EICR) & self.get(EIMS) & !before;

        self.sent |= sent;
        self.set(EICR, self.get(EICR) & !(sent & self.get(EIAC)));
    }

    /// Begins a reset of the physical function, which clears the registers of all functions.
    pub(crate) fn begin_reset(&mut self) {
        self.port.begin_reset();
        self.registers.clear();
    }

    fn write_queue(&mut self, within: u32, first: u32, value: u32) {
        let control = first + CONTROL;
        let is_enabled = self.get(control) & ENABLE != 0;

        match within {
            CONTROL => {
                // A virtual function of the 82576 flushes only with a threshold of 1.
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
