// SPDX-License-Identifier: GPL-2.0

//! Counters that continue from the values of another function.
//!
//! A function's counters cannot be written. The guest therefore sees the sum of each counter and a
//! base, modulo the counter's width.

use crate::backend::igb::portable::registers::statistics::{
    COUNTERS,
    OFFSETS, //
};

/// The values of all counters.
pub(crate) type Counters = [u32; COUNTERS];

/// The bases of all counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Statistics {
    bases: Counters,
}

impl Statistics {
    /// Returns bases of 0: the guest sees the counters' values.
    pub(crate) const fn new() -> Self {
        Self {
            bases: [0; COUNTERS],
        }
    }

    /// Returns the index of the counter at `offset`, if any.
    pub(crate) fn counter(offset: u32) -> Option<usize> {
        OFFSETS.iter().position(|&counter| counter == offset)
    }

    /// Returns the guest's view of a counter with the value `value`.
    pub(crate) fn visible(&self, counter: usize, value: u32) -> u32 {
        let base = self.bases.get(counter).copied().unwrap_or(0);

        value.wrapping_add(base)
    }

    /// Sets the bases so that the guest sees `visible` while the counters' values are `values`.
    pub(crate) fn continue_from(&mut self, visible: Counters, values: Counters) {
        for (base, (visible, value)) in self.bases.iter_mut().zip(visible.iter().zip(values)) {
            *base = visible.wrapping_sub(value);
        }
    }
}
