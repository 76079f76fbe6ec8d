// SPDX-License-Identifier: GPL-2.0

//! The records of a function's control plane.
//!
//! A record contains the function's registers, without the bits that it does not retain. Values
//! that a guest can write are not checked, so that a function can always be saved. Where this
//! depends on the guest, [`ControlPlane::encode`] fails at the source. All other values have a
//! unique encoding.

mod configuration;
mod interrupt;
mod private;
mod queue;
mod table;

use self::table::Records;
pub(crate) use self::{interrupt::Interrupt, private::Routes};
use super::{
    fault::Fault,
    mailbox::{
        configuration::Configuration,
        shadow::Page0, //
    },
    registers::{
        interrupt::VECTORS,
        queue::QUEUES_MAX, //
    },
    saved::Queue,
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
            CONFIGURATION,
            INTERRUPT,
            QUEUE, //
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

        records.put(
            CONFIGURATION,
            0,
            &configuration::encode(&self.configuration),
        )?;
        for (index, queue) in (0..).zip(self.queues.iter().flatten()) {
            let content = queue::encode(queue).map_err(|invalid| records.invalid(invalid))?;

            records.put(QUEUE, index, &content)?;
        }
        for (index, interrupt) in (0..).zip(&self.interrupts) {
            let content = interrupt
                .encode()
                .map_err(|invalid| records.invalid(invalid))?;

            records.put(INTERRUPT, index, &content)?;
        }
        let content = private::encode(&self.routes, &self.page0)
            .map_err(|invalid| records.invalid(invalid))?;
        records.put(PRIVATE, 0, &content)?;
        Ok(records.finish())
    }

    /// Decodes the `records` of a device with this identity.
    ///
    /// # Errors
    ///
    /// Returns the first record that is invalid or missing.
    pub(crate) fn decode(records: &[u8], identity: &Identity) -> Result<Self, InvalidRecord> {
        let mut decoded = Decoded::default();

        for entry in Table::new(records, identity)? {
            decoded
                .add(&entry)
                .map_err(|violation| entry.invalid(violation))?;
        }
        decoded
            .complete(identity)
            .map_err(|violation| InvalidRecord {
                offset: records.len(),
                violation,
            })
    }
}

/// The decoded records of a control plane.
#[derive(Default)]
struct Decoded {
    configuration: Option<Configuration>,
    queues: [Option<Queue>; QUEUES_MAX],
    interrupts: [Option<Interrupt>; VECTORS],
    private: Option<(Routes, Page0)>,
}

impl Decoded {
    /// Decodes and adds a record.
    fn add(&mut self, entry: &Entry<'_>) -> Result<(), Violation> {
        let Entry {
            header, content, ..
        } = entry;
        let index = header.index as usize;
        let out_of_place = Violation {
            field: "index",
            expected: Expectation::Known,
            found: header.index.into(),
        };

        match header.kind {
            CONFIGURATION => self.configuration = Some(configuration::decode(content)?),
            QUEUE => {
                let slot = self.queues.get_mut(index).ok_or(out_of_place)?;

                *slot = Some(queue::decode(content)?);
            }
            INTERRUPT => {
                let slot = self.interrupts.get_mut(index).ok_or(out_of_place)?;

                *slot = Some(Interrupt::decode(content)?);
            }
            PRIVATE if index == 0 => self.private = Some(private::decode(content)?),
            _ => return Err(out_of_place),
        }
        Ok(())
    }

    /// Returns the control plane, if no record is missing.
    fn complete(self, identity: &Identity) -> Result<ControlPlane, Violation> {
        let missing = |field| Violation {
            field,
            expected: Expectation::Equal(1),
            found: 0,
        };
        let complete = |field, found: usize, expected: usize| {
            check(field, found as u64, Expectation::Equal(expected as u64))
        };

        complete(
            "queues",
            self.queues.iter().flatten().count(),
            identity.queues.into(),
        )?;
        complete(
            "interrupt_vectors",
            self.interrupts.iter().flatten().count(),
            VECTORS,
        )?;
        let (routes, page0) = self.private.ok_or(missing("private"))?;

        Ok(ControlPlane {
            configuration: self.configuration.ok_or(missing("configuration"))?,
            queues: self.queues,
            interrupts: self.interrupts.map(Option::unwrap_or_default),
            routes,
            page0,
        })
    }
}

/// Returns the claim for a destination: only the record of `configuration`.
pub(crate) fn encode_claim(configuration: &Configuration) -> Result<Bytes, OutOfMemory> {
    let mut records = Records::new()?;

    records.put(CONFIGURATION, 0, &configuration::encode(configuration))?;
    Ok(records.finish())
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

    for entry in Table::new(records, identity)? {
        let decoded = check(
            "type",
            entry.header.kind,
            Expectation::Equal(CONFIGURATION.into()),
        )
        .and_then(|()| configuration::decode(entry.content));

        configuration = decoded.map_err(|violation| entry.invalid(violation))?;
    }
    Ok(configuration)
}
