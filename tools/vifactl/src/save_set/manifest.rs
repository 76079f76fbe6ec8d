// SPDX-License-Identifier: GPL-2.0

//! The manifest of a save set: the origin, the time and the checksum of its stream.

use serde::{Deserialize, Serialize};
use vifa_vfio::pci::Address;

use super::timestamp::is_timestamp;
use crate::{
    decode::damage::{Damage, Found},
    identity::Identity,
    interface::Interface,
    layer::{identity, interface::Plane},
    verdict::interfaces_of,
};

/// Version of the manifest. Other major versions are rejected; a minor version only adds members.
const MAJOR: u16 = 1;
const MINOR: u16 = 0;

/// The name of the manifest in reports of damage.
const PART: &str = "manifest";

/// A version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Version {
    /// Different major versions are incompatible.
    pub(crate) major: u16,
    /// A minor version only adds members.
    pub(crate) minor: u16,
}

/// The host on which a save set was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Host {
    /// The host's name, as in uname(2).
    pub(crate) name: String,
    /// Release of the host's kernel.
    pub(crate) kernel: String,
}

/// The driver that wrote the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Driver {
    /// Its name.
    pub(crate) name: String,
    /// Version of the module, if it has one.
    pub(crate) version: Option<String>,
}

/// The virtual function that was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VirtualFunction {
    /// Its address.
    pub(crate) address: Address,
    /// Index in the physical function, from 0.
    pub(crate) index: u32,
}

/// The ids of the function's interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interfaces {
    /// Of the control plane.
    pub(crate) control: u64,
    /// Of the data plane.
    pub(crate) data: u64,
}

/// The stream after the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stream {
    /// Length in bytes.
    pub(crate) bytes: u64,
    /// CRC-32C of the stream.
    pub(crate) crc32c: u32,
}

/// The contents of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Version of the manifest.
    pub(crate) manifest: Version,
    /// Time of the save: RFC 3339, UTC, to the second.
    pub(crate) saved: String,
    /// The host.
    pub(crate) host: Host,
    /// The driver.
    pub(crate) driver: Driver,
    /// The physical function of the virtual function.
    pub(crate) physical_function: Address,
    /// The virtual function.
    pub(crate) virtual_function: VirtualFunction,
    /// The virtual function's interfaces.
    pub(crate) interfaces: Interfaces,
    /// The virtual function's identity.
    pub(crate) configuration: Identity,
    /// The stream with the virtual function's state.
    pub(crate) stream: Stream,
}

impl Interfaces {
    /// Returns the interfaces of the function at `address`.
    pub(crate) fn of(address: Address) -> Self {
        let interfaces = interfaces_of(address);

        Self {
            control: interfaces.plane(Plane::Control).as_raw(),
            data: interfaces.plane(Plane::Data).as_raw(),
        }
    }
}

impl Manifest {
    /// The version that this command writes.
    pub(crate) const VERSION: Version = Version {
        major: MAJOR,
        minor: MINOR,
    };

    /// Parses a manifest, which begins at `offset` of its file.
    ///
    /// # Errors
    ///
    /// The text is not a manifest, or has invalid values.
    pub(super) fn parse(json: &[u8], offset: u64) -> Result<Self, Damage> {
        #[derive(Deserialize)]
        struct Versioned {
            manifest: Version,
        }

        // The version is checked first: another major version may have another layout.
        let version = serde_json::from_slice(json)
            .map(|Versioned { manifest }| manifest)
            .map_err(|error| syntax(json, offset, &error))?;
        if version.major != MAJOR {
            return Err(Damage::of_field(
                offset,
                PART,
                "manifest.major",
                MAJOR,
                Found::Number(version.major.into()),
            ));
        }
        let manifest: Self =
            serde_json::from_slice(json).map_err(|error| syntax(json, offset, &error))?;
        manifest.validate(offset)?;
        Ok(manifest)
    }

    /// Validates the manifest without the stream.
    fn validate(&self, offset: u64) -> Result<(), Damage> {
        let expected = Interfaces::of(self.virtual_function.address);

        if !is_timestamp(&self.saved) {
            return Err(Damage::of_field(
                offset,
                PART,
                "saved",
                "a time as in 2026-11-22T18:40:05Z",
                Found::Text(self.saved.as_str().into()),
            ));
        }
        for (field, expected, found) in [
            (
                "interfaces.control",
                expected.control,
                self.interfaces.control,
            ),
            ("interfaces.data", expected.data, self.interfaces.data),
        ] {
            if expected != found {
                return Err(Damage::of_field(
                    offset,
                    PART,
                    field,
                    format_args!("{expected:#x}, which is {}", Interface(expected)),
                    Found::Number(found),
                ));
            }
        }
        identity::Identity::try_from(&self.configuration)
            .map(drop)
            .map_err(|violation| {
                Damage::of_field(
                    offset,
                    PART,
                    format!("configuration.{}", violation.field),
                    violation.expected,
                    Found::Number(violation.found),
                )
            })
    }

    /// Checks that a source with this `identity` and control interface matches the manifest, which
    /// begins at `offset` of its file.
    ///
    /// # Errors
    ///
    /// The first field that differs.
    pub(crate) fn validate_source(
        &self,
        identity: &identity::Identity,
        interface: u64,
        offset: u64,
    ) -> Result<(), Damage> {
        if self.interfaces.control != interface {
            return Err(Damage::of_field(
                offset,
                PART,
                "interfaces.control",
                format_args!("{interface:#x}, as the stream has it"),
                Found::Number(self.interfaces.control),
            ));
        }
        let own = identity::Identity::try_from(&self.configuration);
        let differing = match &own {
            Ok(own) if own == identity => return Ok(()),
            // All fields must be equal here, whatever their rule.
            Ok(own) => identity
                .mismatches(own)
                .chain(own.mismatches(identity))
                .map(|mismatch| mismatch.field)
                .next(),
            Err(violation) => Some(violation.field),
        };

        Err(Damage::of_part(
            offset,
            PART,
            format_args!(
                "configuration.{} is not what the stream has",
                differing.unwrap_or_default()
            ),
        ))
    }

    /// Checks the CRC of the stream after the manifest, which begins at `offset` of its file.
    ///
    /// # Errors
    ///
    /// The CRC differs.
    pub(crate) fn validate_crc(&self, crc: u32, offset: u64) -> Result<(), Damage> {
        if self.stream.crc32c == crc {
            return Ok(());
        }
        Err(Damage::of_field(
            offset,
            PART,
            "stream.crc32c",
            format_args!("{crc:#x}, which the stream has"),
            Found::Number(self.stream.crc32c.into()),
        ))
    }
}

/// Returns the damage for a syntax error in a manifest.
fn syntax(json: &[u8], start: u64, error: &serde_json::Error) -> Damage {
    let lines = json.split_inclusive(|&byte| byte == b'\n');
    let before: usize = lines
        .take(error.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    let offset = before
        .saturating_add(error.column().saturating_sub(1))
        .min(json.len());

    Damage::of_part(start.saturating_add(offset as u64), PART, error)
}
