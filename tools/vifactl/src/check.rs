// SPDX-License-Identifier: GPL-2.0

//! `vifactl check`: would the source's state fit the destination?
//!
//! The rules are the layer's, as the driver applies them at the first section of a stream.

use std::{
    fmt,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{
    cli::Context,
    exit::Exit,
    function::Address,
    host::Host,
    identity::Identity,
    layer::identity::{self, Mismatch, Rule},
    output::Table,
    region,
    stream_file::StreamFile,
};

/// Check whether the state of one VIFA interface fits another
///
/// Source and destination are each a virtual function of this host, as in 0000:01:00.1, or a file:
/// a save set, a stream, or what `vifactl show --json` printed on another host. Every field that
/// does not fit is listed, and the exit code is 3 then.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where the state comes from
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
    /// Where it is to go
    #[arg(value_name = "DESTINATION")]
    destination: PathBuf,
}

/// What says what an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Device,
    SaveSet,
    Stream,
    Json,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device",
            Self::SaveSet => "save set",
            Self::Stream => "stream",
            Self::Json => "JSON",
        })
    }
}

/// One of the two that are compared.
#[derive(Serialize)]
struct Party {
    kind: Kind,
    name: String,
    identity: Identity,
}

/// What the comparison found.
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
    /// Its name in `struct vifa_identity`.
    field: &'static str,
    rule: &'static str,
    source: u64,
    destination: u64,
    /// The same in words.
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

/// The part of what `vifactl show --json` prints that the comparison needs.
#[derive(Deserialize)]
struct Exported {
    identity: Identity,
}

/// Most bytes of JSON that are read; what `vifactl show` prints has some thousand.
const JSON_MAX: u64 = 0x10_0000;

impl Party {
    /// Finds out what `name` is, and what it says.
    fn of(name: &Path, host: &Host) -> Result<(Self, identity::Identity)> {
        let address = name.to_str().and_then(|name| name.parse::<Address>().ok());
        let (kind, identity) = match address {
            Some(address) => {
                let (region, _) = region::read(address, host)?;

                (Kind::Device, checked(name, &region.identity)?)
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

/// The kind of the file at `path`, and the identity that it holds.
fn of_file(path: &Path) -> Result<(Kind, identity::Identity)> {
    if starts_like_json(path)? {
        let mut text = Vec::new();

        File::open(path)
            .and_then(|file| file.take(JSON_MAX).read_to_end(&mut text))
            .with_context(|| path.display().to_string())?;
        let exported: Exported = serde_json::from_slice(&text).map_err(|error| {
            let what = "is not what `vifactl show --json` prints";

            Exit::Damaged.because(format!("{}: {what}: {error}", path.display()))
        })?;

        return Ok((Kind::Json, checked(path, &exported.identity)?));
    }
    let mut file = StreamFile::open(path)?;
    let identity = file.source()?.identity;
    let kind = match file.save_set() {
        Some(_) => Kind::SaveSet,
        None => Kind::Stream,
    };

    Ok((kind, identity))
}

/// Whether the first byte of the file at `path` that is no white space opens a JSON object.
fn starts_like_json(path: &Path) -> Result<bool> {
    let context = || path.display().to_string();
    let mut start = Vec::new();
    let file = File::open(path).with_context(context)?;

    // Only a regular file can be read again from its start.
    if !file.metadata().with_context(context)?.is_file() {
        return Ok(false);
    }
    file.take(JSON_MAX)
        .read_to_end(&mut start)
        .with_context(context)?;
    Ok(start
        .iter()
        .find(|byte| !byte.is_ascii_whitespace())
        .is_some_and(|&byte| byte == b'{'))
}

/// The layer's form of `identity`, which `name` says.
fn checked(name: &Path, identity: &Identity) -> Result<identity::Identity> {
    identity::Identity::try_from(identity).map_err(|violation| {
        Exit::Damaged
            .because(format!("{}: identity: {violation}", name.display()))
            .into()
    })
}

/// Compares.
///
/// # Errors
///
/// Source or destination cannot be read, or they do not fit.
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
