// SPDX-License-Identifier: GPL-2.0

//! Reading of a stream, from its first byte to its end or to the first error.
//!
//! The walk decodes the sections. The driver's layer ([`Verdict`]) validates the same bytes at the
//! same time. The layer acts as a destination with the source's identity, which accepts any valid
//! stream. Walk and layer decode independently, and their totals must agree. Memory use does not
//! depend on the stream's length: only the first bytes of a data section are kept, and the layer
//! bounds all other sections.

use std::{
    fmt,
    io::{self, Read},
    mem,
};

use serde::Serialize;
use vifa_vfio::pci::Address;

use super::{
    damage::Damage,
    locate::{locate, Part},
    section::{array, Kind, Payload, Section},
    structure::{Fields, RELATION, SECTION_HEADER, STREAM_HEADER},
};
use crate::{
    headers as uapi,
    interface::Interface,
    layer::{
        identity::{Identity, RECORD_TYPES},
        interface::Interfaces,
        stream::IdentityPayload,
    },
    verdict::{interfaces_of, Refusal, Verdict},
};

/// Bytes of local memory per read.
const PIECE: usize = 0x1_0000;

/// Receives the decoded stream.
pub(crate) trait Visitor {
    /// Begins a stream at `offset` of the file.
    fn stream(&mut self, offset: u64, header: Option<Fields<'_>>) -> io::Result<()>;

    /// Receives the next section.
    fn section(&mut self, section: &Section<'_>) -> io::Result<()>;
}

/// The contents of a stream, as far as they were decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Totals {
    /// Length in bytes, with headers.
    pub(crate) stream_bytes: u64,
    /// Number of sections, with the end section.
    pub(crate) sections: u64,
    /// Number of sections of a type that the header does not define.
    pub(crate) unknown_sections: u64,
    /// Bytes of records.
    pub(crate) record_bytes: u64,
    /// Number of records of each type.
    pub(crate) records: [u64; RECORD_TYPES],
    /// Number of ranges of local memory, in all rounds.
    pub(crate) local_ranges: u64,
    /// Bytes in these ranges.
    pub(crate) local_bytes: u64,
    /// Bytes of local memory in the data sections.
    pub(crate) data_bytes: u64,
    /// Number of ranges of guest memory.
    pub(crate) guest_ranges: u64,
    /// Bytes in these ranges.
    pub(crate) guest_bytes: u64,
}

impl Totals {
    fn count(&mut self, section: &Section<'_>) {
        self.sections = self.sections.saturating_add(1);
        match section.payload {
            Payload::Address(Some(record), _) => {
                let (ranges, bytes) = match record.integer("space") {
                    space if space == u64::from(uapi::VIFA_SPACE_LOCAL) => {
                        (&mut self.local_ranges, &mut self.local_bytes)
                    }
                    _ => (&mut self.guest_ranges, &mut self.guest_bytes),
                };

                for range in section.ranges() {
                    *ranges = ranges.saturating_add(1);
                    *bytes = bytes.saturating_add(range.integer("length"));
                }
            }
            Payload::Data(_, bytes) => self.data_bytes = self.data_bytes.saturating_add(bytes),
            Payload::Control(Some(_), table) => {
                self.record_bytes = self.record_bytes.saturating_add(table.len() as u64);
                for record in section.records() {
                    let kind = usize::try_from(record.header.integer("type"));

                    if let Some(count) = kind.ok().and_then(|kind| self.records.get_mut(kind)) {
                        *count = count.saturating_add(1);
                    }
                }
            }
            Payload::Unknown => self.unknown_sections = self.unknown_sections.saturating_add(1),
            _ => {}
        }
    }
}

/// The source of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) identity: Identity,
    /// The source's control interface.
    pub(crate) interface: u64,
    /// The interfaces to which the stream is addressed, control plane first; 0 for any receiver.
    pub(crate) receivers: [u64; 2],
}

/// The result of a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Totals of the decoded sections, without invalid or incomplete ones.
    pub(crate) totals: Totals,
    /// The source, if a valid section names it.
    pub(crate) source: Option<Source>,
    /// The first damage of the stream.
    pub(crate) damage: Option<Damage>,
}

