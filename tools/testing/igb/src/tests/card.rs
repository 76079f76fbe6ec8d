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
    Ignored,
    /// It is there until the queue is enabled.
    Zeroed,
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
    pub(crate) wire: Wire,
    /// As QEMU has it: EIMS reads as it was written last, and so does EICR, once; a cause that is
    /// there already is not sent again.
    pub(crate) is_model: bool,
    /// Accesses until one fails.
    pub(crate) fails_in: Option<usize>,
    /// What EIMS was written last.
    unmasked: u32,
    /// What EICR was written last, until it is read.
    cleared: u32,
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
            wire: Wire::Slow,
            is_model: false,
            fails_in: None,
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

    fn access(&mut self) -> Result<(), Fault> {
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

    fn write_queue(&mut self, within: u32, first: u32, value: u32) {
        let control = first + CONTROL;
        let is_enabled = self.get(control) & ENABLE != 0;

        match within {
            CONTROL => {
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
                self.set(control, value);
            }
            // It is ignored while the receive queue is not enabled.
            TAIL if first < TDBAL && !is_enabled => {}
            TAIL => self.set(first + TAIL, value),
            HEAD if self.heads == Heads::Ignored => {}
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
    fn read(&mut self, offset: u32) -> Result<u32, Fault> {
        self.access()?;
        if offset < page0::LENGTH {
            return self.port.read(offset);
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
        if !self.port.silent {
            self.port.interrupt();
        }
        for queue in 0..QUEUES_MAX as u32 {
            let first = TDBAL + queue * STRIDE;
            let descriptors = (self.get(first + LENGTH) / DESCRIPTOR).max(1);
            let (head, tail) = (self.get(first + HEAD), self.get(first + TAIL));
            let is_enabled = self.get(first + CONTROL) & ENABLE != 0;

            if !is_enabled || head == tail || self.wire == Wire::Dead {
                continue;
            }
            self.set(first + HEAD, (head + 1) % descriptors);
            if self.wire == Wire::Endless {
                self.set(first + TAIL, (tail + 1) % descriptors);
            }
        }
    }
}
