// SPDX-License-Identifier: GPL-2.0

//! The workload, which keeps the engine busy and verifies all of its results.
//!
//! Lanes take turns. A lane submits a chain of commands, each of which depends on the previous one,
//! with a length and a pattern for the chain. When the whole chain has completed, the CPU verifies
//! every byte that it moved and every checksum. Several lanes are active at a time. Their number
//! changes continually, down to a single command. In that case, only the interrupt of that command
//! can signal its completion.
//!
//! In contrast to the memory of the lanes, the archives in guest memory do not change. They are
//! written at the beginning of a run, and read repeatedly until its end. They show whether a
//! migration preserves data that was written long before. The store is distributed over the local
//! memory: one block in `sparse` contains data, and occasionally one of these is rewritten.
//!
//! A write to the debugfs file `run` performs a run, and returns at the end of the run: after a
//! write to `stop`, on a signal, or when the engine fails. The data written to `run` is parsed as
//! [`Settings`]. `progress` reports the progress of the run. A write to `tamper` changes one bit of
//! an archive, which the run must detect before it ends.

use crate::{
    crc32c::Crc32c,
    engine::{
        Command,
        Counters,
        Engine,
        Outcome,
        Refusal, //
    },
};
use kernel::{
    debugfs,
    device::{
        Bound,
        Device, //
    },
    dma::{
        Coherent,
        DmaAddress, //
    },
    fmt,
    io::{
        io_read,
        io_write, //
    },
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
    uaccess::UserSliceReader, //
};

/// Maximum number of chains in progress.
const LANES: usize = 8;

/// Number of guest buffers that the commands of a chain write.
const LANE_BUFFERS: usize = 4;

/// Number of archives in guest memory.
const ARCHIVES: usize = 8;

/// Size of each buffer, and of each lane's and each block's part of the local memory, in words.
const BUFFER_WORDS: usize = 8192;

/// Number of blocks of the store that a chain rewrites.
const REWRITTEN_BLOCKS: usize = 3;

/// Maximum number of commands of a chain. The chains of all lanes together fit into the rings.
const CHAIN_COMMANDS: usize = 7;

static_assert!(LANES * CHAIN_COMMANDS <= crate::engine::RING_ENTRIES);
static_assert!(2 * REWRITTEN_BLOCKS <= CHAIN_COMMANDS);

/// Number of blocks of the store that are filled at a time at the beginning of a run.
const FILLED_BLOCKS: usize = 16;

static_assert!(2 * FILLED_BLOCKS <= crate::engine::RING_ENTRIES);

const fn bytes(words: usize) -> u64 {
    (words * size_of::<u64>()) as u64
}

/// The contents of a piece of memory: the words `first`, `first + 1` and so on.
#[derive(Clone, Copy)]
struct Pattern {
    first: u64,
    words: usize,
}

impl Pattern {
    fn iter(self) -> impl Iterator<Item = u64> {
        (0..self.words as u64).map(move |index| self.first.wrapping_add(index))
    }

    fn checksum(self) -> u64 {
        let mut sum = Crc32c::new();
        self.iter().for_each(|word| sum.add(word));
        sum.finish().into()
    }

    /// Returns the part of `words` words from word `start`.
    fn part(self, start: usize, words: usize) -> Self {
        Self {
            first: self.first.wrapping_add(start as u64),
            words,
        }
    }
}

/// A buffer in guest memory.
struct Buffer(Coherent<[u64]>);

impl Buffer {
    fn new(device: &Device<Bound>) -> Result<Self> {
        Coherent::zeroed_slice(device, BUFFER_WORDS, GFP_KERNEL).map(Self)
    }

    fn address(&self, start: usize) -> DmaAddress {
        self.0.dma_address() + bytes(start)
    }

    fn write(&self, pattern: Pattern) {
        for (index, word) in pattern.iter().enumerate() {
            io_write!(self.0, [panic: index], word);
        }
    }

