// SPDX-License-Identifier: GPL-2.0

//! The records of a function's control plane.
//!
//! A record contains the function's registers, without the bits that it does not retain. Values
//! that a guest can write are not checked, so that a function can always be saved. Where this
//! depends on the guest, [`ControlPlane::encode`] fails at the source. All other values have a
//! unique encoding.

use super::{
    fault::Fault,
    mailbox::{
        configuration::{
            Configuration,
            Granted,
            UNICAST_MAX,
            VLANS_MAX, //
        },
        message::{
            Mac,
            Multicast,
            Vid,
            FRAME_SIZE_MAX,
            HASHES_MAX,
            HASH_BITS, //
        },
        set::Set,
        shadow::{
            Page0,
            Phase, //
        },
    },
    registers::{
        interrupt::{
            EITR_INTERVAL,
            IVAR0_BITS,
            IVAR_MISC_BITS,
            VECTORS, //
        },
        mailbox::READ_TO_CLEAR,
        queue::{
            BASE_BITS,
            DESCRIPTOR,
            INDEX_BITS,
            LENGTH_BITS,
            QUEUES_MAX,
            RXCTL_BITS,
            RXDCTL_BITS,
            SRRCTL_BITS,
            TDWBAL_BITS,
            TXCTL_BITS,
            TXDCTL_BITS, //
        },
        statistics::COUNTERS,
        BUFFER_WORDS, //
    },
};
use crate::{
    layer::{
        check::{
            check,
            Expectation,
            Violation, //
        },
        identity::{
            Identity,
            RECORD_TYPES, //
        },
        records::{
            Entry,
            InvalidRecord,
            Table,
            ALIGN,
            CONFIGURATION,
            INTERRUPT,
            QUEUE, //
        },
        stream::{
            layout::{
                self,
                layout, //
            },
            Record, //
        },
    },
    seam::{
        Bytes,
        OutOfMemory, //
    },
};

/// Record type: state that belongs to no queue and no vector.
pub(crate) const PRIVATE: u16 = 4;

/// Version of each record type.
pub(crate) const VERSION: u16 = 1;

/// Versions of all record types.
pub(crate) const RECORD_VERSION: [u16; RECORD_TYPES] = {
    let mut versions = [0; RECORD_TYPES];

    versions[CONFIGURATION as usize] = VERSION;
    versions[QUEUE as usize] = VERSION;
    versions[INTERRUPT as usize] = VERSION;
    versions[PRIVATE as usize] = VERSION;
    versions
};

/// Maximum length of the records in bytes.
pub(crate) const CONTROL_PLANE_MAX: u32 = 1024;

/// Flags of a [`ConfigurationPayload`].
mod configuration_flags {
    pub(super) const CLEAR_TO_SEND: u32 = 1 << 0;
    pub(super) const MAC: u32 = 1 << 1;
    pub(super) const FRAME_SIZE: u32 = 1 << 2;
    pub(super) const MULTICAST: u32 = 1 << 3;
    pub(super) const MULTICAST_PROMISCUOUS: u32 = 1 << 4;
    pub(super) const VLAN_STRIP: u32 = 1 << 5;
    pub(super) const ALL: u32 = 0x3f;
    /// Flags that require [`CLEAR_TO_SEND`].
    pub(super) const GRANTED: u32 = MAC | MULTICAST | MULTICAST_PROMISCUOUS | VLAN_STRIP;
}

/// Flags of a [`QueuePayload`].
mod queue_flags {
    pub(super) const TRANSMIT: u32 = 1 << 0;
    pub(super) const RECEIVE: u32 = 1 << 1;
    pub(super) const ALL: u32 = 0x3;
}

/// Flags of an [`InterruptPayload`].
mod interrupt_flags {
    pub(super) const UNMASKED: u32 = 1 << 0;
    pub(super) const AUTO_CLEAR: u32 = 1 << 1;
    pub(super) const AUTO_MASK: u32 = 1 << 2;
    pub(super) const PENDING: u32 = 1 << 3;
    pub(super) const ALL: u32 = 0xf;
}

/// Status bit of a [`PrivatePayload`]: the link is up.
const STATUS_LINK: u32 = super::registers::status::LU;

