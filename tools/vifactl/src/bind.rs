// SPDX-License-Identifier: GPL-2.0

use anyhow::{bail, Result};

use crate::cli::Context;

#[derive(clap::Args)]
pub(crate) struct BindArguments {}

#[derive(clap::Args)]
pub(crate) struct UnbindArguments {}

pub(crate) fn bind(_arguments: &BindArguments, _context: &Context) -> Result<()> {
    bail!("not written yet")
}

pub(crate) fn unbind(_arguments: &UnbindArguments, _context: &Context) -> Result<()> {
    bail!("not written yet")
}
