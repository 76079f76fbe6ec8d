// SPDX-License-Identifier: GPL-2.0

//! `vifactl restore`: a save set, into a device.

use std::path::PathBuf;

use anyhow::{bail, Result};

use crate::{cli::Context, function::Address};

/// Give a VIFA interface the state that a save set holds
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The save set
    save_set: PathBuf,
    /// The virtual function, as in 0000:01:00.1
    device: Address,
}

/// Restores the save set.
pub(crate) fn run(arguments: &Arguments, _context: &Context) -> Result<()> {
    bail!(
        "{} to {}: not written yet",
        arguments.save_set.display(),
        arguments.device
    )
}
