// SPDX-License-Identifier: GPL-2.0

//! `vifactl completions`: completion scripts for shells, generated from the command line.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::{cli::Cli, output};

/// Print a script that completes the command line in a shell
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The shell
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
///
/// The script cannot be written.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut script = Vec::new();

    clap_complete::generate(arguments.shell, &mut Cli::command(), "vifactl", &mut script);
    output::print_bytes(&script)
}
