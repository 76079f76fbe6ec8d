// SPDX-License-Identifier: GPL-2.0

//! A file with a stream, alone or in a save set.
//!
//! An opened file can be read repeatedly: a stream from standard input is first copied to an
//! unnamed temporary file.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use anyhow::{Context, Result};

use crate::{
    decode::{
        damage::Damage,
        walk::{self, Source},
    },
    exit::Exit,
    interrupt,
    save_set::{self, Header, ReadError, SaveSet},
};

/// Bytes per read.
pub(crate) const BUFFER: usize = 0x10_0000;

/// A file with a stream.
pub(crate) struct StreamFile {
    name: String,
    file: File,
    save_set: Option<SaveSet>,
    /// The offset of the stream, and its length in bytes.
    offset: u64,
    length: u64,
}

impl StreamFile {
    /// Opens the file at `path`; `-` is standard input. For a save set, validates header, manifest
    /// and file length.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is damaged.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            let file = spool(io::stdin().lock()).context("standard input")?;

            return Self::of(file, "standard input".to_owned());
        }
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| name.clone())?;

        if file.metadata().with_context(|| name.clone())?.is_file() {
            Self::of(file, name)
        } else {
            let file = spool(file).with_context(|| name.clone())?;

            Self::of(file, name)
        }
    }

    /// Like [`Self::open`], for a seekable file with the name `name`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is damaged.
    pub(crate) fn of(mut file: File, name: String) -> Result<Self> {
        let end = file.seek(SeekFrom::End(0)).with_context(|| name.clone())?;

        file.rewind().with_context(|| name.clone())?;
        let save_set = read_save_set(&mut file, end).map_err(|error| match error {
            ReadError::Damaged(damage) => damaged(&name, &damage),
            ReadError::Input(error) => anyhow::Error::from(error).context(name.clone()),
        })?;
        let (offset, length) = match &save_set {
            Some(save_set) => (save_set.stream_offset, save_set.stream_length),
            None => (0, end),
        };

        Ok(Self {
            name,
            file,
            save_set,
            offset,
            length,
        })
    }

    /// Returns the file's name for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the save set that contains the stream; `None` for a stream alone.
    pub(crate) fn save_set(&self) -> Option<&SaveSet> {
        self.save_set.as_ref()
    }

    /// Returns the offset of the stream in the file.
    pub(crate) fn stream_offset(&self) -> u64 {
        self.offset
    }

    /// Returns the length of the stream in bytes.
    pub(crate) fn stream_length(&self) -> u64 {
        self.length
    }

    /// Returns the stream from its first byte.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub(crate) fn stream(&mut self) -> Result<impl Read + '_> {
        self.file
            .seek(SeekFrom::Start(self.offset))
            .with_context(|| self.name.clone())?;
        Ok(BufReader::with_capacity(BUFFER, &self.file).take(self.length))
    }

    /// Returns the source of the stream from its first sections; does not read the rest.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or these sections are damaged.
    pub(crate) fn source(&mut self) -> Result<Source> {
        let offset = self.offset;
        let head = walk::head(&mut self.stream()?, offset);
        let source = head
            .with_context(|| self.name.clone())?
            .map_err(|damage| damaged(&self.name, &damage))?;

        if let Some(save_set) = &self.save_set {
            save_set
                .manifest
                .validate_source(
                    &source.identity,
                    source.interface,
                    save_set::HEADER_LENGTH as u64,
                )
                .map_err(|damage| damaged(&self.name, &damage))?;
        }
        Ok(source)
    }
}

/// Returns the error for `damage` in the file `name`.
pub(crate) fn damaged(name: &str, damage: &Damage) -> anyhow::Error {
    Exit::Damaged.because(format!("{name}: {damage}")).into()
}

/// Reads the start of a file of `length` bytes; returns `None` if it is not a save set.
fn read_save_set(mut file: &mut File, length: u64) -> Result<Option<SaveSet>, ReadError> {
    let mut magic = Vec::new();

    (&mut file)
        .take(save_set::magic().len() as u64)
        .read_to_end(&mut magic)?;
    if magic != save_set::magic() {
        return Ok(None);
    }
    let mut input = magic.as_slice().chain(file);
    let header = Header::read(&mut input)?;

    header.validate()?;
    header.validate_length(length)?;
    header.read_manifest(input).map(Some)
}

/// Copies `input` to an unnamed temporary file.
///
/// # Errors
///
/// A read or a write failed, or a signal requested termination.
pub(crate) fn spool(mut input: impl Read) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    let mut buffer = vec![0; BUFFER];

    loop {
        let length = interrupt::read(&mut input, &mut buffer)?;

        if length == 0 {
            return Ok(file);
        }
        io::Write::write_all(&mut file, buffer.get(..length).unwrap_or_default())?;
    }
}
