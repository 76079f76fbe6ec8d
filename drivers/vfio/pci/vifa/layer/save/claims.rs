// SPDX-License-Identifier: GPL-2.0

//! What the destination has to obtain from its own host, while the source still runs.
//!
//! Some of what a guest configured stands outside of its device, and another host may refuse it: an
//! address, say, or a filter. A destination that hears of it in advance can find out whether it is to
//! be had, and refuse at a time when that costs the guest nothing. Therefore a source states a claim
//! as soon as it has said what it is, and another one whenever the guest has configured it anew. When
//! it has stopped it states none: the control plane, which has it all, is about to follow.

use super::{
    super::{
        check::{
            check,
            Expectation, //
        },
        records::Table,
        stream::{
            Kind,
            SECTION_HEADER_LENGTH, //
        },
    },
    SaveError,
    Source, //
};
use crate::seam::Bytes;

/// The claims of one stream.
pub(super) struct Claims {
    /// How often the guest had configured the device when it was last asked.
    configurations: Option<u32>,
    /// The claim that is yet to be sent.
    next: Option<Bytes>,
}

impl Claims {
    /// The device was not asked yet.
    pub(super) const NONE: Self = Self {
        configurations: None,
        next: None,
    };

    /// Asks the device what it claims, unless it was asked before and the guest has configured it
    /// just as often as then. What it claims takes the place of what is yet to be sent.
    pub(super) fn refresh<S: Source>(&mut self, source: &mut S) -> Result<(), SaveError<S::Error>> {
        // What is configured after this question is heard of with the next one.
        let configurations = source.configurations().map_err(SaveError::Device)?;

        if self.configurations != Some(configurations) {
            let identity = *source.identity();
            let records = source.claim().map_err(SaveError::Device)?;

            self.next = match records {
                [] => None,
                records => {
                    check(
                        "length",
                        records.len() as u64,
                        Expectation::AtMost(identity.control_plane_max.into()),
                    )
                    .map_err(SaveError::Piece)?;
                    Table::new(records, &identity)
                        .map_err(|invalid| SaveError::invalid_record(Kind::Claim, invalid))?;

                    let mut next = Bytes::with_capacity(records.len())?;
                    next.resize_zeroed(records.len())?;
                    next.copy_from_slice(records);
                    Some(next)
                }
            };
            self.configurations = Some(configurations);
        }
        Ok(())
    }

    /// Returns how often the guest had configured the device when it was last asked; `None`: it was
    /// not asked yet.
    pub(super) fn configurations(&self) -> Option<u32> {
        self.configurations
    }

    /// Takes the claim that is to be sent now, if there is one.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        self.next.take()
    }

    /// Returns how many bytes of the stream the claim is that is yet to be sent.
    pub(super) fn pending(&self) -> u64 {
        self.next.as_ref().map_or(0, |records| {
            records.len().saturating_add(SECTION_HEADER_LENGTH) as u64
        })
    }
}
