// SPDX-License-Identifier: GPL-2.0

//! What of the local memory is yet to be sent, while the device may go on to change it.
//!
//! Round 0 sends what is mapped when it begins; each round behind it sends what has changed since.
//! A round goes through the memory once, in ascending order. The device is asked what has changed at
//! the end of a round, and whenever somebody wants to know how much there is to send; what comes up
//! behind the place that the round has reached is for the next one.
//!
//! No change is lost: a granule leaves the set of those that are yet to be sent before the device is
//! told to read it. Whatever changes it afterwards brings it back.

use super::{
    super::{
        address::{
            Buffer,
            Composer,
            Part,
            Range, //
        },
        granules::Granules,
    },
    Phase,
    SaveError,
    Source, //
};
use crate::seam::OutOfMemory;

/// Bytes of local memory that are yet to be sent, but for those in a part.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    /// Of the initial data.
    pub(super) initial: u64,
    /// That the device has changed since.
    pub(super) changed: u64,
}

/// The rounds of one stream.
pub(super) struct Rounds {
    pending: Granules,
    /// Everything that the present round still sends is at or behind this offset.
    position: u64,
    /// The number of the present round.
    number: u32,
    /// The present round has a part.
    begun: bool,
}

impl Rounds {
    /// Begins round 0: finds what is mapped.
    ///
    /// `changes` tells whether what changes from now on will be asked for.
    pub(super) fn begin<S: Source>(
        source: &mut S,
        changes: bool,
    ) -> Result<Self, SaveError<S::Error>> {
        let identity = *source.identity();
        let mut pending = Granules::none(&identity)?;

        for window in Granules::windows(&identity) {
            if changes {
                source
                    .changed(window.start, window.length)
                    .map_err(SaveError::Device)?;
            }
            let mapped = source
                .mapped(window.start, window.length)
                .map_err(SaveError::Device)?;
            pending.add(window, mapped).map_err(SaveError::Bitmap)?;
        }
        Ok(Self {
            pending,
            position: 0,
            number: 0,
            begun: false,
        })
    }

    /// Asks the device what has changed.
    pub(super) fn refresh<S: Source>(&mut self, source: &mut S) -> Result<(), SaveError<S::Error>> {
        let identity = *source.identity();

        if self.pending.next(self.position).is_none() {
            // Changes do not prolong a round that has nothing more to send.
            self.position = identity.local_memory;
        }
        for window in Granules::windows(&identity) {
            let changed = source
                .changed(window.start, window.length)
                .map_err(SaveError::Device)?;
            self.pending
                .add(window, changed)
                .map_err(SaveError::Bitmap)?;
        }
        Ok(())
    }

    /// Goes back to the start of the memory, for another round of what is yet to be sent.
    pub(super) fn restart(&mut self) {
        if self.begun {
            self.number = self.number.saturating_add(1);
        }
        self.begun = false;
        self.position = 0;
    }

    /// Composes the next part of the present round, which stands in the section with this sequence
    /// number; `None` at the end of the round.
    pub(super) fn compose(
        &mut self,
        buffer: &mut Buffer,
        granule: u32,
        sequence: u64,
    ) -> Result<Option<Part>, OutOfMemory> {
        let mut composer = Composer::local(buffer, self.number, granule, sequence)?;

        while !composer.is_full() {
            let Some(range) = self.pending.next(self.position) else {
                break;
            };
            composer.push(range)?;
            self.pending.remove(range);
            // Ranges of a round do not touch: what comes up just behind waits for the next one.
            self.position = range.end().saturating_add(granule.into());
        }
        let part = composer.finish(buffer);
        self.begun |= part.is_some();
        Ok(part)
    }

    /// Takes note that the device is about to be told to read a run.
    pub(super) fn reading(&mut self, run: Range) {
        self.pending.remove(run);
    }

    /// Returns how much is yet to be sent of local memory of `size` bytes, in this `phase`.
    pub(super) fn pending(&self, size: u64, phase: Phase) -> Pending {
        let split = match phase {
            Phase::Initial => self.position.min(size),
            Phase::Changes | Phase::Stopped | Phase::Complete => size,
        };

        Pending {
            initial: self.pending.bytes(Range {
                start: split,
                length: size.saturating_sub(split),
            }),
            changed: self.pending.bytes(Range {
                start: 0,
                length: split,
            }),
        }
    }
}
