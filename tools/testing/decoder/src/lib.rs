// SPDX-License-Identifier: GPL-2.0

//! A second implementation of the stream, written from `Documentation/vifa/stream.rst` alone.
//!
//! The layer's tests, the fuzz targets and the tests of `vifactl decode` compare their results with
//! it. It shares neither code nor headers with the driver. [`decode`] reads a whole stream from
//! start to end. [`encoder`] composes valid and invalid streams.

#![forbid(unsafe_code)]

pub mod encoder;

use encoder::crc;

/// The state of a destination after a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Number of all sections.
    pub sections: u64,
    /// The output parties, control plane first.
    pub outputs: Vec<u64>,
    /// Number of ranges of local memory, and number of their bytes.
    pub local: (u64, u64),
    /// Number of ranges of guest memory, and number of their bytes.
    pub guest: (u64, u64),
    /// Runs of local memory with their offsets.
    pub runs: Vec<(u64, Vec<u8>)>,
    /// Number of records of each type.
    pub count: [u32; 16],
    /// The records.
    pub control: Vec<u8>,
    /// The records of each claim.
    pub claims: Vec<Vec<u8>>,
}

/// The properties of the destination on which the validity of a stream depends.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    identity: Identity,
    control_interface: u64,
}

impl Own {
    /// Describes a destination with the identity section payload `identity` and the control
    /// interface `control_interface`.
    ///
    /// # Panics
    ///
    /// Panics if `identity` has the wrong length.
    pub fn new(identity: &[u8], control_interface: u64) -> Self {
        let parsed = Identity::parse(identity);

        Self {
            identity: parsed.expect("an identity is 120 bytes long"),
            control_interface,
        }
    }
}

/// The fields of an identity section.
#[derive(Clone, Copy, Debug, Default)]
struct Identity {
    vendor: u64,
    device: u64,
    subsystem_vendor: u64,
    subsystem: u64,
    revision_id: u64,
    reserved0: u64,
    vifa_revision: u64,
    features: u64,
    bar_size: [u64; 6],
    interrupt_vectors: u64,
    queues: u64,
    granule: u64,
    local_memory: u64,
    control_plane_max: u64,
    reserved1: u64,
    record_version: [u64; 16],
}

impl Identity {
    fn parse(payload: &[u8]) -> Result<Self, String> {
        let mut fields = Input(payload);
        let mut identity = Self {
            vendor: fields.integer(2)?,
            device: fields.integer(2)?,
            subsystem_vendor: fields.integer(2)?,
            subsystem: fields.integer(2)?,
            revision_id: fields.integer(1)?,
            reserved0: fields.integer(1)?,
            vifa_revision: fields.integer(2)?,
            features: fields.integer(4)?,
            ..Self::default()
        };

        for size in &mut identity.bar_size {
            *size = fields.integer(8)?;
        }
        identity.interrupt_vectors = fields.integer(2)?;
        identity.queues = fields.integer(2)?;
        identity.granule = fields.integer(4)?;
        identity.local_memory = fields.integer(8)?;
        identity.control_plane_max = fields.integer(4)?;
        identity.reserved1 = fields.integer(4)?;
        for version in &mut identity.record_version {
            *version = fields.integer(2)?;
        }
        require(fields.0.is_empty(), "length")?;
        Ok(identity)
    }
}

/// Reads integers from the start of bytes.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], String> {
        if self.0.len() < count {
            return Err(format!("expected {count} bytes, got {}", self.0.len()));
        }
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(bytes)
    }

    fn integer(&mut self, count: usize) -> Result<u64, String> {
        let bytes = self.bytes(count)?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| (value << 8) | u64::from(byte)))
    }
}

fn require(condition: bool, what: &str) -> Result<(), String> {
    condition.then_some(()).ok_or(what.to_string())
}

/// A section with a valid header and valid checksums.
struct Section<'a> {
    kind: u64,
    mandatory: bool,
    interface: u64,
    payload: &'a [u8],
}

/// Reads sections one after another.
struct Reader<'a> {
    input: Input<'a>,
    /// All headers without their CRCs.
    headers: Vec<u8>,
    /// Number of these bytes before the last header.
    before: usize,
    sections: u64,
}

