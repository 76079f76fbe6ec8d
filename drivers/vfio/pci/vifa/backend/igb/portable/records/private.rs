// SPDX-License-Identifier: GPL-2.0

//! Record [`PRIVATE`](super::PRIVATE): state that belongs to no queue and no vector.

use super::table::{
    flag,
    whole, //
};
use crate::{
    backend::igb::portable::{
        mailbox::shadow::{
            Page0,
            Phase, //
        },
        registers::{
            mailbox::READ_TO_CLEAR,
            statistics::COUNTERS,
            status::LU,
            BUFFER_WORDS, //
        },
        saved::{
            MAILBOX_ROUTE,
            QUEUE_ROUTES, //
        },
    },
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

layout! {
    /// The content of the record.
    struct Payload {
        ivar: u32,
        ivar_misc: u32,
        psrtype: u32,
        status: u32,
        phase: u32,
        pending: u32,
        reserved0: [u32; 2],
        buffer: [u32; BUFFER_WORDS],
        counters: [u32; COUNTERS],
        reserved1: u32,
    }
}

/// The vector of each cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    /// IVAR0: vectors of the queues.
    pub(crate) queues: u32,
    /// IVAR_MISC: vector of the mailbox.
    pub(crate) mailbox: u32,
}

/// The phases by their numbers in a record.
const PHASES: [Phase; 3] = [Phase::Idle, Phase::Owned, Phase::Asked];

/// Returns the content of the record.
///
/// # Errors
///
/// Returns an error if a register has a value that cannot be restored.
pub(super) fn encode(routes: &Routes, page0: &Page0) -> Result<[u8; Payload::LENGTH], Violation> {
    let payload = Payload::new(routes, page0);

    payload.validate()?;
    Ok(payload.encode())
}

/// Decodes the content of the record.
pub(super) fn decode(content: &[u8]) -> Result<(Routes, Page0), Violation> {
    let payload = whole(content, Payload::LENGTH, Payload::decode)?;

    payload.validate()?;
    Ok((payload.routes(), payload.page0()))
}

impl Payload {
    fn new(routes: &Routes, page0: &Page0) -> Self {
        Self {
            ivar: routes.queues,
            ivar_misc: routes.mailbox,
            psrtype: page0.packet_split,
            status: flag(LU, page0.link),
            phase: match page0.phase {
                Phase::Idle => 0,
                Phase::Owned => 1,
                Phase::Asked => 2,
            },
            pending: page0.pending,
            reserved0: [0; 2],
            buffer: page0.buffer,
            counters: page0.counters,
            reserved1: 0,
        }
    }

    /// Checks that the state of the function is valid.
    fn validate(&self) -> Result<(), Violation> {
        use Expectation::*;

        QUEUE_ROUTES.check(self.ivar)?;
        MAILBOX_ROUTE.check(self.ivar_misc)?;
        check("status", self.status, SubsetOf(LU.into()))?;
        check("phase", self.phase, Below(PHASES.len() as u64))?;
        check("pending", self.pending, SubsetOf(READ_TO_CLEAR.into()))?;
        for word in self.reserved0.into_iter().chain([self.reserved1]) {
            check("reserved", word, Equal(0))?;
        }
        Ok(())
    }

    fn routes(&self) -> Routes {
        Routes {
            queues: self.ivar,
            mailbox: self.ivar_misc,
        }
    }

    fn page0(&self) -> Page0 {
        let phase = PHASES.get(self.phase as usize).copied();

        Page0 {
            phase: phase.unwrap_or(Phase::Idle),
            buffer: self.buffer,
            pending: self.pending,
            packet_split: self.psrtype,
            link: self.status & LU != 0,
            counters: self.counters,
        }
    }
}
