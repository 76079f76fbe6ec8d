// SPDX-License-Identifier: GPL-2.0

//! Errors of a function.
//!
//! An error message has to show the administrator what to change, and on which host. A refusal by
//! the physical function therefore states the request and the setting of the host that causes it.

use super::mailbox::message::{
    Mac,
    Vid, //
};
use crate::{
    layer::records::InvalidRecord,
    seam::OutOfMemory, //
};
use core::fmt;

/// A failure of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stuck {
    /// The receive queue stays enabled.
    ReceiveDoesNotStop,
    /// The transmit queue stays enabled.
    TransmitDoesNotStop,
    /// The queue stays disabled.
    NotEnabled,
    /// The head differs from the written value.
    Head {
        /// The written value.
        written: u32,
        /// The read value.
        read: u32,
    },
    /// The tail of a disabled queue differs from the written value.
    Tail {
        /// The written value.
        written: u32,
        /// The read value.
        read: u32,
    },
}

impl Stuck {
    /// Writes the message for a failure of queue number `queue`.
    fn describe(&self, queue: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReceiveDoesNotStop => write!(f, "failed to disable receive queue {queue}"),
            Self::TransmitDoesNotStop => write!(f, "failed to disable transmit queue {queue}"),
            Self::NotEnabled => write!(f, "failed to enable queue {queue}"),
            Self::Head { written, read } => write!(
                f,
                "failed to restore the head of queue {queue}: wrote {written}, read {read}"
            ),
            Self::Tail { written, read } => write!(
                f,
                "failed to restore the tail of queue {queue}: wrote {written}, read {read}"
            ),
        }
    }
}

/// The reason for a failed operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The function is being reset.
    Reset,
    /// All registers read as all ones: the function is gone from the bus.
    Gone,
    /// The function is not stopped.
    Runs,
    /// The physical function does not answer.
    PhysicalFunctionSilent,
    /// The physical function is being reset.
    PhysicalFunctionResets,
    /// The physical function does not release the mailbox.
    MailboxTaken,
    /// The physical function refuses the guest's address.
    MacRefused {
        /// The guest's address.
        wanted: Mac,
        /// The address that the physical function assigns, if any.
        fixed: Option<Mac>,
    },
    /// The physical function refuses an additional unicast address.
    UnicastRefused {
        /// The address.
        address: Mac,
    },
    /// The physical function refuses a VLAN.
    VlanRefused {
        /// The id.
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
        /// The size in bytes.
        bytes: u16,
    },
    /// A queue failed.
    Queue {
        /// The number of the queue pair.
        queue: u8,
        /// The failure.
        stuck: Stuck,
    },
    /// The control plane has an invalid record.
    Record(InvalidRecord),
    /// An allocation failed.
    OutOfMemory,
    /// Another error of the host: a positive number of `errno.h`.
    Host(i32),
}

/// Numbers of `errno.h`.
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
            Self::Queue { queue, stuck } => stuck.describe(*queue, f),
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
