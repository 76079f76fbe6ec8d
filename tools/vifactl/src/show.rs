// SPDX-License-Identifier: GPL-2.0

use anyhow::{bail, Result};

use crate::cli::Context;

#[derive(clap::Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_arguments: &Arguments, _context: &Context) -> Result<()> {
    bail!("not written yet")
}