/// An error that stops a walk.
#[derive(Debug)]
pub(crate) enum WalkError {
    /// Reading failed.
    Input(io::Error),
    /// Writing the output failed.
    Output(io::Error),
    /// The layer accepts the stream but it cannot be decoded, or the reverse.
    Disagreement(String),
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(_) => write!(f, "failed to read the file"),
            Self::Output(_) => write!(f, "failed to write the output"),
            Self::Disagreement(what) => {
                write!(f, "the decoder and the driver's layer disagree: {what}")
            }
        }
    }
}

impl std::error::Error for WalkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Input(error) | Self::Output(error) => Some(error),
            Self::Disagreement(_) => None,
        }
    }
}

/// The reason for which a walk stops.
enum Stop {
    /// The layer rejects a part of the stream.
    Refused(Refusal),
    /// The input ended.
    Short,
    Failed(WalkError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The destination for which the layer validates a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Judge {
    /// A function with the source's identity, to which the stream is addressed.
    Any,
    /// A function with this identity and these interfaces.
    Function(Identity, Interfaces),
}

/// Walks through the stream in `input`, which begins at `start` of its file, to the end of `input`;
/// passes it to `visitor`.
///
/// # Errors
///
/// Input or output failed. A damaged stream is not an error; the [`Outcome`] reports it.
pub(crate) fn walk(
    input: &mut dyn Read,
    start: u64,
    judge: Judge,
    visitor: &mut dyn Visitor,
) -> Result<Outcome, WalkError> {
    let mut walk = Walk::new(input, start, judge, visitor);
    let result = walk.stream();
    let damage = walk.damage(result)?;

    walk.totals.stream_bytes = walk.offset.saturating_sub(start);
    Ok(Outcome {
        totals: walk.totals,
        source: walk.source,
        damage,
    })
}

/// Reads the first two sections of the stream in `input`, which begins at `start` of its file;
/// returns the source or the damage.
///
/// # Errors
///
/// Reading failed.
pub(crate) fn head(input: &mut dyn Read, start: u64) -> Result<Result<Source, Damage>, WalkError> {
    let mut visitor = NoVisitor;
    let mut walk = Walk::new(input, start, Judge::Any, &mut visitor);
    let result = walk
        .header()
        .and_then(|()| walk.section())
        .and_then(|_| walk.section())
        .map(drop);

    match (result, walk.source) {
        (Ok(()), Some(source)) => Ok(Ok(source)),
        (result, _) => match walk.damage(result)? {
            Some(damage) => Ok(Err(damage)),
            None => Err(WalkError::Disagreement(
                "a stream without an identity was accepted".to_owned(),
            )),
        },
    }
}

/// A visitor that ignores the stream.
pub(crate) struct NoVisitor;

impl Visitor for NoVisitor {
    fn stream(&mut self, _: u64, _: Option<Fields<'_>>) -> io::Result<()> {
        Ok(())
    }

    fn section(&mut self, _: &Section<'_>) -> io::Result<()> {
        Ok(())
    }
}

struct Walk<'a> {
    input: &'a mut dyn Read,
    visitor: &'a mut dyn Visitor,
    /// Offset of the next byte in the file.
    offset: u64,
    /// Offset of the stream in the file.
    start: u64,
    judge: Judge,
    /// `None` once the layer has finished.
    verdict: Option<Verdict>,
    totals: Totals,
    source: Option<Source>,
    at: Part,
    /// The decoded start of the last section's payload.
    payload: Vec<u8>,
    /// Buffer for local memory.
    piece: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn new(
        input: &'a mut dyn Read,
        start: u64,
        judge: Judge,
        visitor: &'a mut dyn Visitor,
    ) -> Self {
        let verdict = match judge {
            Judge::Any => Verdict::of(Identity::default(), any_interfaces()),
            Judge::Function(identity, interfaces) => Verdict::of(identity, interfaces),
        };

        Self {
            input,
            visitor,
            offset: start,
            start,
            judge,
            verdict: Some(verdict),
            totals: Totals::default(),
            source: None,
            at: Part::StreamHeader,
            payload: Vec::new(),
            piece: vec![0; PIECE],
        }
    }

    /// Returns the damage of a stream whose walk ended with `result`.
    fn damage(&mut self, result: Result<(), Stop>) -> Result<Option<Damage>, WalkError> {
        match result {
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Refused(refusal)) => Ok(Some(self.locate(&refusal))),
            Err(Stop::Short) | Ok(()) => self.finish(),
        }
    }

