// SPDX-License-Identifier: GPL-2.0

//! `vifactl save`: saves a device's state to a save set or a stream.
//!
//! The driver's layer validates the stream while it is copied, so that a damaged set never gets the
//! requested file name. The device is stopped only for the copy. The file appears under its name
//! once it is complete and on disk.

mod origin;
mod target;

use std::{
    fmt,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{anyhow, bail, Context as _, Result};
use serde::Serialize;
use vifa_vfio::pci::Address;

use self::{origin::Origin, target::Target};
use crate::{
    context::Context,
    decode::{
        walk::{walk, Judge, NoVisitor, Source, Totals},
        Summed,
    },
    device::{Device, Hold},
    exit::Exit,
    headers as uapi, interrupt,
    layer::state::DeviceState,
    migratable::{Found, Migratable},
    output::Output,
    progress::Progress,
    save_set::{self, Header, Stream},
    state::State,
    stream_file::BUFFER,
};

/// Save the state of a VIFA interface to a file
///
/// The device returns to its previous state. If a virtual machine monitor has the device open, it
/// should pause its machine first. Otherwise the set does not match any state of the machine's
/// memory.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The virtual function, as in 0000:01:00.1
    device: Address,
    /// The save set to create; `-` for standard output, of a stream only
    file: PathBuf,
    /// Write the stream only, as the kernel returns it
    #[arg(long)]
    to_stream: bool,
    /// Replace an existing file
    #[arg(long)]
    force: bool,
}

/// The offset of the stream in a save set. The space before it is reserved for header and manifest,
/// whose length is known only after the stream.
const STREAM_OFFSET: usize = 0x1000;

/// The result of the command.
#[derive(Debug, Serialize)]
struct Saved {
    device: Address,
    file: String,
    /// The state of the device before and after the command.
    state: State,
    stream: Stream,
    /// Bytes of local memory.
    data_bytes: u64,
    /// Bytes of records.
    record_bytes: u64,
}

impl fmt::Display for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} saved to {}: {} bytes of stream, {} of local memory, {} of records; \
             the device is {} again",
            self.device,
            self.file,
            self.stream.bytes,
            self.data_bytes,
            self.record_bytes,
            self.state
        )
    }
}

/// Saves the device's state.
pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    if arguments.file == Path::new("-") {
        return save_to_stdout(arguments, context);
    }
    interrupt::catch()?;
    let target = Target::new(&arguments.file, arguments.force)?;
    let origin = Origin::of(arguments.device, &context.host)?;
    let device = open(arguments.device, context)?;
    let copied = save_to(&device, target, (!arguments.to_stream).then_some(&origin))?;

    context
        .output
        .print(&copied.report(arguments.device, arguments.file.display().to_string()))
}

/// Saves `device` to `target`: a save set with this `origin`, or the stream only.
fn save_to<D: Migratable>(device: &D, target: Target, origin: Option<&Origin>) -> Result<Copied> {
    let name = target.name();

    if origin.is_some() {
        target
            .file()
            .seek(SeekFrom::Start(STREAM_OFFSET as u64))
            .with_context(|| name.clone())?;
    }
    let (copied, back) = save_stream(device, &mut target.file(), &name)?;
    if let Some(origin) = origin {
        write_head(&mut target.file(), origin, &copied).with_context(|| name.clone())?;
    }
    target.commit()?;
    // The file is complete, even if the device failed to return to its state.
    back?;
    Ok(copied)
}

fn save_to_stdout(arguments: &Arguments, context: &Context) -> Result<()> {
    if !arguments.to_stream {
        return Err(Exit::Usage
            .because("a save set needs a seekable file: add --to-stream")
            .into());
    }
    interrupt::catch()?;
    let device = open(arguments.device, context)?;
    let mut out = io::stdout().lock();
    let (_, back) = save_stream(&device, &mut out, "standard output")?;

    out.flush().context("standard output")?;
    back
}

/// Opens the device, and warns on standard error if opening resets it.
fn open(address: Address, context: &Context) -> Result<Device> {
    let device = Device::open(address, &context.host)?;

    if let (Output::Text, Hold::Own) = (context.output, device.hold()) {
        eprintln!("vifactl: no process has {address} open: its state after a reset is saved");
    }
    Ok(device)
}

