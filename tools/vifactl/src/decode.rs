// SPDX-License-Identifier: GPL-2.0

//! `vifactl decode`: what stands in a stream or a save set, and what is wrong with a damaged one.
//!
//! [`walk`] goes through a stream and has the driver's layer judge it. It hands each [`section`], as
//! the [`structure`] tables of the uAPI header take it apart, to whoever shows it: [`table`] for
//! people, [`json`] for programs. [`locate`] turns the layer's refusal into a place in the file,
//! [`damage`] is how it is told.

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
    cli::Context,
    exit::Exit,
    layer::stream::Checksum,
    output::Output,
    save_set::{self, Header, ReadError, SaveSet},
};

/// Bytes that are read from a file at once.
const BUFFER: usize = 0x10_0000;

/// Show what stands in a stream or a save set, and what is wrong with a damaged one
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A stream or a save set; `-` for standard input
    file: PathBuf,
    /// Show what the records of the control plane hold, too
    #[arg(long)]
    content: bool,
    /// Show every data section and every address range, not the first of many alone; JSON always does
    #[arg(long)]
    all: bool,
}

/// Shows a file.
trait Show: Visitor {
    /// The file is a save set with this header, and with this manifest, if that is sound.
    fn save_set(&mut self, header: Fields<'_>, save_set: Option<&SaveSet>) -> io::Result<()>;

    /// The file has ended, or nothing more of it can be decoded.
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

/// Decodes `input` to its end and shows it; returns what is wrong with it.
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
        walk(&mut input, 0, Judge::Anyone, show)?
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
    let mut outcome = walk(&mut stream, save_set.stream_offset, Judge::Anyone, show)?;

    if outcome.damage.is_none() {
        outcome.damage =
            behind_stream(&save_set, &outcome, stream.checksum, input).map_err(WalkError::Input)?;
    }
    Ok(outcome)
}

/// Returns what is wrong with a save set whose stream is sound: it is not the one that the manifest
/// speaks of, or something follows it.
fn behind_stream(
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

/// A reader that sums what is read.
pub(crate) struct Summed<R> {
    input: R,
    /// Of what was read.
    pub(crate) checksum: Checksum,
}

impl<R> Summed<R> {
    /// Sums what is read from `input` from now on.
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

/// Decodes `input` and shows it as JSON in `out`, as `vifactl --json decode` does; returns what is
/// wrong with it.
///
/// # Errors
///
/// `input` cannot be read, or `out` not written.
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