    /// Compares the contents from word `start` with `pattern`.
    fn verify(&self, start: usize, pattern: Pattern) -> Result<(), Fault> {
        for (index, expected) in pattern.iter().enumerate() {
            let found = io_read!(self.0, [panic: start + index]);
            if found != expected {
                return Err(Fault::Word {
                    index,
                    of: pattern.words,
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }
}

/// The purpose of a command of a chain.
#[derive(Clone, Copy, Debug)]
enum Step {
    Nop,
    Fill,
    Copy,
    Checksum,
    LocalWrite,
    LocalRead,
    ArchiveChecksum,
    StoreRead,
    /// A part of rewriting a block of the store. A later `StoreRead` verifies the block.
    Rewrite,
}

/// The error of a step.
#[derive(Clone, Copy)]
enum Fault {
    Refused(Refusal),
    Word {
        index: usize,
        of: usize,
        expected: u64,
        found: u64,
    },
    Checksum {
        expected: u64,
        found: u64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Refused(refusal) => write!(f, "command failed: {refusal:?}"),
            Fault::Word {
                index,
                of,
                expected,
                found,
            } => write!(
                f,
                "invalid word {index} of {of}: got {found:#018x}, expected {expected:#018x}"
            ),
            Fault::Checksum { expected, found } => {
                write!(
                    f,
                    "invalid checksum: got {found:#010x}, expected {expected:#010x}"
                )
            }
        }
    }
}

/// A chain of commands in progress.
struct Chain {
    steps: [(Step, Command); CHAIN_COMMANDS],
    length: usize,
    outcomes: [Option<Outcome>; CHAIN_COMMANDS],
    /// First word of the buffers that the chain uses.
    start: usize,
    pattern: Pattern,
    /// Expected data of `ArchiveChecksum`.
    archived: Pattern,
    /// Expected data of `StoreRead`.
    stored: Pattern,
}

impl Chain {
    fn new(start: usize, pattern: Pattern, archived: Pattern, stored: Pattern) -> Self {
        Self {
            steps: [(Step::Nop, Command::Nop); CHAIN_COMMANDS],
            length: 0,
            outcomes: [None; CHAIN_COMMANDS],
            start,
            pattern,
            archived,
            stored,
        }
    }

    fn push(&mut self, step: Step, command: Command) {
        self.steps[self.length] = (step, command);
        self.length += 1;
    }

    /// Adds the commands that rewrite blocks of the store through `buffer`.
    fn rewrite(&mut self, local: &mut LocalMemory, buffer: &Buffer, random: &mut Random) {
        for _ in 0..REWRITTEN_BLOCKS {
            let block = random.below(local.stored.len());
            // Commands are executed in the order of submission: later chains read the new data.
            local.stored[block] = random.next();
            for command in local.fill(block, buffer) {
                self.push(Step::Rewrite, command);
            }
        }
    }

    /// Adds commands that fill, copy and check memory at these addresses of a lane's buffers, and
    /// that check a part of `archive`.
    fn compute(&mut self, addresses: &[DmaAddress; LANE_BUFFERS], archive: &Buffer) {
        let length = bytes(self.pattern.words);
        self.push(
            Step::Fill,
            Command::Fill {
                destination: addresses[0],
                length,
                first: self.pattern.first,
            },
        );
        self.push(
            Step::Copy,
            Command::Copy {
                source: addresses[0],
                destination: addresses[1],
                length,
            },
        );
        self.push(
            Step::Checksum,
            Command::Checksum {
                source: addresses[1],
                length,
            },
        );
        self.push(
            Step::ArchiveChecksum,
            Command::Checksum {
                source: archive.address(self.start),
                length,
            },
        );
    }

    /// Adds commands that write and read local memory at the offset `own`, and read it at `stored`.
    fn move_local(&mut self, addresses: &[DmaAddress; LANE_BUFFERS], own: u64, stored: u64) {
        let length = bytes(self.pattern.words);
        self.push(
            Step::LocalWrite,
            Command::LocalWrite {
                source: addresses[1],
                offset: own,
                length,
            },
        );
        self.push(
            Step::LocalRead,
            Command::LocalRead {
                offset: own,
                destination: addresses[2],
                length,
            },
        );
        self.push(
            Step::StoreRead,
            Command::LocalRead {
                offset: stored,
                destination: addresses[3],
                length,
            },
        );
    }

    fn submit(&self, engine: &Engine) -> Result {
        let commands = self.steps.map(|(_, command)| command);
        engine.submit(&commands[..self.length])
    }

    /// Stores the outcome of the next command. Returns whether it was the last command.
    fn finish(&mut self, outcome: Outcome) -> bool {
        let mut open = self.outcomes[..self.length]
            .iter_mut()
            .filter(|outcome| outcome.is_none());
        if let Some(next) = open.next() {
            *next = Some(outcome);
        }
        open.next().is_none()
    }
}

/// A lane: its buffers, its part of the local memory, and the chain in progress.
struct Lane {
    buffers: [Buffer; LANE_BUFFERS],
    chain: Option<Chain>,
}

impl Lane {
    fn new(device: &Device<Bound>) -> Result<Self> {
        Ok(Self {
            buffers: [
                Buffer::new(device)?,
                Buffer::new(device)?,
                Buffer::new(device)?,
                Buffer::new(device)?,
            ],
            chain: None,
        })
    }

    /// Returns the addresses of the word `start` of each buffer.
    fn addresses(&self, start: usize) -> [DmaAddress; LANE_BUFFERS] {
        self.buffers.each_ref().map(|buffer| buffer.address(start))
    }
}

/// The layout of the local memory: each lane's part, and the store.
struct LocalMemory {
    /// Of the blocks after the lanes' parts, one in `sparse` contains data. The others never do.
    sparse: usize,
    /// The first word of each block that contains data.
    stored: KVec<u64>,
}

impl LocalMemory {
    /// Lays out the local memory. Returns `None` if the local memory is too small.
    fn new(engine: &Engine, sparse: usize, random: &mut Random) -> Result<Option<Self>> {
        let parts = (engine.local_memory() / bytes(BUFFER_WORDS)) as usize;
        let Some(blocks @ 1..) = parts.checked_sub(LANES) else {
            return Ok(None);
        };
        let mut stored = KVec::new();
        for _ in (0..blocks).step_by(sparse) {
            stored.push(random.next(), GFP_KERNEL)?;
        }
        Ok(Some(Self { sparse, stored }))
    }

    fn lane(&self, lane: usize, start: usize) -> u64 {
        bytes(lane * BUFFER_WORDS + start)
    }

    fn block(&self, block: usize, start: usize) -> u64 {
        self.lane(LANES + block * self.sparse, start)
    }

    fn pattern(&self, block: usize) -> Pattern {
        Pattern {
            first: self.stored[block],
            words: BUFFER_WORDS,
        }
    }

    /// Returns the commands that fill a block through a buffer.
    fn fill(&self, block: usize, buffer: &Buffer) -> [Command; 2] {
        let length = bytes(BUFFER_WORDS);
        [
            Command::Fill {
                destination: buffer.address(0),
                length,
                first: self.stored[block],
            },
            Command::LocalWrite {
                source: buffer.address(0),
                offset: self.block(block, 0),
                length,
            },
        ]
    }
}

/// The settings of a run: words of the form `NAME=NUMBER`.
struct Settings {
    /// Speed limit of the engine in bytes per millisecond, or 0 for no limit. The default is slow
    /// enough for the CPU to keep up, so that commands are always in progress.
    speed: u32,
    /// One in this number of blocks of the local memory contains data.
    sparse: usize,
    /// On average, this number in [`LANES`] chains rewrite blocks of the store.
    rewrite: usize,
}

impl Settings {
    fn parse(text: &str) -> Result<Self> {
        let mut settings = Self {
            speed: 2048,
            sparse: 4,
            rewrite: 1,
        };
        for argument in text.split_whitespace() {
            let (name, number) = argument.split_once('=').ok_or(EINVAL)?;
            let number: u32 = number.parse().map_err(|_| EINVAL)?;
            match (name, number) {
                ("speed", _) => settings.speed = number,
                ("sparse", 1..) => settings.sparse = number as usize,
                ("rewrite", _) => settings.rewrite = number as usize,
                _ => return Err(EINVAL),
            }
        }
        Ok(settings)
    }
}

/// Pseudo-random numbers (xorshift64*), the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Returns a number of words, whose order of magnitude is uniformly distributed.
    fn words(&mut self) -> usize {
        let magnitude = 1 << (1 + self.below(BUFFER_WORDS.ilog2() as usize));
        1 + self.below(magnitude)
    }
}

/// The resources of a run. The holder of the lock performs the run.
struct Bench {
    lanes: KVec<Lane>,
    archives: KVec<Buffer>,
    random: Random,
}

/// The progress of the run. It includes only verified operations.
#[derive(Default)]
struct Progress {
    running: bool,
    operations: u64,
    bytes: u64,
    /// Number of failed commands, and of invalid patterns and checksums.
    faults: u64,
}

/// The workload of one virtual function.
#[pin_data]
pub(crate) struct Workload {
    engine: Arc<Engine>,
    #[pin]
    bench: Mutex<Bench>,
    // Locked after `bench`, or alone.
    #[pin]
    progress: Mutex<Progress>,
    stop: Atomic<bool>,
    closed: Atomic<bool>,
    tamper: Atomic<bool>,
}

impl Workload {
    fn new(device: &Device<Bound>, engine: Arc<Engine>) -> impl PinInit<Self, Error> + '_ {
        try_pin_init!(Self {
            bench <- {
                let mut lanes = KVec::with_capacity(LANES, GFP_KERNEL)?;
                for _ in 0..LANES {
                    lanes.push(Lane::new(device)?, GFP_KERNEL)?;
                }
                let mut archives = KVec::with_capacity(ARCHIVES, GFP_KERNEL)?;
                for _ in 0..ARCHIVES {
                    archives.push(Buffer::new(device)?, GFP_KERNEL)?;
                }
                new_mutex!(Bench { lanes, archives, random: Random(0x5649_4641) })
            },
            progress <- new_mutex!(Progress::default()),
            stop: Atomic::new(false),
            closed: Atomic::new(false),
            tamper: Atomic::new(false),
            engine,
        }? Error)
    }

    /// Ends the run, if any, and prevents further runs.
    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
        drop(self.bench.lock());
    }

