// SPDX-License-Identifier: GPL-2.0

//! The list of the saved registers of queues and interrupts.
//!
//! Saving, restoring, records and their checks derive from this list. A record has the values of a
//! ring's registers in the order of the list.

use super::{
    access::Access,
    fault::{
        Fault,
        Stuck, //
    },
    registers::{
        interrupt::{
            EITR,
            EITR_INTERVAL,
            IVAR0,
            IVAR0_BITS,
            IVAR_MISC,
            IVAR_MISC_BITS, //
        },
        queue::*, //
    },
};
use crate::layer::check::{
    check,
    Expectation,
    Violation, //
};

/// A saved register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Register {
    /// The name of its field in a record.
    name: &'static str,
    /// The offset in BAR 0, for the first queue pair or the first vector.
    offset: u32,
    /// The saved bits.
    bits: u32,
}

impl Register {
    /// Returns the name of the register's field in a record.
    pub(crate) fn name(self) -> &'static str {
        self.name
    }

    /// Returns the register `distance` bytes after this one, for another queue pair or vector.
    pub(crate) fn after(self, distance: u32) -> Self {
        Self {
            offset: self.offset.saturating_add(distance),
            ..self
        }
    }

    /// Reads all bits of the register.
    pub(crate) fn read(self, device: &mut impl Access) -> Result<u32, Fault> {
        device.read(self.offset)
    }

    /// Reads the saved bits of the register.
    pub(crate) fn save(self, device: &mut impl Access) -> Result<u32, Fault> {
        Ok(self.read(device)? & self.bits)
    }

    /// Writes the register.
    pub(crate) fn write(self, device: &mut impl Access, value: u32) -> Result<(), Fault> {
        device.write(self.offset, value)
    }

    /// Checks that `value` has no bits except the saved ones.
    pub(crate) fn check(self, value: u32) -> Result<(), Violation> {
        check(self.name, value, Expectation::SubsetOf(self.bits.into()))
    }
}

/// Throttle of the first vector. The others follow at distances of 4 bytes.
pub(crate) const THROTTLE: Register = Register {
    name: "eitr",
    offset: EITR,
    bits: EITR_INTERVAL,
};

/// Vectors of the queues.
pub(crate) const QUEUE_ROUTES: Register = Register {
    name: "ivar",
    offset: IVAR0,
    bits: IVAR0_BITS,
};

/// Vector of the mailbox.
pub(crate) const MAILBOX_ROUTE: Register = Register {
    name: "ivar_misc",
    offset: IVAR_MISC,
    bits: IVAR_MISC_BITS,
};

