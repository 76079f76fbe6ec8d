// SPDX-License-Identifier: GPL-2.0

//! Record [`CONFIGURATION`](crate::layer::records::CONFIGURATION): the resources that the guest
//! obtained from its physical function.

use super::table::{
    flag,
    whole, //
};
use crate::{
    backend::igb::portable::mailbox::{
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

layout! {
    /// The content of the record.
    struct Payload {
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

/// Returns an array of `values`, followed by zeroes.
fn array<T: Copy + Default, const N: usize>(values: impl Iterator<Item = T>) -> [T; N] {
    let mut array = [T::default(); N];

    for (to, value) in array.iter_mut().zip(values) {
        *to = value;
    }
    array
}

/// Encodes `configuration` as the content of its record.
pub(super) fn encode(configuration: &Configuration) -> [u8; Payload::LENGTH] {
    use flags::*;

    let granted = configuration.granted.unwrap_or(Granted::new(None));
    let multicast = granted
        .multicast
        .unwrap_or(Multicast::new(0, [0; HASHES_MAX]));
    let unicast = configuration.unicast.as_slice();
    let vlans = granted.vlans.as_slice();

    Payload {
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
pub(super) fn decode(content: &[u8]) -> Result<Configuration, Violation> {
    use flags::*;
    use Expectation::*;

    let payload = whole(content, Payload::LENGTH, Payload::decode)?;
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

fn decode_multicast(payload: &Payload, is_present: bool) -> Result<Option<Multicast>, Violation> {
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