    /// Performs a run, until it is stopped.
    fn run(&self, settings: &Settings) -> Result {
        let mut bench = self.bench.try_lock().ok_or(EBUSY)?;
        self.stop.store(false, Relaxed);
        *self.progress.lock() = Progress {
            running: true,
            ..Progress::default()
        };
        let result = self
            .engine
            .start()
            .and_then(|()| Run::new(self, &mut bench, settings)?.run());
        self.engine.stop();
        for lane in &mut bench.lanes {
            lane.chain = None;
        }
        self.progress.lock().running = false;
        result
    }

    fn stopping(&self) -> bool {
        self.stop.load(Relaxed) || self.closed.load(Relaxed)
    }

    fn report(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counters {
            submitted,
            completed,
            interrupts,
            lost_interrupts,
            misordered,
            stalls,
            longest_gap,
        } = self.engine.counters();
        let progress = self.progress.lock();
        writeln!(
            f,
            "{{\"running\":{},\"operations\":{},\"bytes\":{},\"errors\":{},\
             \"lost_interrupts\":{lost_interrupts},\"submitted\":{submitted},\
             \"completed\":{completed},\"interrupts\":{interrupts},\"misordered\":{misordered},\
             \"stalls\":{stalls},\"longest_gap_ms\":{longest_gap}}}",
            progress.running,
            progress.operations,
            progress.bytes,
            progress.faults + misordered + stalls,
        )
    }
}

