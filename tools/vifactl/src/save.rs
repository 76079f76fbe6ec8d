// SPDX-License-Identifier: GPL-2.0

//! `vifactl save`: a device's state, into a save set or a stream.
//!
//! What the device gives is judged by the driver's layer on its way to the file, so that no damaged
//! set ever stands under the name that was asked for. The device is stopped no longer than that
//! takes. The file becomes visible when it is complete and on its disk.

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

use self::{origin::Origin, target::Target};
use crate::{
    cli::Context,
    decode::{
        walk::{walk, Judge, Nobody, Source, Totals},
        Summed,
    },
    device::{Device, Hold},
    exit::Exit,
    function::Address,
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
/// The device is left in the state in which it was found. What a virtual machine monitor holds is
/// saved there; it should have paused its machine, or the set fits no state of the machine's memory.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The virtual function, as in 0000:01:00.1
    device: Address,
    /// The save set to make; `-` for standard output, of a stream alone
    file: PathBuf,
    /// Write the stream alone, as the kernel gives it
    #[arg(long)]
    to_stream: bool,
    /// Replace a file of this name
    #[arg(long)]
    force: bool,
}

/// Where the stream begins in a save set: what is before is reserved for header and manifest, whose
/// length is known only when the stream is.
const STREAM_OFFSET: usize = 0x1000;

/// What was saved.
#[derive(Debug, Serialize)]
struct Saved {
    device: Address,
    file: String,
    /// The state in which the device was found, and is again.
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
            "{} saved to {}: {} bytes of stream, {} of local memory, {} of records; it is {} again",
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

/// Saves `device` to `target`: a set of this `origin`, or the stream alone.
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
    // The file holds the state, whatever became of the device behind it.
    back?;
    Ok(copied)
}

fn save_to_stdout(arguments: &Arguments, context: &Context) -> Result<()> {
    if !arguments.to_stream {
        return Err(Exit::Usage
            .because("a save set needs a file that can be written back to: add --to-stream")
            .into());
    }
    interrupt::catch()?;
    let device = open(arguments.device, context)?;
    let mut out = io::stdout().lock();
    let (_, back) = save_stream(&device, &mut out, "standard output")?;

    out.flush().context("standard output")?;
    back
}

/// Opens the device, and says on standard error what a careful administrator wants to know.
fn open(address: Address, context: &Context) -> Result<Device> {
    let device = Device::open(address, &context.host)?;

    if let (Output::Text, Hold::Own) = (context.output, device.hold()) {
        eprintln!("vifactl: nobody has {address} open: what is saved is its state after a reset");
    }
    Ok(device)
}

/// A stream that was copied to its end.
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

/// Copies the stream of `device` to `out`, which is called `name`, and brings the device back to the
/// state that it was found in; what came of the latter is returned besides.
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
        Judge::Anyone,
        &mut Nobody,
    );

    if let Some(error) = copy.failed {
        return Err(anyhow::Error::from(error).context(name.to_owned()));
    }
    let crc32c = copy.input.checksum.value();
    if let Some(error) = session.failed.take() {
        let error = anyhow::Error::from(error);

        return Err(match device.last_error() {
            Some(text) => error.context(format!("{}: {text}", device.name())),
            None => error.context(format!("{}: its state cannot be read", device.name())),
        });
    }
    let outcome = walked?;
    if let Some(damage) = outcome.damage {
        bail!("{}: its stream is not sound: {damage}", device.name());
    }
    let source = outcome
        .source
        .ok_or_else(|| anyhow!("{}: its stream has no identity", device.name()))?;
    drop(session);
    let back = found
        .give_back()
        .with_context(|| format!("{} was saved, and stays as it is", device.name()));

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

/// A session that is read until somebody asks for an end.
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
                let told = io::Error::from(error.kind());

                self.failed = Some(error);
                Err(told)
            }
        }
    }
}

/// A reader that writes everything that is read.
struct Copy<'a, R, W> {
    input: R,
    out: &'a mut W,
    failed: Option<io::Error>,
}

impl<R: Read, W: Write> Read for Copy<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;

        if let Err(error) = self.out.write_all(buffer.get(..length).unwrap_or_default()) {
            let told = io::Error::from(error.kind());

            self.failed = Some(error);
            return Err(told);
        }
        Ok(length)
    }
}

/// Writes what stands before the stream.
fn write_head(file: &mut (impl Write + Seek), origin: &Origin, copied: &Copied) -> Result<()> {
    let manifest = origin.manifest(SystemTime::now(), &copied.source, copied.stream);
    let mut json = serde_json::to_vec_pretty(&manifest)?;
    let room = STREAM_OFFSET - save_set::HEADER_LENGTH;

    if json.len() >= room || room > uapi::VIFA_MANIFEST_MAX as usize {
        bail!("the manifest takes {} bytes, {room} are there", json.len());
    }
    // JSON ends with white space as well as with a brace.
    json.resize(room - 1, b' ');
    json.push(b'\n');
    file.rewind()?;
    file.write_all(&Header::encode(&json, copied.stream.bytes))?;
    file.write_all(&json)?;
    Ok(())
}

#[cfg(test)]
mod tests;
