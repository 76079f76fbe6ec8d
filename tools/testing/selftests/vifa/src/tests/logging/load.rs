// SPDX-License-Identifier: GPL-2.0

//! A device that writes words at random at full rate while several threads read its log: no write
//! is lost, and no page is reported without a write. The words themselves prove that the device
//! wrote where the test assumes.

use std::{
    collections::VecDeque,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        Arc, Mutex, RwLock,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure, Context, Result};
use vifa_device::RegisterFile;
use vifa_vfio::Mapping;

use super::{
    observer::{Finding, Observer},
    random::Random,
    tracked::{GIB, KIB, MIB, PAGE},
};
use crate::{
    bed::Bed,
    engine::{scattered, Command, Engine, Vf, COMPLETION_TIMEOUT},
    expect,
    migration::State,
    process::all_at_once,
    tests::Test,
    vfio::{AddressSpace, DmaMemory, IovaRange},
};

const WORD: u64 = size_of::<u64>() as u64;

/// The memory that the device writes repeatedly; the same memory at many IOVAs.
const MEMORY: u64 = 16 * MIB;
const RINGS_AT: u64 = 0x1000_0000;
/// The tracked ranges: number of copies of the memory in each.
const COPIES: [u64; 3] = [24, 11, 5];
/// Gap between two ranges.
const GAP: u64 = MIB;

/// Words written per command, and commands queued ahead.
const WORDS: u64 = 256;
const AHEAD: usize = 8;
/// One in this many commands writes the first or the last word of a range.
const EDGES: u64 = 8;

/// Returns the tests; the largest has `writes` words written.
pub fn tests(writes: u64) -> Vec<Test> {
    let test = |name: &str, body: fn(&Bed, u64) -> Result<()>, writes: u64| {
        let name = format!("logging.{name}");
        Test::new(name, move |bed| body(bed, writes)).with_more_time(writes / 20_000)
    };
    vec![
        test("no_write_is_lost_under_load", alone, writes),
        test(
            "no_write_is_lost_by_two_vfs_under_load",
            two_vfs,
            writes / 4,
        ),
        test(
            "no_write_is_lost_while_the_state_changes",
            changing,
            writes / 4,
        ),
        test("sabotaged_log_is_noticed", sabotaged, writes),
    ]
}

/// Returns the ranges.
fn ranges() -> [IovaRange; 3] {
    let mut iova = 4 * GIB;
    COPIES.map(|copies| {
        let range = IovaRange::new(iova, copies * MEMORY);
        iova = range.end() + GAP;
        range
    })
}

/// Returns the number of a range; larger ranges are likelier.
fn any_range(random: &mut Random) -> usize {
    let mut copy = random.below(COPIES.iter().sum());
    COPIES
        .iter()
        .position(|copies| match copy.checked_sub(*copies) {
            Some(rest) => {
                copy = rest;
                false
            }
            None => true,
        })
        .expect("a copy in one of the ranges")
}

/// A VF with a log under load.
struct Load {
    vf: Vf,
    ranges: [IovaRange; 3],
    observer: Observer,
    /// The number of the last write to each word of the memory.
    words: Mutex<Vec<u64>>,
    memory: Arc<Mapping>,
    /// Held during reports; for writing if a report must be the only one.
    reports: RwLock<()>,
    reported: AtomicU64,
    findings: Mutex<Vec<Finding>>,
    going_on: AtomicBool,
    _copies: Vec<DmaMemory>,
}

