// SPDX-License-Identifier: GPL-2.0

//! The memory that the driver allocates for a device's DMA: pages from anywhere, no more than the
//! device can need, and charged to the caller's memory cgroup.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
};

use anyhow::{ensure, Context, Result};
use vifa_device::{opcode::LOCAL_BITMAP, Fault, RegisterFile};

use super::{
    claims,
    fixture::{filled, Guest, CHUNK},
    logging::tracked::{Tracked, MIB, PAGE, RANGES},
    Test,
};
use crate::{bed::Bed, expect, hw, migration::State, sys, vfio::IovaRange};

/// The reference device's default limits.
const SCATTER_MAX: u32 = 512;
const LOG_RANGES: u32 = 1024;

pub fn tests() -> Vec<Test> {
    let mut tests = claims!("memory":
        log_takes_what_its_ranges_need,
        buffers_are_charged_to_the_cgroup,
        log_needs_no_contiguous_pages,
        bitmap_in_pieces_with_too_many_bits_is_an_error,
    );
    for entries in [1, 2, 512] {
        tests.push(Test::new(
            format!("memory.transfer_with_{entries}_scatter_entries"),
            move |bed| transfer(bed, entries, Domain::Translated, None),
        ));
        tests.push(Test::new(
            format!("memory.transfer_with_{entries}_scatter_entries_without_an_iommu"),
            move |bed| transfer(bed, entries, Domain::Identity, None),
        ));
    }
    // A granule of 16 KiB needs four single pages.
    for entries in [4, 512] {
        tests.push(Test::new(
            format!("memory.transfer_with_{entries}_scatter_entries_needs_no_contiguous_pages"),
            move |bed| transfer(bed, entries, Domain::Identity, Some(SinglePages::new)),
        ));
    }
    tests
}

/// The translation of the PF's DMA addresses to physical addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Domain {
    /// Translated by the IOMMU.
    Translated,
    /// Identical addresses.
    Identity,
}

/// A PF that is bound with other limits, until this is dropped.
pub(super) struct Limits<'a> {
    bed: &'a Bed,
    lifted: bool,
}

impl<'a> Limits<'a> {
    /// Binds the PF with a limit of entries per scatter list and of ranges per log.
    pub(super) fn new(bed: &'a Bed, scatter_max: u32, log_ranges: u32) -> Result<Self> {
        Self::within(bed, scatter_max, log_ranges, Domain::Translated)
    }

    fn within(bed: &'a Bed, scatter_max: u32, log_ranges: u32, domain: Domain) -> Result<Self> {
        let limits = Self { bed, lifted: false };
        limits.rebind(scatter_max, log_ranges, domain)?;
        Ok(limits)
    }

    fn rebind(&self, scatter_max: u32, log_ranges: u32, domain: Domain) -> Result<()> {
        let pf = &self.bed.pf;
        pf.set_virtual_functions(0)?;
        pf.unbind()?;
        RegisterFile::map(pf)?.set_limits(scatter_max, log_ranges)?;
        let kind = match domain {
            Domain::Translated => "DMA",
            Domain::Identity => "identity",
        };
        fs::write(pf.attribute("iommu_group/type"), kind)
            .with_context(|| format!("IOMMU domain {kind} of {pf}"))?;
        self.bed.restore()
    }

    /// Restores the default limits.
    pub(super) fn lift(mut self) -> Result<()> {
        self.lifted = true;
        self.rebind(SCATTER_MAX, LOG_RANGES, Domain::Translated)
    }
}

impl Drop for Limits<'_> {
    fn drop(&mut self) {
        if !self.lifted {
            let _ = self.rebind(SCATTER_MAX, LOG_RANGES, Domain::Translated);
        }
    }
}

/// While this exists, the page allocator returns only single pages to the process.
struct SinglePages {
    /// Each of their pages adjoins a free page.
    _pipes: Vec<[File; 2]>,
}

impl SinglePages {
    fn new() -> Result<Self> {
        let directory = Path::new("/sys/kernel/debug/fail_page_alloc");
        for (attribute, value) in [
            ("task-filter", "Y"),
            ("ignore-gfp-wait", "N"),
            // vmalloc() memory may consist of such pages.
            ("ignore-gfp-highmem", "N"),
            ("min-order", "1"),
            ("interval", "1"),
            ("space", "0"),
            ("times", "-1"),
            ("verbose", "0"),
            ("probability", "100"),
        ] {
            let path = directory.join(attribute);
            fs::write(&path, value).with_context(|| path.display().to_string())?;
        }
        let pipes = Self::fragment()?;
        fs::write("/proc/self/make-it-fail", "1").context("make-it-fail")?;
        Ok(Self { _pipes: pipes })
    }

