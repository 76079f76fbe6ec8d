// SPDX-License-Identifier: GPL-2.0

//! `vifactl restore`: a save set or a stream, into a device.
//!
//! What can be wrong is found before the device is touched: the whole file is judged by the
//! driver's layer as the destination will judge it, and where it comes from is compared with where
//! it is to go. The device gives up its present state when it begins to take another.

mod readdress;

use std::{
    fmt,
    io::{self, BufReader, Read, Write},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use serde::Serialize;

use self::readdress::Readdressed;
use crate::{
    cli::Context,
    decode::{
        walk::{walk, Judge, Nobody, Source},
        Summed,
    },
    device::{Device, Hold, Holder},
    exit::Exit,
    function::Address,
    guide::{Guide, Origin, Surroundings},
    interface::Interface,
    interrupt, layer,
    layer::{
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

/// Give a VIFA interface the state that a save set or a stream holds
///
/// The whole file is verified, and compared with the device, before the device is touched. The
/// device must be held by a process, as a rule by a virtual machine monitor that has paused its
/// machine: one that nobody holds is reset when this command closes it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The save set or the stream; `-` for standard input
    file: PathBuf,
    /// The virtual function, as in 0000:01:00.1
    device: Address,
    /// A file that maps hosts and functions that differ; it also addresses the stream to the device
    #[arg(long)]
    guide: Option<PathBuf>,
    /// Try whether a device that nobody holds takes the state, which is then lost
    #[arg(long)]
    trial: bool,
}

/// What was restored.
#[derive(Debug, Serialize)]
struct Restored {
    file: String,
    device: Address,
    /// The state in which the device was found, and is again.
    state: State,
    stream_bytes: u64,
    /// Whether the stream was addressed to the device.
    addressed: bool,
    /// Who has the device; `None`: nobody, and the state is lost.
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
            Some(holder) => writeln!(f, "it is {} again, with {holder}", self.state),
            None => writeln!(f, "a trial, whose state is lost"),
        }
    }
}

/// Restores the file.
pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let holder = Holder::of(arguments.device, &context.host);

    if holder.is_none() && !arguments.trial {
        return Err(Exit::Busy
            .because(format!(
                "nobody has {} open: the state would be lost when it is closed (start the virtual \
                 machine monitor paused; --trial tries it all the same)",
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

/// Checks that the function at `place`, which is as `identity` says, can take what `file` holds.
/// Returns whom the stream is to be addressed to; `None`: it stays as it is.
///
/// # Errors
///
/// The file is damaged, or the function is not what or where it has to be.
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
    // A stream that names itself is refused, be it of the same place on another host.
    let receiver = (guide.is_some() && origin.virtual_function != place.address).then_some(own);

    verify(file, Judge::Function(identity, own), receiver)?;
    Ok(receiver)
}

/// Compares what the source is with what the destination is, by the layer's rules.
///
/// # Errors
///
/// All that does not fit.
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

    refuse(
        file,
        "is of a device that this one cannot replace",
        &mismatches,
    )
}

/// Compares where the file comes from with where it is to go.
///
/// # Errors
///
/// All that differs and that the guide does not map.
fn compare_places(
    file: &StreamFile,
    guide: &Guide,
    origin: &Origin,
    destination: &Place,
) -> Result<()> {
    let differences = guide.differences(origin, destination);

    refuse(
        file,
        "is from elsewhere (a guide can map what differs)",
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

/// Where the file comes from.
fn origin_of(file: &StreamFile, source: &Source) -> Result<Origin> {
    let surroundings = file.save_set().map(|save_set| Surroundings {
        host: save_set.manifest.host.name.clone(),
        physical_function: save_set.manifest.physical_function,
        index: save_set.manifest.virtual_function.index,
    });
    let (virtual_function, _) = Interface(source.interface)
        .parts()
        .context("the source has no interface")?;

    Ok(Origin {
        virtual_function,
        surroundings,
    })
}

/// Checks that a stream from `source` is not addressed to another than the function with the
/// interfaces `own`.
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

/// The stream of `file` as it goes to the device.
fn stream_of(file: &mut StreamFile, receiver: Option<Interfaces>) -> Result<Box<dyn Read + '_>> {
    let stream = file.stream()?;

    Ok(match receiver {
        Some(receiver) => Box::new(Readdressed::new(stream, receiver)),
        None => Box::new(stream),
    })
}

/// Has the layer judge the stream of `file` as `judge`, once it is addressed to `receiver`.
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
            &mut Nobody,
        ),
        None => walk(&mut stream, offset, judge, &mut Nobody),
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

/// Gives `device` the state that `stream` holds, which has `length` bytes and is called `name`, and
/// brings it back to the state that it was found in; returns that.
///
/// # Errors
///
/// It does not take it. It was reset then: its state from before is lost.
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
            "{} did not take the state of {name}, and was reset",
            device.name()
        )),
        Err(reset) => error.context(format!(
            "{} did not take the state of {name}, and could not be reset ({reset:#})",
            device.name()
        )),
    })
}

/// Writes `stream` to `session` until somebody asks for an end.
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
            .with_context(|| format!("{}: write of the stream", device.name()))?;
        }
    }
}

/// A file that is read until somebody asks for an end.
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
