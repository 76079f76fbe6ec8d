// SPDX-License-Identifier: GPL-2.0

//! The status register of a mailbox, and the tags that associate a status with its command.
//!
//! A status is valid only for the command with the same tag. Two tags are never used for commands:
//! the register reads tag 0 after a reset of the physical function, and may read tag 0xffff while
//! the device is recovering.

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
    /// The tag before that of the first command.
    pub(super) const NONE: Self = Self(0);

    const LAST: u16 = u16::MAX - 1;

    /// Returns the tag of the next command.
    pub(super) fn next(self) -> Self {
        match self.0 {
            tag if tag < Self::LAST => Self(tag + 1),
            _ => Self(1),
        }
    }

    /// Returns the number of the tag.
    pub(super) fn number(self) -> u16 {
        self.0
    }

    /// Returns the tag as a field of the command register.
    pub(super) fn in_command(self) -> u32 {
        u32::from(self.0) << VIFA_MAILBOX_COMMAND_TAG.trailing_zeros()
    }
}

/// The status of a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// The command is in progress.
    Busy,
    /// The device has completed the command with this status code.
    Answered(u32),
    /// The status register contains this tag of another command.
    Foreign(u16),
}

impl Status {
    /// Returns the status of the command with the tag `tag`, from the value of the register.
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
    fn tags_differ_from_those_after_a_reset_or_a_removal() {
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
    fn status_is_valid_only_for_the_command_with_its_tag() {
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
