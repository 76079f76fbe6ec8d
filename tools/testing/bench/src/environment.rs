// SPDX-License-Identifier: GPL-2.0

//! The environment of the figures, which are not comparable without it.

use std::{fmt, fs, process::Command, thread};

use anyhow::{Context, Result};
use serde::Serialize;
use vifa_migrate::processor;

/// The properties of a machine that affect the figures.
#[derive(Debug, Serialize)]
pub struct Environment {
    /// The processor's name.
    pub processor: String,
    /// The hypervisor: "KVM", "TCG" (QEMU's software emulation), another hypervisor's signature, or
    /// "none".
    pub accelerator: String,
    /// The kernel's release and version.
    pub kernel: String,
    /// Number of processors of the machine.
    pub cpus: usize,
    /// The date, in UTC.
    pub date: String,
}

impl Environment {
    /// Describes this machine. `processor` overrides the name of the processor.
    pub fn look(processor: Option<String>) -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
        let processor = processor
            .or_else(|| field(&cpuinfo, "model name"))
            .unwrap_or_else(|| "unknown".into());
        let read = |path: &str| -> Result<String> {
            let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
            Ok(text.trim().to_owned())
        };
        Ok(Self {
            processor,
            accelerator: processor::hypervisor(),
            kernel: format!(
                "{} {}",
                read("/proc/sys/kernel/osrelease")?,
                read("/proc/sys/kernel/version")?
            ),
            cpus: thread::available_parallelism()
                .context("failed to read the number of processors")?
                .get(),
            date: date()?,
        })
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "processor    {}", self.processor)?;
        let emulated = match self.accelerator.as_str() {
            "TCG" => " (software emulation)",
            _ => "",
        };
        writeln!(f, "accelerator  {}{emulated}", self.accelerator)?;
        writeln!(f, "kernel       {}", self.kernel)?;
        writeln!(f, "CPUs         {}", self.cpus)?;
        writeln!(f, "date         {}", self.date)
    }
}

/// Returns the first value of `name` in /proc/cpuinfo.
fn field(cpuinfo: &str, name: &str) -> Option<String> {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
}

fn date() -> Result<String> {
    let output = Command::new("date")
        .args(["--utc", "+%Y-%m-%dT%H:%M:%SZ"])
        .output()
        .context("failed to read the date")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_processor_counts() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A: b\n\nprocessor\t: 1\nmodel name\t: C\n";
        assert_eq!(field(cpuinfo, "model name").as_deref(), Some("A: b"));
        assert_eq!(field(cpuinfo, "model"), None);
    }
}
