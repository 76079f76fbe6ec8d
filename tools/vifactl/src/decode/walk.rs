// SPDX-License-Identifier: GPL-2.0

//! The way through a stream, from its first byte to its last or to the first that is wrong.
//!
//! The walk finds the sections and takes them apart; the driver's layer ([`Verdict`]) hears every
//! byte at the same time and says whether the stream is sound. A destination that is as the source
//! says can take any sound stream, so that is what the layer is told to be. The two decode
//! independently, and their totals must agree. Memory does not depend on the stream's length: of a
//! data section no more than its first bytes are kept, and every other is bounded by the layer.

use super::{
    damage::Damage,
    locate::{locate, Part},
    section::{array, Kind, Payload, Section},
    structure::{Fields, RELATION, SECTION_HEADER, STREAM_HEADER},
};
use crate::{
    function::Address,
    headers as uapi,
    interface::Interface,
    layer::{
        identity::{Identity, RECORD_TYPES},
        interface::Interfaces,
        stream::IdentityPayload,
    },
    verdict::{interfaces_of, Refusal, Verdict},
};
use serde::Serialize;
use std::{
    fmt,
    io::{self, Read},
    mem,
};

/// Bytes of local memory that are read at once.
const PIECE: usize = 0x1_0000;

/// Shows a stream.
pub(crate) trait Visitor {
    /// The stream begins at `offset` of the file.
    fn stream(&mut self, offset: u64, header: Option<Fields<'_>>) -> io::Result<()>;

    /// The next section.
    fn section(&mut self, section: &Section<'_>) -> io::Result<()>;
}

/// What a stream holds, as far as it was decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Totals {
    /// Bytes, headers included.
    pub(crate) stream_bytes: u64,
    /// Sections, the end section included.
    pub(crate) sections: u64,
    /// Sections of a type that the header does not name.
    pub(crate) unknown_sections: u64,
    /// Bytes of records.
    pub(crate) record_bytes: u64,
    /// Records of each type.
    pub(crate) records: [u64; RECORD_TYPES],
    /// Ranges of local memory, in all rounds.
    pub(crate) local_ranges: u64,
    /// Bytes in them.
    pub(crate) local_bytes: u64,
    /// Bytes of local memory in the data sections.
    pub(crate) data_bytes: u64,
    /// Ranges of guest memory.
    pub(crate) guest_ranges: u64,
    /// Bytes in them.
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

/// Who a stream comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) identity: Identity,
    /// Its control interface.
    pub(crate) interface: u64,
    /// The interfaces that the stream is addressed to, control plane first; 0: to whoever takes it.
    pub(crate) receivers: [u64; 2],
}

/// What became of a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What was decoded; sections that are wrong or incomplete are not among them.
    pub(crate) totals: Totals,
    /// The source, if the stream says so in a sound section.
    pub(crate) source: Option<Source>,
    /// What is wrong with the stream.
    pub(crate) damage: Option<Damage>,
}