impl Load {
    /// The VF `index` and its engine, which is idle and logged.
    fn new(bed: &Bed, index: u32) -> Result<(Self, Engine)> {
        let space = AddressSpace::iommufd()?;
        let vf = Vf::open(&bed.vf(index)?, &space)?;
        let engine = Engine::with_entries(&vf, &space, RINGS_AT, 64)?;
        let ranges = ranges();
        let mut iovas = ranges
            .iter()
            .flat_map(|range| (range.iova..range.end()).step_by(MEMORY as usize));
        let first = iovas.next().context("a place for the memory")?;
        let first = DmaMemory::new(&space, first, MEMORY as usize)?;
        let memory = first.memory.clone();
        let mut copies = iovas
            .map(|iova| first.again(iova))
            .collect::<Result<Vec<_>>>()?;
        copies.push(first);
        let page_size = vf.device.start_logging(&ranges, PAGE)?;
        ensure!(page_size == PAGE, "pages of {page_size:#x} bytes");
        let pages = COPIES.iter().sum::<u64>() * MEMORY / PAGE;
        let load = Self {
            vf,
            ranges,
            observer: Observer::new(pages as usize),
            words: Mutex::new(vec![0; (MEMORY / WORD) as usize]),
            memory,
            reports: RwLock::default(),
            reported: AtomicU64::default(),
            findings: Mutex::default(),
            going_on: AtomicBool::new(true),
            _copies: copies,
        };
        Ok((load, engine))
    }

    /// Returns the number of the first page of the range `range`.
    fn first_page(&self, range: usize) -> usize {
        let before = &self.ranges[..range];
        before.iter().map(|range| range.length / PAGE).sum::<u64>() as usize
    }

    /// Returns the number of the page at `iova`, if it is tracked.
    fn page(&self, iova: u64) -> Option<usize> {
        let range = self.ranges.iter().position(|range| range.contains(iova))?;
        let offset = iova - self.ranges[range].iova;
        Some(self.first_page(range) + (offset / PAGE) as usize)
    }

    /// Returns the IOVA of the page with this number.
    fn iova(&self, page: usize) -> u64 {
        let range = (0..self.ranges.len())
            .rfind(|range| self.first_page(*range) <= page)
            .expect("the first range begins with page 0");
        self.ranges[range].iova + (page - self.first_page(range)) as u64 * PAGE
    }

    /// Records that the next write is at `offset` of the range `range`.
    fn give(&self, words: &mut [u64], range: usize, offset: u64) {
        let page = self.first_page(range) + (offset / PAGE) as usize;
        words[(offset % MEMORY / WORD) as usize] = self.observer.give(page);
    }

    /// Queues the words of the next command, at most `limit`; each word is the number of its write.
    fn next_command(&self, words: &mut [u64], random: &mut Random, limit: u64) -> Command {
        let range = any_range(random);
        let IovaRange { iova, length } = self.ranges[range];
        let first = self.observer.given() + 1;
        if random.below(EDGES) == 0 {
            let offset = [0, length - WORD][random.below(2) as usize];
            self.give(words, range, offset);
            return Command::Fill {
                destination: iova + offset,
                length: WORD,
                pattern: first,
            };
        }
        let count = WORDS.min(limit);
        for word in first..first + count {
            self.give(words, range, scattered(word, length));
        }
        Command::Scatter {
            destination: iova,
            window: length,
            length: count * WORD,
            first,
        }
    }

    /// Makes the device write `writes` words.
    fn write(&self, engine: &mut Engine, writes: u64) -> Result<()> {
        let mut words = self.words.lock().expect("no thread panics with it");
        let mut random = Random::new(writes);
        // The last write of each incomplete command.
        let mut ahead = VecDeque::new();
        let mut done = 0;
        let mut deadline = Instant::now() + COMPLETION_TIMEOUT;
        while done < writes {
            while ahead.len() < AHEAD && self.observer.given() < writes {
                let limit = writes - self.observer.given();
                let command = self.next_command(&mut words, &mut random, limit);
                ahead.push_back(self.observer.given());
                engine.submit(&self.vf, command)?;
            }
            let taken = engine.take_completions(&self.vf)? as usize;
            if taken > 0 {
                deadline = Instant::now() + COMPLETION_TIMEOUT;
            } else if Instant::now() > deadline {
                bail!("expected completions, got none in {COMPLETION_TIMEOUT:?}");
            } else {
                thread::sleep(Duration::from_micros(50));
            }
            done = ahead.drain(..taken).next_back().unwrap_or(done);
            self.observer.has_done(done);
        }
        Ok(())
    }

