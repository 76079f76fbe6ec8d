// SPDX-License-Identifier: GPL-2.0

//! Transfer relationships: the output party and the receiver of each plane.
//!
//! A migration has two: from the source's control interface to the destination's control interface,
//! and from data interface to data interface. The output party offers them at the head of the
//! stream. The receiver verifies both before it accepts any state. Afterwards it accepts a section
//! only from the output party of the relationship that the section's type belongs to.

use super::{
    check::{
        check,
        Expectation,
        Violation, //
    },
    interface::{
        InterfaceId,
        Interfaces,
        Plane, //
    },
    stream::RelationPayload,
};

/// A transfer relationship.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The transferred plane.
    pub plane: Plane,
    /// The output party: an interface of the source.
    pub output: InterfaceId,
    /// The receiver: an interface of the destination. `None` permits any receiver.
    pub receiver: Option<InterfaceId>,
}

/// The two relationships of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relations {
    control: Relation,
    data: Relation,
}

/// Names of the fields of a relation, for error messages.
struct Fields {
    plane: &'static str,
    reserved: &'static str,
    output: &'static str,
    receiver: &'static str,
}

const CONTROL: Fields = Fields {
    plane: "relation[0].plane",
    reserved: "relation[0].reserved",
    output: "relation[0].output",
    receiver: "relation[0].receiver",
};

const DATA: Fields = Fields {
    plane: "relation[1].plane",
    reserved: "relation[1].reserved",
    output: "relation[1].output",
    receiver: "relation[1].receiver",
};

impl Relation {
    fn offered(source: Interfaces, plane: Plane) -> Self {
        Self {
            plane,
            output: source.plane(plane),
            receiver: None,
        }
    }

    /// Reads and checks the relation of `plane` at the start of `payload`.
    fn accept(
        payload: &[u8],
        fields: &Fields,
        plane: Plane,
        source: Interfaces,
        own: Interfaces,
    ) -> Result<Self, Violation> {
        use Expectation::*;

        let relation = RelationPayload::decode(payload)?;
        let [a, b, c, d, e, f, g] = relation.reserved;
        let reserved = u64::from_le_bytes([a, b, c, d, e, f, g, 0]);
        let receiver = own.plane(plane);

        check(fields.plane, relation.plane, Equal(plane as u64))?;
        check(fields.reserved, reserved, Equal(0))?;
        check(
            fields.output,
            relation.output,
            Equal(source.plane(plane).as_raw()),
        )?;
        check(
            fields.receiver,
            relation.receiver,
            NotEqual(relation.output),
        )?;
        check(
            fields.receiver,
            relation.receiver,
            Either(0, receiver.as_raw()),
        )?;
        Ok(Self {
            plane,
            output: source.plane(plane),
            receiver: Some(receiver),
        })
    }

    fn encode(&self) -> [u8; RelationPayload::LENGTH] {
        RelationPayload {
            plane: self.plane as u8,
            reserved: [0; 7],
            output: self.output.as_raw(),
            receiver: self.receiver.map_or(0, InterfaceId::as_raw),
        }
        .encode()
    }
}

impl Relations {
    /// Length of the relations section's payload in bytes.
    pub const LENGTH: usize = 2 * RelationPayload::LENGTH;

    /// Returns the relationships that the function with these interfaces offers to any receiver.
    pub fn offered(source: Interfaces) -> Self {
        Self {
            control: Relation::offered(source, Plane::Control),
            data: Relation::offered(source, Plane::Data),
        }
    }

    /// Returns the relationships that `payload` establishes between the functions with the
    /// interfaces `source` and `own`. Each has a receiver.
    ///
    /// # Errors
    ///
    /// Returns the first invalid field: a plane that is out of order, an output party that is not
    /// the source's interface of the plane, or a receiver that is the output party or is neither 0
    /// nor the destination's interface of the plane.
    pub(super) fn accept(
        payload: &[u8],
        source: Interfaces,
        own: Interfaces,
    ) -> Result<Self, Violation> {
        let second = payload.get(RelationPayload::LENGTH..).unwrap_or_default();

        Ok(Self {
            control: Relation::accept(payload, &CONTROL, Plane::Control, source, own)?,
            data: Relation::accept(second, &DATA, Plane::Data, source, own)?,
        })
    }

    /// Returns the relations section's payload.
    pub(super) fn encode(&self) -> [u8; Self::LENGTH] {
        let mut payload = [0; Self::LENGTH];
        let (control, data) = payload.split_at_mut(RelationPayload::LENGTH);

        control.copy_from_slice(&self.control.encode());
        data.copy_from_slice(&self.data.encode());
        payload
    }

    /// Returns the relationship of `plane`.
    pub fn plane(&self, plane: Plane) -> &Relation {
        match plane {
            Plane::Control => &self.control,
            Plane::Data => &self.data,
        }
    }
}
