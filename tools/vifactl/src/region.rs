// SPDX-License-Identifier: GPL-2.0

//! The migration region: the state of a VIFA interface.
//!
//! `struct vifa_region` of the uAPI header defines the layout. The bytes come from debugfs or from
//! the device's VFIO file ([`read`]).

use std::{fmt, fs, io::Read, mem::offset_of};

use anyhow::Result;
use serde::Serialize;
use vifa_vfio::pci::Address;

use crate::{
    device::{Device, Hold, Holder, REGION_MAX},
    exit::Exit,
    headers::{self, vifa_region, vifa_region_relation},
    host::Host,
    identity::Identity,
    interface::{Interface, Plane},
    layer::{
        check::{check, Expectation, Violation},
        state::DeviceState,
        stream::IdentityPayload,
    },
    output::Table,
    state::State,
};

/// A migration region.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Region {
    /// Version of the layout.
    pub(crate) version: Version,
    /// Incremented with each change of the following fields.
    pub(crate) generation: u64,
    /// The function's two virtual interfaces.
    pub(crate) interfaces: Interfaces,
    /// The migration state.
    pub(crate) state: State,
    /// The last error since the device was opened.
    pub(crate) last_error: Option<LastError>,
    /// The function's identity.
    pub(crate) identity: Identity,
    /// The transfer relationships of the function, control plane first.
    pub(crate) relations: Vec<Relation>,
    /// The current transfer, or the last one since the device was opened.
    pub(crate) transfer: Transfer,
    /// The transferred part of the resource abstraction structure.
    pub(crate) records: Records,
    /// The transferred part of the address record file.
    pub(crate) addresses: Addresses,
    /// Transfers that ended since the driver was bound.
    pub(crate) counters: Counters,
    /// DMA logging; `None` before version 1.1, which lacks it.
    pub(crate) logging: Option<Logging>,
}

/// A version of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Version {
    pub(crate) major: u16,
    pub(crate) minor: u16,
}

/// The virtual interfaces of a function.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Interfaces {
    pub(crate) control: Interface,
    pub(crate) data: Interface,
}

/// An error reported by the driver.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LastError {
    /// The number, as in `errno.h`.
    pub(crate) errno: u32,
    /// The error as text.
    pub(crate) text: String,
}

/// The role of a function in a transfer relationship.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    Output,
    Receiver,
}

/// A transfer relationship.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Relation {
    /// The plane of the relationship.
    pub(crate) plane: Plane,
    /// The role of this function.
    pub(crate) role: Role,
    /// The source's interface.
    pub(crate) output: Interface,
    /// The destination's interface, if known.
    pub(crate) receiver: Option<Interface>,
}

/// The progress of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Transfer {
    /// Bytes of the stream, read or written so far.
    pub(crate) stream_bytes: u64,
    /// Number of complete sections.
    pub(crate) sections: u64,
}

/// Records of the control plane.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Records {
    /// Total bytes.
    pub(crate) bytes: u64,
    /// Number of records of each type that occurs.
    pub(crate) types: Vec<RecordType>,
}

/// The records of one type.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct RecordType {
    /// Number of the type.
    #[serde(rename = "type")]
    pub(crate) kind: u32,
    /// The type's name, if it has one.
    pub(crate) name: Option<&'static str>,
    /// Number of records.
    pub(crate) count: u32,
}

/// The location of the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Addresses {
    /// Number of ranges of local memory, in all rounds.
    pub(crate) local_ranges: u64,
    /// Bytes in these ranges.
    pub(crate) local_bytes: u64,
    /// Bytes sent or received of these ranges.
    pub(crate) data_bytes: u64,
    /// Number of tracked ranges of guest memory.
    pub(crate) guest_ranges: u64,
    /// Bytes in these ranges.
    pub(crate) guest_bytes: u64,
}

/// Transfers that ended since the driver was bound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Counters {
    /// Number of streams read to the end.
    pub(crate) saved: u64,
    /// Number of streams that the device accepted.
    pub(crate) restored: u64,
    /// Number of failed transfers.
    pub(crate) failed: u64,
}

