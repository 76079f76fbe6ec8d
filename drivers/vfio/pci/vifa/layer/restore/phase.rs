// SPDX-License-Identifier: GPL-2.0

//! Progress of a received stream, and the sections that are valid next.

use super::{
    super::{
        address::{
            self,
            Buffer,
            Part,
            Range,
            LENGTH_MAX,
            LENGTH_MIN, //
        },
        check::{
            check,
            Expectation,
            Violation, //
        },
        identity::Identity,
        interface::{
            Interfaces,
            Plane, //
        },
        relation::Relations,
        stream::{
            DataRun,
            End,
            IdentityPayload,
            Kind,
            ResourcesHeader,
            Section,
            MANDATORY,
            SECTION_LENGTH_MAX, //
        },
    },
    Destination,
    LocalDestination,
    RestoreError, //
};
use crate::seam::Bytes;

/// The content of a section.
pub(super) enum Content {
    Identity,
    Relations,
    Address,
    /// This run of local memory.
    Data(Range),
    Control,
    Claim,
    End,
    /// An unknown optional section, which is skipped.
    Unknown,
}

/// The state of the received stream.
pub(super) enum Phase {
    /// No section is accepted yet.
    Begun,
    /// The source is compatible.
    Identified(Identity, Interfaces),
    /// The transfer relationships are established.
    Established(Established),
}

/// The state received on established relationships.
pub(super) struct Established {
    pub(super) source: Identity,
    pub(super) relations: Relations,
    pub(super) addresses: address::Received,
    /// The part whose data is being received.
    pub(super) part: Option<Part>,
    /// Whether the destination's local memory was unmapped.
    cleared: bool,
    pub(super) control: Option<Bytes>,
}

impl Phase {
    /// Checks that a section with this header is valid next, and returns its content.
    ///
    /// `own` is the identity of the destination.
    pub(super) fn expect(&self, section: &Section, own: &Identity) -> Result<Content, Violation> {
        check(
            "flags",
            section.flags,
            Expectation::SubsetOf(MANDATORY.into()),
        )?;
        check(
            "length",
            section.length,
            Expectation::AtMost(SECTION_LENGTH_MAX.into()),
        )?;

        match self {
            Self::Begun => {
                section.expect(Kind::Identity)?;
                section.expect_length(IdentityPayload::LENGTH)?;
                Interfaces::of_control(section.interface)?;
                Ok(Content::Identity)
            }
            Self::Identified(_, source) => {
                section.expect(Kind::Relations)?;
                section.expect_length(Relations::LENGTH)?;
                section.expect_interface(source.plane(Plane::Control))?;
                Ok(Content::Relations)
            }
            Self::Established(established) => established.expect(section, own),
        }
    }

    /// Returns the state received on established relationships, which `section` belongs to.
    pub(super) fn established<E>(
        &mut self,
        section: &Section,
    ) -> Result<&mut Established, RestoreError<E>> {
        match self {
            Self::Established(established) => Ok(established),
            _ => Err(RestoreError::Incomplete(section.place())),
        }
    }
}

impl Established {
    /// Returns the state before the first section from `source`.
    pub(super) fn new(source: Identity, relations: Relations) -> Self {
        Self {
            source,
            relations,
            addresses: address::Received::NONE,
            part: None,
            cleared: false,
            control: None,
        }
    }

    /// Checks that a section with this header is valid next, and returns its content.
    fn expect(&self, section: &Section, own: &Identity) -> Result<Content, Violation> {
        use Expectation::*;

        let interface = |plane| self.relations.plane(plane).output;

        if let Some(run) = self.part.as_ref().and_then(Part::run) {
            section.expect(Kind::Data)?;
            section.expect_length(DataRun::LENGTH.saturating_add(run.length as usize))?;
            section.expect_interface(interface(Plane::Data))?;
            return Ok(Content::Data(run));
        }
        let Some(kind) = Kind::from_raw(section.kind) else {
            if section.flags & MANDATORY != 0 {
                check("type", section.kind, Known)?;
            }
            check(
                "interface",
                section.interface,
                Either(
                    interface(Plane::Control).as_raw(),
                    interface(Plane::Data).as_raw(),
                ),
            )?;
            return Ok(Content::Unknown);
        };

        let refused = |expected| Violation {
            field: "type",
            expected,
            found: section.kind.into(),
        };
        let content = match (&self.control, kind) {
            (None, Kind::Address) => Content::Address,
            (None, Kind::Control) => Content::Control,
            (None, Kind::Claim) => Content::Claim,
            (None, _) => {
                return Err(refused(Either(Kind::Address as u64, Kind::Control as u64)));
            }
            (Some(_), Kind::End) => Content::End,
            (Some(_), _) => return Err(refused(Equal(Kind::End as u64))),
        };

        section.expect(kind)?;
        match content {
            Content::Address => {
                check("length", section.length, AtLeast(LENGTH_MIN as u64))?;
                check("length", section.length, AtMost(LENGTH_MAX as u64))?;
            }
            Content::Control => section.expect_records(ResourcesHeader::LENGTH, own)?,
            Content::Claim => section.expect_records(0, own)?,
            _ => section.expect_length(End::LENGTH)?,
        }
        section.expect_interface(interface(kind.plane()))?;
        Ok(content)
    }

    /// Advances after a received run. Returns the part's memory to `buffer` after its last run.
    pub(super) fn advance(&mut self, buffer: &mut Buffer) {
        if let Some(mut part) = self.part.take() {
            part.advance();
            match part.run() {
                Some(_) => self.part = Some(part),
                None => buffer.put_back(part),
            }
        }
    }

    /// Unmaps the destination's local memory on the first call.
    pub(super) fn clear<D: Destination>(&mut self, destination: &mut D) -> Result<(), D::Error> {
        if !self.cleared {
            if let Some(local) = destination.local() {
                local.clear_local()?;
            }
        }
        self.cleared = true;
        Ok(())
    }
}
