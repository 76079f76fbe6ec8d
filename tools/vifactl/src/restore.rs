// SPDX-License-Identifier: GPL-2.0

//! `vifactl restore`: restores a save set or a stream to a device.
//!
//! All checks run before the device is accessed: the driver's layer validates the whole file as the
//! destination will, and the origin of the file is compared with the destination. The device loses
//! its current state when the restore begins.

mod readdress;

use std::{
    fmt,
    io::{self, BufReader, Read, Write},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use serde::Serialize;
use vifa_vfio::pci::Address;

use self::readdress::Readdressed;
use crate::{
    context::Context,
    decode::{
        walk::{walk, Judge, NoVisitor, Source},
        Summed,
    },
    device::{Device, Hold, Holder},
    exit::Exit,
    guide::{Guide, Origin, Surroundings},
    interface::Interface,
    interrupt,
    layer::{
        self,
        interface::{Interfaces, Plane},
        state::DeviceState,
    },
    migratable::{Found, Migratable},
    place::Place,
    progress::Progress,
    region, save_set,
    state::State,
    stream_file::{damaged, StreamFile, BUFFER},
    verdict::interfaces_of,
};

/// Restore a save set or a stream to a VIFA interface
///
/// The whole file is verified and compared with the device before the device is accessed. A process
/// must have the device open, usually a virtual machine monitor that has paused its machine.
/// Otherwise the device is reset when this command closes it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The save set or the stream; `-` for standard input
    file: PathBuf,
    /// The virtual function, as in 0000:01:00.1
    device: Address,
    /// A file that maps differing hosts and functions; it also addresses the stream to the device
    #[arg(long)]
    guide: Option<PathBuf>,
    /// Test whether a device that no process has open accepts the state, then discard the state
    #[arg(long)]
    trial: bool,
}

/// The result of the command.
#[derive(Debug, Serialize)]
struct Restored {
    file: String,
    device: Address,
    /// The state of the device before and after the command.
    state: State,
    stream_bytes: u64,
    /// Whether the stream was addressed to the device.
    addressed: bool,
    /// The process that has the device open; `None` if none has, and the state is discarded.
    holder: Option<Holder>,
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} restored to {}: {} bytes of stream; ",
            self.file, self.device, self.stream_bytes
        )?;
        match &self.holder {
            Some(holder) => writeln!(f, "the device is {} again, held by {holder}", self.state),
            None => writeln!(f, "trial only, the state is discarded"),
        }
    }
}

/// Restores the file.
pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let holder = Holder::of(arguments.device, &context.host);

    if holder.is_none() && !arguments.trial {
        return Err(Exit::Busy
            .because(format!(
                "no process has {} open: the state would be lost on close (start the virtual \
                 machine monitor paused, or use --trial)",
                arguments.device
            ))
            .into());
    }
    interrupt::catch()?;
    let guide = match &arguments.guide {
        Some(path) => Some(Guide::read(path)?),
        None => None,
    };
    let mut file = StreamFile::open(&arguments.file)?;
    let (region, _) = region::read(arguments.device, &context.host)?;
    let identity = layer::identity::Identity::try_from(&region.identity).map_err(|violation| {
        Exit::Failed.because(format!("{}: identity: {violation}", arguments.device))
    })?;
    let place = Place::of(arguments.device, &context.host)?;
    let receiver = check(&mut file, guide.as_ref(), identity, &place)?;

    let device = Device::open(arguments.device, &context.host)?;
    let holder = match device.hold() {
        Hold::Process(holder) => Some(holder.clone()),
        Hold::Own => None,
    };
    let state = {
        let length = file.stream_length();
        let name = file.name().to_owned();
        let mut stream = stream_of(&mut file, receiver)?;

        restore_stream(&device, &mut stream, length, &name)?
    };

    context.output.print(&Restored {
        file: file.name().to_owned(),
        device: arguments.device,
        state: State(state),
        stream_bytes: file.stream_length(),
        addressed: receiver.is_some(),
        holder,
    })
}

/// Checks that the function at `place` with this `identity` can accept `file`. Returns the
/// interfaces to which the stream must be addressed; `None` if it is passed unchanged.
///
/// # Errors
///
/// The file is damaged, or the function has another identity or place.
fn check(
    file: &mut StreamFile,
    guide: Option<&Guide>,
    identity: layer::identity::Identity,
    place: &Place,
) -> Result<Option<Interfaces>> {
    let source = file.source()?;
    let origin = origin_of(file, &source)?;

    compare_identities(file, &source, &identity)?;
    if let Some(Err(why)) = guide.map(|guide| guide.check_names(&origin)) {
        return Err(Exit::Damaged.because(format!("the guide: {why}")).into());
    }
    compare_places(file, guide.unwrap_or(&Guide::none()), &origin, place)?;
    let own = interfaces_of(place.address);
    check_receiver(&source, own)?;
    // A stream that names its own source as receiver is rejected, even on another host.
    let receiver = (guide.is_some() && origin.virtual_function != place.address).then_some(own);

    verify(file, Judge::Function(identity, own), receiver)?;
    Ok(receiver)
}

/// Compares the identities of source and destination by the layer's rules.
///
/// # Errors
///
/// All mismatches.
fn compare_identities(
    file: &StreamFile,
    source: &Source,
    destination: &layer::identity::Identity,
) -> Result<()> {
    let mismatches: Vec<_> = source
        .identity
        .mismatches(destination)
        .map(|mismatch| mismatch.to_string())
        .collect();

    refuse(file, "comes from an incompatible device", &mismatches)
}