/// Why a stream could not be walked through.
#[derive(Debug)]
pub(crate) enum WalkError {
    /// It could not be read.
    Input(io::Error),
    /// It could not be shown.
    Output(io::Error),
    /// The layer accepts it, and it cannot be decoded, or the other way round.
    Disagreement(String),
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(_) => write!(f, "the file could not be read"),
            Self::Output(_) => write!(f, "the output could not be written"),
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

/// What stops a walk.
enum Stop {
    /// The layer refuses a part of the stream.
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

/// As what the layer judges a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Judge {
    /// As a function that is as the source says, and that the stream is addressed to.
    Anyone,
    /// As a function with this identity and these interfaces.
    Function(Identity, Interfaces),
}

/// Walks through the stream that `input` holds up to its end, and that begins at `start` of its
/// file; shows it to `visitor`.
///
/// # Errors
///
/// Input or output failed. That the stream is damaged is no error but an [`Outcome`].
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

/// Reads the first two sections of the stream that `input` holds, and that begins at `start` of its
/// file; returns who it comes from, or what is wrong with it.
///
/// # Errors
///
/// The input failed.
pub(crate) fn head(input: &mut dyn Read, start: u64) -> Result<Result<Source, Damage>, WalkError> {
    let mut nobody = Nobody;
    let mut walk = Walk::new(input, start, Judge::Anyone, &mut nobody);
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

/// Somebody who looks at nothing.
pub(crate) struct Nobody;

impl Visitor for Nobody {
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
    /// Where the next byte stands in the file.
    offset: u64,
    /// Where the stream begins in the file.
    start: u64,
    judge: Judge,
    /// Until it has spoken.
    verdict: Option<Verdict>,
    totals: Totals,
    source: Option<Source>,
    at: Part,
    /// The first bytes of the last section's payload, as far as they are decoded.
    payload: Vec<u8>,
    /// For local memory, piece by piece.
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
            Judge::Anyone => Verdict::of(Identity::default(), any_interfaces()),
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

    /// What is wrong with a stream whose walk came to this.
    fn damage(&mut self, result: Result<(), Stop>) -> Result<Option<Damage>, WalkError> {
        match result {
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Refused(refusal)) => Ok(Some(self.locate(&refusal))),
            Err(Stop::Short) | Ok(()) => self.finish(),
        }
    }

    /// Hears the layer's verdict at the end of the input.
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

    /// Reads up to `length` bytes, fewer where the input ends.
    fn read(&mut self, length: u64) -> Result<Vec<u8>, Stop> {
        let mut bytes = Vec::new();

        self.input
            .take(length)
            .read_to_end(&mut bytes)
            .map_err(|error| Stop::Failed(WalkError::Input(error)))?;
        self.offset = self.offset.saturating_add(bytes.len() as u64);
        Ok(bytes)
    }

    /// Has the layer hear `bytes`.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.verdict
            .as_mut()
            .map_or(Ok(()), |verdict| verdict.feed(bytes))
    }

    /// Has the layer be as the source says and as the stream demands.
    fn assume(&mut self, section: &Section<'_>, payload: &[u8]) {
        let (Judge::Anyone, Some(verdict)) = (self.judge, &mut self.verdict) else {
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
        self.at = Part::Behind;
        // What is behind the stream is none of its bytes.
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

    /// Takes the next section and returns its type.
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
                    "the {} section at byte {offset:#x} was accepted and cannot be decoded",
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

    /// Has the layer hear the payload, whose first bytes are `payload`, and reads the rest of it.
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

    /// Says at which byte of the file stands what the layer refuses.
    fn locate(&self, refusal: &Refusal) -> Damage {
        locate(refusal, self.start, &self.at, &self.payload, self.offset)
    }
}

/// The identity that stands in the payload of an identity section; `None` if it cannot be one.
fn identity_of(payload: &[u8]) -> Option<Identity> {
    IdentityPayload::decode(payload)
        .and_then(Identity::try_from)
        .ok()
}

/// The receivers that the payload of a relations section names, control plane first.
fn receivers(relations: &[u8]) -> [u64; 2] {
    let mut receivers = array(&RELATION, relations).map(|relation| relation.integer("receiver"));

    [(); 2].map(|()| receivers.next().unwrap_or_default())
}

/// The interfaces of the destination that the payload of a relations section names, or of any if it
/// names none.
fn receiver_of(relations: &[u8]) -> Interfaces {
    receivers(relations)
        .into_iter()
        .find(|&receiver| receiver != 0)
        .and_then(|receiver| Interface(receiver).parts())
        .map_or_else(any_interfaces, |(address, _)| interfaces_of(address))
}

/// The interfaces of a destination that nothing is known of.
fn any_interfaces() -> Interfaces {
    interfaces_of(Address {
        domain: 0,
        bus: 0,
        device: 0,
        function: 0,
    })
}
