// SPDX-License-Identifier: GPL-2.0

//! `vifactl show`: what a VIFA interface tells of itself.

use std::fmt;

use anyhow::Result;
use serde::Serialize;

use crate::{
    cli::Context,
    function::Address,
    region::{self, Region, Source},
};

/// Show what a VIFA interface tells of itself: identity, interfaces, relations, records, counters
///
/// It is read from debugfs (which takes root), else from the open file of the process that has the
/// device open, else from the device, which is opened and thereby reset.
///
/// With --json it is what `vifactl check` takes on another host.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The virtual function, as in 0000:01:00.1
    function: Address,
}

/// What is shown.
#[derive(Serialize)]
struct Shown {
    function: Address,
    read_from: Source,
    #[serde(flatten)]
    region: Region,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, as told by {}", self.function, self.read_from)?;
        self.region.fmt(f)
    }
}

/// Shows it.
///
/// # Errors
///
/// Those of [`region::read`].
pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let (region, read_from) = region::read(arguments.function, &context.host)?;

    context.output.print(&Shown {
        function: arguments.function,
        read_from,
        region,
    })
}
