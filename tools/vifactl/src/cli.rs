// SPDX-License-Identifier: GPL-2.0

//! The command line.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{
    bind, check, completions,
    context::Context,
    decode,
    exit::{Exit, EXIT_CODES},
    host::Host,
    list, man,
    output::{Output, ReaderGone},
    restore, save, show, watch,
};

/// Shows, checks, saves and restores VIFA interfaces: SR-IOV virtual functions that can be migrated
/// live.
#[derive(Parser)]
#[command(name = "vifactl", version, after_help = exit_codes())]
pub(crate) struct Cli {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,

    /// Directory below which sysfs, debugfs, procfs and device files are looked for (for tests)
    #[arg(
        long,
        global = true,
        hide = true,
        default_value = "/",
        value_name = "DIRECTORY"
    )]
    root: PathBuf,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(list::Arguments),
    Bind(bind::BindArguments),
    Unbind(bind::UnbindArguments),
    Show(show::Arguments),
    Check(check::Arguments),
    Save(save::Arguments),
    Restore(restore::Arguments),
    Decode(decode::Arguments),
    Watch(watch::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// Returns the meaning of the exit codes, for `--help`.
fn exit_codes() -> String {
    let codes = EXIT_CODES.map(|(code, meaning)| format!("\n  {code}  {meaning}"));

    format!("Exit codes:{}", codes.concat())
}

fn run(cli: Cli) -> Result<()> {
    let context = Context {
        host: Host::at(cli.root),
        output: if cli.json { Output::Json } else { Output::Text },
    };

    match cli.command {
        Command::List(arguments) => list::run(&arguments, &context),
        Command::Bind(arguments) => bind::bind(&arguments, &context),
        Command::Unbind(arguments) => bind::unbind(&arguments, &context),
        Command::Show(arguments) => show::run(&arguments, &context),
        Command::Check(arguments) => check::run(&arguments, &context),
        Command::Save(arguments) => save::run(&arguments, &context),
        Command::Restore(arguments) => restore::run(&arguments, &context),
        Command::Decode(arguments) => decode::run(&arguments, &context),
        Command::Watch(arguments) => watch::run(&arguments, &context),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
    }
}

/// Runs the command with the arguments of the process.
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            // A closed pipe gives no message, as with other commands.
            if !error.is::<ReaderGone>() {
                // A failure to write to standard error cannot be reported.
                let _ = writeln!(io::stderr(), "vifactl: {error:#}");
            }
            Exit::of(&error).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use proptest::prelude::*;

    #[test]
    fn the_command_line_is_valid() {
        Cli::command().debug_assert();
    }

    proptest! {
        #[test]
        fn no_arguments_make_the_parser_panic(
            command in prop::sample::select(vec!["list", "bind", "show", "check", "watch", "man"]),
            arguments in prop::collection::vec(".*", 0..4),
        ) {
            let line = ["vifactl", command].into_iter();
            let line = line.chain(arguments.iter().map(String::as_str));

            if let Err(error) = Cli::try_parse_from(line) {
                prop_assert!([0, 2].contains(&error.exit_code()));
            }
        }
    }
}
