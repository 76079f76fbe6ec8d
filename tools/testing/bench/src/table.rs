// SPDX-License-Identifier: GPL-2.0

//! Text tables: each row has a name, and a figure's median and spread.

use std::fmt;

use crate::series::Summary;

const NAME_WIDTH: usize = 34;
const COLUMN_WIDTH: usize = 11;

/// A table of figures in one unit.
pub struct Table {
    unit: String,
    digits: usize,
    rows: Vec<(String, Summary)>,
}

impl Table {
    /// Returns an empty table of figures in `unit`, which are printed with `digits` digits.
    pub fn new(unit: impl Into<String>, digits: usize) -> Self {
        Self {
            unit: unit.into(),
            digits,
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(mut self, name: impl Into<String>, summary: Summary) -> Self {
        self.rows.push((name.into(), summary));
        self
    }
}

impl Extend<(String, Summary)> for Table {
    fn extend<T: IntoIterator<Item = (String, Summary)>>(&mut self, rows: T) {
        self.rows.extend(rows);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const W: usize = COLUMN_WIDTH;
        writeln!(
            f,
            "{:<NAME_WIDTH$}{:>W$}{:>W$}{:>W$}",
            self.unit, "median", "min", "max"
        )?;
        let digits = self.digits;
        for (name, Summary { median, min, max }) in &self.rows {
            writeln!(
                f,
                "{name:<NAME_WIDTH$}{median:>W$.digits$}{min:>W$.digits$}{max:>W$.digits$}"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_in_columns() {
        let table = Table::new("MB/s", 1).row("save", Summary::of([1.0, 2.0, 40.0]));
        let text = table.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        for (heading, figure) in [("median", "2.0"), ("min", "1.0"), ("max", "40.0")] {
            let end = |line: &str, text: &str| line.find(text).map(|at| at + text.len());
            assert_eq!(end(lines[0], heading), end(lines[1], figure), "{text}");
        }
    }
}