    /// Ends the layer's validation at the end of the input.
    fn finish(&mut self) -> Result<Option<Damage>, WalkError> {
        let Some(verdict) = self.verdict.take() else {
            return Ok(None);
        };
        let progress = *verdict.progress();

        if let Err(refusal) = verdict.finish() {
            return Ok(Some(self.locate(&refusal)));
        }
        let totals = &self.totals;
        let counts = [
            (
                "bytes",
                self.offset.saturating_sub(self.start),
                progress.stream_bytes,
            ),
            ("sections", totals.sections, progress.sections),
            ("bytes of data", totals.data_bytes, progress.data_bytes),
            (
                "bytes of records",
                totals.record_bytes,
                progress.records.bytes,
            ),
            (
                "ranges of local memory",
                totals.local_ranges,
                progress.addresses.local_ranges,
            ),
            (
                "local memory in them",
                totals.local_bytes,
                progress.addresses.local_bytes,
            ),
            (
                "ranges of guest memory",
                totals.guest_ranges,
                progress.addresses.guest_ranges,
            ),
            (
                "guest memory in them",
                totals.guest_bytes,
                progress.addresses.guest_bytes,
            ),
        ];
        let records = totals.records.into_iter().zip(progress.records.count);
        let records = records.map(|(own, layer)| ("records", own, layer.into()));

        match counts
            .into_iter()
            .chain(records)
            .find(|(_, own, layer)| own != layer)
        {
            Some((what, own, layer)) => Err(WalkError::Disagreement(format!(
                "{what}: {own} decoded, {layer} accepted"
            ))),
            None => Ok(None),
        }
    }

    /// Reads up to `length` bytes, fewer at the end of the input.
    fn read(&mut self, length: u64) -> Result<Vec<u8>, Stop> {
        let mut bytes = Vec::new();

        self.input
            .take(length)
            .read_to_end(&mut bytes)
            .map_err(|error| Stop::Failed(WalkError::Input(error)))?;
        self.offset = self.offset.saturating_add(bytes.len() as u64);
        Ok(bytes)
    }

