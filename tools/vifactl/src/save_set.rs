// SPDX-License-Identifier: GPL-2.0

//! Save sets: files with a device's stream and a manifest that describes its origin.
//!
//! `struct vifa_save_set_header` of the uAPI header is at the start of the file, followed by the
//! [`manifest`]. `Documentation/vifa/save-set.rst` specifies both. The kernel does not use save
//! sets: it produces and accepts only the stream.

mod manifest;
mod timestamp;

pub(crate) use manifest::{Driver, Host, Interfaces, Manifest, Stream, Version, VirtualFunction};
pub(crate) use timestamp::timestamp;

use std::{
    fmt,
    io::{self, Read},
};

use serde::Serialize;

use crate::{
    decode::{
        damage::{Damage, Found},
        structure::{Fields, SAVE_SET_HEADER},
    },
    headers as uapi,
    layer::stream::Checksum,
};

/// Bytes of the header.
pub(crate) const HEADER_LENGTH: usize = SAVE_SET_HEADER.length;

/// Bytes of the header that its CRC covers.
const HEADER_COVERED: usize = HEADER_LENGTH - size_of::<u32>();

/// Returns the first bytes of every save set.
pub(crate) fn magic() -> &'static [u8] {
    magic_of(uapi::VIFA_SAVE_SET_MAGIC)
}

/// Returns the characters of a magic constant of the header, without the final NUL.
pub(crate) fn magic_of(constant: &'static [u8]) -> &'static [u8] {
    constant.strip_suffix(b"\0").unwrap_or(constant)
}

/// A save set without its stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SaveSet {
    /// The manifest.
    pub(crate) manifest: Manifest,
    /// Offset of the stream in the file, in bytes.
    pub(crate) stream_offset: u64,
    /// Length of the stream in bytes.
    pub(crate) stream_length: u64,
}

/// The reason for which a save set could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// The file could not be read.
    Input(io::Error),
    /// The file is not a valid save set.
    Damaged(Damage),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(error) => error.fmt(f),
            Self::Damaged(damage) => damage.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Input(error)
    }
}

impl From<Damage> for ReadError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

/// The header of a save set, as bytes.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    bytes: Vec<u8>,
}

impl Header {
    /// Reads the header from the start of `input`, valid or not; it is short if `input` is.
    pub(crate) fn read(input: impl Read) -> io::Result<Self> {
        let mut bytes = Vec::with_capacity(HEADER_LENGTH);

        input.take(HEADER_LENGTH as u64).read_to_end(&mut bytes)?;
        Ok(Self { bytes })
    }

