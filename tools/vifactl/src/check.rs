// SPDX-License-Identifier: GPL-2.0

//! `vifactl check`: reports whether the source's state fits the destination.
//!
//! The rules are the layer's, as the driver applies them to the first section of a stream.

use std::{
    fmt,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use vifa_vfio::pci::Address;

use crate::{
    context::Context,
    exit::Exit,
    host::Host,
    identity::Identity,
    layer::{
        identity::{self, Mismatch, Rule},
        stream::MAGIC,
    },
    output::Table,
    region,
    stream_file::StreamFile,
};

/// Check whether the state of one VIFA interface fits another
///
/// Source and destination are each a virtual function of this host, as in 0000:01:00.1, or a file:
/// a save set, a stream, or the output of `vifactl show --json` on another host. The command lists
/// every field that does not fit and then exits with code 3. `-` is a file on standard input.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The source of the state
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
    /// The destination of the state
    #[arg(value_name = "DESTINATION")]
    destination: PathBuf,
}

/// The kind of a source or a destination.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum PartyKind {
    Device,
    SaveSet,
    Stream,
    Json,
}

impl fmt::Display for PartyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device",
            Self::SaveSet => "save set",
            Self::Stream => "stream",
            Self::Json => "JSON",
        })
    }
}

/// The source or the destination.
#[derive(Serialize)]
struct Party {
    kind: PartyKind,
    name: String,
    identity: Identity,
}

/// The result of the comparison.
#[derive(Serialize)]
struct Comparison {
    source: Party,
    destination: Party,
    fits: bool,
    mismatches: Vec<Difference>,
}

/// A field that does not fit.
#[derive(Serialize)]
struct Difference {
    /// The field's name in `struct vifa_identity`.
    field: &'static str,
    rule: &'static str,
    source: u64,
    destination: u64,
    /// The mismatch as text.
    text: String,
}

impl From<Mismatch> for Difference {
    fn from(mismatch: Mismatch) -> Self {
        Self {
            field: mismatch.field,
            rule: match mismatch.rule {
                Rule::Equal => "equal",
                Rule::AtLeast => "at_least",
                Rule::Subset => "subset",
            },
            source: mismatch.source,
            destination: mismatch.destination,
            text: mismatch.to_string(),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.fits {
            return writeln!(
                f,
                "{} ({}) fits {} ({})",
                self.source.name, self.source.kind, self.destination.name, self.destination.kind
            );
        }
        let mut table = Table::with_head(&["FIELD", "SOURCE", "DESTINATION", "RULE"]);

        for mismatch in &self.mismatches {
            table.row(&[
                mismatch.field.to_owned(),
                format!("{:#x}", mismatch.source),
                format!("{:#x}", mismatch.destination),
                mismatch.rule.replace('_', " "),
            ]);
        }
        table.fmt(f)
    }
}

/// The part of `vifactl show --json` that the comparison uses.
#[derive(Deserialize)]
struct Exported {
    identity: Identity,
}

/// Maximum length of JSON input, in bytes; `vifactl show` prints a few thousand.
const JSON_MAX: u64 = 0x10_0000;

impl Party {
    /// Determines the kind of `name` and reads its identity.
    fn of(name: &Path, host: &Host) -> Result<(Self, identity::Identity)> {
        let address = name.to_str().and_then(|name| name.parse::<Address>().ok());
        let (kind, identity) = match address {
            Some(address) => {
                let (region, _) = region::read(address, host)?;

                (PartyKind::Device, checked(name, &region.identity)?)
            }
            None => of_file(name)?,
        };

        Ok((
            Self {
                kind,
                name: name.display().to_string(),
                identity: Identity::from(&identity),
            },
            identity,
        ))
    }
}

/// Returns the kind of the file at `path`, and its identity. `-` is standard input.
fn of_file(path: &Path) -> Result<(PartyKind, identity::Identity)> {
    let mut file = StreamFile::open(path)?;
    let mut start = Vec::new();

    file.stream()?.take(JSON_MAX).read_to_end(&mut start)?;
    if file.save_set().is_none() && is_json(&start) {
        return Ok((PartyKind::Json, exported(path, &start)?));
    }
    if file.save_set().is_none() && !start.starts_with(&MAGIC) {
        return Err(Exit::Damaged
            .because(format!(
                "{} is not a save set, a stream or output of `vifactl show --json`",
                path.display()
            ))
            .into());
    }
    let identity = file.source()?.identity;
    let kind = match file.save_set() {
        Some(_) => PartyKind::SaveSet,
        None => PartyKind::Stream,
    };

    Ok((kind, identity))
}

/// Returns whether the first character of `bytes` after white space opens a JSON object.
fn is_json(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"{")
}

/// Returns the identity in `text`, the output of `vifactl show --json` in the file `name`.
fn exported(name: &Path, text: &[u8]) -> Result<identity::Identity> {
    let exported: Exported = serde_json::from_slice(text).map_err(|error| {
        let what = "is not output of `vifactl show --json`";

        Exit::Damaged.because(format!("{}: {what}: {error}", name.display()))
    })?;

    checked(name, &exported.identity)
}

/// Converts the `identity` of `name` to the layer's form.
fn checked(name: &Path, identity: &Identity) -> Result<identity::Identity> {
    identity::Identity::try_from(identity).map_err(|violation| {
        Exit::Damaged
            .because(format!("{}: identity: {violation}", name.display()))
            .into()
    })
}

/// Compares source and destination.
///
/// # Errors
///
/// The source or the destination cannot be read, or they do not fit.
pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let (source, from) = Party::of(&arguments.source, &context.host)?;
    let (destination, to) = Party::of(&arguments.destination, &context.host)?;
    let mismatches: Vec<_> = from.mismatches(&to).map(Difference::from).collect();
    let comparison = Comparison {
        source,
        destination,
        fits: mismatches.is_empty(),
        mismatches,
    };

    context.output.print(&comparison)?;
    if comparison.fits {
        return Ok(());
    }
    let fields: Vec<_> = comparison.mismatches.iter().map(|of| of.field).collect();

    Err(Exit::Incompatible
        .because(format!(
            "{} does not fit {}: {}",
            comparison.source.name,
            comparison.destination.name,
            fields.join(", ")
        ))
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOUND: &str = r#"{"identity": {"vendor": 4660, "device": 1, "subsystem_vendor": 0,
        "subsystem": 0, "revision_id": 0, "vifa_revision": 1, "features": 4,
        "bar_size": [4096, 0, 0, 0, 0, 0], "interrupt_vectors": 2, "queues": 1, "granule": 4096,
        "local_memory": 4096, "control_plane_max": 1,
        "record_version": [0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]}}"#;

    fn read(text: &[u8]) -> Result<identity::Identity> {
        exported(Path::new("export"), text)
    }

    #[test]
    fn an_identity_reads_back_from_its_json() {
        let identity = read(SOUND.as_bytes()).unwrap();
        let text = format!(
            "{{\"identity\": {}}}",
            serde_json::to_string(&Identity::from(&identity)).unwrap()
        );

        assert_eq!(read(text.as_bytes()).unwrap(), identity);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = read(text.as_bytes());
        }

        #[test]
        fn no_change_of_an_export_makes_it_panic(
            changes in prop::collection::vec((0..SOUND.len(), any::<u8>()), 1..8),
        ) {
            let mut text = SOUND.as_bytes().to_vec();

            for (offset, value) in changes {
                text[offset] = value;
            }
            if let Err(error) = read(&text) {
                prop_assert_eq!(Exit::of(&error), Exit::Damaged);
            }
        }
    }
}