layout! {
    /// Record [`CONFIGURATION`]: the resources that the guest obtained from its physical function.
    struct ConfigurationPayload {
        flags: u32,
        frame_size: u32,
        mac: [u8; 6],
        unicast_count: u8,
        multicast_count: u8,
        unicast: [[u8; 6]; UNICAST_MAX],
        multicast: [u16; HASHES_MAX],
        vlan_count: u16,
        reserved: u16,
        vlan: [u16; VLANS_MAX],
    }
}

layout! {
    /// Record [`QUEUE`]: a queue pair.
    struct QueuePayload {
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

layout! {
    /// Record [`INTERRUPT`]: a vector.
    struct InterruptPayload {
        flags: u32,
        eitr: u32,
    }
}

layout! {
    /// Record [`PRIVATE`].
    struct PrivatePayload {
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

/// The vector of each cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    /// IVAR0: vectors of the queues.
    pub(crate) queues: u32,
    /// IVAR_MISC: vector of the mailbox.
    pub(crate) mailbox: u32,
}

/// The whole state of a function outside the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ControlPlane {
    /// The resources that the guest obtained from its physical function.
    pub(crate) configuration: Configuration,
    /// The queue pairs. The I350 has one.
    pub(crate) queues: [Option<Queue>; QUEUES_MAX],
    /// The vectors.
    pub(crate) interrupts: [Interrupt; VECTORS],
    /// The vector of each cause.
    pub(crate) routes: Routes,
    /// The guest's view of page 0.
    pub(crate) page0: Page0,
}

impl ControlPlane {
    /// Returns the records.
    ///
    /// # Errors
    ///
    /// Returns an error if a register has a value that cannot be restored, or if an allocation
    /// failed.
    pub(crate) fn encode(&self) -> Result<Bytes, Fault> {
        let mut records = Records::new()?;

        records.put(CONFIGURATION, 0, &encode_configuration(&self.configuration))?;
        for (index, queue) in self.queues.iter().flatten().enumerate() {
            let payload = QueuePayload::from(queue);

            payload
                .validate()
                .map_err(|violation| records.invalid(violation))?;
            records.put(QUEUE, index as u32, &payload.encode())?;
        }
        for (index, interrupt) in self.interrupts.iter().enumerate() {
            let payload = InterruptPayload::from(interrupt);

            payload
                .validate()
                .map_err(|violation| records.invalid(violation))?;
            records.put(INTERRUPT, index as u32, &payload.encode())?;
        }
        let payload = PrivatePayload::new(&self.routes, &self.page0);
        payload
            .validate()
            .map_err(|violation| records.invalid(violation))?;
        records.put(PRIVATE, 0, &payload.encode())?;
        Ok(records.0)
    }

    /// Decodes the `records` of a device with this identity.
    ///
    /// # Errors
    ///
    /// Returns the first record that is invalid or missing.
    pub(crate) fn decode(records: &[u8], identity: &Identity) -> Result<Self, InvalidRecord> {
        let mut configuration = None;
        let mut queues = [None; QUEUES_MAX];
        let mut interrupts = [None; VECTORS];
        let mut private = None;

        for located in Located::of(records, identity)? {
            let Entry { header, content } = located.entry;
            let index = header.index as usize;
            let mut take = || -> Result<(), Violation> {
                match header.kind {
                    CONFIGURATION => configuration = Some(decode_configuration(content)?),
                    QUEUE => {
                        let slot = queues.get_mut(index).ok_or(out_of_place(&header))?;

                        *slot = Some(Queue::try_from(QueuePayload::exactly(content)?)?);
                    }
                    INTERRUPT => {
                        let slot = interrupts.get_mut(index).ok_or(out_of_place(&header))?;

                        *slot = Some(Interrupt::try_from(InterruptPayload::exactly(content)?)?);
                    }
                    PRIVATE if index == 0 => {
                        let payload = PrivatePayload::exactly(content)?;

                        payload.validate()?;
                        private = Some(payload);
                    }
                    _ => return Err(out_of_place(&header)),
                }
                Ok(())
            };

            take().map_err(|violation| located.invalid(violation))?;
        }
        let missing = |field, expected: usize, found: usize| InvalidRecord {
            offset: records.len(),
            violation: Violation {
                field,
                expected: Expectation::Equal(expected as u64),
                found: found as u64,
            },
        };
        let found = queues.iter().flatten().count();
        if found != usize::from(identity.queues) {
            return Err(missing("queues", identity.queues.into(), found));
        }
        let found = interrupts.iter().flatten().count();
        if found != VECTORS {
            return Err(missing("interrupt_vectors", VECTORS, found));
        }
        let private = private.ok_or(missing("private", 1, 0))?;

        Ok(Self {
            configuration: configuration.ok_or(missing("configuration", 1, 0))?,
            queues,
            interrupts: interrupts.map(Option::unwrap_or_default),
            routes: private.routes(),
            page0: private.page0(),
        })
    }
}

/// Returns the claim for a destination: only the record of `configuration`.
pub(crate) fn encode_claim(configuration: &Configuration) -> Result<Bytes, OutOfMemory> {
    let mut records = Records::new()?;

    records.put(CONFIGURATION, 0, &encode_configuration(configuration))?;
    Ok(records.0)
}

/// Decodes the claim `records` for a destination with this identity.
///
/// # Errors
///
/// Returns the first invalid record.
pub(crate) fn decode_claim(
    records: &[u8],
    identity: &Identity,
) -> Result<Configuration, InvalidRecord> {
    let mut configuration = Configuration::NONE;

    for located in Located::of(records, identity)? {
        let Entry { header, content } = located.entry;
        let decoded = check(
            "type",
            header.kind,
            Expectation::Equal(CONFIGURATION.into()),
        )
        .and_then(|()| decode_configuration(content));

        configuration = decoded.map_err(|violation| located.invalid(violation))?;
    }
    Ok(configuration)
}

/// A record and its offset.
struct Located<'a> {
    offset: usize,
    entry: Entry<'a>,
}

impl<'a> Located<'a> {
    /// Returns the records of a table.
    fn of(
        records: &'a [u8],
        identity: &Identity,
    ) -> Result<impl Iterator<Item = Located<'a>>, InvalidRecord> {
        let mut next = 0_usize;

        Ok(Table::new(records, identity)?
            .into_iter()
            .map(move |entry| {
                let offset = next;

                next = offset
                    .saturating_add(Record::LENGTH)
                    .saturating_add(padded(entry.content.len()));
                Located { offset, entry }
            }))
    }

    /// Returns the error for this invalid record.
    fn invalid(&self, violation: Violation) -> InvalidRecord {
        InvalidRecord {
            offset: self.offset,
            violation,
        }
    }
}

