// SPDX-License-Identifier: GPL-2.0

//! Counters that go on counting where those of another function stopped.
//!
//! A function's counters cannot be written. The guest therefore sees each with a base added, modulo
//! their width, which is how they wrap themselves.

use crate::backend::igb::registers::statistics::{
    COUNTERS,
    OFFSETS, //
};

/// What all counters hold.
pub(crate) type Counters = [u32; COUNTERS];

/// What is added to each counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Statistics {
    bases: Counters,
}

impl Statistics {
    /// The guest sees the counters as they are.
    pub(crate) const fn new() -> Self {
        Self {
            bases: [0; COUNTERS],
        }
    }

    /// Returns which counter stands at `offset`.
    pub(crate) fn counter(offset: u32) -> Option<usize> {
        OFFSETS.iter().position(|&counter| counter == offset)
    }

    /// Returns what the guest sees of a counter that holds `value`.
    pub(crate) fn visible(&self, counter: usize, value: u32) -> u32 {
        let base = self.bases.get(counter).copied().unwrap_or(0);

        value.wrapping_add(base)
    }

    /// Has the guest see `visible` where the counters hold `values`.
    pub(crate) fn continue_from(&mut self, visible: Counters, values: Counters) {
        for (base, (visible, value)) in self.bases.iter_mut().zip(visible.iter().zip(values)) {
            *base = visible.wrapping_sub(value);
        }
    }
}