    /// Fragments the kernel's free pages: two pipes are filled alternately page by page, and one of
    /// them is closed.
    fn fragment() -> Result<Vec<[File; 2]>> {
        const PIPES: usize = 8;
        const BYTES: usize = 1 << 20;
        let pipes = || -> io::Result<Vec<_>> { (0..PIPES).map(|_| sys::pipe(BYTES)).collect() };
        let (kept, closed) = (pipes()?, pipes()?);
        for (kept, closed) in kept.iter().zip(&closed) {
            for _ in 0..BYTES as u64 / PAGE {
                for [_, end] in [kept, closed] {
                    let mut end: &File = end;
                    end.write_all(&[0; PAGE as usize]).context("pipe")?;
                }
            }
        }
        Ok(kept)
    }
}

impl Drop for SinglePages {
    fn drop(&mut self) {
        let _ = fs::write("/proc/self/make-it-fail", "0");
        let _ = fs::write("/sys/kernel/debug/fail_page_alloc/probability", "0");
    }
}

/// Without an IOMMU, the buffers of a session have many pieces.
fn buffers_are_scattered(bed: &Bed, guest: &Guest) -> Result<()> {
    let before = dma_pieces(bed)?.len();
    let session = guest.vf.device.start(State::PreCopy)?;
    let pieces = dma_pieces(bed)?.len() - before;
    expect::claim(
        &format!("at least 256 pieces of two buffers of 1 MiB, not {pieces}"),
        pieces >= 256,
    )?;
    drop(session);
    guest.vf.device.change_state(State::Running)
}

/// Saves and restores a VF whose PF accepts `entries` entries per scatter list, with more than a
/// run of local memory.
fn transfer(
    bed: &Bed,
    entries: u32,
    domain: Domain,
    shortage: Option<fn() -> Result<SinglePages>>,
) -> Result<()> {
    let limits = Limits::within(bed, entries, LOG_RANGES, domain)?;
    let step = 16 << 10;
    let granules = u64::from(hw::VIFA_DATA_RUN_MAX) / step + 5;
    {
        let mut source = Guest::new(bed, 0)?;
        for granule in 0..granules {
            source.write_local(granule * step, granule << 32)?;
        }
        let mut destination = Guest::new(bed, 1)?;
        let short = shortage.map(|begin| begin()).transpose()?;
        if short.is_some() {
            buffers_are_scattered(bed, &source)?;
        }
        let stream = source.vf.device.save()?;
        destination.vf.device.load(&stream)?;
        drop(short);
        destination.vf.device.change_state(State::Running)?;
        destination.engine.enable(&destination.vf)?;
        for granule in 0..granules {
            let found = destination.read_local(granule * step, CHUNK)?;
            let expected = filled(granule << 32, CHUNK);
            expect::same_bytes(&format!("granule {granule}"), &found, &expected)?;
        }
    }
    limits.lift()
}

fn log_needs_no_contiguous_pages(bed: &Bed) -> Result<()> {
    let limits = Limits::within(bed, 1, LOG_RANGES, Domain::Identity)?;
    {
        let mut tracked = Tracked::idle(bed, 0)?;
        let short = SinglePages::new()?;
        // A tebibyte, with a bitmap of more than one window.
        let all = IovaRange::new(0, 1 << 40);
        tracked.start(&[all], PAGE)?;
        drop(short);
        for range in RANGES {
            tracked.touch(range.iova)?;
            tracked.touch(range.end() - PAGE)?;
        }
        tracked.reports_all()?;
        let registers = RegisterFile::map(&bed.pf)?;
        tracked.mark(&registers, IovaRange::new(1 << 35, 1 << 30))?;
        tracked.reports(IovaRange::new(1 << 35, 2 << 30), PAGE)?;
        tracked.stop()?;
    }
    limits.lift()
}

