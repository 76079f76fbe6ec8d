// SPDX-License-Identifier: GPL-2.0

//! Surgery on migration streams: taking one apart, changing it, and closing it up so that only what
//! was changed is wrong.

use std::mem::offset_of;

use anyhow::{bail, Context, Result};

use crate::{
    engine::crc32c,
    hw::{vifa_section_header, vifa_stream_end, vifa_stream_header, VIFA_SECTION_END},
    sys::{bytes_of, value_of, Plain},
};

/// A section: its header and what follows it.
#[derive(Clone, Debug)]
pub struct Section {
    pub header: vifa_section_header,
    pub payload: Vec<u8>,
}

impl Section {
    /// The section's type.
    pub fn kind(&self) -> u32 {
        self.header.type_.into()
    }
}

/// A stream in its parts.
#[derive(Clone, Debug)]
pub struct Stream {
    pub header: vifa_stream_header,
    pub sections: Vec<Section>,
}

fn take<'a>(rest: &mut &'a [u8], length: usize, what: &str) -> Result<&'a [u8]> {
    if rest.len() < length {
        bail!("expected {length} bytes of {what}, got {}", rest.len());
    }
    let (taken, left) = rest.split_at(length);
    *rest = left;
    Ok(taken)
}

fn take_value<T: Plain>(rest: &mut &[u8], what: &str) -> Result<T> {
    let bytes = take(rest, size_of::<T>(), what)?;
    value_of(bytes).context(what.to_owned())
}

impl Stream {
    /// Takes `bytes` apart.
    pub fn parse(mut bytes: &[u8]) -> Result<Self> {
        let rest = &mut bytes;
        let header = take_value(rest, "stream header")?;
        let mut sections = Vec::new();
        while !rest.is_empty() {
            let header: vifa_section_header = take_value(rest, "section header")?;
            let payload = take(rest, header.length as usize, "payload")?.to_vec();
            sections.push(Section { header, payload });
        }
        Ok(Self { header, sections })
    }

    /// The payload of the first section of the type `kind`.
    pub fn payload(&mut self, kind: u32) -> Result<&mut Vec<u8>> {
        Ok(&mut self
            .sections
            .iter_mut()
            .find(|section| section.kind() == kind)
            .with_context(|| format!("the stream has no section of type {kind}"))?
            .payload)
    }

    /// The sections of the type `kind`.
    pub fn of_kind(&self, kind: u32) -> impl Iterator<Item = &Section> {
        self.sections
            .iter()
            .filter(move |section| section.kind() == kind)
    }

    /// Where each part begins, in bytes from the start, and the end.
    pub fn borders(&self) -> Vec<usize> {
        let mut borders = vec![0];
        let mut at = size_of::<vifa_stream_header>();
        for section in &self.sections {
            borders.push(at);
            at += size_of::<vifa_section_header>();
            borders.push(at);
            at += section.payload.len();
        }
        borders.push(at);
        borders.dedup();
        borders
    }

    /// The bytes of the stream as its parts are now, with lengths, sequence numbers and CRCs made
    /// right.
    pub fn seal(&self) -> Vec<u8> {
        self.encode(true)
    }

    /// As [`Self::seal`], but the end section's CRC of all headers stays as it is.
    pub fn seal_parts(&self) -> Vec<u8> {
        self.encode(false)
    }

    fn encode(&self, whole: bool) -> Vec<u8> {
        let mut header = self.header;
        let sealed = &bytes_of(&self.header)[..offset_of!(vifa_stream_header, crc)];
        let mut headers = crc32c(0, sealed);
        header.crc = headers;
        let mut bytes = bytes_of(&header).to_vec();
        for (sequence, section) in self.sections.iter().enumerate() {
            let mut header = section.header;
            let mut payload = section.payload.clone();
            if whole && section.kind() == VIFA_SECTION_END {
                if let Some(mut end) = value_of::<vifa_stream_end>(&payload) {
                    end.headers_crc = headers;
                    payload[..size_of::<vifa_stream_end>()].copy_from_slice(bytes_of(&end));
                }
            }
            header.length = payload.len() as u32;
            header.sequence = sequence as u64;
            header.payload_crc = crc32c(0, &payload);
            let sealed = &bytes_of(&header)[..offset_of!(vifa_section_header, header_crc)];
            headers = crc32c(headers, sealed);
            header.header_crc = crc32c(0, sealed);
            bytes.extend_from_slice(bytes_of(&header));
            bytes.extend_from_slice(&payload);
        }
        bytes
    }
}
