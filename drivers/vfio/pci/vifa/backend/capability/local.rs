// SPDX-License-Identifier: GPL-2.0

//! What a device reports of its local memory: bitmaps of granules.
//!
//! A bit that is lost is data that is lost. A device therefore reports how many bits it has set, and
//! the driver counts them.

use super::{
    buffer::Buffer,
    fault::Fault,
    function::Function,
    mailbox::{
        Command,
        Results, //
    }, //
};
use crate::{
    backend::Backend,
    bindings::VIFA_LOCAL_DIRTY,
    layer::granules::WINDOW, //
};
use kernel::prelude::*;

/// Granules that a device can be asked about.
#[derive(Clone, Copy)]
pub(super) enum Granules {
    /// Those that hold data.
    Mapped,
    /// Those that have changed since this was last asked.
    Changed,
}

/// A buffer for bitmaps.
pub(super) struct Bitmap(Buffer);

impl Bitmap {
    /// Makes a buffer for the bitmap of [`WINDOW`] granules, or of as many as there are.
    pub(super) fn new(function: &Function) -> Result<Self> {
        let identity = function.identity();
        let granules = identity
            .local_memory
            .checked_div(identity.granule.into())
            .unwrap_or(0);
        let bytes = granules.clamp(1, WINDOW).div_ceil(8) as usize;
        Ok(Self(function.buffer(bytes, 1)?))
    }

    /// Asks about `length` bytes of local memory from `offset` on. Returns the bitmap, of which bits
    /// behind the last granule may be anything, and how many granules are in it.
    ///
    /// # Errors
    ///
    /// As for a command; [`Fault::Bits`] where the device reports another number than it has set.
    pub(super) fn ask(
        &mut self,
        function: &Function,
        granules: Granules,
        offset: u64,
        length: u64,
    ) -> Result<(&[u8], u64), Fault> {
        let granule = u64::from(function.identity().granule);
        let count = length.checked_div(granule).unwrap_or(0);
        let bytes = count.div_ceil(8) as usize;
        let flag = match granules {
            Granules::Mapped => 0,
            Granules::Changed => VIFA_LOCAL_DIRTY,
        };

        // What the device leaves out must not look like what it reported before.
        self.0.bytes_mut().get_mut(..bytes).ok_or(EIO)?.fill(0);
        let mut reported = 0_u64;
        let mut left = 0..bytes;
        while !left.is_empty() {
            let part = self.0.part(left.clone())?;
            let skipped = part.start as u64 * 8 * granule;
            let asked = (part.len() as u64 * 8 * granule).min(length - skipped);
            left.start = part.end;
            let Results(set, _) = function.data(
                Command::LOCAL_BITMAP,
                [offset + skipped, asked | u64::from(flag)],
                Some((&mut self.0, part)),
            )?;
            // The device may report any number.
            reported = reported.saturating_add(set);
        }

        let bitmap = self.0.bytes(bytes);
        let padding = bitmap.last().map_or(0, |last| match count % 8 {
            0 => 0,
            used => (last >> used).count_ones(),
        });
        let set: u64 = bitmap.iter().map(|byte| u64::from(byte.count_ones())).sum();
        let set = set - u64::from(padding);
        if set != reported {
            return Err(Fault::Bits(reported, set));
        }
        Ok((bitmap, set))
    }
}
