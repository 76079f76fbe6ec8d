// SPDX-License-Identifier: GPL-2.0

//! `vifactl decode`: a stream or a save set, as a table or JSON.

use std::path::PathBuf;

use anyhow::{bail, Result};

use crate::cli::Context;

/// Show what stands in a stream or a save set, and what is wrong with a damaged one
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A stream or a save set
    file: PathBuf,
}

/// Decodes the file.
pub(crate) fn run(arguments: &Arguments, _context: &Context) -> Result<()> {
    bail!("{}: not written yet", arguments.file.display())
}
