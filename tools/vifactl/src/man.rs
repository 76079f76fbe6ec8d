// SPDX-License-Identifier: GPL-2.0

//! `vifactl man`: manual pages, generated from the command line.

use std::{fs, io::Write, path::PathBuf};

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_mangen::Man;

use crate::{cli::Cli, exit::EXIT_CODES, output};

/// Print the manual page, or write the pages of all commands to a directory
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The directory for vifactl.1, vifactl-list.1 and so on
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

/// Returns the page of `command`.
fn page(command: &clap::Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    let source = format!("vifactl {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone().after_help(None::<&str>))
        .source(source)
        .manual("VIFA");

    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    writeln!(page, ".SH \"EXIT STATUS\"")?;
    for (code, meaning) in EXIT_CODES {
        writeln!(page, ".TP\n{code}\n{}", meaning.replace('\'', "\\(aq"))?;
    }
    Ok(page)
}

/// Prints or writes the pages.
///
/// # Errors
///
/// The pages cannot be written.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut command = Cli::command().disable_help_subcommand(true);

    // Sets each command's full name and the common options.
    command.build();
    let Some(directory) = &arguments.directory else {
        return output::print_bytes(&page(&command)?);
    };
    let commands = command.get_subcommands().filter(|of| !of.is_hide_set());

    for command in std::iter::once(&command).chain(commands) {
        let name = command.get_display_name().unwrap_or(command.get_name());
        let path = directory.join(format!("{name}.1"));

        fs::write(&path, page(command)?).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
