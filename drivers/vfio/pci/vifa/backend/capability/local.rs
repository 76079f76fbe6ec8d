// SPDX-License-Identifier: GPL-2.0

//! Bitmaps of the granules of a device's local memory.
//!
//! A lost bit would mean lost data. A device therefore reports the number of bits that it has set,
//! and the driver checks that number against the bitmap.

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
    bindings::VIFA_LOCAL_DIRTY,
    layer::granules::WINDOW, //
};
use kernel::prelude::*;

/// The granules that a bitmap marks.
#[derive(Clone, Copy)]
pub(super) enum Granules {
    /// Granules that hold data.
    Mapped,
    /// Granules that have changed since their last query.
    Changed,
}

/// A buffer for bitmaps.
pub(super) struct Bitmap(Buffer);

impl Bitmap {
    /// Allocates a buffer for the bitmap of [`WINDOW`] granules, or of all granules if there are
    /// fewer.
    pub(super) fn new(function: &Function) -> Result<Self> {
        let identity = &function.identity;
        let granules = identity
            .local_memory
            .checked_div(identity.granule.into())
            .unwrap_or(0);
        let bytes = granules.clamp(1, WINDOW).div_ceil(8) as usize;
        Ok(Self(function.buffer(bytes, 1)?))
    }

    /// Reads the bitmap of `length` bytes of local memory from `offset`. Returns the bitmap and the
    /// number of set bits. Bits after the last granule are undefined, and not counted.
    ///
    /// # Errors
    ///
    /// The errors of a command, or [`Fault::Bits`] if the number that the device reports does not
    /// match the bitmap.
    pub(super) fn query(
        &mut self,
        function: &Function,
        granules: Granules,
        offset: u64,
        length: u64,
    ) -> Result<(&[u8], u64), Fault> {
        let granule = u64::from(function.identity.granule);
        let count = length.checked_div(granule).unwrap_or(0);
        let bytes = count.div_ceil(8) as usize;
        let flag = match granules {
            Granules::Mapped => 0,
            Granules::Changed => VIFA_LOCAL_DIRTY,
        };

        // Bytes that the device does not write must not contain an earlier bitmap.
        self.0.bytes_mut().get_mut(..bytes).ok_or(EIO)?.fill(0);
        let mut reported = 0_u64;
        let mut remaining = 0..bytes;
        while !remaining.is_empty() {
            let part = self.0.part(remaining.clone())?;
            let skipped = part.start as u64 * 8 * granule;
            let size = (part.len() as u64 * 8 * granule).min(length - skipped);
            remaining.start = part.end;
            let Results(set, _) = function.data(
                Command::LOCAL_BITMAP,
                [offset + skipped, size | u64::from(flag)],
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
