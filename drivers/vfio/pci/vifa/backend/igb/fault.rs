// SPDX-License-Identifier: GPL-2.0

//! What can go wrong with such a function, by name.
//!
//! Whoever migrates a machine has to learn from the name what to change on which host: so a refusal
//! of the physical function says what was asked, and of which setting it was the price.

use super::mailbox::message::{
    Mac,
    Vid, //
};
use crate::{
    layer::records::InvalidRecord,
    seam::OutOfMemory, //
};
use core::fmt;

/// A way in which a queue does not do what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stuck {
    /// The receive queue stays enabled.
    ReceiveDoesNotStop,
    /// The transmit queue stays enabled.
    TransmitDoesNotStop,
    /// The queue stays disabled.
    NotEnabled,
    /// The head is not where it was put.
    Head {
        /// Where it was put.
        written: u32,
        /// Where it is.
        read: u32,
    },
    /// The tail is not where it was put, before the queue was enabled.
    Tail {
        /// Where it was put.
        written: u32,
        /// Where it is.
        read: u32,
    },
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The function is being reset.
    Reset,
    /// All registers read as all ones: the function is gone from the bus.
    Gone,
    /// The function was not stopped.
    Runs,
    /// The physical function does not answer.
    PhysicalFunctionSilent,
    /// The physical function is being reset.
    PhysicalFunctionResets,
    /// The physical function does not let go of the mailbox.
    MailboxTaken,
    /// The physical function refuses the guest's address; it gives another, if any.
    MacRefused {
        /// What the guest has.
        wanted: Mac,
        /// What the physical function gives.
        fixed: Option<Mac>,
    },
    /// The physical function refuses a further unicast address.
    UnicastRefused {
        /// The address.
        address: Mac,
    },
    /// The physical function refuses a VLAN.
    VlanRefused {
        /// Its id.
        vid: Vid,
    },
    /// The physical function refuses to strip VLAN tags.
    VlanStrippingRefused,
    /// The physical function refuses the multicast hashes.
    MulticastRefused,
    /// The physical function refuses to deliver all multicast.
    PromiscuousRefused,
    /// The physical function refuses frames of this size.
    FrameSizeRefused {
        /// Bytes.
        bytes: u16,
    },
    /// A queue does not do what it was told.
    Queue {
        /// Its number.
        queue: u8,
        /// What it does instead.
        stuck: Stuck,
    },
    /// The control plane has a record that the function cannot have.
    Record(InvalidRecord),
    /// There was no memory.
    OutOfMemory,
    /// The host has another reason: a number as in `errno.h`, from 1.
    Host(i32),
}

/// Numbers of `errno.h` that all architectures share.
mod errno {
    pub(super) const EIO: i32 = 5;
    pub(super) const ENOMEM: i32 = 12;
    pub(super) const EBUSY: i32 = 16;
    pub(super) const ENODEV: i32 = 19;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const ENOSPC: i32 = 28;
    pub(super) const EADDRNOTAVAIL: i32 = 99;
    pub(super) const ENETDOWN: i32 = 100;
}

impl Fault {
    /// Returns the number for user space, as in `errno.h`.
    pub(crate) fn errno(&self) -> i32 {
        use errno::*;

        match *self {
            Self::Reset | Self::PhysicalFunctionResets | Self::MailboxTaken => EBUSY,
            Self::PhysicalFunctionSilent => ENETDOWN,
            Self::MacRefused { .. } => EADDRNOTAVAIL,
            Self::UnicastRefused { .. }
            | Self::VlanRefused { .. }
            | Self::VlanStrippingRefused
            | Self::MulticastRefused
            | Self::PromiscuousRefused
            | Self::FrameSizeRefused { .. } => ENOSPC,
            Self::Queue { .. } => EIO,
            Self::Gone => ENODEV,
            Self::Runs | Self::Record(_) => EINVAL,
            Self::OutOfMemory => ENOMEM,
            Self::Host(errno) => errno,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset => f.write_str("device is being reset"),
            Self::Gone => f.write_str("device is gone: registers read as all ones"),
            Self::Runs => f.write_str("failed to save state: device is running"),
            Self::PhysicalFunctionSilent => {
                f.write_str("the physical function does not answer: is its interface up?")
            }
            Self::PhysicalFunctionResets => f.write_str("the physical function is being reset"),
            Self::MailboxTaken => {
                f.write_str("timed out waiting for the mailbox: the physical function owns it")
            }
            Self::MacRefused {
                wanted,
                fixed: Some(fixed),
            } => write!(
                f,
                "the physical function refuses the MAC address {wanted}: the host's administrator \
                 fixed {fixed}"
            ),
            Self::MacRefused {
                wanted,
                fixed: None,
            } => write!(f, "the physical function refuses the MAC address {wanted}"),
            Self::UnicastRefused { address } => write!(
                f,
                "the physical function refuses the further unicast address {address}: its filters \
                 are full, or the host's administrator fixed the MAC address"
            ),
            Self::VlanRefused { vid } => write!(
                f,
                "the physical function refuses VLAN {vid}: its filters are full, or the host's \
                 administrator fixed a VLAN"
            ),
            Self::VlanStrippingRefused => f.write_str(
                "the physical function refuses to strip VLAN tags: its VLAN filters are full, or \
                 the host's administrator fixed a VLAN",
            ),
            Self::MulticastRefused => {
                f.write_str("the physical function refuses the multicast addresses")
            }
            Self::PromiscuousRefused => {
                f.write_str("the physical function refuses to deliver all multicast")
            }
            Self::FrameSizeRefused { bytes } => {
                write!(f, "the physical function refuses frames of {bytes} bytes")
            }
            Self::Queue { queue, stuck } => match stuck {
                Stuck::ReceiveDoesNotStop => write!(f, "failed to disable receive queue {queue}"),
                Stuck::TransmitDoesNotStop => write!(f, "failed to disable transmit queue {queue}"),
                Stuck::NotEnabled => write!(f, "failed to enable queue {queue}"),
                Stuck::Head { written, read } => write!(
                    f,
                    "failed to restore the head of queue {queue}: wrote {written}, read {read}"
                ),
                Stuck::Tail { written, read } => write!(
                    f,
                    "failed to restore the tail of queue {queue}: wrote {written}, read {read}"
                ),
            },
            Self::Record(record) => record.fmt(f),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::Host(errno) => write!(f, "host error {errno}"),
        }
    }
}

impl From<OutOfMemory> for Fault {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl From<InvalidRecord> for Fault {
    fn from(record: InvalidRecord) -> Self {
        Self::Record(record)
    }
}
