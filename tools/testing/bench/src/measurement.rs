// SPDX-License-Identifier: GPL-2.0

//! What all measurements have in common, so that a further one is a module of its own and a line in
//! `main.rs`.

use std::fmt::Display;

use serde::Serialize;

use crate::{plot::Plot, series::Summary};

/// A figure by which a run is judged. The JSON file has it at its top.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The member's name.
    pub name: &'static str,
    /// The figure over all rounds.
    pub summary: Summary,
}

/// A measurement that was made: a table for people, an entry of the JSON file, plots.
pub trait Measurement: Serialize + Display {
    /// The entry's name.
    const NAME: &'static str;

    /// The figures that it gives.
    fn figures(&self) -> Vec<Figure>;

    /// What it looks like.
    fn plots(&self) -> Vec<Plot>;
}
