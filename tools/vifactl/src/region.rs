// SPDX-License-Identifier: GPL-2.0

//! The migration region: what a VIFA interface tells of itself.
//!
//! `struct vifa_region` of the uAPI header is its layout. Its bytes come from debugfs or from the
//! device's VFIO file ([`read`]).

use std::{fmt, fs, io::Read, mem::offset_of};

use anyhow::Result;
use serde::Serialize;

use crate::{
    device::{Device, Hold, Holder, REGION_MAX},
    exit::Exit,
    function::{Address, Function},
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
    /// Greater after each change of what follows.
    pub(crate) generation: u64,
    /// The function's two virtual interfaces.
    pub(crate) interfaces: Interfaces,
    /// The migration state.
    pub(crate) state: State,
    /// The last error since the device was opened.
    pub(crate) last_error: Option<LastError>,
    /// What the function is.
    pub(crate) identity: Identity,
    /// The transfer relationships that it is a party of, control plane first.
    pub(crate) relations: Vec<Relation>,
    /// The present transfer; else the last one since the device was opened.
    pub(crate) transfer: Transfer,
    /// What has been sent or received of the resource abstraction structure.
    pub(crate) records: Records,
    /// What has been sent or received of the address record file.
    pub(crate) addresses: Addresses,
    /// Transfers that ended since the driver was bound.
    pub(crate) counters: Counters,
    /// DMA logging; `None` before version 1.1, which does not tell of it.
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

/// An error that the driver met.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LastError {
    /// Its number, as in `errno.h`.
    pub(crate) errno: u32,
    /// What it was about.
    pub(crate) text: String,
}

/// What a function is in a transfer relationship.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    Output,
    Receiver,
}

/// A transfer relationship.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Relation {
    /// The plane that it is for.
    pub(crate) plane: Plane,
    /// What this function is in it.
    pub(crate) role: Role,
    /// The source's interface.
    pub(crate) output: Interface,
    /// The destination's interface, where it is known.
    pub(crate) receiver: Option<Interface>,
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Transfer {
    /// Bytes of the stream, read or written so far.
    pub(crate) stream_bytes: u64,
    /// Sections that are complete.
    pub(crate) sections: u64,
}

/// Records of the control plane.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Records {
    /// Bytes in all.
    pub(crate) bytes: u64,
    /// Number of each type that there is any of.
    pub(crate) types: Vec<RecordType>,
}

/// The records of one type.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct RecordType {
    /// Number of the type.
    #[serde(rename = "type")]
    pub(crate) kind: u32,
    /// Its name, where it has one.
    pub(crate) name: Option<&'static str>,
    /// How many records.
    pub(crate) count: u32,
}

/// Where the data plane lives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Addresses {
    /// Ranges of local memory, in all rounds.
    pub(crate) local_ranges: u64,
    /// Bytes in them.
    pub(crate) local_bytes: u64,
    /// Of these, sent or received.
    pub(crate) data_bytes: u64,
    /// Ranges of guest memory whose pages were tracked.
    pub(crate) guest_ranges: u64,
    /// Bytes in them.
    pub(crate) guest_bytes: u64,
}

/// Transfers that ended since the driver was bound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Counters {
    /// Streams read to the end.
    pub(crate) saved: u64,
    /// Streams whose state the device took.
    pub(crate) restored: u64,
    /// Transfers that failed.
    pub(crate) failed: u64,
}

/// DMA logging, and what it came to since the driver was bound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Logging {
    /// Bytes of a page; 0 while writes are not logged.
    #[serde(rename = "log_page_size")]
    pub(crate) page_size: u64,
    /// Ranges of guest memory that are tracked.
    #[serde(rename = "log_ranges")]
    pub(crate) ranges: u64,
    /// Bytes in them.
    #[serde(rename = "log_bytes")]
    pub(crate) bytes: u64,
    /// Reports.
    #[serde(rename = "log_reports")]
    pub(crate) reports: u64,
    /// Bytes that they told dirty.
    #[serde(rename = "log_dirty_bytes")]
    pub(crate) dirty_bytes: u64,
    /// Of the reports, those of all that was asked for, since the device lost count or failed.
    #[serde(rename = "log_lost")]
    pub(crate) lost: u64,
}

/// Bytes of a region of version 1.0.
const LENGTH_1_0: usize = offset_of!(vifa_region, log_page_size);

impl Region {
    /// Reads a region from its bytes. What a later minor version put behind it is left alone.
    ///
    /// # Errors
    ///
    /// The first field that is not what it has to be.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Violation> {
        use Expectation::{AtLeast, Equal, Known};