/// A completely copied stream.
#[derive(Debug)]
struct Copied {
    source: Source,
    totals: Totals,
    stream: Stream,
    found: DeviceState,
}

impl Copied {
    fn report(&self, device: Address, file: String) -> Saved {
        Saved {
            device,
            file,
            state: State(self.found),
            stream: self.stream,
            data_bytes: self.totals.data_bytes,
            record_bytes: self.totals.record_bytes,
        }
    }
}

/// Copies the stream of `device` to `out`, named `name`, and returns the device to its previous
/// state. The inner result reports whether the return succeeded.
fn save_stream<D: Migratable>(
    device: &D,
    out: &mut impl Write,
    name: &str,
) -> Result<(Copied, Result<()>)> {
    let mut found = Found::of(device)?;
    let state = found.state();
    let estimate = device.data_size().ok();
    let progress = Progress::bytes(&format!("{} -> {name}", device.name()), estimate);
    let mut session = Session {
        input: found.begin(DeviceState::StopCopy)?,
        failed: None,
        progress: &progress,
    };
    let mut copy = Copy {
        input: Summed::new(&mut session),
        out,
        failed: None,
    };
    let walked = walk(
        &mut BufReader::with_capacity(BUFFER, &mut copy),
        0,
        Judge::Any,
        &mut NoVisitor,
    );

    if let Some(error) = copy.failed {
        return Err(anyhow::Error::from(error).context(name.to_owned()));
    }
    let crc32c = copy.input.checksum.value();
    if let Some(error) = session.failed.take() {
        let error = anyhow::Error::from(error);

        return Err(match device.last_error() {
            Some(text) => error.context(format!("{}: {text}", device.name())),
            None => error.context(format!("{}: failed to read the state", device.name())),
        });
    }
    let outcome = walked?;
    if let Some(damage) = outcome.damage {
        bail!("{}: invalid stream: {damage}", device.name());
    }
    let source = outcome
        .source
        .ok_or_else(|| anyhow!("{}: its stream has no identity", device.name()))?;
    drop(session);
    let back = found.give_back().with_context(|| {
        format!(
            "{} was saved, but failed to return to its state",
            device.name()
        )
    });

    Ok((
        Copied {
            source,
            stream: Stream {
                bytes: outcome.totals.stream_bytes,
                crc32c,
            },
            totals: outcome.totals,
            found: state,
        },
        back,
    ))
}

/// A session that is read until a signal requests termination.
struct Session<'a, S> {
    input: S,
    failed: Option<io::Error>,
    progress: &'a Progress,
}

impl<S: Read> Read for Session<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match interrupt::read(&mut self.input, buffer) {
            Ok(length) => {
                self.progress.advance(length as u64);
                Ok(length)
            }
            Err(error) => {
                let kind = error.kind();

                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }
}

/// A reader that writes all data that it reads.
struct Copy<'a, R, W> {
    input: R,
    out: &'a mut W,
    failed: Option<io::Error>,
}

impl<R: Read, W: Write> Read for Copy<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;

        if let Err(error) = self.out.write_all(buffer.get(..length).unwrap_or_default()) {
            let kind = error.kind();

            self.failed = Some(error);
            return Err(kind.into());
        }
        Ok(length)
    }
}

/// Writes header and manifest before the stream.
fn write_head(file: &mut (impl Write + Seek), origin: &Origin, copied: &Copied) -> Result<()> {
    let manifest = origin.manifest(SystemTime::now(), &copied.source, copied.stream);
    let mut json = serde_json::to_vec_pretty(&manifest)?;
    let room = STREAM_OFFSET - save_set::HEADER_LENGTH;

    if json.len() >= room || room > uapi::VIFA_MANIFEST_MAX as usize {
        bail!("the manifest has {} bytes, {room} are reserved", json.len());
    }
    // White space may follow the JSON object.
    json.resize(room - 1, b' ');
    json.push(b'\n');
    file.rewind()?;
    file.write_all(&Header::encode(&json, copied.stream.bytes))?;
    file.write_all(&json)?;
    Ok(())
}

#[cfg(test)]
mod tests;