/// DMA logging, and its totals since the driver was bound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Logging {
    /// Page size in bytes; 0 while logging is off.
    #[serde(rename = "log_page_size")]
    pub(crate) page_size: u64,
    /// Number of tracked ranges of guest memory.
    #[serde(rename = "log_ranges")]
    pub(crate) ranges: u64,
    /// Bytes in these ranges.
    #[serde(rename = "log_bytes")]
    pub(crate) bytes: u64,
    /// Number of reports.
    #[serde(rename = "log_reports")]
    pub(crate) reports: u64,
    /// Bytes reported dirty.
    #[serde(rename = "log_dirty_bytes")]
    pub(crate) dirty_bytes: u64,
    /// Number of reports in which everything requested was dirty, because the device lost its log
    /// or failed.
    #[serde(rename = "log_lost")]
    pub(crate) lost: u64,
}

/// Length of a region of version 1.0, in bytes.
const LENGTH_1_0: usize = offset_of!(vifa_region, log_page_size);

impl Region {
    /// Decodes a region. Data of later minor versions is ignored.
    ///
    /// # Errors
    ///
    /// The first field with an invalid value.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Violation> {
        let raw = read_padded(bytes)?;
        let state = u32::from_le(raw.state);
        let identity = &bytes[offset_of!(vifa_region, identity)..];

        Ok(Self {
            version: Version::check(&raw, bytes.len())?,
            generation: u64::from_le(raw.generation),
            interfaces: Interfaces {
                control: Interface(u64::from_le(raw.control_interface)),
                data: Interface(u64::from_le(raw.data_interface)),
            },
            state: State(DeviceState::try_from(state).map_err(|_| Violation {
                field: "state",
                expected: Expectation::Known,
                found: state.into(),
            })?),
            last_error: LastError::decode(u32::from_le(raw.error), &raw.error_text),
            identity: Identity::from(&crate::layer::identity::Identity::try_from(
                IdentityPayload::decode(identity)?,
            )?),
            relations: raw
                .relations
                .iter()
                .map(Relation::decode)
                .filter_map(Result::transpose)
                .collect::<Result<_, _>>()?,
            transfer: Transfer {
                stream_bytes: u64::from_le(raw.stream_bytes),
                sections: u64::from_le(raw.sections),
            },
            records: Records::of(&raw),
            addresses: Addresses {
                local_ranges: u64::from_le(raw.local_ranges),
                local_bytes: u64::from_le(raw.local_bytes),
                data_bytes: u64::from_le(raw.data_bytes),
                guest_ranges: u64::from_le(raw.guest_ranges),
                guest_bytes: u64::from_le(raw.guest_bytes),
            },
            counters: Counters {
                saved: u64::from_le(raw.saved),
                restored: u64::from_le(raw.restored),
                failed: u64::from_le(raw.failed),
            },
            logging: Logging::of(&raw),
        })
    }
}

/// Reads the structure from a region of any version. Fields that version 1.0 lacks are 0.
fn read_padded(bytes: &[u8]) -> Result<vifa_region, Violation> {
    let too_short = |length: usize| Violation {
        field: "length",
        expected: Expectation::AtLeast(length as u64),
        found: bytes.len() as u64,
    };
    let mut padded = [0; size_of::<vifa_region>()];
    let length = bytes.len().min(padded.len());

    if length < LENGTH_1_0 {
        return Err(too_short(LENGTH_1_0));
    }
    padded[..length].copy_from_slice(&bytes[..length]);
    headers::value_of(&padded).ok_or(too_short(padded.len()))
}

impl Version {
    /// Returns the version of a region of `length` bytes. Checks the magic, and that the version is
    /// known and fits in the length.
    fn check(raw: &vifa_region, length: usize) -> Result<Self, Violation> {
        use Expectation::{AtLeast, Equal};

        let version = Self {
            major: u16::from_le(raw.major),
            minor: u16::from_le(raw.minor),
        };
        let least = match version.minor {
            0 => LENGTH_1_0,
            _ => size_of::<vifa_region>(),
        } as u64;
        let magic = headers::VIFA_REGION_MAGIC.first_chunk().copied();

        check(
            "magic",
            u64::from_le_bytes(raw.magic),
            Equal(u64::from_le_bytes(magic.unwrap_or_default())),
        )?;
        check(
            "major",
            version.major,
            Equal(headers::VIFA_REGION_MAJOR.into()),
        )?;
        check("length", length as u64, AtLeast(least))?;
        check("size", u32::from_le(raw.size), AtLeast(least))?;
        Ok(version)
    }
}

