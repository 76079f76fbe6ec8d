// SPDX-License-Identifier: GPL-2.0

//! The status register of a mailbox, and the tags that tie a status to its command.
//!
//! A status counts for the command whose tag it carries and for no other. Two tags are never given
//! to a command: 0 is what the register reads after a reset of the physical function, and 0xffff
//! what it may read while the device comes back.

use crate::bindings::{
    VIFA_MAILBOX_COMMAND_TAG,
    VIFA_MAILBOX_STATUS_CODE,
    VIFA_MAILBOX_STATUS_TAG,
    VIFA_STATUS_BUSY, //
};
use kernel::prelude::*;

/// The tag of a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(u16);

impl Tag {
    /// The tag before the first.
    pub(super) const NONE: Self = Self(0);

    const LAST: u16 = u16::MAX - 1;

    /// Returns the tag of the next command.
    pub(super) fn next(self) -> Self {
        match self.0 {
            tag if tag < Self::LAST => Self(tag + 1),
            _ => Self(1),
        }
    }

    /// The number of the tag.
    pub(super) fn number(self) -> u16 {
        self.0
    }

    /// The tag as a part of the command register.
    pub(super) fn in_command(self) -> u32 {
        u32::from(self.0) << VIFA_MAILBOX_COMMAND_TAG.trailing_zeros()
    }
}

/// What the status register says of a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// The device works on it.
    Busy,
    /// The device has answered it, with this code.
    Answered(u32),
    /// Nothing: the status carries this tag, which is not the command's.
    Foreign(u16),
}

impl Status {
    /// Returns what `register` says of the command with the tag `tag`.
    pub(super) fn of(register: u32, tag: Tag) -> Self {
        // CAST: The tag has 16 bits.
        let found = ((register & VIFA_MAILBOX_STATUS_TAG)
            >> VIFA_MAILBOX_STATUS_TAG.trailing_zeros()) as u16;
        if found != tag.0 {
            return Self::Foreign(found);
        }
        match register & VIFA_MAILBOX_STATUS_CODE {
            VIFA_STATUS_BUSY => Self::Busy,
            code => Self::Answered(code),
        }
    }
}

#[kunit_tests(vifa_mailbox)]
mod tests {
    use super::*;
    use crate::bindings::VIFA_STATUS_SUCCESS;

    /// The register as a device writes it.
    fn register(code: u32, tag: u32) -> u32 {
        code | tag << VIFA_MAILBOX_STATUS_TAG.trailing_zeros()
    }

    #[test]
    fn no_tag_is_what_a_reset_or_a_removal_leaves() {
        let mut tag = Tag::NONE;
        for _ in 0..=2 * u32::from(u16::MAX) {
            let before = tag;
            tag = tag.next();
            assert!(tag != before);
            assert!(Status::of(0, tag) == Status::Foreign(0));
            assert!(Status::of(u32::MAX, tag) == Status::Foreign(u16::MAX));
        }
    }

    #[test]
    fn status_counts_for_its_own_command_only() {
        let (tag, other) = (Tag::NONE.next(), Tag::NONE.next().next());
        for code in [VIFA_STATUS_SUCCESS, VIFA_STATUS_BUSY] {
            let status = register(code, other.number().into());
            assert!(Status::of(status, tag) == Status::Foreign(other.number()));
        }
        let number = tag.number().into();
        assert!(Status::of(register(VIFA_STATUS_BUSY, number), tag) == Status::Busy);
        assert!(Status::of(register(8, number), tag) == Status::Answered(8));
    }
}
