// SPDX-License-Identifier: GPL-2.0

//! Requests of a virtual function to its physical function, and the answers.
//!
//! The encoding is that of the in-tree drivers `igbvf`, which sends requests, and `igb`, which
//! answers. A guest may send any words: a message that `igb` would ignore is [`Request::Other`].

use crate::backend::igb::portable::registers::BUFFER_WORDS;
use core::fmt;

/// The mailbox's buffer.
pub(crate) type Words = [u32; BUFFER_WORDS];

/// Maximum number of words in an answer.
pub(crate) const ANSWER_WORDS: usize = 3;

const ACK: u32 = 1 << 31;
const NACK: u32 = 1 << 30;
const CLEAR_TO_SEND: u32 = 1 << 29;
const INFORMATION_SHIFT: u32 = 16;
const INFORMATION: u32 = 0xff << INFORMATION_SHIFT;
const KIND: u32 = 0xffff;

const RESET: u32 = 0x01;
const SET_MAC: u32 = 0x02;
const SET_MULTICAST: u32 = 0x03;
const SET_VLAN: u32 = 0x04;
const SET_FRAME_SIZE: u32 = 0x05;
const SET_PROMISCUOUS: u32 = 0x06;

/// Information of [`SET_MAC`]: the list of the address.
const MAC: u32 = 0;
const CLEAR_UNICAST: u32 = 1;
const ADD_UNICAST: u32 = 2;

/// Information of [`SET_PROMISCUOUS`].
const PROMISCUOUS_MULTICAST: u32 = 2;

/// A valid MAC address of a function: neither a multicast address nor zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mac([u8; 6]);

impl Mac {
    /// An address for requests that require a valid one and do not use it.
    pub(crate) const PLACEHOLDER: Self = Self([0x02, 0, 0, 0, 0, 0]);

    /// Returns the address `bytes`, or `None` if it is not valid for a function.
    pub(crate) fn new(bytes: [u8; 6]) -> Option<Self> {
        let is_multicast = bytes[0] & 1 != 0;

        (!is_multicast && bytes != [0; 6]).then_some(Self(bytes))
    }

    /// Returns the address in transmission order.
    pub(crate) fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// Decodes the address in a message's second and third word.
    fn of(low: u32, high: u32) -> Option<Self> {
        let [a, b, c, d] = low.to_le_bytes();
        let [e, f, ..] = high.to_le_bytes();

        Self::new([a, b, c, d, e, f])
    }

