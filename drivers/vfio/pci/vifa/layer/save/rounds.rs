// SPDX-License-Identifier: GPL-2.0

//! Tracking of unsent local memory while the device may continue to change it.
//!
//! Round 0 sends the memory that is mapped when it begins. Each later round sends the memory that
//! has changed since. A round passes through the memory once, in ascending order. The saver reads
//! the changes from the device at the end of a round, and for each query of the amount of unsent
//! data. Changes below the current position of the round wait for the next round.
//!
//! No change is lost: a granule is removed from the set of unsent granules before the device is
//! requested to read it. A later change adds it again.

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
    LocalSource,
    Phase,
    SaveError,
    Source, //
};
use crate::seam::OutOfMemory;

/// Numbers of unsent bytes of local memory, without those in a part.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    /// Unsent bytes of initial data.
    pub(super) initial: u64,
    /// Unsent bytes that the device has changed since.
    pub(super) changed: u64,
}

/// The rounds of one stream.
pub(super) struct Rounds {
    pending: Granules,
    /// The offset from which the current round still sends.
    position: u64,
    /// The number of the current round.
    number: u32,
    /// Whether the current round has a part.
    begun: bool,
}

impl Rounds {
    /// Begins round 0: reads the mapped granules from the device. Returns `None` if the device has
    /// no local memory.
    ///
    /// `changes` states whether later changes will be read. The earlier ones are then cleared.
    pub(super) fn begin<S: Source>(
        source: &mut S,
        changes: bool,
    ) -> Result<Option<Self>, SaveError<S::Error>> {
        let identity = *source.identity();
        let Some(local) = source.local() else {
            return Ok(None);
        };
        let mut pending = Granules::none(&identity)?;

        for window in Granules::windows(&identity) {
            if changes {
                local
                    .changed(window.start, window.length)
                    .map_err(SaveError::Device)?;
            }
            let mapped = local
                .mapped(window.start, window.length)
                .map_err(SaveError::Device)?;
            pending.add(window, mapped).map_err(SaveError::Bitmap)?;
        }
        Ok(Some(Self {
            pending,
            position: 0,
            number: 0,
            begun: false,
        }))
    }

    /// Reads the changes from the device.
    pub(super) fn refresh<S: Source>(&mut self, source: &mut S) -> Result<(), SaveError<S::Error>> {
        let identity = *source.identity();
        let Some(local) = source.local() else {
            return Ok(());
        };

        if self.pending.next(self.position).is_none() {
            // Changes must not prolong a round that has no more to send.
            self.position = identity.local_memory;
        }
        for window in Granules::windows(&identity) {
            let changed = local
                .changed(window.start, window.length)
                .map_err(SaveError::Device)?;
            self.pending
                .add(window, changed)
                .map_err(SaveError::Bitmap)?;
        }
        Ok(())
    }

    /// Returns to the start of the memory and begins another round.
    pub(super) fn restart(&mut self) {
        if self.begun {
            self.number = self.number.saturating_add(1);
        }
        self.begun = false;
        self.position = 0;
    }

    /// Composes the next part of the current round, for section number `sequence`.
    ///
    /// Returns `None` at the end of the round.
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
            // Ranges of a round must not touch: a change of the next granule waits for the next
            // round.
            self.position = range.end().saturating_add(granule.into());
        }
        let part = composer.finish(buffer);
        self.begun |= part.is_some();
        Ok(part)
    }

    /// Records that the device is about to read `run`: later changes of it must be sent again.
    pub(super) fn reading(&mut self, run: Range) {
        self.pending.remove(run);
    }

    /// Returns the numbers of unsent bytes of local memory of `size` bytes, in this `phase`.
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
