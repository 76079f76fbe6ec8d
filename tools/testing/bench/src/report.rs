// SPDX-License-Identifier: GPL-2.0

//! The JSON file, with the figures of a run followed by their details; and the plots.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{json, Map, Value};

use crate::{environment::Environment, measurement::Measurement, plot::Plot};

/// The figures of a whole run.
const FIGURES: [&str; 6] = [
    "report_full_vs_floor",
    "report_idle_1tib_vs_16gib",
    "save_vs_memfd",
    "restore_vs_memfd",
    "precopy_downtime_removed",
    "save_64vf_vs_1vf",
];

/// A run.
pub struct Report {
    members: Map<String, Value>,
    spread: Map<String, Value>,
    plots: Vec<Plot>,
}

impl Report {
    /// Creates the report of a run in `environment`.
    pub fn new(environment: &Environment) -> Result<Self> {
        let environment = serde_json::to_value(environment)?;
        Ok(Self {
            members: Map::from_iter([("environment".to_owned(), environment)]),
            spread: Map::new(),
            plots: Vec::new(),
        })
    }

    /// Adds `measurement`.
    pub fn add<M: Measurement>(&mut self, measurement: &M) -> Result<()> {
        for figure in measurement.figures() {
            let summary = figure.summary;
            self.members
                .insert(figure.name.to_owned(), json!(summary.median));
            self.spread.insert(
                figure.name.to_owned(),
                json!({ "min": summary.min, "max": summary.max }),
            );
        }
        self.members
            .insert(M::NAME.to_owned(), serde_json::to_value(measurement)?);
        self.plots.extend(measurement.plots());
        Ok(())
    }

    /// Returns the figures of a complete run that this run lacks.
    pub fn missing(&self) -> Vec<&'static str> {
        let missing = |name: &&str| !self.spread.contains_key(*name);
        FIGURES.into_iter().filter(missing).collect()
    }

    /// Writes each plot to NAME.svg in `directory`.
    pub fn write_plots(&self, directory: &Path) -> Result<()> {
        for plot in &self.plots {
            let path = directory.join(plot.name).with_extension("svg");
            fs::write(&path, plot.draw()?).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    /// Returns the contents of the JSON file.
    pub fn into_json(self) -> Value {
        let mut members = self.members;
        members.insert("spread".to_owned(), Value::Object(self.spread));
        Value::Object(members)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use serde::Serialize;

    use super::*;
    use crate::{measurement::Figure, series::Summary};

    #[derive(Serialize)]
    struct Example {
        rounds: usize,
    }

    impl fmt::Display for Example {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table")
        }
    }

    impl Measurement for Example {
        const NAME: &'static str = "example";

        fn figures(&self) -> Vec<Figure> {
            vec![Figure {
                name: "save_vs_memfd",
                summary: Summary::of([1.0, 2.0, 4.0]),
            }]
        }

        fn plots(&self) -> Vec<Plot> {
            Vec::new()
        }
    }

    fn environment() -> Environment {
        Environment {
            processor: "P".into(),
            accelerator: "TCG".into(),
            kernel: "K".into(),
            cpus: 2,
            date: "D".into(),
        }
    }

    #[test]
    fn figures_are_at_the_top_level_with_their_spread() {
        let mut report = Report::new(&environment()).unwrap();
        report.add(&Example { rounds: 3 }).unwrap();
        let json = report.into_json();

        assert_eq!(json["save_vs_memfd"], 2.0);
        assert_eq!(json["spread"]["save_vs_memfd"]["min"], 1.0);
        assert_eq!(json["spread"]["save_vs_memfd"]["max"], 4.0);
        assert_eq!(json["environment"]["accelerator"], "TCG");
        assert_eq!(json["example"]["rounds"], 3);
    }

    #[test]
    fn figures_that_were_not_measured_are_missing() {
        let mut report = Report::new(&environment()).unwrap();
        assert_eq!(report.missing(), FIGURES);
        report.add(&Example { rounds: 3 }).unwrap();
        let missing = report.missing();
        assert_eq!(missing.len(), FIGURES.len() - 1);
        assert!(!missing.contains(&"save_vs_memfd"), "{missing:?}");
    }
}