impl<'a> Reader<'a> {
    /// Reads the stream header.
    fn new(stream: &'a [u8]) -> Result<Self, String> {
        let mut input = Input(stream);
        let header = input.bytes(16)?;
        let mut fields = Input(header);

        require(fields.bytes(8)? == b"VIFASTRM", "magic")?;
        require(fields.integer(2)? == 1, "major")?;
        fields.integer(2)?;
        require(fields.integer(4)? == u64::from(crc(&header[..12])), "crc")?;
        Ok(Self {
            input,
            headers: header[..12].to_vec(),
            before: 12,
            sections: 0,
        })
    }

    fn section(&mut self) -> Result<Section<'a>, String> {
        let header = self.input.bytes(32)?;
        let mut fields = Input(header);
        let kind = fields.integer(2)?;
        let flags = fields.integer(2)?;
        let length = fields.integer(4)?;
        let interface = fields.integer(8)?;
        let sequence = fields.integer(8)?;
        let payload_crc = fields.integer(4)?;
        let header_crc = fields.integer(4)?;

        require(header_crc == u64::from(crc(&header[..28])), "header_crc")?;
        require(sequence == self.sections, "sequence")?;
        require(flags <= 1, "flags")?;
        require(length <= 0x10_0010, "length")?;
        let payload = self.input.bytes(length as usize)?;
        require(payload_crc == u64::from(crc(payload)), "payload_crc")?;
        self.before = self.headers.len();
        self.headers.extend(&header[..28]);
        self.sections += 1;
        Ok(Section {
            kind,
            mandatory: flags == 1,
            interface,
            payload,
        })
    }

    /// Reads a mandatory section of this type and interface, and returns its payload.
    fn expect(&mut self, kind: u64, interface: u64) -> Result<&'a [u8], String> {
        let section = self.section()?;

        require(section.kind == kind, "type")?;
        require(section.mandatory, "flags")?;
        require(section.interface == interface, "interface")?;
        Ok(section.payload)
    }
}

/// The last round and range in one kind of memory.
#[derive(Default)]
struct Order {
    round: Option<u64>,
    /// The end of the last range.
    end: Option<u64>,
}

/// The memory of the source, whose parts are read in their order.
struct Memory {
    source: Identity,
    /// The source's interface of the data plane.
    data: u64,
    local: Order,
    guest: Order,
}

impl Memory {
    fn new(source: Identity, data: u64) -> Self {
        Self {
            source,
            data,
            local: Order::default(),
            guest: Order::default(),
        }
    }

    /// Reads a part of the address record file and, for local memory, its data sections.
    fn part(
        &mut self,
        payload: &[u8],
        reader: &mut Reader<'_>,
        state: &mut State,
    ) -> Result<(), String> {
        let mut payload = Input(payload);

        match payload.integer(4)? {
            1 => {
                let sequence = Some(reader.sections);
                for (start, length) in part(payload, &mut self.local, &self.source, sequence)? {
                    state.local.0 += 1;
                    state.local.1 += length;
                    runs(reader, self.data, start, length, &mut state.runs)?;
                }
                Ok(())
            }
            2 => {
                for (_, length) in part(payload, &mut self.guest, &self.source, None)? {
                    state.guest.0 += 1;
                    state.guest.1 += length;
                }
                Ok(())
            }
            _ => Err("space".into()),
        }
    }
}

/// Returns the state of the destination `own` after `stream`.
pub fn decode(stream: &[u8], own: &Own) -> Result<State, String> {
    let mut reader = Reader::new(stream)?;
    let mut state = State::default();

    let first = reader.section()?;
    require(first.kind == 1 && first.mandatory, "identity first")?;
    let control = first.interface;
    require(control & 0xff00_00ff == 1, "control interface")?;
    let data = control + 1;
    let source = identity(first.payload, &own.identity)?;

    relations(reader.expect(2, control)?, [control, data], own)?;
    state.outputs = vec![control, data];

    let mut memory = Memory::new(source, data);
    loop {
        let section = reader.section()?;

        match section.kind {
            3 => {
                require(section.mandatory, "flags")?;
                require(section.interface == data, "interface")?;
                memory.part(section.payload, &mut reader, &mut state)?;
            }
            5 => {
                require(section.mandatory, "flags")?;
                require(section.interface == control, "interface")?;
                let (count, records) = resources(section.payload, &own.identity)?;
                state.count = count;
                state.control = records.to_vec();
                break;
            }
            7 => {
                require(!section.mandatory, "flags")?;
                require(section.interface == control, "interface")?;
                let length = section.payload.len() as u64;
                require(length <= own.identity.control_plane_max, "claim")?;
                records(section.payload, &own.identity)?;
                state.claims.push(section.payload.to_vec());
            }
            1 | 2 | 4 | 6 => return Err("order".into()),
            _ => unknown(&section, control)?,
        }
    }
    ending(reader, control, state)
}