    /// Encodes the address as a message's second and third word.
    fn words(self) -> [u32; 2] {
        let [a, b, c, d, e, f] = self.0;

        [
            u32::from_le_bytes([a, b, c, d]),
            u32::from_le_bytes([e, f, 0, 0]),
        ]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;

        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Id of a VLAN, of 12 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Vid(u16);

impl Vid {
    /// Frames without a VLAN.
    pub(crate) const NONE: Self = Self(0);

    /// The id that IEEE 802.1Q reserves.
    pub(crate) const RESERVED: Self = Self(0xfff);

    /// Returns the id `raw`, or `None` if it exceeds 12 bits.
    pub(crate) fn new(raw: u16) -> Option<Self> {
        (raw <= Self::RESERVED.0).then_some(Self(raw))
    }

    /// Returns the number.
    pub(crate) fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Vid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Maximum number of multicast hashes that the physical function accepts.
pub(crate) const HASHES_MAX: usize = 30;

/// Bits of a multicast hash.
pub(crate) const HASH_BITS: u16 = 0xfff;

/// Multicast addresses, by their hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Multicast {
    /// Number of addresses. If it exceeds [`HASHES_MAX`], all multicast is delivered.
    count: u8,
    /// The hashes. Those after the last one are 0.
    hashes: [u16; HASHES_MAX],
}

impl Multicast {
    /// Creates a list of the first `count` of `hashes`. Clears invalid bits.
    pub(crate) fn new(count: u8, mut hashes: [u16; HASHES_MAX]) -> Self {
        for (index, hash) in hashes.iter_mut().enumerate() {
            *hash = if index < usize::from(count) {
                *hash & HASH_BITS
            } else {
                0
            };
        }
        Self { count, hashes }
    }

    /// Returns the number of addresses.
    pub(crate) fn count(&self) -> u8 {
        self.count
    }

    /// Returns the hashes. Those after the last one are 0.
    pub(crate) fn hashes(&self) -> [u16; HASHES_MAX] {
        self.hashes
    }
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// The function was reset, and requests to be enabled again.
    Reset,
    /// Sets the function's address.
    SetMac(Mac),
    /// Removes all additional unicast addresses.
    ClearUnicast,
    /// Adds a unicast address.
    AddUnicast(Mac),
    /// Sets the multicast addresses.
    SetMulticast(Multicast),
    /// Adds a VLAN.
    AddVlan(Vid),
    /// Removes a VLAN.
    RemoveVlan(Vid),
    /// Sets the maximum size of received frames in bytes.
    SetFrameSize(u16),
    /// Sets whether the function receives all multicast. This takes effect even if the physical
    /// function refuses the request because of other bits.
    SetPromiscuous {
        /// Whether it receives all multicast.
        multicast: bool,
    },
    /// A message without effect, whatever the answer.
    Other,
}

/// Returns whether the physical function treats a message that begins with `head` as already
/// answered: it reads the message and does nothing else.
pub(crate) fn is_answer(head: u32) -> bool {
    head & (ACK | NACK) != 0
}

/// Maximum frame size that the physical function permits, in bytes.
pub(crate) const FRAME_SIZE_MAX: u16 = 0x3f00;

impl Request {
    /// Decodes `words` in the same way as the physical function.
    pub(crate) fn decode(words: &Words) -> Self {
        let [head, one, two, ..] = *words;
        let information = (head & INFORMATION) >> INFORMATION_SHIFT;
        let or_other =
            |mac: Option<Mac>, request: fn(Mac) -> Self| mac.map_or(Self::Other, request);

        if head == RESET {
            return Self::Reset;
        }
        if is_answer(head) {
            return Self::Other;
        }
        match head & KIND {
            SET_MAC => match information {
                MAC => or_other(Mac::of(one, two), Self::SetMac),
                // It is refused without a valid address, although the address is not used.
                CLEAR_UNICAST => or_other(Mac::of(one, two), |_| Self::ClearUnicast),
                ADD_UNICAST => or_other(Mac::of(one, two), Self::AddUnicast),
                _ => Self::Other,
            },
            SET_MULTICAST => {
                Self::SetMulticast(Multicast::new(information.to_le_bytes()[0], hashes(words)))
            }
            SET_VLAN => {
                let vid = Vid(one as u16 & Vid::RESERVED.0);

                if information != 0 {
                    Self::AddVlan(vid)
                } else {
                    Self::RemoveVlan(vid)
                }
            }
            SET_FRAME_SIZE => Self::SetFrameSize(frame_size(one)),
            SET_PROMISCUOUS => Self::SetPromiscuous {
                multicast: information & PROMISCUOUS_MULTICAST != 0,
            },
            _ => Self::Other,
        }
    }

    /// Returns the request as encoded in the buffer.
    pub(crate) fn encode(&self) -> Words {
        let address = |information, mac: Mac| message(SET_MAC, information, mac.words());

        match *self {
            Self::Reset => message(RESET, 0, [0; 2]),
            Self::SetMac(mac) => address(MAC, mac),
            Self::ClearUnicast => address(CLEAR_UNICAST, Mac::PLACEHOLDER),
            Self::AddUnicast(mac) => address(ADD_UNICAST, mac),
            Self::SetMulticast(multicast) => {
                let mut words = message(SET_MULTICAST, multicast.count.into(), [0; 2]);
                let pairs = multicast.hashes.chunks_exact(2);

                for (word, pair) in words.iter_mut().skip(1).zip(pairs) {
                    *word = pair
                        .iter()
                        .rev()
                        .fold(0, |word, &hash| (word << u16::BITS) | u32::from(hash));
                }
                words
            }
            Self::AddVlan(vid) => message(SET_VLAN, 1, [vid.0.into(), 0]),
            Self::RemoveVlan(vid) => message(SET_VLAN, 0, [vid.0.into(), 0]),
            Self::SetFrameSize(bytes) => message(SET_FRAME_SIZE, 0, [bytes.into(), 0]),
            Self::SetPromiscuous { multicast } => {
                let information = if multicast { PROMISCUOUS_MULTICAST } else { 0 };

                message(SET_PROMISCUOUS, information, [0; 2])
            }
            Self::Other => [0; BUFFER_WORDS],
        }
    }
}

/// Returns the words of a message.
fn message(kind: u32, information: u32, [one, two]: [u32; 2]) -> Words {
    let mut words = [0; BUFFER_WORDS];

    [words[0], words[1], words[2]] = [kind | (information << INFORMATION_SHIFT), one, two];
    words
}

/// Decodes the hashes after a message's first word, two per word.
fn hashes(words: &Words) -> [u16; HASHES_MAX] {
    let mut hashes = [0; HASHES_MAX];
    let halves = words
        .iter()
        .skip(1)
        .flat_map(|word| [*word as u16, (word >> 16) as u16]);

    for (hash, half) in hashes.iter_mut().zip(halves) {
        *hash = half;
    }
    hashes
}

/// Returns the frame size that the physical function sets for `word`.
///
/// It uses a signed comparison. Of a negative number it also stores bits beyond the size. The
/// function did not request these, so they are not repeated.
fn frame_size(word: u32) -> u16 {
    let size = if word as i32 > i32::from(FRAME_SIZE_MAX) {
        FRAME_SIZE_MAX
    } else {
        (word & FRAME_SIZE_BITS) as u16
    };

    size.min(FRAME_SIZE_MAX)
}

const FRAME_SIZE_BITS: u32 = 0x3fff;

/// The answer to a request, from the first word of the buffer after the physical function has
/// written it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The request was done. This includes a refused [`Request::Reset`], which returns no address.
    Done,
    /// The request was refused.
    Refused,
    /// The request was ignored, because the function has to send [`Request::Reset`] first, or it
    /// was overwritten by a message with this meaning.
    NotClearToSend,
    /// Another message of the physical function may have overwritten the answer.
    Overwritten,
    /// The buffer still contains the request.
    None,
}

impl Answer {
    /// Decodes `answer`, the first word of the buffer, as the answer to `request`, its first word
    /// before.
    pub(crate) fn decode(request: u32, answer: u32) -> Self {
        let is_same = answer & KIND == request & KIND;
        let is_done = answer & ACK != 0;
        let is_refused = answer & NACK != 0;

        if is_same && !is_done && !is_refused {
            Self::None
        } else if is_same && (is_done || request == RESET) {
            Self::Done
        } else if answer & CLEAR_TO_SEND == 0 {
            Self::NotClearToSend
        } else if is_same {
            Self::Refused
        } else {
            Self::Overwritten
        }
    }
}

/// Returns the address in the answer to a [`Request::Reset`], if any.
pub(crate) fn address_given(answer: [u32; ANSWER_WORDS]) -> Option<Mac> {
    let [_, low, high] = answer;

    Mac::of(low, high)
}