/// A run in progress.
struct Run<'a> {
    workload: &'a Workload,
    bench: &'a mut Bench,
    local: Option<LocalMemory>,
    /// The contents of the archives.
    archived: [Pattern; ARCHIVES],
    rewrite: usize,
}

impl<'a> Run<'a> {
    /// Fills the archives and the store at full speed, and then sets the speed of the engine.
    fn new(workload: &'a Workload, bench: &'a mut Bench, settings: &Settings) -> Result<Self> {
        let archived = [(); ARCHIVES].map(|()| Pattern {
            first: bench.random.next(),
            words: BUFFER_WORDS,
        });
        let local = LocalMemory::new(&workload.engine, settings.sparse, &mut bench.random)?;
        let run = Self {
            workload,
            bench,
            local,
            archived,
            rewrite: settings.rewrite,
        };
        for (buffer, pattern) in run.bench.archives.iter().zip(archived) {
            buffer.write(pattern);
        }
        if let Some(local) = &run.local {
            run.fill(local)?;
        }
        workload.engine.set_speed(settings.speed)?;
        Ok(run)
    }

    fn fill(&self, local: &LocalMemory) -> Result {
        let buffer = &self.bench.lanes[0].buffers[0];
        let blocks = local.stored.len();
        let mut commands = KVec::new();
        let mut finished = KVec::new();
        for first in (0..blocks).step_by(FILLED_BLOCKS) {
            commands.clear();
            for block in first..blocks.min(first + FILLED_BLOCKS) {
                commands.extend_from_slice(&local.fill(block, buffer), GFP_KERNEL)?;
            }
            self.workload.engine.submit(&commands)?;
            let mut in_progress = commands.len();
            while in_progress > 0 {
                self.workload.engine.wait(&mut finished)?;
                in_progress -= finished.len();
                self.workload.progress.lock().operations += finished.len() as u64;
                for outcome in &finished {
                    if let Err(refusal) = outcome {
                        self.fault(Step::Rewrite, Fault::Refused(*refusal));
                    }
                }
            }
        }
        Ok(())
    }