/// Reads the sections after the control section, and returns the final state.
fn ending(mut reader: Reader<'_>, control: u64, mut state: State) -> Result<State, String> {
    loop {
        let section = reader.section()?;

        match section.kind {
            1..=5 | 7 => return Err("order after control".into()),
            6 => {
                require(section.mandatory, "flags")?;
                require(section.interface == control, "interface")?;
                end(section.payload, &reader, &state)?;
                require(reader.input.0.is_empty(), "excess")?;
                state.sections = reader.sections;
                return Ok(state);
            }
            _ => unknown(&section, control)?,
        }
    }
}

fn unknown(section: &Section<'_>, control: u64) -> Result<(), String> {
    require(!section.mandatory, "unknown mandatory section")?;
    require(
        [control, control + 1].contains(&section.interface),
        "interface",
    )
}

/// Reads the source's identity, and checks that the destination can replace the source.
fn identity(payload: &[u8], own: &Identity) -> Result<Identity, String> {
    let source = Identity::parse(payload)?;

    require(source.vendor == own.vendor, "vendor")?;
    require(source.device == own.device, "device")?;
    require(
        source.subsystem_vendor == own.subsystem_vendor,
        "subsystem_vendor",
    )?;
    require(source.subsystem == own.subsystem, "subsystem")?;
    require(source.revision_id == own.revision_id, "revision_id")?;
    require(source.reserved0 == 0, "reserved0")?;
    require(
        (1..=own.vifa_revision).contains(&source.vifa_revision),
        "vifa_revision",
    )?;
    require(source.features & !own.features == 0, "features")?;
    require(source.bar_size == own.bar_size, "bar_size")?;
    require(
        source.interrupt_vectors == own.interrupt_vectors,
        "interrupt_vectors",
    )?;
    require(source.queues <= own.queues, "queues")?;
    require(source.granule == own.granule, "granule")?;
    require(source.local_memory <= own.local_memory, "local_memory")?;
    if source.local_memory != 0 {
        require(source.features & 4 != 0, "local memory without the feature")?;
        require(source.local_memory % source.granule == 0, "local_memory")?;
    }
    require(
        (1..=own.control_plane_max).contains(&source.control_plane_max),
        "control_plane_max",
    )?;
    require(source.reserved1 == 0, "reserved1")?;
    for (version, own) in source.record_version.iter().zip(own.record_version) {
        require(*version <= own, "record_version")?;
    }
    Ok(source)
}

/// Checks the relations.
fn relations(payload: &[u8], outputs: [u64; 2], own: &Own) -> Result<(), String> {
    let receivers = [own.control_interface, own.control_interface + 1];
    let mut fields = Input(payload);

    for (plane, (output, receiver)) in (1..).zip(outputs.into_iter().zip(receivers)) {
        require(fields.integer(1)? == plane, "plane")?;
        require(fields.bytes(7)? == [0; 7], "reserved")?;
        require(fields.integer(8)? == output, "output")?;
        let found = fields.integer(8)?;
        require(found != output, "names itself")?;
        require(found == 0 || found == receiver, "receiver")?;
    }
    require(fields.0.is_empty(), "length")
}

