// SPDX-License-Identifier: GPL-2.0

//! `vifactl decode`: the contents of a stream or a save set, and the damage of a damaged one.
//!
//! [`walk`] reads a stream and lets the driver's layer validate it. It passes each [`section`],
//! decoded with the [`structure`] tables of the uAPI header, to a visitor: [`table`] for people,
//! [`json`] for programs. [`locate`] finds the place in the file that the layer rejected,
//! [`damage`] describes it.

pub mod damage;
mod json;
mod locate;
pub(crate) mod section;
pub(crate) mod structure;
mod table;
pub(crate) mod walk;

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use self::{
    damage::Damage,
    json::Json,
    structure::Fields,
    table::Table,
    walk::{walk, Judge, Outcome, Totals, Visitor, WalkError},
};
use crate::{
    context::Context,
    exit::Exit,
    layer::stream::Checksum,
    output::Output,
    save_set::{self, Header, ReadError, SaveSet},
};

/// Bytes per read.
const BUFFER: usize = 0x10_0000;

/// Show the contents of a stream or a save set, and the damage of a damaged one
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A stream or a save set; `-` for standard input
    file: PathBuf,
    /// Also show the contents of control plane records
    #[arg(long)]
    content: bool,
    /// Show every data section and every address range instead of the first ones; JSON always does
    #[arg(long)]
    all: bool,
}

/// Prints a file.
trait Show: Visitor {
    /// Prints the save set header, and the manifest if it is valid.
    fn save_set(&mut self, header: Fields<'_>, save_set: Option<&SaveSet>) -> io::Result<()>;

    /// Prints the totals at the end of the file, or where decoding stopped.
    fn end(&mut self, outcome: &Outcome) -> io::Result<()>;
}

/// Decodes the file.
pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let name = arguments.file.display().to_string();
    let input: Box<dyn Read> = if arguments.file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(&arguments.file).with_context(|| name.clone())?)
    };
    let out = BufWriter::new(io::stdout().lock());
    let damage = match context.output {
        Output::Text => decode(
            input,
            &mut Table::new(out, arguments.content, arguments.all),
        ),
        Output::Json => Json::begin(out, &name, arguments.content)
            .map_err(WalkError::Output)
            .and_then(|mut json| decode(input, &mut json)),
    };

    match damage.with_context(|| name.clone())? {
        Some(damage) => Err(Exit::Damaged.because(format!("{name}: {damage}")).into()),
        None => Ok(()),
    }
}

/// Decodes `input` to its end and prints it; returns the first damage.
fn decode(input: impl Read, show: &mut impl Show) -> Result<Option<Damage>, WalkError> {
    let mut input = BufReader::with_capacity(BUFFER, input);
    let mut start = Vec::new();

    (&mut input)
        .take(save_set::magic().len() as u64)
        .read_to_end(&mut start)
        .map_err(WalkError::Input)?;
    let is_save_set = start == save_set::magic();
    let mut input = start.as_slice().chain(input);
    let outcome = if is_save_set {
        decode_save_set(&mut input, show)?
    } else {
        walk(&mut input, 0, Judge::Any, show)?
    };

    show.end(&outcome).map_err(WalkError::Output)?;
    Ok(outcome.damage)
}

fn decode_save_set(input: &mut dyn Read, show: &mut impl Show) -> Result<Outcome, WalkError> {
    let header = Header::read(&mut *input).map_err(WalkError::Input)?;
    let read = header
        .validate()
        .map_err(ReadError::from)
        .and_then(|()| header.read_manifest(&mut *input));
    let (save_set, damage) = match read {
        Ok(save_set) => (Some(save_set), None),
        Err(ReadError::Damaged(damage)) => (None, Some(damage)),
        Err(ReadError::Input(error)) => return Err(WalkError::Input(error)),
    };

    if let Some(fields) = header.fields() {
        show.save_set(fields, save_set.as_ref())
            .map_err(WalkError::Output)?;
    }
    let Some(save_set) = save_set else {
        return Ok(Outcome {
            totals: Totals::default(),
            source: None,
            damage,
        });
    };
    let mut stream = Summed::new((&mut *input).take(save_set.stream_length));
    let mut outcome = walk(&mut stream, save_set.stream_offset, Judge::Any, show)?;

    if outcome.damage.is_none() {
        outcome.damage =
            after_stream(&save_set, &outcome, stream.checksum, input).map_err(WalkError::Input)?;
    }
    Ok(outcome)
}

/// Returns the damage of a save set with a valid stream: the manifest is of another stream, or data
/// follows the stream.
fn after_stream(
    save_set: &SaveSet,
    outcome: &Outcome,
    checksum: Checksum,
    input: &mut dyn Read,
) -> io::Result<Option<Damage>> {
    let manifest = &save_set.manifest;
    let start = save_set::HEADER_LENGTH as u64;
    let source = outcome.source.map_or(Ok(()), |source| {
        manifest.validate_source(&source.identity, source.interface, start)
    });

    if let Err(damage) = source.and_then(|()| manifest.validate_crc(checksum.value(), start)) {
        return Ok(Some(damage));
    }
    let mut excess = Vec::new();
    input.take(1).read_to_end(&mut excess)?;
    Ok((!excess.is_empty()).then(|| {
        Damage::of_part(
            save_set
                .stream_offset
                .saturating_add(save_set.stream_length),
            "save set",
            "nothing may follow the stream",
        )
    }))
}

/// A reader that computes the CRC of the data read.
pub(crate) struct Summed<R> {
    input: R,
    /// The CRC of the data read so far.
    pub(crate) checksum: Checksum,
}

impl<R> Summed<R> {
    /// Starts a CRC of the data read from `input`.
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            checksum: Checksum::EMPTY,
        }
    }
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;

        self.checksum = self.checksum.and(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}

/// Decodes `input` and writes it as JSON to `out`, like `vifactl --json decode`; returns the first
/// damage.
///
/// # Errors
///
/// Reading `input` or writing `out` failed.
pub fn to_json(
    input: impl Read,
    name: &str,
    content: bool,
    out: impl Write,
) -> Result<Option<Damage>> {
    let mut json = Json::begin(out, name, content)?;

    Ok(decode(input, &mut json)?)
}

#[cfg(test)]
mod tests;
