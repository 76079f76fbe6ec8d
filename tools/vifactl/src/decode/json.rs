// SPDX-License-Identifier: GPL-2.0

//! A stream or a save set as JSON, for programs.
//!
//! One JSON object, written while the file is read. Memory use is bounded by the longest section.
//! `Documentation/vifa/save-set.rst` has the schema.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    section::Section,
    structure::Fields,
    walk::{Outcome, Visitor},
    Show,
};
use crate::save_set::SaveSet;

/// Version of the schema. A minor version only adds members.
const MAJOR: u16 = 1;
const MINOR: u16 = 1;

/// Writes the object.
pub(super) struct Json<W> {
    out: W,
    /// Whether the contents of records are written.
    content: bool,
    /// Number of sections so far.
    sections: u64,
    stream: bool,
}

#[derive(Serialize)]
struct Version {
    major: u16,
    minor: u16,
}

impl<W: Write> Json<W> {
    /// Begins the object for the file named `file`.
    pub(super) fn begin(mut out: W, file: &str, content: bool) -> io::Result<Self> {
        write!(out, "{{\"decode\":")?;
        serde_json::to_writer(
            &mut out,
            &Version {
                major: MAJOR,
                minor: MINOR,
            },
        )?;
        let mut json = Self {
            out,
            content,
            sections: 0,
            stream: false,
        };

        json.member("file", &file)?;
        Ok(json)
    }

    /// Adds a member to the object.
    fn member(&mut self, name: &str, value: &impl Serialize) -> io::Result<()> {
        write!(self.out, ",\n\"{name}\":")?;
        Ok(serde_json::to_writer(&mut self.out, value)?)
    }
}

impl<W: Write> Visitor for Json<W> {
    fn stream(&mut self, offset: u64, header: Option<Fields<'_>>) -> io::Result<()> {
        #[derive(Serialize)]
        struct Stream<'a> {
            offset: u64,
            header: Option<Fields<'a>>,
        }

        self.member("stream", &Stream { offset, header })?;
        self.stream = true;
        write!(self.out, ",\n\"sections\":[")
    }

    fn section(&mut self, section: &Section<'_>) -> io::Result<()> {
        let separator = if self.sections == 0 { "\n" } else { ",\n" };

        self.sections = self.sections.saturating_add(1);
        write!(self.out, "{separator}")?;
        Ok(serde_json::to_writer(
            &mut self.out,
            &section.to_json(self.content),
        )?)
    }
}

impl<W: Write> Show for Json<W> {
    fn save_set(&mut self, header: Fields<'_>, save_set: Option<&SaveSet>) -> io::Result<()> {
        #[derive(Serialize)]
        struct Contents<'a> {
            header: Fields<'a>,
            manifest: Option<&'a crate::save_set::Manifest>,
        }

        self.member(
            "save_set",
            &Contents {
                header,
                manifest: save_set.map(|save_set| &save_set.manifest),
            },
        )
    }

    fn end(&mut self, outcome: &Outcome) -> io::Result<()> {
        if self.stream {
            write!(self.out, "\n]")?;
        }
        self.member("totals", &outcome.totals)?;
        self.member("damage", &outcome.damage)?;
        writeln!(self.out, "\n}}")?;
        self.out.flush()
    }
}
