// SPDX-License-Identifier: GPL-2.0

//! Output of a command: a table for people, or JSON for programs.

use std::{
    fmt,
    io::{self, Write},
};

use anyhow::{Context, Result};
use serde::Serialize;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Text for people, from the result's `Display`.
    Text,
    /// JSON for programs, from the result's `Serialize`.
    Json,
}

impl Output {
    /// Prints `result` to standard output.
    ///
    /// # Errors
    ///
    /// The result cannot be written.
    pub fn print<T: Serialize + fmt::Display>(self, result: &T) -> Result<()> {
        match self {
            Self::Text => print_bytes(result.to_string().as_bytes()),
            Self::Json => {
                print_bytes(format!("{}\n", serde_json::to_string_pretty(result)?).as_bytes())
            }
        }
    }

    /// Prints `result` to standard output as one line of text or JSON.
    ///
    /// # Errors
    ///
    /// The line cannot be written.
    pub fn print_line<T: Serialize + fmt::Display>(self, result: &T) -> Result<()> {
        let line = match self {
            Self::Text => result.to_string(),
            Self::Json => serde_json::to_string(result)?,
        };

        print_bytes(format!("{line}\n").as_bytes())
    }

    /// Prints the heading of lines of text.
    ///
    /// # Errors
    ///
    /// The heading cannot be written.
    pub fn print_head(self, head: &str) -> Result<()> {
        match self {
            Self::Text => print_bytes(format!("{head}\n").as_bytes()),
            Self::Json => Ok(()),
        }
    }
}

/// The reader of standard output has closed it.
#[derive(Debug)]
pub struct ReaderGone;

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output was closed by its reader")
    }
}

impl std::error::Error for ReaderGone {}

/// Prints `bytes` to standard output.
///
/// # Errors
///
/// The bytes cannot be written; [`ReaderGone`] if the reader closed the pipe.
pub fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();

    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        result => result.context("standard output"),
    }
}

/// Rows of cells, printed in aligned columns.
#[derive(Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns a table with this first row.
    pub fn with_head(head: &[&str]) -> Self {
        let mut table = Self::default();

        table.row(head);
        table
    }

    /// Adds a row. An empty cell is shown as `-`.
    pub fn row<T: ToString>(&mut self, cells: &[T]) {
        self.rows.push(
            cells
                .iter()
                .map(|cell| match cell.to_string() {
                    text if text.is_empty() => "-".to_owned(),
                    text => text,
                })
                .collect(),
        );
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));

            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();

        for row in &self.rows {
            let mut line = String::new();

            for (cell, width) in row.iter().zip(&widths) {
                line += &format!("{cell:width$}  ");
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_cells_shown() {
        let mut table = Table::with_head(&["A", "LONG"]);

        table.row(&["abc", ""]);
        assert_eq!(table.to_string(), "A    LONG\nabc  -\n");
    }
}
