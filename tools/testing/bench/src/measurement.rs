// SPDX-License-Identifier: GPL-2.0

//! The interface of all measurements. A new measurement requires a module and a line in `main.rs`.

use std::fmt::Display;

use serde::Serialize;

use crate::{plot::Plot, series::Summary};

/// A figure that summarizes a run. It is at the top level of the JSON file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The name of the JSON member.
    pub name: &'static str,
    /// The figure over all rounds.
    pub summary: Summary,
}

/// A complete measurement: a table, an entry of the JSON file, and plots.
pub trait Measurement: Serialize + Display {
    /// The name of the JSON entry.
    const NAME: &'static str;

    /// Returns its figures.
    fn figures(&self) -> Vec<Figure>;

    /// Returns its plots.
    fn plots(&self) -> Vec<Plot>;
}
