// SPDX-License-Identifier: GPL-2.0

//! Failures inside the kernel: an allocation, or a copy from or to user memory, fails for the
//! calling thread (Documentation/fault-injection of the kernel).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use anyhow::{Context, Result};

const DEBUGFS: &str = "/sys/kernel/debug";

/// Settings of the kernel's fault injection: allocations that may sleep can fail, and failures are
/// not logged with a trace. Single pages do not fail, and only kmalloc() caches do, because
/// DMA-API's checks stop after the first allocation that they miss.
const SETTINGS: [(&str, &str); 11] = [
    ("failslab/ignore-gfp-wait", "N"),
    ("failslab/cache-filter", "Y"),
    ("failslab/verbose", "0"),
    ("failslab/task-filter", "Y"),
    ("failslab/times", "-1"),
    ("failslab/probability", "100"),
    ("fail_page_alloc/ignore-gfp-wait", "N"),
    ("fail_page_alloc/ignore-gfp-highmem", "N"),
    ("fail_page_alloc/min-order", "1"),
    ("fail_page_alloc/verbose", "0"),
    ("fail_usercopy/verbose", "0"),
];

/// The result of a call during which a failure was to be injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injected {
    /// A failure was injected.
    Yes,
    /// The call ended before the failure.
    No,
}

/// Failures of the thread that created this.
pub struct Injector {
    nth: File,
    all: File,
}

fn write_setting(name: &str, value: &str) -> Result<()> {
    let path = Path::new(DEBUGFS).join(name);
    fs::write(&path, value).with_context(|| path.display().to_string())
}

/// Makes allocations from the kmalloc() caches fail.
fn select_caches() -> Result<()> {
    const CACHES: &str = "/sys/kernel/slab";
    for entry in fs::read_dir(CACHES).context(CACHES)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("kmalloc-") {
            let path = entry.path().join("failslab");
            fs::write(&path, "1").with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn open(name: &str) -> Result<File> {
    let path = format!("/proc/thread-self/{name}");
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .context(path)
}

impl Injector {
    /// Injects failures into this thread, which must be the only one that uses this.
    pub fn of_this_thread() -> Result<Self> {
        SETTINGS
            .iter()
            .try_for_each(|(name, value)| write_setting(name, value))?;
        select_caches()?;
        Ok(Self {
            nth: open("fail-nth")?,
            all: open("make-it-fail")?,
        })
    }

    /// Calls `call`; the allocation or copy number `nth` in it fails, counted from 1.
    pub fn fail<T>(&self, nth: u32, call: impl FnOnce() -> T) -> Result<(T, Injected)> {
        self.set(nth)?;
        let result = call();
        let left = self.left();
        self.set(0)?;
        let injected = match left? {
            0 => Injected::Yes,
            _ => Injected::No,
        };
        Ok((result, injected))
    }

    /// Calls `call`; each allocation from the kernel's caches fails in it.
    pub fn starve<T>(&self, call: impl FnOnce() -> T) -> Result<T> {
        self.all.write_all_at(b"1", 0).context("make-it-fail")?;
        let result = call();
        self.all.write_all_at(b"0", 0).context("make-it-fail")?;
        Ok(result)
    }

    /// Returns the number of allocations and copies before the next failure. The copy of this
    /// answer counts, too.
    fn left(&self) -> Result<u32> {
        let mut answer = [0; 16];
        let length = match self.nth.read_at(&mut answer, 0) {
            Err(error) if is_fault(&error) => return Ok(1),
            result => result.context("fail-nth")?,
        };
        let text = String::from_utf8_lossy(&answer[..length]);
        text.trim().parse().with_context(|| text.into_owned())
    }

    /// Writes `nth`. If the copy of this write consumes the failure, none is injected.
    fn set(&self, nth: u32) -> Result<()> {
        let text = nth.to_string();
        match (&self.nth).write_all(text.as_bytes()) {
            Err(error) if is_fault(&error) => (&self.nth).write_all(text.as_bytes()),
            result => result,
        }
        .context("fail-nth")
    }
}

fn is_fault(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EFAULT)
}