    fn run(mut self) -> Result {
        let mut next = 0;
        let mut oldest = 0;
        let mut in_progress = 0;
        let mut width = 1;
        let mut finished = KVec::new();
        loop {
            while in_progress < width && !self.workload.stopping() {
                let chain = self.compose(next);
                chain.submit(&self.workload.engine)?;
                self.bench.lanes[next].chain = Some(chain);
                next = (next + 1) % LANES;
                in_progress += 1;
            }
            if in_progress == 0 {
                break;
            }
            self.workload.engine.wait(&mut finished)?;
            for outcome in finished.drain_all() {
                let Some(chain) = &mut self.bench.lanes[oldest].chain else {
                    return Err(EPROTO);
                };
                if chain.finish(outcome) {
                    self.verify(oldest);
                    oldest = (oldest + 1) % LANES;
                    in_progress -= 1;
                    width = 1 + self.bench.random.below(LANES);
                }
            }
        }
        self.tamper();
        for (buffer, pattern) in self.bench.archives.iter().zip(self.archived) {
            self.workload.progress.lock().bytes += bytes(BUFFER_WORDS);
            if let Err(fault) = buffer.verify(0, pattern) {
                self.fault(Step::ArchiveChecksum, fault);
            }
        }
        Ok(())
    }

    /// Changes one bit of an archive, if `tamper` was written.
    fn tamper(&self) {
        if !self.workload.tamper.xchg(false, Relaxed) {
            return;
        }
        let archive = &self.bench.archives[0].0;
        let word = io_read!(archive, [panic: BUFFER_WORDS / 2]);
        io_write!(archive, [panic: BUFFER_WORDS / 2], word ^ 1);
    }

