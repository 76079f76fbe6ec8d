// SPDX-License-Identifier: GPL-2.0

//! Record [`INTERRUPT`](crate::layer::records::INTERRUPT): a vector.

use super::table::{
    flag,
    whole, //
};
use crate::{
    backend::igb::portable::saved::THROTTLE,
    layer::{
        check::{
            check,
            Expectation,
            Violation, //
        },
        stream::layout::{
            self,
            layout, //
        },
    },
};

/// Flags of an [`Payload`].
mod flags {
    pub(super) const UNMASKED: u32 = 1 << 0;
    pub(super) const AUTO_CLEAR: u32 = 1 << 1;
    pub(super) const AUTO_MASK: u32 = 1 << 2;
    pub(super) const PENDING: u32 = 1 << 3;
    pub(super) const ALL: u32 = 0xf;
}

layout! {
    /// The content of the record.
    struct Payload {
        flags: u32,
        eitr: u32,
    }
}

/// A vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interrupt {
    /// Whether the vector is unmasked.
    pub(crate) is_unmasked: bool,
    /// Whether its cause is cleared automatically when the interrupt is sent.
    pub(crate) auto_clear: bool,
    /// Whether it is masked automatically when the interrupt is sent.
    pub(crate) auto_mask: bool,
    /// Whether it has a cause whose interrupt was not sent.
    pub(crate) is_pending: bool,
    /// Throttle interval.
    pub(crate) throttle: u32,
}

impl Interrupt {
    /// Returns the content of the record.
    ///
    /// # Errors
    ///
    /// Returns an error if a register has a value that cannot be restored.
    pub(super) fn encode(&self) -> Result<[u8; Payload::LENGTH], Violation> {
        use flags::*;

        let payload = Payload {
            flags: flag(UNMASKED, self.is_unmasked)
                | flag(AUTO_CLEAR, self.auto_clear)
                | flag(AUTO_MASK, self.auto_mask)
                | flag(PENDING, self.is_pending),
            eitr: self.throttle,
        };

        payload.validate()?;
        Ok(payload.encode())
    }

    /// Decodes the content of the record.
    pub(super) fn decode(content: &[u8]) -> Result<Self, Violation> {
        use flags::*;

        let payload = whole(content, Payload::LENGTH, Payload::decode)?;
        let has = |flag| payload.flags & flag != 0;

        payload.validate()?;
        Ok(Self {
            is_unmasked: has(UNMASKED),
            auto_clear: has(AUTO_CLEAR),
            auto_mask: has(AUTO_MASK),
            is_pending: has(PENDING),
            throttle: payload.eitr,
        })
    }
}

impl Payload {
    /// Checks that the state of the vector is valid.
    fn validate(&self) -> Result<(), Violation> {
        use Expectation::SubsetOf;

        check("flags", self.flags, SubsetOf(flags::ALL.into()))?;
        THROTTLE.check(self.eitr)
    }
}