/// Checks a part of the address record file from its second field on, and returns its ranges.
/// `sequence` is the number of the next section, if the ranges have data.
fn part(
    mut payload: Input<'_>,
    order: &mut Order,
    source: &Identity,
    mut sequence: Option<u64>,
) -> Result<Vec<(u64, u64)>, String> {
    let round = payload.integer(4)?;
    let granule = payload.integer(4)?;
    let count = payload.integer(4)?;
    let mut ranges = Vec::new();

    if sequence.is_some() {
        require(granule == source.granule && granule != 0, "granule")?;
        require(
            match order.round {
                None => round == 0,
                Some(last) => round == last || round == last + 1,
            },
            "round",
        )?;
        if order.round != Some(round) {
            order.end = None;
        }
        order.round = Some(round);
    } else {
        require(granule >= 0x1000 && granule.count_ones() == 1, "page")?;
        require(round == 0, "round of guest memory")?;
    }
    require((1..=1024).contains(&count), "count")?;
    require(payload.0.len() as u64 == 24 * count, "length")?;
    for _ in 0..count {
        let start = payload.integer(8)?;
        let length = payload.integer(8)?;

        require(start % granule == 0, "start")?;
        require(length % granule == 0 && length != 0, "length of range")?;
        let end = start.checked_add(length).ok_or("end of memory")?;
        require(order.end.is_none_or(|last| start > last), "order of ranges")?;
        order.end = Some(end);
        match &mut sequence {
            Some(sequence) => {
                require(end <= source.local_memory, "end of local memory")?;
                require(payload.integer(8)? == *sequence, "sequence of range")?;
                *sequence += length.div_ceil(0x10_0000);
            }
            None => require(payload.integer(8)? == 0, "sequence of guest memory")?,
        }
        ranges.push((start, length));
    }
    Ok(ranges)
}

/// Reads the data sections of a range.
fn runs(
    reader: &mut Reader<'_>,
    interface: u64,
    start: u64,
    length: u64,
    runs: &mut Vec<(u64, Vec<u8>)>,
) -> Result<(), String> {
    let end = start + length;
    let mut next = start;

    while next < end {
        let mut payload = Input(reader.expect(4, interface)?);

        require(payload.integer(8)? == next, "offset")?;
        let expected = (end - next).min(0x10_0000);
        require(payload.0.len() as u64 == expected, "length of run")?;
        runs.push((next, payload.0.to_vec()));
        next += expected;
    }
    Ok(())
}

/// Checks a resource abstraction structure. Returns the number of records of each type, and the
/// records.
fn resources<'a>(payload: &'a [u8], own: &Identity) -> Result<([u32; 16], &'a [u8]), String> {
    let mut fields = Input(payload);

    require(fields.integer(2)? == 1, "version")?;
    require(fields.integer(2)? == 2, "run_state")?;
    let number = fields.integer(4)?;
    let length = fields.integer(4)?;
    require(fields.integer(4)? == 0, "reserved")?;
    require(length == fields.0.len() as u64, "length of records")?;
    require(length <= own.control_plane_max, "control plane")?;
    let count = records(fields.0, own)?;
    require(u64::from(count.iter().sum::<u32>()) == number, "records")?;
    Ok((count, fields.0))
}

/// Checks a table of records and returns the number of records of each type.
fn records(table: &[u8], own: &Identity) -> Result<[u32; 16], String> {
    let mut table = Input(table);
    let mut next_index = [0; 16];
    let mut count = [0; 16];

    loop {
        let kind = table.integer(2)? as usize;
        let version = table.integer(2)?;
        let index = table.integer(4)?;
        let length = table.integer(4)? as usize;
        require(table.integer(4)? == 0, "reserved")?;
        require(kind < 16, "type")?;
        require(
            version >= 1 && version <= own.record_version[kind],
            "version",
        )?;
        require(index >= next_index[kind], "order of index")?;
        match kind {
            1 => require(index == 0, "index of configuration")?,
            2 => require(index < own.queues, "index of queue")?,
            3 => require(index < own.interrupt_vectors, "index of vector")?,
            _ => {}
        }
        next_index[kind] = index + 1;
        count[kind] += 1;
        table.bytes(length)?;
        let padding = table.bytes((8 - length % 8) % 8)?;
        require(padding.iter().all(|&byte| byte == 0), "padding")?;
        if table.0.is_empty() {
            return Ok(count);
        }
    }
}

/// Checks the totals.
fn end(payload: &[u8], reader: &Reader<'_>, state: &State) -> Result<(), String> {
    let data_bytes: usize = state.runs.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut fields = Input(payload);

    require(payload.len() == 32, "length")?;
    require(fields.integer(8)? == reader.sections - 1, "sections")?;
    require(fields.integer(8)? == data_bytes as u64, "data_bytes")?;
    require(
        fields.integer(8)? == state.control.len() as u64,
        "control_bytes",
    )?;
    let headers = &reader.headers[..reader.before];
    require(fields.integer(4)? == u64::from(crc(headers)), "headers_crc")?;
    require(fields.integer(4)? == 0, "reserved")
}
