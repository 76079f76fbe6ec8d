// SPDX-License-Identifier: GPL-2.0

//! Checks of a section's header and payload.

use super::{
    super::{
        address::InvalidPart,
        check::{
            check,
            Expectation,
            Violation, //
        },
        identity::Identity,
        interface::InterfaceId,
        records::InvalidRecord,
        stream::{
            Checksum,
            Kind,
            Record,
            Section, //
        },
    },
    Place,
    RestoreError, //
};

impl Section {
    /// Returns the place of the payload.
    pub(super) fn place(&self) -> Place {
        Place::Payload(self.sequence, Kind::from_raw(self.kind))
    }

    /// Checks that the section has the type `kind` and its flags.
    pub(super) fn expect(&self, kind: Kind) -> Result<(), Violation> {
        use Expectation::Equal;

        check("type", self.kind, Equal(kind as u64))?;
        check("flags", self.flags, Equal(kind.flags().into()))
    }

    /// Checks that the payload has room for a record after `header` bytes, and that its records are
    /// no longer than the control plane of a device with the identity `own`.
    pub(super) fn expect_records(&self, header: usize, own: &Identity) -> Result<(), Violation> {
        let shortest = header.saturating_add(Record::LENGTH);
        let longest = header.saturating_add(own.control_plane_max as usize);

        check("length", self.length, Expectation::AtLeast(shortest as u64))?;
        check("length", self.length, Expectation::AtMost(longest as u64))
    }

    pub(super) fn expect_length(&self, length: usize) -> Result<(), Violation> {
        check("length", self.length, Expectation::Equal(length as u64))
    }

    pub(super) fn expect_interface(&self, interface: InterfaceId) -> Result<(), Violation> {
        let expected = Expectation::Equal(interface.as_raw());

        check("interface", self.interface, expected)
    }

    /// Checks the CRC of the payload.
    pub(super) fn verify<E>(&self, payload: Checksum) -> Result<(), RestoreError<E>> {
        check(
            "payload_crc",
            self.payload_crc,
            Expectation::Equal(payload.value().into()),
        )
        .map_err(|violation| RestoreError::Malformed(self.place(), violation))
    }

    pub(super) fn invalid_part<E>(&self, invalid: InvalidPart) -> RestoreError<E> {
        let place = match invalid.range {
            Some(range) => Place::Range(self.sequence, range),
            None => self.place(),
        };

        RestoreError::Malformed(place, invalid.violation)
    }

    pub(super) fn invalid_record<E>(&self, kind: Kind, invalid: InvalidRecord) -> RestoreError<E> {
        let place = Place::Record(self.sequence, kind, invalid.offset);

        RestoreError::Malformed(place, invalid.violation)
    }
}