/// Each LOCAL_BITMAP command reports the maximum number of granules, 2^64 - 1.
fn bitmap_in_pieces_with_too_many_bits_is_an_error(bed: &Bed) -> Result<()> {
    // The bitmap of this device occupies two pages.
    let bed = &bed.without_local_dirty()?;
    let limits = Limits::within(bed, 1, LOG_RANGES, Domain::Identity)?;
    {
        let mut guest = Guest::new(bed, 0)?;
        let short = SinglePages::new()?;
        let registers = RegisterFile::map(&bed.pf)?;
        let most = Fault::Result(u64::MAX);
        let armed = registers.arm(0, LOCAL_BITMAP, most, hw::VIFA_FAULT_ALWAYS)?;
        let result = guest.vf.device.data_size();
        drop(short);
        expect::equal("LOCAL_BITMAP commands", armed.fired(), 2)?;
        drop(armed);
        expect::refused("MIG_DATA_SIZE", result, &[libc::EIO])?;
        guest.work(1)?;
    }
    limits.lift()
}

/// Returns the length of each piece of memory that the PF's driver has mapped for DMA.
fn dma_pieces(bed: &Bed) -> Result<Vec<u64>> {
    let dump = fs::read_to_string("/sys/kernel/debug/dma-api/dump").context("DMA-API dump")?;
    let name = bed.pf.to_string();
    let lengths = dump
        .lines()
        .filter(|line| line.split_whitespace().nth(1) == Some(&name))
        .filter_map(|line| {
            let length = line
                .split_whitespace()
                .find_map(|field| field.strip_prefix("L="))?;
            u64::from_str_radix(length, 16).ok()
        });
    Ok(lengths.collect())
}

/// Returns the number of bytes that the PF's driver has mapped for DMA.
fn dma_bytes(bed: &Bed) -> Result<u64> {
    Ok(dma_pieces(bed)?.iter().sum())
}

fn log_takes_what_its_ranges_need(bed: &Bed) -> Result<()> {
    let mut tracked = Tracked::idle(bed, 0)?;
    let before = dma_bytes(bed)?;
    tracked.start(&RANGES, PAGE)?;
    let taken = dma_bytes(bed)?.saturating_sub(before);
    expect::claim(
        &format!("DMA memory for a log of 10 MiB: some KiB, not {taken} bytes"),
        taken > 0 && taken <= 64 << 10,
    )?;
    tracked.stop()?;
    expect::equal("DMA memory after STOP", dma_bytes(bed)?, before)
}

/// A memory cgroup that contains this process until it is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    const ROOT: &'static str = "/sys/fs/cgroup";

    fn new() -> Result<Self> {
        fs::write(
            Path::new(Self::ROOT).join("cgroup.subtree_control"),
            "+memory",
        )
        .context("controller of memory")?;
        let path = Path::new(Self::ROOT).join(format!("vifa-{}", process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        let cgroup = Self(path);
        fs::write(cgroup.0.join("cgroup.procs"), process::id().to_string())?;
        Ok(cgroup)
    }

    /// Returns the number of vmalloc bytes charged to the cgroup.
    fn vmalloc(&self) -> Result<u64> {
        let stat = fs::read_to_string(self.0.join("memory.stat"))?;
        let line = stat.lines().find_map(|line| line.strip_prefix("vmalloc "));
        Ok(line.context("vmalloc in memory.stat")?.parse()?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(
            Path::new(Self::ROOT).join("cgroup.procs"),
            process::id().to_string(),
        );
        let _ = fs::remove_dir(&self.0);
    }
}

fn buffers_are_charged_to_the_cgroup(bed: &Bed) -> Result<()> {
    // Maximum delay of the kernel's statistics.
    const SLACK: u64 = 512 << 10;
    let guest = Guest::new(bed, 0)?;
    let cgroup = Cgroup::new()?;
    let before = cgroup.vmalloc()?;
    let session = guest.vf.device.start(State::PreCopy)?;
    let held = cgroup.vmalloc()?;
    ensure!(
        held >= before + 2 * MIB - SLACK,
        "two buffers of 1 MiB: {held} bytes are charged, {before} were before"
    );
    drop(session);
    guest.vf.reset()?;
    let after = cgroup.vmalloc()?;
    ensure!(
        after <= before + SLACK,
        "after the session: {after} bytes are charged, {before} were before"
    );
    Ok(())
}
