// SPDX-License-Identifier: GPL-2.0

//! The piece of a stream that is currently read.

use super::super::stream::{
    Checksum,
    IdentityPayload,
    HEADER_LENGTH,
    SECTION_HEADER_LENGTH, //
};

/// Maximum length of the head in [`Loaded`].
const HEAD_MAX: usize = HEADER_LENGTH + SECTION_HEADER_LENGTH + IdentityPayload::LENGTH;

/// A piece: a head of headers and short payloads, stored here, and a body, stored elsewhere.
pub(super) struct Loaded {
    head: [u8; HEAD_MAX],
    head_length: usize,
    /// Number of bytes of head and body.
    length: usize,
    /// Number of bytes already read.
    position: usize,
}

impl Loaded {
    /// An empty piece.
    pub(super) const EMPTY: Self = Self {
        head: [0; HEAD_MAX],
        head_length: 0,
        length: 0,
        position: 0,
    };

    /// Appends `bytes` to the head.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = self.head.get_mut(self.head_length..).unwrap_or_default();

        for (to, &from) in room.iter_mut().zip(bytes) {
            *to = from;
            self.head_length = self.head_length.saturating_add(1);
            self.length = self.length.saturating_add(1);
        }
    }

    /// Appends a header and its CRC to the head.
    pub(super) fn push_sealed(&mut self, header: &[u8]) {
        self.push(header);
        self.push(&Checksum::of(header).to_le_bytes());
    }

    /// Sets the length of the body.
    pub(super) fn set_body(&mut self, length: usize) {
        self.length = self.head_length.saturating_add(length);
    }

    /// Returns the length of the body.
    pub(super) fn body(&self) -> usize {
        self.length.saturating_sub(self.head_length)
    }

    /// Returns the number of unread bytes.
    pub(super) fn unread(&self) -> usize {
        self.length.saturating_sub(self.position)
    }

    /// Returns the number of unread bytes of the body.
    pub(super) fn unread_body(&self) -> usize {
        self.unread().min(self.body())
    }

    /// Marks the next `length` bytes as read.
    pub(super) fn consume(&mut self, length: usize) {
        self.position = self.position.saturating_add(length);
    }

    /// Returns the next contiguous unread bytes of the head or of `body`, the body of the piece.
    pub(super) fn remaining<'a>(&'a self, body: &'a [u8]) -> &'a [u8] {
        let head = self.head.get(..self.head_length).unwrap_or_default();

        match self.position.checked_sub(head.len()) {
            None => head.get(self.position..),
            Some(position) => body.get(position..),
        }
        .unwrap_or_default()
    }
}
