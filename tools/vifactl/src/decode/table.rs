// SPDX-License-Identifier: GPL-2.0

//! A stream or a save set as text, for people.
//!
//! One line per section, followed by its contents. Without `all`, long lists of address ranges and
//! data sections are shortened to the first ones and a sum.

use std::io::{self, Write};

use super::{
    section::{array, hexadecimal, Kind, Payload, Section},
    structure::{Fields, Notation, Value, RELATION},
    walk::{Outcome, Visitor},
    Show,
};
use crate::{headers as uapi, interface::Interface, save_set::SaveSet};

/// Maximum number of ranges shown per address section.
const RANGES: usize = 8;

/// Bytes per line of content.
const LINE: usize = 32;

/// Consecutive data sections.
struct Run {
    /// Offset of the first section in the file.
    offset: u64,
    first: u64,
    last: u64,
    bytes: u64,
}

/// Writes the text.
pub(super) struct Table<W> {
    out: W,
    content: bool,
    all: bool,
    run: Option<Run>,
}

impl<W: Write> Table<W> {
    /// Writes to `out`; `content` adds the contents of records, `all` disables shortening.
    pub(super) fn new(out: W, content: bool, all: bool) -> Self {
        Self {
            out,
            content,
            all,
            run: None,
        }
    }

    /// Writes one line per field.
    fn fields(&mut self, fields: &Fields<'_>) -> io::Result<()> {
        for (field, value) in fields.values() {
            writeln!(
                self.out,
                "{:14}{:18} {}",
                "",
                field.name(),
                text(field.notation(), &value)
            )?;
        }
        Ok(())
    }

    /// Writes a line for the item at `offset`.
    fn line(&mut self, offset: u64, text: &str) -> io::Result<()> {
        writeln!(self.out, "{offset:#012x}  {text}")
    }

    /// Writes the pending data sections.
    fn flush_run(&mut self) -> io::Result<()> {
        let Some(run) = self.run.take() else {
            return Ok(());
        };
        let sections = match run.last.saturating_sub(run.first) {
            0 => format!("{}", run.first),
            _ => format!("{}-{}", run.first, run.last),
        };

        self.line(
            run.offset,
            &format!("{sections} data: {} bytes of local memory", run.bytes),
        )
    }

    /// Writes the lines of a section's contents.
    fn payload(&mut self, section: &Section<'_>) -> io::Result<()> {
        match section.payload {
            Payload::Identity(Some(fields)) | Payload::End(Some(fields)) => self.fields(&fields),
            Payload::Relations(bytes) => self.relations(bytes),
            Payload::Address(Some(record), _) => {
                self.fields(&record)?;
                self.ranges(section)
            }
            Payload::Data(Some(run), bytes) => {
                let offset = run.integer("offset");

                writeln!(self.out, "{:14}{bytes} bytes at {offset:#x}", "")
            }
            Payload::Control(Some(resources), _) => {
                self.fields(&resources)?;
                self.records(section)
            }
            Payload::Claim(_) => self.records(section),
            Payload::Unread => self.fields(&section.header),
            _ => Ok(()),
        }
    }

    fn relations(&mut self, payload: &[u8]) -> io::Result<()> {
        for relation in array(&RELATION, payload) {
            let receiver = match relation.integer("receiver") {
                0 => "any receiver".to_owned(),
                receiver => Interface(receiver).to_string(),
            };

            writeln!(
                self.out,
                "{:14}{} -> {receiver}",
                "",
                Interface(relation.integer("output"))
            )?;
        }
        Ok(())
    }

    fn ranges(&mut self, section: &Section<'_>) -> io::Result<()> {
        let shown = if self.all { usize::MAX } else { RANGES };
        let left = section.ranges().skip(shown);

        for range in section.ranges().take(shown) {
            let (start, length) = (range.integer("start"), range.integer("length"));

            writeln!(
                self.out,
                "{:14}{start:#x} to {:#x}, {length} bytes{}",
                "",
                start.saturating_add(length),
                match range.integer("sequence") {
                    0 => String::new(),
                    sequence => format!(", from section {sequence} on"),
                }
            )?;
        }
        let (ranges, bytes) = left.fold((0_u64, 0_u64), |(ranges, bytes), range| {
            (
                ranges.saturating_add(1),
                bytes.saturating_add(range.integer("length")),
            )
        });
        if ranges > 0 {
            writeln!(self.out, "{:14}and {ranges} more, {bytes} bytes", "")?;
        }
        Ok(())
    }