/// Compares the origin of the file with the destination.
///
/// # Errors
///
/// All differences that the guide does not map.
fn compare_places(
    file: &StreamFile,
    guide: &Guide,
    origin: &Origin,
    destination: &Place,
) -> Result<()> {
    let differences = guide.differences(origin, destination);

    refuse(
        file,
        "comes from another place (a guide can map the differences)",
        &differences,
    )
}

fn refuse(file: &StreamFile, what: &str, reasons: &[String]) -> Result<()> {
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Exit::Incompatible
        .because(format!(
            "{} {what}:\n  {}",
            file.name(),
            reasons.join("\n  ")
        ))
        .into())
}

/// Returns the origin of the file.
fn origin_of(file: &StreamFile, source: &Source) -> Result<Origin> {
    let surroundings = file.save_set().map(|save_set| Surroundings {
        host: save_set.manifest.host.name.clone(),
        physical_function: save_set.manifest.physical_function,
        index: save_set.manifest.virtual_function.index,
    });
    let (virtual_function, _) = Interface(source.interface)
        .parts()
        .context("the source has no valid interface id")?;

    Ok(Origin {
        virtual_function,
        surroundings,
    })
}

/// Checks that a stream from `source` is addressed to the function with the interfaces `own`, or to
/// no function.
fn check_receiver(source: &Source, own: Interfaces) -> Result<()> {
    let own = [Plane::Control, Plane::Data].map(|plane| own.plane(plane).as_raw());
    let mut pairs = source.receivers.into_iter().zip(own);

    match pairs.find(|&(receiver, own)| receiver != 0 && receiver != own) {
        None => Ok(()),
        Some((receiver, own)) => Err(Exit::Incompatible
            .because(format!(
                "the stream is addressed to {}, not to {}",
                Interface(receiver),
                Interface(own)
            ))
            .into()),
    }
}

/// Returns the stream of `file`, addressed to `receiver`.
fn stream_of(file: &mut StreamFile, receiver: Option<Interfaces>) -> Result<Box<dyn Read + '_>> {
    let stream = file.stream()?;

    Ok(match receiver {
        Some(receiver) => Box::new(Readdressed::new(stream, receiver)),
        None => Box::new(stream),
    })
}

/// Validates the stream of `file` with the layer as `judge`, addressed to `receiver`.
///
/// # Errors
///
/// The file cannot be read, or is damaged.
fn verify(file: &mut StreamFile, judge: Judge, receiver: Option<Interfaces>) -> Result<()> {
    let name = file.name().to_owned();
    let offset = file.stream_offset();
    let progress = Progress::bytes(&format!("verify {name}"), Some(file.stream_length()));
    let mut stream = Summed::new(Watched {
        input: file.stream()?,
        progress: &progress,
    });
    let outcome = match receiver {
        Some(receiver) => walk(
            &mut BufReader::with_capacity(BUFFER, Readdressed::new(&mut stream, receiver)),
            offset,
            judge,
            &mut NoVisitor,
        ),
        None => walk(&mut stream, offset, judge, &mut NoVisitor),
    }
    .with_context(|| name.clone())?;
    let crc = stream.checksum.value();
    drop(stream);

    let damage = match (outcome.damage, file.save_set()) {
        (Some(damage), _) => Some(damage),
        (None, Some(save_set)) => save_set
            .manifest
            .validate_crc(crc, save_set::HEADER_LENGTH as u64)
            .err(),
        (None, None) => None,
    };
    match damage {
        Some(damage) => Err(damaged(&name, &damage)),
        None => Ok(()),
    }
}

/// Restores `stream`, of `length` bytes and named `name`, to `device`, and returns the device to
/// its previous migration state; returns that state.
///
/// # Errors
///
/// The device rejects the stream. It is then reset and has lost its previous contents.
fn restore_stream<D: Migratable>(
    device: &D,
    stream: &mut dyn Read,
    length: u64,
    name: &str,
) -> Result<DeviceState> {
    let mut found = Found::of(device)?;
    let state = found.state();
    let progress = Progress::bytes(&format!("{name} -> {}", device.name()), Some(length));
    let taken = found
        .begin(DeviceState::Resuming)
        .and_then(|session| write(session, stream, &progress, device, name))
        .and_then(|()| device.set_state(DeviceState::Stop).map(drop));

    let Err(error) = taken else {
        found.give_back()?;
        return Ok(state);
    };
    let error = match device.last_error() {
        Some(text) => error.context(format!("{}: {text}", device.name())),
        None => error,
    };
    Err(match found.reset() {
        Ok(()) => error.context(format!(
            "{} rejected the state of {name} and was reset",
            device.name()
        )),
        Err(reset) => error.context(format!(
            "{} rejected the state of {name}, and its reset failed ({reset:#})",
            device.name()
        )),
    })
}

/// Writes `stream` to `session` unless a signal requests termination.
fn write<D: Migratable>(
    mut session: D::Session,
    stream: &mut dyn Read,
    progress: &Progress,
    device: &D,
    name: &str,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER];

    loop {
        let length = interrupt::read(stream, &mut buffer).with_context(|| name.to_owned())?;
        let mut rest = buffer.get(..length).unwrap_or_default();

        if rest.is_empty() {
            return Ok(());
        }
        while !rest.is_empty() {
            interrupt::check()?;
            match session.write(rest) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => {
                    progress.advance(taken as u64);
                    rest = rest.get(taken..).unwrap_or_default();
                    Ok(())
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                Err(error) => Err(error),
            }
            .with_context(|| format!("{}: failed to write the stream", device.name()))?;
        }
    }
}

/// A file that is read until a signal requests termination.
struct Watched<'a, R> {
    input: R,
    progress: &'a Progress,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = interrupt::read(&mut self.input, buffer)?;

        self.progress.advance(length as u64);
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