    /// Passes `bytes` to the layer.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.verdict
            .as_mut()
            .map_or(Ok(()), |verdict| verdict.feed(bytes))
    }

    /// Sets the layer's identity and interfaces to those that the stream requires.
    fn assume(&mut self, section: &Section<'_>, payload: &[u8]) {
        let (Judge::Any, Some(verdict)) = (self.judge, &mut self.verdict) else {
            return;
        };

        match section.payload {
            Payload::Identity(_) => {
                if let Some(identity) = identity_of(payload) {
                    verdict.assume_identity(identity);
                }
            }
            Payload::Relations(relations) => {
                verdict.assume_interfaces(receiver_of(relations));
            }
            _ => {}
        }
    }

    fn stream(&mut self) -> Result<(), Stop> {
        self.header()?;
        while self.section()? != Kind::End {}
        self.at = Part::After;
        // Bytes after the stream do not count as part of it.
        let end = self.offset;
        let excess = self.read(1)?;
        self.offset = end;
        Ok(self.feed(&excess)?)
    }

    fn header(&mut self) -> Result<(), Stop> {
        let header = self.read(STREAM_HEADER.length as u64)?;

        self.visitor
            .stream(self.start, Fields::at(&STREAM_HEADER, &header))
            .map_err(|error| Stop::Failed(WalkError::Output(error)))?;
        self.feed(&header)?;
        if header.len() < STREAM_HEADER.length {
            return Err(Stop::Short);
        }
        Ok(())
    }

    /// Processes the next section and returns its type.
    fn section(&mut self) -> Result<Kind, Stop> {
        let offset = self.offset;
        self.at = Part::Section {
            offset,
            sequence: self.totals.sections,
            kind: Kind::Unknown,
        };
        let header = self.read(SECTION_HEADER.length as u64)?;
        let Some(fields) = Fields::at(&SECTION_HEADER, &header) else {
            self.feed(&header)?;
            return Err(Stop::Short);
        };

        if let Err(refusal) = self.feed(&header) {
            self.show(&Section::unread(offset, fields))?;
            return Err(refusal.into());
        }
        let unread = Section::unread(offset, fields);
        self.at = Part::Section {
            offset,
            sequence: self.totals.sections,
            kind: unread.kind(),
        };
        let payload = self.read(unread.kind().decoded(unread.length()))?;
        let section = Section::decode(offset, fields, &payload);
        let result = self.payload(&section, &payload);

        self.show(&section)?;
        if result.is_ok() {
            if !section.is_consistent() {
                return Err(Stop::Failed(WalkError::Disagreement(format!(
                    "the {} section at byte {offset:#x} was accepted but cannot be decoded",
                    section.kind().name()
                ))));
            }
            self.totals.count(&section);
            if section.kind() == Kind::Identity {
                self.source = identity_of(&payload).map(|identity| Source {
                    identity,
                    interface: fields.integer("interface"),
                    receivers: [0; 2],
                });
            }
            if let (Payload::Relations(relations), Some(source)) =
                (section.payload, &mut self.source)
            {
                source.receivers = receivers(relations);
            }
        }
        let kind = section.kind();
        self.payload = payload;
        result.map(|()| kind)
    }

    /// Passes the payload to the layer: `payload`, its first bytes, and the rest from the input.
    fn payload(&mut self, section: &Section<'_>, payload: &[u8]) -> Result<(), Stop> {
        let mut left = section.length().saturating_sub(payload.len() as u64);
        let mut piece = mem::take(&mut self.piece);

        self.assume(section, payload);
        self.feed(payload)?;
        while left > 0 {
            let room = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let space = piece.get_mut(..room).unwrap_or_default();
            let length = match self.input.read(space) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Stop::Failed(WalkError::Input(error))),
            };

            if length == 0 {
                return Err(Stop::Short);
            }
            self.offset = self.offset.saturating_add(length as u64);
            left = left.saturating_sub(length as u64);
            self.feed(piece.get(..length).unwrap_or_default())?;
        }
        self.piece = piece;
        Ok(())
    }

    fn show(&mut self, section: &Section<'_>) -> Result<(), Stop> {
        self.visitor
            .section(section)
            .map_err(|error| Stop::Failed(WalkError::Output(error)))
    }

    /// Locates in the file what the layer rejects.
    fn locate(&self, refusal: &Refusal) -> Damage {
        locate(refusal, self.start, &self.at, &self.payload, self.offset)
    }
}

/// Returns the identity in the payload of an identity section; `None` if it is invalid.
fn identity_of(payload: &[u8]) -> Option<Identity> {
    IdentityPayload::decode(payload)
        .and_then(Identity::try_from)
        .ok()
}

/// Returns the receivers in the payload of a relations section, control plane first.
fn receivers(relations: &[u8]) -> [u64; 2] {
    let mut receivers = array(&RELATION, relations).map(|relation| relation.integer("receiver"));

    [(); 2].map(|()| receivers.next().unwrap_or_default())
}

/// Returns the interfaces of the destination named in the payload of a relations section, or
/// arbitrary ones if it names none.
fn receiver_of(relations: &[u8]) -> Interfaces {
    receivers(relations)
        .into_iter()
        .find(|&receiver| receiver != 0)
        .and_then(|receiver| Interface(receiver).parts())
        .map_or_else(any_interfaces, |(address, _)| interfaces_of(address))
}

/// Returns the interfaces of an arbitrary destination.
fn any_interfaces() -> Interfaces {
    interfaces_of(Address {
        domain: 0,
        bus: 0,
        device: 0,
        function: 0,
    })
}