    /// Like [`Self::write`]; the other threads end with it.
    fn write_and_end(&self, engine: &mut Engine, writes: u64) -> Result<()> {
        let result = self.write(engine, writes);
        self.going_on.store(false, Ordering::Relaxed);
        result
    }

    fn is_going_on(&self) -> bool {
        self.going_on.load(Ordering::Relaxed)
    }

    fn found(&self, finding: Option<Finding>) {
        if let Some(finding) = finding {
            let mut findings = self.findings.lock().expect("no thread panics with it");
            findings.push(finding);
        }
    }

    /// Reports all ranges without concurrent reports, and checks each page.
    fn sweep(&self) -> Result<()> {
        let _alone = self.reports.write().expect("no thread panics with it");
        for (number, range) in self.ranges.iter().enumerate() {
            let began = self.observer.begin();
            let bitmap = self.vf.device.dirty_pages(*range, PAGE)?;
            let mut page = self.first_page(number);
            for iova in bitmap.dirty().chain([range.end()]) {
                let dirty = self.first_page(number) + ((iova - range.iova) / PAGE) as usize;
                for clean in page..dirty {
                    self.found(self.observer.is_clean(&began, clean));
                }
                if iova < range.end() {
                    self.found(self.observer.is_dirty(&began, dirty..dirty + 1));
                }
                page = dirty + 1;
            }
        }
        self.reported.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Reports arbitrary ranges concurrently with other threads: across ranges, in larger pages,
    /// with unaligned edges.
    fn peek(&self, random: &mut Random) -> Result<()> {
        let whole = IovaRange::new(
            self.ranges[0].iova,
            self.ranges[2].end() - self.ranges[0].iova,
        );
        let size = [PAGE, 2 * PAGE, 64 * KIB][random.below(3) as usize];
        let range = match random.below(4) {
            0 => random.range_in(whole, WORD),
            _ => random.range_in(whole, PAGE),
        };
        let _others = self.reports.read().expect("no thread panics with it");
        let began = self.observer.begin();
        let bitmap = self.vf.device.dirty_pages(range, size)?;
        for iova in bitmap.dirty() {
            let end = range.end().min(iova + size);
            // All pages covered by the bit, except those that the report covers only in part; these
            // stay in the log.
            let touched = iova - iova % PAGE..end.next_multiple_of(PAGE);
            let whole = touched.start.max(range.iova.next_multiple_of(PAGE))
                ..touched.end.min(range.end() - range.end() % PAGE);
            let tracked: Vec<_> = (whole.start..whole.end)
                .step_by(PAGE as usize)
                .filter_map(|page| self.page(page))
                .collect();
            let (Some(first), Some(last)) = (tracked.first(), tracked.last()) else {
                continue;
            };
            let pages = *first..last + 1;
            if (iova, end - iova) == (whole.start, pages.len() as u64 * PAGE) {
                self.found(self.observer.is_dirty(&began, pages));
            } else {
                self.observer.may_be_dirty(pages);
            }
        }
        self.reported.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn sweep_as_long(&self) -> Result<()> {
        while self.is_going_on() {
            self.sweep()?;
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn peek_as_long(&self, seed: u64) -> Result<()> {
        let mut random = Random::new(seed);
        while self.is_going_on() {
            self.peek(&mut random)?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn change_as_long(&self) -> Result<()> {
        let device = &self.vf.device;
        while self.is_going_on() {
            for state in [State::PreCopy, State::PreCopyP2p, State::Running] {
                let _session = device.enter(state)?;
                thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Checks that the memory contains the words that the device has written according to the
    /// model.
    fn memory_is_as_written(&self) -> Result<()> {
        let words = self.words.lock().expect("no thread panics with it");
        for (word, expected) in words.iter().enumerate() {
            let at = word * WORD as usize;
            let written = u64::from_le(self.memory.read(at));
            ensure!(
                written == *expected,
                "word at {at:#x} of the memory: expected {expected}, got {written}"
            );
        }
        Ok(())
    }

    /// Makes the device write `writes` words while its log is reported; returns the findings.
    /// `also` runs meanwhile.
    fn run(
        &self,
        engine: &mut Engine,
        writes: u64,
        also: impl FnOnce(&Self) -> Result<()> + Send,
    ) -> Result<Vec<Finding>> {
        let start = Instant::now();
        all_at_once(vec![
            Box::new(|| self.write_and_end(engine, writes).context("writer")),
            Box::new(|| self.sweep_as_long().context("exclusive reports")),
            Box::new(|| self.peek_as_long(1).context("reports")),
            Box::new(|| self.peek_as_long(2).context("reports")),
            Box::new(|| also(self).context("concurrent action")),
        ])?;
        let took = start.elapsed();
        self.sweep()?;
        let findings = std::mem::take(&mut *self.findings.lock().expect("no thread holds it"));
        let (written, unreported) = self.observer.totals();
        eprintln!(
            "# {writes} writes to {written} pages in {:.1} s; {} reports; {} findings",
            took.as_secs_f64(),
            self.reported.load(Ordering::Relaxed),
            findings.len(),
        );
        self.memory_is_as_written()?;
        if findings.is_empty() {
            expect::equal("pages written that were never reported", unreported, 0)?;
        }
        Ok(findings)
    }

    /// Like [`Self::run`], without any findings.
    fn is_exact(
        &self,
        engine: &mut Engine,
        writes: u64,
        also: impl FnOnce(&Self) -> Result<()> + Send,
    ) -> Result<()> {
        let findings = self.run(engine, writes, also)?;
        let Some(first) = findings.first() else {
            // Reported pages are not reported again.
            self.sweep()?;
            let findings = self.findings.lock().expect("no thread holds it");
            return expect::equal("findings of a last report", findings.len(), 0);
        };
        let page = match first {
            Finding::Lost { page, .. } | Finding::Spurious { page } => self.iova(*page),
        };
        bail!(
            "{} findings; the first, at {page:#x}: {first}",
            findings.len()
        )
    }
}

fn alone(bed: &Bed, writes: u64) -> Result<()> {
    let (load, mut engine) = Load::new(bed, 0)?;
    load.is_exact(&mut engine, writes, |_| Ok(()))
}

fn two_vfs(bed: &Bed, writes: u64) -> Result<()> {
    let vf = |index: u32| -> Result<()> {
        let (load, mut engine) = Load::new(bed, index)?;
        load.is_exact(&mut engine, writes, |_| Ok(()))
            .with_context(|| format!("VF {index}"))
    };
    all_at_once(vec![Box::new(move || vf(0)), Box::new(move || vf(1))])
}

fn changing(bed: &Bed, writes: u64) -> Result<()> {
    let (load, mut engine) = Load::new(bed, 0)?;
    load.is_exact(&mut engine, writes, Load::change_as_long)
}

/// The device silently leaves some written pages unlogged; the comparison must detect that.
fn sabotaged(bed: &Bed, writes: u64) -> Result<()> {
    const DROPPED: u64 = 10;
    let one_in = writes / DROPPED;
    let registers = RegisterFile::map(&bed.pf)?;
    let (load, mut engine) = Load::new(bed, 0)?;
    let armed = registers.sabotage_log(0, one_in)?;
    let findings = load.run(&mut engine, writes, |_| Ok(()))?;
    expect::equal("pages dropped", u64::from(armed.fired()), writes / one_in)?;
    expect::claim("a finding at least", !findings.is_empty())?;
    for finding in findings {
        let Finding::Lost { page, write } = finding else {
            bail!("expected lost writes only, got: {finding}");
        };
        eprintln!("# noticed: {finding}, at {:#x}", load.iova(page));
        ensure!(
            write % one_in == 0,
            "expected a dropped write, each {one_in}th, got: {finding}"
        );
    }
    Ok(())
}