/// Returns the error for a record with an invalid index.
fn out_of_place(header: &Record) -> Violation {
    Violation {
        field: "index",
        expected: Expectation::Known,
        found: header.index.into(),
    }
}

/// Returns the padded length of a record's content.
fn padded(length: usize) -> usize {
    length.checked_next_multiple_of(ALIGN).unwrap_or(length)
}

/// A table of records that is being written.
struct Records(Bytes);

impl Records {
    fn new() -> Result<Self, OutOfMemory> {
        Bytes::with_capacity(CONTROL_PLANE_MAX as usize).map(Self)
    }

    /// Adds a record.
    fn put(&mut self, kind: u16, index: u32, content: &[u8]) -> Result<(), OutOfMemory> {
        let header = Record {
            kind,
            version: VERSION,
            index,
            length: content.len() as u32,
            reserved: 0,
        };
        let start = self.0.len();
        let length = Record::LENGTH.saturating_add(padded(content.len()));

        self.0.resize_zeroed(start.saturating_add(length))?;
        let room = self.0.get_mut(start..).unwrap_or_default().iter_mut();
        for (to, from) in room.zip(header.encode().iter().chain(content)) {
            *to = *from;
        }
        Ok(())
    }

    /// Returns the error for an invalid next record.
    fn invalid(&self, violation: Violation) -> InvalidRecord {
        InvalidRecord {
            offset: self.0.len(),
            violation,
        }
    }
}

/// Implements decoding of payloads from a record's whole content.
macro_rules! exactly {
    ($($name:ident),*) => {
        $(
            impl $name {
                fn exactly(content: &[u8]) -> Result<Self, Violation> {
                    let length = Expectation::Equal(Self::LENGTH as u64);

                    check("length", content.len() as u64, length)?;
                    Self::decode(content)
                }
            }
        )*
    };
}

exactly!(
    ConfigurationPayload,
    QueuePayload,
    InterruptPayload,
    PrivatePayload
);

/// Returns `flag` if `is_set`.
fn flag(flag: u32, is_set: bool) -> u32 {
    if is_set {
        flag
    } else {
        0
    }
}