impl Records {
    fn of(raw: &vifa_region) -> Self {
        Self {
            bytes: u64::from_le(raw.record_bytes),
            types: (0..)
                .zip(raw.records.map(u32::from_le))
                .filter(|&(_, count)| count != 0)
                .map(|(kind, count)| RecordType {
                    kind,
                    name: record_name(kind),
                    count,
                })
                .collect(),
        }
    }
}

impl LastError {
    /// Decodes an error, if there is one; its text ends with the first NUL.
    fn decode(errno: u32, text: &[u8]) -> Option<Self> {
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();

        (errno != 0).then(|| Self {
            errno,
            text: String::from_utf8_lossy(text)
                .replace(|character: char| character.is_control(), "\u{fffd}"),
        })
    }
}

impl Relation {
    /// Decodes a relationship; `None` if the entry is unused.
    fn decode(raw: &vifa_region_relation) -> Result<Option<Self>, Violation> {
        let unknown = |field, found: u8| Violation {
            field,
            expected: Expectation::Known,
            found: found.into(),
        };
        let role = match u32::from(raw.role) {
            headers::VIFA_ROLE_NONE => return Ok(None),
            headers::VIFA_ROLE_OUTPUT => Role::Output,
            headers::VIFA_ROLE_RECEIVER => Role::Receiver,
            _ => return Err(unknown("role", raw.role)),
        };

        Ok(Some(Self {
            plane: Plane::from_number(raw.plane.into()).ok_or(unknown("plane", raw.plane))?,
            role,
            output: Interface(u64::from_le(raw.output)),
            receiver: Some(u64::from_le(raw.receiver))
                .filter(|&id| id != 0)
                .map(Interface),
        }))
    }
}

/// Returns the name of a record type.
fn record_name(kind: u32) -> Option<&'static str> {
    Some(match kind {
        headers::VIFA_RESOURCE_CONFIGURATION => "configuration",
        headers::VIFA_RESOURCE_QUEUE => "queue",
        headers::VIFA_RESOURCE_INTERRUPT => "interrupt",
        headers::VIFA_RESOURCE_PRIVATE => "private",
        _ => return None,
    })
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Output => "output",
            Self::Receiver => "receiver",
        })
    }
}

impl fmt::Display for LastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (errno {})", self.text, self.errno)
    }
}

impl fmt::Display for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let types: Vec<_> = self
            .types
            .iter()
            .map(|of| match of.name {
                Some(name) => format!("{} {name}", of.count),
                None => format!("{} of type {}", of.count, of.kind),
            })
            .collect();

        if types.is_empty() {
            return f.write_str("none");
        }
        write!(f, "{}; {} bytes", types.join(", "), self.bytes)
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let receiver = self
            .receiver
            .map_or("any receiver".to_owned(), |receiver| receiver.to_string());

        write!(f, "{} -> {receiver}; is the {}", self.output, self.role)
    }
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, {} sections", self.stream_bytes, self.sections)
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} saved, {} restored, {} failed",
            self.saved, self.restored, self.failed
        )
    }
}

impl Logging {
    /// Returns the logging of a region; `None` before version 1.1.
    fn of(raw: &vifa_region) -> Option<Self> {
        (raw.minor != 0).then(|| Self {
            page_size: u64::from_le(raw.log_page_size),
            ranges: u64::from_le(raw.log_ranges),
            bytes: u64::from_le(raw.log_bytes),
            reports: u64::from_le(raw.log_reports),
            dirty_bytes: u64::from_le(raw.log_dirty_bytes),
            lost: u64::from_le(raw.log_lost),
        })
    }

