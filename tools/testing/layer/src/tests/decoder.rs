// SPDX-License-Identifier: GPL-2.0

//! Reads a whole stream from top to bottom, as the documentation says.

use super::encoder::crc;
use crate::{
    layer::{identity::Identity, tests::device::Device},
    seam::OutOfMemory,
};

/// What a destination has after a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Runs of local memory with their offsets.
    pub(crate) runs: Vec<(u64, Vec<u8>)>,
    /// The records.
    pub(crate) control: Vec<u8>,
}

impl State {
    /// Makes a device of this state.
    pub(crate) fn device(&self, identity: Identity) -> Result<Device, OutOfMemory> {
        use crate::layer::restore::Destination;

        let mut device = Device::new(identity)?;
        for (offset, bytes) in &self.runs {
            device.buffer()[..bytes.len()].copy_from_slice(bytes);
            device.write_local(*offset, bytes.len())?;
        }
        device.write_control(&self.control)?;
        Ok(device)
    }
}

/// Reads integers from the front of bytes.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], String> {
        if self.0.len() < count {
            return Err(format!("{count} bytes wanted, {} there", self.0.len()));
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

/// Returns what `stream` makes of a destination that is as `own` says.
pub(crate) fn decode(stream: &[u8], own: &Identity) -> Result<State, String> {
    let mut input = Input(stream);

    let header = input.bytes(16)?;
    let mut fields = Input(header);
    require(fields.bytes(8)? == b"VIFASTRM", "magic")?;
    require(fields.integer(2)? == 0, "major")?;
    fields.integer(2)?;
    require(fields.integer(4)? == u64::from(crc(&header[..12])), "crc")?;

    let mut headers = header[..12].to_vec();
    let mut sections = 0;
    let mut function = None;
    let mut granule = 0;
    let mut local_memory = 0;
    let mut next_offset = 0;
    let mut data_bytes = 0;
    let mut state = State {
        runs: Vec::new(),
        control: Vec::new(),
    };

    loop {
        let header = input.bytes(32)?;
        let mut fields = Input(header);
        let kind = fields.integer(2)?;
        let flags = fields.integer(2)?;
        let length = fields.integer(4)?;
        let interface = fields.integer(8)?;
        let sequence = fields.integer(8)?;
        let payload_crc = fields.integer(4)?;
        let header_crc = fields.integer(4)?;

        require(header_crc == u64::from(crc(&header[..28])), "header_crc")?;
        require(length <= 0x10_0008, "length")?;
        let payload = input.bytes(length as usize)?;
        require(payload_crc == u64::from(crc(payload)), "payload_crc")?;
        require(sequence == sections, "sequence")?;
        require(flags <= 1, "flags")?;
        let mandatory = flags == 1;

        let Some(function) = function else {
            require(kind == 1 && mandatory, "identity first")?;
            require(interface & 0xff00_00ff == 1, "control interface")?;
            (granule, local_memory) = identity(payload, own)?;
            function = Some(interface & !0xff);
            headers.extend(&header[..28]);
            sections += 1;
            continue;
        };
        match kind {
            1 => return Err("second identity".into()),
            2 => {
                require(mandatory, "flags")?;
                require(interface == function | 2, "interface")?;
                require(state.control.is_empty(), "data behind control")?;
                let mut payload = Input(payload);
                let offset = payload.integer(8)?;
                let bytes = payload.0;
                let length = bytes.len() as u64;
                require(local_memory != 0, "local memory")?;
                require(offset % granule == 0, "offset")?;
                require(offset >= next_offset, "order")?;
                require(length % granule == 0 && length != 0, "run")?;
                require(length <= local_memory, "length of run")?;
                require(offset <= local_memory - length, "end of run")?;
                next_offset = offset + length;
                data_bytes += length;
                state.runs.push((offset, bytes.to_vec()));
            }
            3 => {
                require(mandatory, "flags")?;
                require(interface == function | 1, "interface")?;
                require(state.control.is_empty(), "second control")?;
                require(length <= own.control_plane_max.into(), "control plane")?;
                records(payload, own)?;
                state.control = payload.to_vec();
            }
            4 => {
                require(mandatory, "flags")?;
                require(interface == function | 1, "interface")?;
                require(!state.control.is_empty(), "end before control")?;
                require(length == 32, "length")?;
                let mut payload = Input(payload);
                require(payload.integer(8)? == sections, "sections")?;
                require(payload.integer(8)? == data_bytes, "data_bytes")?;
                let control_bytes = state.control.len() as u64;
                require(payload.integer(8)? == control_bytes, "control_bytes")?;
                require(payload.integer(4)? == crc(&headers).into(), "headers_crc")?;
                require(payload.integer(4)? == 0, "reserved")?;
                require(input.0.is_empty(), "excess")?;
                return Ok(state);
            }
            _ => {
                require(!mandatory, "unknown mandatory section")?;
                require(
                    [function | 1, function | 2].contains(&interface),
                    "interface",
                )?;
            }
        }
        headers.extend(&header[..28]);
        sections += 1;
    }
}

/// Checks an identity and returns granule and local memory.
fn identity(payload: &[u8], own: &Identity) -> Result<(u64, u64), String> {
    let mut fields = Input(payload);

    require(payload.len() == 120, "length")?;
    require(fields.integer(2)? == own.vendor.into(), "vendor")?;
    require(fields.integer(2)? == own.device.into(), "device")?;
    require(
        fields.integer(2)? == own.subsystem_vendor.into(),
        "subsystem_vendor",
    )?;
    require(fields.integer(2)? == own.subsystem.into(), "subsystem")?;
    require(fields.integer(1)? == own.revision_id.into(), "revision_id")?;
    require(fields.integer(1)? == 0, "reserved0")?;
    let revision = fields.integer(2)?;
    require(
        revision >= 1 && revision <= own.vifa_revision.into(),
        "vifa_revision",
    )?;
    let features = fields.integer(4)?;
    require(features & !u64::from(own.features) == 0, "features")?;
    for size in own.bar_size {
        require(fields.integer(8)? == size, "bar_size")?;
    }
    require(
        fields.integer(2)? == own.interrupt_vectors.into(),
        "interrupt_vectors",
    )?;
    require(fields.integer(2)? <= own.queues.into(), "queues")?;
    let granule = fields.integer(4)?;
    require(granule == own.granule.into(), "granule")?;
    let local_memory = fields.integer(8)?;
    require(local_memory <= own.local_memory, "local_memory")?;
    if local_memory != 0 {
        require(features & 4 != 0, "local memory without the feature")?;
        require(local_memory % granule == 0, "local_memory")?;
    }
    let control_plane_max = fields.integer(4)?;
    require(
        control_plane_max >= 1 && control_plane_max <= own.control_plane_max.into(),
        "control_plane_max",
    )?;
    require(fields.integer(4)? == 0, "reserved1")?;
    for version in own.record_version {
        require(fields.integer(2)? <= version.into(), "record_version")?;
    }
    Ok((granule, local_memory))
}

/// Checks a table of records.
fn records(table: &[u8], own: &Identity) -> Result<(), String> {
    let mut table = Input(table);
    let mut next_index = [0; 16];

    loop {
        let kind = table.integer(2)? as usize;
        let version = table.integer(2)?;
        let index = table.integer(4)?;
        let length = table.integer(4)? as usize;
        require(table.integer(4)? == 0, "reserved")?;
        require(kind < 16, "type")?;
        require(
            version >= 1 && version <= own.record_version[kind].into(),
            "version",
        )?;
        require(index >= next_index[kind], "index")?;
        next_index[kind] = index + 1;
        table.bytes(length)?;
        let padding = table.bytes((8 - length % 8) % 8)?;
        require(padding.iter().all(|&byte| byte == 0), "padding")?;
        if table.0.is_empty() {
            return Ok(());
        }
    }
}