    /// Returns the fields; `None` if the header is incomplete.
    pub(crate) fn fields(&self) -> Option<Fields<'_>> {
        Fields::at(&SAVE_SET_HEADER, &self.bytes)
    }

    /// Checks the header.
    ///
    /// # Errors
    ///
    /// The first invalid field.
    pub(crate) fn validate(&self) -> Result<(), Damage> {
        const PART: &str = "save set header";
        let Some(fields) = self.fields() else {
            return Err(Damage::of_part(
                self.bytes.len() as u64,
                PART,
                "the file ends here",
            ));
        };
        let check = |holds: bool, field: &str, expected: String| {
            holds.then_some(()).ok_or_else(|| {
                Damage::of_field(
                    SAVE_SET_HEADER.offset_of(field).unwrap_or(0),
                    PART,
                    field,
                    expected,
                    Found::Number(fields.integer(field)),
                )
            })
        };

        if !self.bytes.starts_with(magic()) {
            let found = self.bytes.get(..magic().len()).unwrap_or_default();

            return Err(Damage::of_field(
                0,
                PART,
                "magic",
                format_args!("{:?}", String::from_utf8_lossy(magic())),
                Found::Text(String::from_utf8_lossy(found).into()),
            ));
        }
        let crc = Checksum::of(self.bytes.get(..HEADER_COVERED).unwrap_or_default());
        check(
            fields.integer("header_crc") == u64::from(crc),
            "header_crc",
            format!("{crc:#x}"),
        )?;
        check(
            fields.integer("major") == u64::from(uapi::VIFA_SAVE_SET_MAJOR),
            "major",
            format!("{}", uapi::VIFA_SAVE_SET_MAJOR),
        )?;
        check(
            (1..=u64::from(uapi::VIFA_MANIFEST_MAX)).contains(&self.manifest_length()),
            "manifest_length",
            format!("1 to {:#x}", uapi::VIFA_MANIFEST_MAX),
        )?;
        check(
            self.end().is_some(),
            "stream_length",
            "a length that a file can have".to_owned(),
        )
    }

    fn integer(&self, field: &str) -> u64 {
        self.fields().map_or(0, |fields| fields.integer(field))
    }

    /// Returns the length of the manifest in bytes.
    fn manifest_length(&self) -> u64 {
        self.integer("manifest_length")
    }

    /// Returns the length of the stream in bytes.
    pub(crate) fn stream_length(&self) -> u64 {
        self.integer("stream_length")
    }

    /// Returns the offset of the stream in the file.
    fn stream_offset(&self) -> u64 {
        (HEADER_LENGTH as u64).saturating_add(self.manifest_length())
    }

    /// Returns the length of the file; `None` if no file can have it.
    fn end(&self) -> Option<u64> {
        self.stream_offset()
            .checked_add(self.stream_length())
            .filter(|&end| i64::try_from(end).is_ok())
    }

    /// Reads the manifest from `input`, which begins after the header. The header must be valid.
    ///
    /// # Errors
    ///
    /// Reading failed, or the manifest is damaged.
    pub(crate) fn read_manifest(&self, input: impl Read) -> Result<SaveSet, ReadError> {
        const PART: &str = "manifest";
        let start = HEADER_LENGTH as u64;
        let length = self.manifest_length();
        let mut bytes = Vec::new();

        input.take(length).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < length {
            let end = start.saturating_add(bytes.len() as u64);

            return Err(Damage::of_part(end, PART, "the file ends here").into());
        }
        let crc = Checksum::of(&bytes);
        if self.integer("manifest_crc") != u64::from(crc) {
            return Err(Damage::of_field(
                SAVE_SET_HEADER.offset_of("manifest_crc").unwrap_or(0),
                "save set header",
                "manifest_crc",
                format_args!("{crc:#x}"),
                Found::Number(self.integer("manifest_crc")),
            )
            .into());
        }
        let manifest = Manifest::parse(&bytes, start)?;
        if manifest.stream.bytes != self.stream_length() {
            return Err(Damage::of_field(
                start,
                PART,
                "stream.bytes",
                format_args!("{:#x}, as the header has it", self.stream_length()),
                Found::Number(manifest.stream.bytes),
            )
            .into());
        }
        Ok(SaveSet {
            manifest,
            stream_offset: self.stream_offset(),
            stream_length: self.stream_length(),
        })
    }

    /// Checks that a file of `length` bytes matches this header.
    ///
    /// # Errors
    ///
    /// The file has another length.
    pub(crate) fn validate_length(&self, length: u64) -> Result<(), Damage> {
        let start = self.stream_offset();

        if self.end() == Some(length) {
            return Ok(());
        }
        Err(Damage::of_field(
            SAVE_SET_HEADER.offset_of("stream_length").unwrap_or(0),
            "save set header",
            "stream_length",
            match length.checked_sub(start) {
                Some(left) => format!("{left:#x}, the bytes after the manifest"),
                None => "less than the file holds".to_owned(),
            },
            Found::Number(self.stream_length()),
        ))
    }

    /// Returns the header of a save set with this manifest and a stream of `stream_length` bytes.
    pub(crate) fn encode(manifest: &[u8], stream_length: u64) -> Vec<u8> {
        let mut bytes = magic().to_vec();

        // CAST: Both are small, and the writer limits the manifest.
        bytes.extend((uapi::VIFA_SAVE_SET_MAJOR as u16).to_le_bytes());
        bytes.extend((uapi::VIFA_SAVE_SET_MINOR as u16).to_le_bytes());
        bytes.extend((manifest.len() as u32).to_le_bytes());
        bytes.extend(stream_length.to_le_bytes());
        bytes.extend(Checksum::of(manifest).to_le_bytes());
        bytes.extend(Checksum::of(&bytes).to_le_bytes());
        bytes
    }
}

impl SaveSet {
    /// Reads the start of a save set from `input`, up to the stream. Memory use is at most a small
    /// multiple of `VIFA_MANIFEST_MAX`.
    ///
    /// # Errors
    ///
    /// Reading failed, or the data is damaged.
    pub fn read(mut input: impl Read) -> Result<Self, ReadError> {
        let header = Header::read(&mut input)?;

        header.validate()?;
        header.read_manifest(input)
    }

    /// Like [`Self::read`], from the bytes of a whole file; also returns the stream.
    ///
    /// # Errors
    ///
    /// The file is damaged, or its length does not match the header. The stream is not validated.
    pub fn parse(file: &[u8]) -> Result<(Self, &[u8]), ReadError> {
        let mut rest = file;
        let header = Header::read(&mut rest)?;

        header.validate()?;
        header.validate_length(file.len() as u64)?;
        Ok((header.read_manifest(&mut rest)?, rest))
    }
}

#[cfg(test)]
mod tests;