    /// Describes the current logging.
    fn now(&self) -> String {
        if self.page_size == 0 {
            return "off".to_owned();
        }
        format!(
            "{} bytes in {} ranges, pages of {} bytes",
            self.bytes, self.ranges, self.page_size
        )
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::default();
        let mut row = |name: &str, value: String| table.row(&[name.to_owned(), value]);
        let addresses = &self.addresses;

        row("state", self.state.to_string());
        row(
            "last error",
            self.last_error
                .as_ref()
                .map_or("none".to_owned(), LastError::to_string),
        );
        row("control interface", self.interfaces.control.to_string());
        row("data interface", self.interfaces.data.to_string());
        for relation in &self.relations {
            row(
                &format!("{} relation", relation.plane),
                relation.to_string(),
            );
        }
        row("transfer", self.transfer.to_string());
        row("records", self.records.to_string());
        row(
            "local memory",
            format!(
                "{} of {} bytes in {} ranges",
                addresses.data_bytes, addresses.local_bytes, addresses.local_ranges
            ),
        );
        row(
            "guest memory",
            format!(
                "{} bytes in {} ranges tracked",
                addresses.guest_bytes, addresses.guest_ranges
            ),
        );
        row("transfers", self.counters.to_string());
        if let Some(logging) = &self.logging {
            row("DMA logging", logging.now());
            row(
                "DMA reports",
                format!(
                    "{}, {} bytes dirty; {} without a valid log",
                    logging.reports, logging.dirty_bytes, logging.lost
                ),
            );
        }
        row("generation", self.generation.to_string());
        write!(f, "{table}identity\n{}", self.identity)
    }
}

/// The source of a region.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// Read from debugfs, without access to the device.
    Debugfs,
    /// Read through the device's open file of another process.
    Holder(Holder),
    /// Read from the device, which was opened for this and thereby reset.
    Device,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debugfs => f.write_str("debugfs"),
            Self::Holder(holder) => write!(f, "{holder}, which has the device open"),
            Self::Device => f.write_str("the device, opened for this read"),
        }
    }
}

/// Reads the region of the VF at `address` in the least disruptive way.
///
/// # Errors
///
/// The VF does not exist, cannot be accessed, or its region is invalid.
pub(crate) fn read(address: Address, host: &Host) -> Result<(Region, Source)> {
    host.function(address)?;
    if let Some(found) = peek(address, host, Holder::of(address, host).as_ref())? {
        return Ok(found);
    }
    let device = Device::open(address, host)?;
    let source = match device.hold() {
        Hold::Own => Source::Device,
        Hold::Process(holder) => Source::Holder(holder.clone()),
    };

    Ok((decode(address, &device.region()?)?, source))
}

/// Reads the region of the VF at `address` without opening the device, from debugfs or through
/// `holder`, which has the device open; `None` if neither is possible.
///
/// # Errors
///
/// The region is invalid, or the holder's file cannot be shared.
pub(crate) fn peek(
    address: Address,
    host: &Host,
    holder: Option<&Holder>,
) -> Result<Option<(Region, Source)>> {
    let (bytes, source) = match (read_debugfs(address, host), holder) {
        (Some(bytes), _) => (bytes, Source::Debugfs),
        (None, Some(holder)) => {
            let device = Device::share(address, holder.clone())?;

            (device.region()?, Source::Holder(holder.clone()))
        }
        (None, None) => return Ok(None),
    };

    Ok(Some((decode(address, &bytes)?, source)))
}

/// Like [`Region::decode`], for the region of `address`.
///
/// # Errors
///
/// An error with the device and the field.
fn decode(address: Address, bytes: &[u8]) -> Result<Region> {
    Region::decode(bytes).map_err(|violation| {
        Exit::Damaged
            .because(format!("{address}: invalid migration region: {violation}"))
            .into()
    })
}

/// Returns the region of `address` from debugfs; `None` if it is unavailable or not readable.
fn read_debugfs(address: Address, host: &Host) -> Option<Vec<u8>> {
    let path = host.debugfs().join(address.to_string()).join("region");
    let mut bytes = vec![0; REGION_MAX];
    // One read returns a consistent region.
    let length = fs::File::open(path).ok()?.read(&mut bytes).ok()?;

    bytes.truncate(length);
    Some(bytes)
}

#[cfg(test)]
mod tests;