/// Declares the registers of a queue pair: those that both rings have, then those that only the
/// transmit ring or only the receive ring has. Each has a field for its value, its name in a
/// record, its offset, and its saved bits.
macro_rules! queue_registers {
    (
        rings {
            $($(#[$attribute:meta])*
            $field:ident:
                $transmit:ident $transmit_offset:ident $transmit_bits:ident,
                $receive:ident $receive_offset:ident $receive_bits:ident;)*
        }
        transmit {
            $($(#[$transmit_attribute:meta])*
            $transmit_field:ident:
                $transmit_only:ident $transmit_only_offset:ident $transmit_only_bits:ident;)*
        }
        receive {
            $($(#[$receive_attribute:meta])*
            $receive_field:ident:
                $receive_only:ident $receive_only_offset:ident $receive_only_bits:ident;)*
        }
    ) => {
        /// The saved state of one direction of a queue pair.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(crate) struct Ring {
            /// Whether the queue was enabled.
            pub(crate) is_enabled: bool,
            $($(#[$attribute])* pub(crate) $field: u32,)*
        }

        impl Ring {
            /// Number of registers.
            pub(crate) const REGISTERS: usize = [$(stringify!($field)),*].len();

            /// Returns a ring with these values of its registers.
            pub(crate) fn new(
                is_enabled: bool,
                [$($field),*]: [u32; Self::REGISTERS],
            ) -> Self {
                Self { is_enabled, $($field),* }
            }

            /// Returns the values of the registers.
            pub(crate) fn values(&self) -> [u32; Self::REGISTERS] {
                [$(self.$field),*]
            }
        }

        /// The registers of one direction of the first queue pair.
        pub(crate) struct RingRegisters {
            $($(#[$attribute])* pub(crate) $field: Register,)*
            /// The failure if the ring stays enabled.
            pub(crate) does_not_stop: Stuck,
        }

        impl RingRegisters {
            /// Returns the list of the registers.
            pub(crate) fn list(&self) -> [Register; Ring::REGISTERS] {
                [$(self.$field),*]
            }
        }

        /// The registers of the transmit ring.
        pub(crate) const TRANSMIT: RingRegisters = RingRegisters {
            $($field: Register {
                name: stringify!($transmit),
                offset: $transmit_offset,
                bits: $transmit_bits,
            },)*
            does_not_stop: Stuck::TransmitDoesNotStop,
        };

        /// The registers of the receive ring.
        pub(crate) const RECEIVE: RingRegisters = RingRegisters {
            $($field: Register {
                name: stringify!($receive),
                offset: $receive_offset,
                bits: $receive_bits,
            },)*
            does_not_stop: Stuck::ReceiveDoesNotStop,
        };

        /// The registers that only the transmit ring has.
        pub(crate) const TRANSMIT_ONLY: [Register; [$(stringify!($transmit_only)),*].len()] = [
            $(Register {
                name: stringify!($transmit_only),
                offset: $transmit_only_offset,
                bits: $transmit_only_bits,
            },)*
        ];

        /// The registers that only the receive ring has.
        pub(crate) const RECEIVE_ONLY: [Register; [$(stringify!($receive_only)),*].len()] = [
            $(Register {
                name: stringify!($receive_only),
                offset: $receive_only_offset,
                bits: $receive_only_bits,
            },)*
        ];

        /// The saved state of a queue pair.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(crate) struct Queue {
            /// The transmit ring.
            pub(crate) transmit: Ring,
            $($(#[$transmit_attribute])* pub(crate) $transmit_field: u32,)*
            /// The receive ring.
            pub(crate) receive: Ring,
            $($(#[$receive_attribute])* pub(crate) $receive_field: u32,)*
        }

        impl Queue {
            /// Returns a queue pair with these rings, and these values of the registers that only
            /// one ring has.
            pub(crate) fn new(
                transmit: Ring,
                [$($transmit_field),*]: [u32; TRANSMIT_ONLY.len()],
                receive: Ring,
                [$($receive_field),*]: [u32; RECEIVE_ONLY.len()],
            ) -> Self {
                Self { transmit, $($transmit_field,)* receive, $($receive_field,)* }
            }

            /// Returns the values of [`TRANSMIT_ONLY`].
            pub(crate) fn transmit_only(&self) -> [u32; TRANSMIT_ONLY.len()] {
                [$(self.$transmit_field),*]
            }

            /// Returns the values of [`RECEIVE_ONLY`].
            pub(crate) fn receive_only(&self) -> [u32; RECEIVE_ONLY.len()] {
                [$(self.$receive_field),*]
            }
        }
    };
}

/// Saved bits of a register without other bits.
const ALL: u32 = u32::MAX;

queue_registers! {
    rings {
        /// Address of the descriptors, low.
        base_low: tdbal TDBAL BASE_BITS, rdbal RDBAL BASE_BITS;
        /// Address of the descriptors, high.
        base_high: tdbah TDBAH ALL, rdbah RDBAH ALL;
        /// Length of the descriptors in bytes.
        length: tdlen TDLEN LENGTH_BITS, rdlen RDLEN LENGTH_BITS;
        /// Index of the next descriptor that the function processes.
        head: tdh TDH INDEX_BITS, rdh RDH INDEX_BITS;
        /// Index of the next descriptor that the guest writes.
        tail: tdt TDT INDEX_BITS, rdt RDT INDEX_BITS;
        /// Control of the ring, without the enable bit.
        control: txdctl TXDCTL TXDCTL_BITS, rxdctl RXDCTL RXDCTL_BITS;
        /// Direct cache access.
        cache: txctl TXCTL TXCTL_BITS, rxctl RXCTL RXCTL_BITS;
    }
    transmit {
        /// Address of the transmit head write-back, low, with its enable bit.
        write_back_low: tdwbal TDWBAL TDWBAL_BITS;
        /// Address of the transmit head write-back, high.
        write_back_high: tdwbah TDWBAH ALL;
    }
    receive {
        /// Split and replication control.
        split: srrctl SRRCTL SRRCTL_BITS;
    }
}
