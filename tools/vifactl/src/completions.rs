// SPDX-License-Identifier: GPL-2.0

use anyhow::{bail, Result};

#[derive(clap::Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_arguments: &Arguments) -> Result<()> {
    bail!("not written yet")
}