/// Returns an array of `values`, followed by zeroes.
fn array<T: Copy + Default, const N: usize>(values: impl Iterator<Item = T>) -> [T; N] {
    let mut array = [T::default(); N];

    for (to, value) in array.iter_mut().zip(values) {
        *to = value;
    }
    array
}

/// Encodes `configuration` as the content of its record.
fn encode_configuration(configuration: &Configuration) -> [u8; ConfigurationPayload::LENGTH] {
    use configuration_flags::*;

    let granted = configuration.granted.unwrap_or(Granted::new(None));
    let multicast = granted
        .multicast
        .unwrap_or(Multicast::new(0, [0; HASHES_MAX]));
    let unicast = configuration.unicast.as_slice();
    let vlans = granted.vlans.as_slice();

    ConfigurationPayload {
        flags: flag(CLEAR_TO_SEND, configuration.granted.is_some())
            | flag(MAC, granted.mac.is_some())
            | flag(FRAME_SIZE, configuration.frame_size.is_some())
            | flag(MULTICAST, granted.multicast.is_some())
            | flag(MULTICAST_PROMISCUOUS, granted.multicast_promiscuous)
            | flag(VLAN_STRIP, granted.strip),
        frame_size: configuration.frame_size.unwrap_or(0).into(),
        mac: granted.mac.map_or([0; 6], Mac::bytes),
        // A set has at most as many values as its array.
        unicast_count: unicast.len() as u8,
        multicast_count: multicast.count(),
        unicast: array(unicast.iter().map(|mac| mac.bytes())),
        multicast: multicast.hashes(),
        vlan_count: vlans.len() as u16,
        reserved: 0,
        vlan: array(vlans.iter().map(|vid| vid.get())),
    }
    .encode()
}

/// Decodes the content of a configuration record.
fn decode_configuration(content: &[u8]) -> Result<Configuration, Violation> {
    use configuration_flags::*;
    use Expectation::*;

    let payload = ConfigurationPayload::exactly(content)?;
    let has = |flag| payload.flags & flag != 0;

    check("flags", payload.flags, SubsetOf(ALL.into()))?;
    if !has(CLEAR_TO_SEND) {
        check("flags", payload.flags & GRANTED, Equal(0))?;
        check("vlan_count", payload.vlan_count, Equal(0))?;
    }
    check("reserved", payload.reserved, Equal(0))?;

    let granted = Granted {
        mac: if has(MAC) {
            Some(decode_mac("mac", payload.mac)?)
        } else {
            check("mac", packed(payload.mac), Equal(0))?;
            None
        },
        vlans: decode_set(
            "vlan_count",
            "vlan",
            payload.vlan_count.into(),
            payload.vlan,
            Vid::NONE,
            decode_vid,
        )?,
        strip: has(VLAN_STRIP),
        multicast: decode_multicast(&payload, has(MULTICAST))?,
        multicast_promiscuous: has(MULTICAST_PROMISCUOUS),
    };

    Ok(Configuration {
        granted: has(CLEAR_TO_SEND).then_some(granted),
        unicast: decode_set(
            "unicast_count",
            "unicast",
            payload.unicast_count.into(),
            payload.unicast,
            Mac::PLACEHOLDER,
            |bytes| decode_mac("unicast", bytes),
        )?,
        frame_size: {
            let most = if has(FRAME_SIZE) { FRAME_SIZE_MAX } else { 0 };

            check("frame_size", payload.frame_size, AtMost(most.into()))?;
            has(FRAME_SIZE).then_some(payload.frame_size as u16)
        },
    })
}