    /// Composes the next chain of `lane`.
    fn compose(&mut self, lane: usize) -> Chain {
        let random = &mut self.bench.random;
        let words = random.words();
        let start = random.below(BUFFER_WORDS - words + 1);
        let archive = random.below(ARCHIVES);
        let pattern = Pattern {
            first: random.next(),
            words,
        };
        let archived = self.archived[archive].part(start, words);
        let block = match &self.local {
            Some(local) => random.below(local.stored.len()),
            None => 0,
        };
        let stored = match &self.local {
            Some(local) => local.pattern(block).part(start, words),
            None => archived,
        };
        let mut chain = Chain::new(start, pattern, archived, stored);

        if random.below(LANES) == 0 {
            chain.push(Step::Nop, Command::Nop);
            return chain;
        }
        if let Some(local) = &mut self.local {
            if random.below(LANES) < self.rewrite {
                chain.rewrite(local, &self.bench.lanes[lane].buffers[3], random);
                return chain;
            }
        }
        let addresses = self.bench.lanes[lane].addresses(start);
        chain.compute(&addresses, &self.bench.archives[archive]);
        if let Some(local) = &self.local {
            chain.move_local(
                &addresses,
                local.lane(lane, start),
                local.block(block, start),
            );
        }
        chain
    }

    /// Verifies the results of the chain of `lane`, whose commands have all finished.
    fn verify(&mut self, lane: usize) {
        let Some(chain) = self.bench.lanes[lane].chain.take() else {
            return;
        };
        let buffers = &self.bench.lanes[lane].buffers;
        let steps = chain.steps.iter().zip(chain.outcomes);
        for ((step, _), outcome) in steps.take(chain.length) {
            let checksum = |pattern: Pattern, found| match pattern.checksum() {
                expected if expected == found => Ok(()),
                expected => Err(Fault::Checksum { expected, found }),
            };
            let verified = match outcome {
                None => continue,
                Some(Err(refusal)) => Err(Fault::Refused(refusal)),
                Some(Ok(result)) => match step {
                    Step::Nop | Step::LocalWrite | Step::Rewrite => Ok(()),
                    Step::Fill => buffers[0].verify(chain.start, chain.pattern),
                    Step::Copy => buffers[1].verify(chain.start, chain.pattern),
                    Step::Checksum => checksum(chain.pattern, result),
                    Step::LocalRead => buffers[2].verify(chain.start, chain.pattern),
                    Step::ArchiveChecksum => checksum(chain.archived, result),
                    Step::StoreRead => buffers[3].verify(chain.start, chain.stored),
                },
            };
            let length = match step {
                Step::Nop | Step::LocalWrite | Step::Rewrite => 0,
                _ => bytes(chain.pattern.words),
            };
            {
                let mut progress = self.workload.progress.lock();
                progress.operations += 1;
                progress.bytes += length;
            }
            if let Err(fault) = verified {
                self.fault(*step, fault);
            }
        }
    }

    fn fault(&self, step: Step, fault: Fault) {
        self.workload.progress.lock().faults += 1;
        dev_err!(self.workload.engine.device(), "{:?}: {}\n", step, fault);
    }
}

fn write_run(workload: &Workload, reader: &mut UserSliceReader) -> Result {
    let mut text = [0; 64];
    let length = reader.len();
    let text = text.get_mut(..length).ok_or(EINVAL)?;
    reader.read_slice(text)?;
    let text = core::str::from_utf8(text).map_err(|_| EINVAL)?;
    workload.run(&Settings::parse(text)?)
}

fn write_stop(workload: &Workload, _reader: &mut UserSliceReader) -> Result {
    workload.stop.store(true, Relaxed);
    Ok(())
}

fn write_tamper(workload: &Workload, _reader: &mut UserSliceReader) -> Result {
    workload.tamper.store(true, Relaxed);
    Ok(())
}

/// Creates the workload of the function with this `engine`, and its files in the debugfs
/// directory `directory`.
pub(crate) fn files<'a>(
    device: &'a Device<Bound>,
    engine: Arc<Engine>,
    directory: &'a CString,
) -> impl PinInit<debugfs::Scope<Workload>, Error> + 'a {
    debugfs::Scope::dir(
        Workload::new(device, engine),
        directory,
        |workload, directory| {
            directory.read_callback_file(c"progress", workload, &Workload::report);
            directory.write_only_callback_file(c"run", workload, &write_run);
            directory.write_only_callback_file(c"stop", workload, &write_stop);
            directory.write_only_callback_file(c"tamper", workload, &write_tamper);
        },
    )
}