        let found = bytes.len() as u64;
        let too_short = |length: usize| Violation {
            field: "length",
            expected: AtLeast(length as u64),
            found,
        };
        // What version 1.0 lacks is zeroes here.
        let mut padded = [0; size_of::<vifa_region>()];
        let bytes = match bytes.len() {
            0..LENGTH_1_0 => return Err(too_short(LENGTH_1_0)),
            length if length < padded.len() => {
                padded[..length].copy_from_slice(bytes);
                &padded
            }
            _ => bytes,
        };
        let raw: vifa_region = headers::value_of(bytes).ok_or(too_short(padded.len()))?;
        let minor = u16::from_le(raw.minor);
        let length = match minor {
            0 => LENGTH_1_0,
            _ => size_of::<vifa_region>(),
        } as u64;
        let magic = headers::VIFA_REGION_MAGIC.first_chunk().copied();
        let state = u32::from_le(raw.state);
        let place = offset_of!(vifa_region, identity);

        check(
            "magic",
            u64::from_le_bytes(raw.magic),
            Equal(u64::from_le_bytes(magic.unwrap_or_default())),
        )?;
        check(
            "major",
            u16::from_le(raw.major),
            Equal(headers::VIFA_REGION_MAJOR.into()),
        )?;
        check("length", found, AtLeast(length))?;
        check("size", u32::from_le(raw.size), AtLeast(length))?;
        Ok(Self {
            version: Version {
                major: u16::from_le(raw.major),
                minor,
            },
            generation: u64::from_le(raw.generation),
            interfaces: Interfaces {
                control: Interface(u64::from_le(raw.control_interface)),
                data: Interface(u64::from_le(raw.data_interface)),
            },
            state: State(DeviceState::try_from(state).map_err(|_| Violation {
                field: "state",
                expected: Known,
                found: state.into(),
            })?),
            last_error: LastError::decode(u32::from_le(raw.error), &raw.error_text),
            identity: Identity::from(&crate::layer::identity::Identity::try_from(
                IdentityPayload::decode(&bytes[place..])?,
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
            records: Records {
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
            },
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
            logging: (minor != 0).then(|| Logging {
                page_size: u64::from_le(raw.log_page_size),
                ranges: u64::from_le(raw.log_ranges),
                bytes: u64::from_le(raw.log_bytes),
                reports: u64::from_le(raw.log_reports),
                dirty_bytes: u64::from_le(raw.log_dirty_bytes),
                lost: u64::from_le(raw.log_lost),
            }),
        })
    }
}

impl LastError {
    /// Reads an error, if there is one; its text ends with the first NUL.
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
    /// Reads a relationship; `None` if there is none.
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

/// The name of a record type.
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

impl Logging {
    /// What is logged.
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
            let receiver = relation
                .receiver
                .map_or("whoever takes it".to_owned(), |receiver| {
                    receiver.to_string()
                });

            row(
                &format!("{} relation", relation.plane),
                format!(
                    "{} -> {receiver}; is the {}",
                    relation.output, relation.role
                ),
            );
        }
        row(
            "transfer",
            format!(
                "{} bytes, {} sections",
                self.transfer.stream_bytes, self.transfer.sections
            ),
        );
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
        row(
            "transfers",
            format!(
                "{} saved, {} restored, {} failed",
                self.counters.saved, self.counters.restored, self.counters.failed
            ),
        );
        if let Some(logging) = &self.logging {
            row("DMA logging", logging.now());
            row(
                "DMA reports",
                format!(
                    "{}, of {} bytes dirty; {} for want of a log",
                    logging.reports, logging.dirty_bytes, logging.lost
                ),
            );
        }
        row("generation", self.generation.to_string());
        write!(f, "{table}identity\n{}", self.identity)
    }
}

/// Where a region was read.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// From debugfs, without touching the device.
    Debugfs,
    /// From the device's open file, which was that of a process.
    Holder(Holder),
    /// From the device, which was opened for that and thereby reset.
    Device,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debugfs => f.write_str("debugfs"),
            Self::Holder(holder) => write!(f, "{holder}, which has the device open"),
            Self::Device => f.write_str("the device, opened for that"),
        }
    }
}

/// Reads the region of the VF at `address`, by the way that disturbs it the least.
///
/// # Errors
///
/// There is no such VF, it cannot be reached, or what it tells is no region.
pub(crate) fn read(address: Address, host: &Host) -> Result<(Region, Source)> {
    Function::find(address, host)?;
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

/// Reads the region of the VF at `address`, which `holder` has open, without opening the device;
/// `None`: that cannot be.
///
/// # Errors
///
/// What it tells is no region, or the holder does not share it.
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

/// As [`Region::decode`], for the region of `address`.
///
/// # Errors
///
/// One that names the device and the field.
fn decode(address: Address, bytes: &[u8]) -> Result<Region> {
    Region::decode(bytes).map_err(|violation| {
        Exit::Damaged
            .because(format!("{address}: its migration region: {violation}"))
            .into()
    })
}

/// The bytes that debugfs shows of the region of `address`; `None`: it does not, or may not.
fn read_debugfs(address: Address, host: &Host) -> Option<Vec<u8>> {
    let path = host.debugfs().join(address.to_string()).join("region");
    let mut bytes = vec![0; REGION_MAX];
    // One read sees one moment; two would not.
    let length = fs::File::open(path).ok()?.read(&mut bytes).ok()?;

    bytes.truncate(length);
    Some(bytes)
}

#[cfg(test)]
mod tests;