/// Returns an address as a number.
fn packed([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

fn decode_mac(field: &'static str, bytes: [u8; 6]) -> Result<Mac, Violation> {
    Mac::new(bytes).ok_or(Violation {
        field,
        expected: Expectation::Known,
        found: packed(bytes),
    })
}

fn decode_vid(raw: u16) -> Result<Vid, Violation> {
    Vid::new(raw).ok_or(Violation {
        field: "vlan",
        expected: Expectation::AtMost(Vid::RESERVED.get().into()),
        found: raw.into(),
    })
}

fn decode_multicast(
    payload: &ConfigurationPayload,
    is_present: bool,
) -> Result<Option<Multicast>, Violation> {
    use Expectation::*;

    let count = payload.multicast_count;

    if !is_present {
        check("multicast_count", count, Equal(0))?;
    }
    for (index, &hash) in payload.multicast.iter().enumerate() {
        let bits = if index < usize::from(count) {
            HASH_BITS
        } else {
            0
        };

        check("multicast", hash, SubsetOf(bits.into()))?;
    }
    Ok(is_present.then_some(Multicast::new(count, payload.multicast)))
}

/// Decodes a set from the first `count` elements of `raw`, which must ascend. The others must be 0.
fn decode_set<R: Copy + Default + PartialEq, T: Copy + Ord, const N: usize>(
    count_field: &'static str,
    field: &'static str,
    count: usize,
    raw: [R; N],
    filler: T,
    decode: impl Fn(R) -> Result<T, Violation>,
) -> Result<Set<T, N>, Violation> {
    use Expectation::*;

    let mut set = Set::new(filler);

    check(count_field, count as u64, AtMost(N as u64))?;
    for (index, value) in raw.into_iter().enumerate() {
        let out_of_order = Violation {
            field,
            expected: Known,
            found: index as u64,
        };

        if index < count {
            let value = decode(value)?;
            let ascends = set.as_slice().last().is_none_or(|&last| last < value);

            if !ascends || !set.insert(value) {
                return Err(out_of_order);
            }
        } else if value != R::default() {
            return Err(out_of_order);
        }
    }
    Ok(set)
}

impl QueuePayload {
    fn transmit(&self) -> Ring {
        Ring {
            is_enabled: self.flags & queue_flags::TRANSMIT != 0,
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
            is_enabled: self.flags & queue_flags::RECEIVE != 0,
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

        check("flags", self.flags, SubsetOf(queue_flags::ALL.into()))?;
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

impl From<&Queue> for QueuePayload {
    fn from(queue: &Queue) -> Self {
        let Queue {
            transmit, receive, ..
        } = queue;

        Self {
            flags: flag(queue_flags::TRANSMIT, transmit.is_enabled)
                | flag(queue_flags::RECEIVE, receive.is_enabled),
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

impl TryFrom<QueuePayload> for Queue {
    type Error = Violation;

    fn try_from(payload: QueuePayload) -> Result<Self, Violation> {
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

impl InterruptPayload {
    /// Checks that the state of the vector is valid.
    fn validate(&self) -> Result<(), Violation> {
        use Expectation::SubsetOf;

        check("flags", self.flags, SubsetOf(interrupt_flags::ALL.into()))?;
        check("eitr", self.eitr, SubsetOf(EITR_INTERVAL.into()))
    }
}

impl From<&Interrupt> for InterruptPayload {
    fn from(interrupt: &Interrupt) -> Self {
        use interrupt_flags::*;

        Self {
            flags: flag(UNMASKED, interrupt.is_unmasked)
                | flag(AUTO_CLEAR, interrupt.auto_clear)
                | flag(AUTO_MASK, interrupt.auto_mask)
                | flag(PENDING, interrupt.is_pending),
            eitr: interrupt.throttle,
        }
    }
}

impl TryFrom<InterruptPayload> for Interrupt {
    type Error = Violation;

    fn try_from(payload: InterruptPayload) -> Result<Self, Violation> {
        use interrupt_flags::*;

        payload.validate()?;
        let has = |flag| payload.flags & flag != 0;

        Ok(Self {
            is_unmasked: has(UNMASKED),
            auto_clear: has(AUTO_CLEAR),
            auto_mask: has(AUTO_MASK),
            is_pending: has(PENDING),
            throttle: payload.eitr,
        })
    }
}

/// The phases by their numbers in a record.
const PHASES: [Phase; 3] = [Phase::Idle, Phase::Owned, Phase::Asked];

impl PrivatePayload {
    fn new(routes: &Routes, page0: &Page0) -> Self {
        Self {
            ivar: routes.queues,
            ivar_misc: routes.mailbox,
            psrtype: page0.packet_split,
            status: flag(STATUS_LINK, page0.link),
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

        check("ivar", self.ivar, SubsetOf(IVAR0_BITS.into()))?;
        check("ivar_misc", self.ivar_misc, SubsetOf(IVAR_MISC_BITS.into()))?;
        check("status", self.status, SubsetOf(STATUS_LINK.into()))?;
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
            link: self.status & STATUS_LINK != 0,
            counters: self.counters,
        }
    }
}
