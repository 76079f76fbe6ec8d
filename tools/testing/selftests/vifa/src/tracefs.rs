// SPDX-License-Identifier: GPL-2.0

//! The kernel's tracepoints, through an instance of tracefs.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{bail, Context, Result};

const TRACEFS: &str = "/sys/kernel/tracing";
const INSTANCE: &str = "vifa-selftests";

/// An instance that records one tracepoint; removed when dropped.
pub struct Tracing {
    directory: PathBuf,
    event: String,
}

impl Tracing {
    /// Begins to record the tracepoint `event` of the system `system`.
    pub fn of(system: &str, event: &str) -> Result<Self> {
        let tracefs = Path::new(TRACEFS);
        if !tracefs.join("instances").exists() {
            crate::sys::mount(c"tracefs", c"/sys/kernel/tracing").context("mount of tracefs")?;
        }
        remove_left_over().context("trace instance of an earlier test")?;
        let directory = tracefs.join("instances").join(INSTANCE);
        fs::create_dir(&directory).context("trace instance")?;
        let tracing = Self {
            directory,
            event: event.to_owned(),
        };
        let enable = format!("events/{system}/{event}/enable");
        fs::write(tracing.directory.join(&enable), "1").context(enable)?;
        Ok(tracing)
    }

    /// Returns the recorded events, one line each.
    pub fn events(&self) -> Result<Vec<String>> {
        let trace = fs::read_to_string(self.directory.join("trace")).context("trace")?;
        let lines = trace.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| match line.split_once(&format!("{}: ", self.event)) {
                Some((_, text)) => Ok(text.to_owned()),
                None => bail!("expected a line of {}, got {line:?}", self.event),
            })
            .collect()
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        // The next test removes an instance that remains.
        let _ = remove_left_over();
    }
}

/// Removes the instance of a killed test, which would pin the module.
pub fn remove_left_over() -> io::Result<()> {
    match fs::remove_dir(Path::new(TRACEFS).join("instances").join(INSTANCE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
