// SPDX-License-Identifier: GPL-2.0

//! `vifactl save`: a device's state, into a save set.

use std::path::PathBuf;

use anyhow::{bail, Result};

use crate::{cli::Context, function::Address};

/// Save the state of a VIFA interface to a file
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The virtual function, as in 0000:01:00.1
    device: Address,
    /// The save set to make
    save_set: PathBuf,
}

/// Saves the device's state.
pub(crate) fn run(arguments: &Arguments, _context: &Context) -> Result<()> {
    bail!(
        "{} to {}: not written yet",
        arguments.device,
        arguments.save_set.display()
    )
}
