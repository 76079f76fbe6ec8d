// SPDX-License-Identifier: GPL-2.0

//! Record [`QUEUE`](crate::layer::records::QUEUE): a queue pair.

use super::table::{
    flag,
    whole, //
};
use crate::{
    backend::igb::portable::registers::queue::{
        BASE_BITS,
        DESCRIPTOR,
        INDEX_BITS,
        LENGTH_BITS,
        RXCTL_BITS,
        RXDCTL_BITS,
        SRRCTL_BITS,
        TDWBAL_BITS,
        TXCTL_BITS,
        TXDCTL_BITS, //
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

/// Flags of a [`Payload`].
mod flags {
    pub(super) const TRANSMIT: u32 = 1 << 0;
    pub(super) const RECEIVE: u32 = 1 << 1;
    pub(super) const ALL: u32 = 0x3;
}

layout! {
    /// The content of the record.
    struct Payload {
        flags: u32,
        tdbal: u32,
        tdbah: u32,
        tdlen: u32,
        tdh: u32,
        tdt: u32,
        txdctl: u32,
        txctl: u32,
        tdwbal: u32,
        tdwbah: u32,
        rdbal: u32,
        rdbah: u32,
        rdlen: u32,
        rdh: u32,
        rdt: u32,
        rxdctl: u32,
        rxctl: u32,
        srrctl: u32,
        reserved: [u32; 2],
    }
}

/// The saved state of one direction of a queue pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ring {
    /// Whether the queue was enabled.
    pub(crate) is_enabled: bool,
    /// Address of the descriptors, low.
    pub(crate) base_low: u32,
    /// Address of the descriptors, high.
    pub(crate) base_high: u32,
    /// Length of the descriptors in bytes.
    pub(crate) length: u32,
    /// Index of the next descriptor that the function processes.
    pub(crate) head: u32,
    /// Index of the next descriptor that the guest writes.
    pub(crate) tail: u32,
    /// RXDCTL or TXDCTL, without the enable bit.
    pub(crate) control: u32,
    /// RXCTL or TXCTL.
    pub(crate) cache: u32,
}

/// Field names of a ring's registers, and the valid bits of those that differ by direction.
struct RingFields {
    base_low: &'static str,
    length: &'static str,
    head: &'static str,
    tail: &'static str,
    control: (&'static str, u32),
    cache: (&'static str, u32),
}

const TRANSMIT: RingFields = RingFields {
    base_low: "tdbal",
    length: "tdlen",
    head: "tdh",
    tail: "tdt",
    control: ("txdctl", TXDCTL_BITS),
    cache: ("txctl", TXCTL_BITS),
};

const RECEIVE: RingFields = RingFields {
    base_low: "rdbal",
    length: "rdlen",
    head: "rdh",
    tail: "rdt",
    control: ("rxdctl", RXDCTL_BITS),
    cache: ("rxctl", RXCTL_BITS),
};

impl Ring {
    /// Checks that the state is valid for a ring with these fields.
    fn validate(&self, fields: &RingFields) -> Result<(), Violation> {
        use Expectation::*;

        let bits = |(field, bits): (_, u32), value: u32| check(field, value, SubsetOf(bits.into()));

        bits((fields.base_low, BASE_BITS), self.base_low)?;
        bits((fields.length, LENGTH_BITS), self.length)?;
        bits((fields.head, INDEX_BITS), self.head)?;
        bits((fields.tail, INDEX_BITS), self.tail)?;
        // A disabled queue may have the registers of an earlier driver.
        if self.is_enabled {
            let descriptors = u64::from(self.length / DESCRIPTOR).max(1);

            check(fields.head, self.head, Below(descriptors))?;
            check(fields.tail, self.tail, Below(descriptors))?;
        }
        bits(fields.control, self.control)?;
        bits(fields.cache, self.cache)
    }
}

/// A queue pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    /// The transmit ring.
    pub(crate) transmit: Ring,
    /// Address of the transmit head write-back, low, with its enable bit.
    pub(crate) write_back_low: u32,
    /// Address of the transmit head write-back, high.
    pub(crate) write_back_high: u32,
    /// The receive ring.
    pub(crate) receive: Ring,
    /// SRRCTL.
    pub(crate) split: u32,
}

impl Queue {
    /// Returns the content of the record.
    ///
    /// # Errors
    ///
    /// Returns an error if a register has a value that cannot be restored.
    pub(super) fn encode(&self) -> Result<[u8; Payload::LENGTH], Violation> {
        let payload = Payload::from(self);

        payload.validate()?;
        Ok(payload.encode())
    }

    /// Decodes the content of the record.
    pub(super) fn decode(content: &[u8]) -> Result<Self, Violation> {
        Self::try_from(whole(content, Payload::LENGTH, Payload::decode)?)
    }
}

impl Payload {
    fn transmit(&self) -> Ring {
        Ring {
            is_enabled: self.flags & flags::TRANSMIT != 0,
            base_low: self.tdbal,
            base_high: self.tdbah,
            length: self.tdlen,
            head: self.tdh,
            tail: self.tdt,
            control: self.txdctl,
            cache: self.txctl,
        }
    }

    fn receive(&self) -> Ring {
        Ring {
            is_enabled: self.flags & flags::RECEIVE != 0,
            base_low: self.rdbal,
            base_high: self.rdbah,
            length: self.rdlen,
            head: self.rdh,
            tail: self.rdt,
            control: self.rxdctl,
            cache: self.rxctl,
        }
    }

    /// Checks that the state of the queue pair is valid.
    fn validate(&self) -> Result<(), Violation> {
        use Expectation::*;

        check("flags", self.flags, SubsetOf(flags::ALL.into()))?;
        self.transmit().validate(&TRANSMIT)?;
        check("tdwbal", self.tdwbal, SubsetOf(TDWBAL_BITS.into()))?;
        self.receive().validate(&RECEIVE)?;
        check("srrctl", self.srrctl, SubsetOf(SRRCTL_BITS.into()))?;
        for word in self.reserved {
            check("reserved", word, Equal(0))?;
        }
        Ok(())
    }
}

impl From<&Queue> for Payload {
    fn from(queue: &Queue) -> Self {
        let Queue {
            transmit, receive, ..
        } = queue;

        Self {
            flags: flag(flags::TRANSMIT, transmit.is_enabled)
                | flag(flags::RECEIVE, receive.is_enabled),
            tdbal: transmit.base_low,
            tdbah: transmit.base_high,
            tdlen: transmit.length,
            tdh: transmit.head,
            tdt: transmit.tail,
            txdctl: transmit.control,
            txctl: transmit.cache,
            tdwbal: queue.write_back_low,
            tdwbah: queue.write_back_high,
            rdbal: receive.base_low,
            rdbah: receive.base_high,
            rdlen: receive.length,
            rdh: receive.head,
            rdt: receive.tail,
            rxdctl: receive.control,
            rxctl: receive.cache,
            srrctl: queue.split,
            reserved: [0; 2],
        }
    }
}

impl TryFrom<Payload> for Queue {
    type Error = Violation;

    fn try_from(payload: Payload) -> Result<Self, Violation> {
        payload.validate()?;

        Ok(Self {
            transmit: payload.transmit(),
            write_back_low: payload.tdwbal,
            write_back_high: payload.tdwbah,
            receive: payload.receive(),
            split: payload.srrctl,
        })
    }
}