    fn records(&mut self, section: &Section<'_>) -> io::Result<()> {
        for record in section.records() {
            let header = &record.header;
            let offset = section.record_offset(record.offset);
            let text = format!(
                "  {} {}, version {}: {} bytes",
                record_name(header.integer("type")),
                header.integer("index"),
                header.integer("version"),
                header.integer("length")
            );

            self.line(offset, &text)?;
            if self.content {
                for line in record.content.chunks(LINE) {
                    writeln!(self.out, "{:14}  {}", "", hexadecimal(line))?;
                }
            }
        }
        Ok(())
    }
}

/// Returns the name of a record type.
fn record_name(kind: u64) -> String {
    const NAMES: [(u32, &str); 4] = [
        (uapi::VIFA_RESOURCE_CONFIGURATION, "configuration"),
        (uapi::VIFA_RESOURCE_QUEUE, "queue"),
        (uapi::VIFA_RESOURCE_INTERRUPT, "interrupt"),
        (uapi::VIFA_RESOURCE_PRIVATE, "private"),
    ];

    NAMES
        .into_iter()
        .find(|(number, _)| u64::from(*number) == kind)
        .map_or_else(|| format!("record of type {kind}"), |(_, name)| name.into())
}

/// Formats the value of a field.
fn text(notation: Notation, value: &Value) -> String {
    let number = |number: &u64| match notation {
        Notation::Hexadecimal => format!("{number:#x}"),
        Notation::Count | Notation::Text => number.to_string(),
    };

    match value {
        Value::Integer(value) => number(value),
        Value::Array(values) => values.iter().map(number).collect::<Vec<_>>().join(" "),
        Value::Text(text) => text.escape_debug().to_string(),
    }
}

impl<W: Write> Visitor for Table<W> {
    fn stream(&mut self, offset: u64, header: Option<Fields<'_>>) -> io::Result<()> {
        self.line(offset, "stream header")?;
        match header {
            Some(header) => self.fields(&header),
            None => Ok(()),
        }
    }

    fn section(&mut self, section: &Section<'_>) -> io::Result<()> {
        let sequence = section.header.integer("sequence");

        if let (Payload::Data(Some(_), bytes), false) = (section.payload, self.all) {
            let run = self.run.get_or_insert(Run {
                offset: section.offset,
                first: sequence,
                last: sequence,
                bytes: 0,
            });

            run.last = sequence;
            run.bytes = run.bytes.saturating_add(bytes);
            return Ok(());
        }
        self.flush_run()?;
        let kind = match section.kind() {
            Kind::Unknown => format!("unknown, type {}", section.header.integer("type")),
            kind => kind.name().to_owned(),
        };
        let flag = match section.header.integer("flags") {
            flags if flags == u64::from(uapi::VIFA_SECTION_MANDATORY) => String::new(),
            0 => ", optional".to_owned(),
            flags => format!(", flags {flags:#x}"),
        };

        self.line(
            section.offset,
            &format!(
                "{sequence} {kind}: {} bytes from {}{flag}",
                section.length(),
                Interface(section.header.integer("interface")),
            ),
        )?;
        self.payload(section)
    }
}

impl<W: Write> Show for Table<W> {
    fn save_set(&mut self, header: Fields<'_>, save_set: Option<&SaveSet>) -> io::Result<()> {
        self.line(0, "save set header")?;
        self.fields(&header)?;
        let Some(save_set) = save_set else {
            return Ok(());
        };

        self.line(crate::save_set::HEADER_LENGTH as u64, "manifest")?;
        for line in serde_json::to_string_pretty(&save_set.manifest)?.lines() {
            writeln!(self.out, "{:14}{line}", "")?;
        }
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome) -> io::Result<()> {
        self.flush_run()?;
        let totals = &outcome.totals;
        let records: u64 = totals.records.iter().sum();

        writeln!(
            self.out,
            "{} bytes, {} sections; {} bytes of local memory in {} ranges; {} records, {} bytes",
            totals.stream_bytes,
            totals.sections,
            totals.data_bytes,
            totals.local_ranges,
            records,
            totals.record_bytes
        )?;
        if let Some(damage) = &outcome.damage {
            writeln!(self.out, "DAMAGED {damage}")?;
        }
        self.out.flush()
    }
}
