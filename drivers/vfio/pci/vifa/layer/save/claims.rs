// SPDX-License-Identifier: GPL-2.0

//! Claims: the resources that the destination has to obtain from its host.
//!
//! Part of a guest's configuration is outside its device, for example an address or a filter, and
//! another host may refuse it. With a claim in advance, a destination can check whether the
//! resources are available, and refuse the stream while the guest runs on the source. A source
//! therefore sends a claim after its introduction, and another one each time the guest reconfigures
//! the device. A stopped source sends no claim, because the control plane follows.

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
    /// The device's number of configurations at the last query. `None` before the first query.
    configurations: Option<u32>,
    /// The unsent claim.
    next: Option<Bytes>,
}

impl Claims {
    /// The state before the first query.
    pub(super) const NONE: Self = Self {
        configurations: None,
        next: None,
    };

    /// Reads the claim from the device, unless the number of configurations is that of the last
    /// query. The new claim replaces the unsent one.
    pub(super) fn refresh<S: Source>(&mut self, source: &mut S) -> Result<(), SaveError<S::Error>> {
        // The next query detects configuration changes after this one.
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

    /// Returns the device's number of configurations at the last query, or `None` before the first.
    pub(super) fn configurations(&self) -> Option<u32> {
        self.configurations
    }

    /// Takes the unsent claim, if any.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        self.next.take()
    }

    /// Returns the number of stream bytes of the unsent claim.
    pub(super) fn pending(&self) -> u64 {
        self.next.as_ref().map_or(0, |records| {
            records.len().saturating_add(SECTION_HEADER_LENGTH) as u64
        })
    }
}
