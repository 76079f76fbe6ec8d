// SPDX-License-Identifier: GPL-2.0

//! Judges millions of mutated streams. `vifa_fuzz::stream` lists the asserted properties.
//!
//! Every mutation has a number. The mutation depends only on its number and the seed, so it can be
//! repeated.

use std::{
    fs,
    io::IsTerminal,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    process::{self, ExitCode},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        Mutex,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Parser;
use fastrand::Rng;
use indicatif::{ProgressBar, ProgressStyle};
use vifa_fuzz::{
    mutation,
    seeds::{self, Seed},
    stream::{Judge, Verdict},
};

/// Judge mutated streams: each is refused, or has the meaning that the second implementation reads.
#[derive(Parser)]
struct Arguments {
    /// Number of streams
    #[arg(long, default_value_t = 10_000_000)]
    count: u64,

    /// Seed of the mutations
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Number of threads [default: the number of processors]
    #[arg(long)]
    threads: Option<usize>,

    /// Judge only this stream
    #[arg(long, value_name = "NUMBER")]
    only: Option<u64>,

    /// The file for a failing stream
    #[arg(long, value_name = "FILE", default_value = "failed.stream")]
    keep: PathBuf,
}

/// Timeout for one stream on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Interval between progress reports without a terminal.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// Number of streams that a thread takes at a time.
const BATCH: u64 = 256;

/// The number of an idle worker's stream.
const IDLE: u64 = u64::MAX;

/// The kind of a mutation.
#[derive(Clone, Copy)]
enum Kind {
    /// Arbitrary bytes were changed.
    Damaged,
    /// The meaning was changed, and the stream was sealed again.
    Edited,
}

/// Numbers of streams by kind and verdict.
#[derive(Default)]
struct Counts([[AtomicU64; 3]; 2]);

impl Counts {
    fn count(&self, kind: Kind, verdict: Verdict) {
        self.0[kind as usize][verdict as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn of(&self, kind: Kind, verdict: Verdict) -> u64 {
        self.0[kind as usize][verdict as usize].load(Ordering::Relaxed)
    }
}

/// The number of the stream that a thread judges.
struct Worker {
    number: AtomicU64,
}

struct Run {
    seeds: Vec<Seed>,
    seed: u64,
    next: AtomicU64,
    end: u64,
    done: AtomicU64,
    failed: AtomicBool,
    counts: Counts,
    /// The number of the failed stream, and the stream.
    failure: Mutex<Option<(u64, Vec<u8>)>>,
}

impl Run {
    /// Mutates stream number `number` and judges it, mostly with the device of its seed.
    fn judge(&self, number: u64, judges: &mut [Judge], stream: &mut Vec<u8>) {
        let mut rng = Rng::with_seed(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number);
        let (one, other) = (rng.usize(..self.seeds.len()), rng.usize(..self.seeds.len()));
        let (seed, other) = (&self.seeds[one], &self.seeds[other]);
        let device = if rng.u8(..16) == 0 {
            rng.usize(..judges.len())
        } else {
            one
        };
        let edited = if rng.u8(..3) == 0 {
            None
        } else {
            mutation::edit(&seed.bytes, &other.bytes, &mut rng)
        };

        let (kind, verdict) = match edited {
            Some(edited) => {
                *stream = edited;
                (Kind::Edited, judges[device].judge(stream, &mut rng))
            }
            None => {
                *stream = mutation::damage(&seed.bytes, &other.bytes, &mut rng);
                let verdict = judges[device].judge_damaged(stream, &[seed, other], &mut rng);
                (Kind::Damaged, verdict)
            }
        };
        self.counts.count(kind, verdict);
    }

    /// Judges streams until the last one, or until one fails.
    fn work(&self, worker: &Worker) -> Result<()> {
        let judges = self.seeds.iter().map(Judge::new);
        let mut judges = judges.collect::<Result<Vec<_>>>()?;
        let mut stream = Vec::new();

        while !self.failed.load(Ordering::Relaxed) {
            let first = self.next.fetch_add(BATCH, Ordering::Relaxed);
            if first >= self.end {
                break;
            }
            let last = self.end.min(first + BATCH);
            for number in first..last {
                worker.number.store(number, Ordering::Relaxed);
                let judged = panic::catch_unwind(AssertUnwindSafe(|| {
                    self.judge(number, &mut judges, &mut stream);
                }));
                if judged.is_err() {
                    self.fail(number, stream);
                    return Ok(());
                }
            }
            self.done.fetch_add(last - first, Ordering::Relaxed);
            worker.number.store(IDLE, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Checks the streams in this number of threads.
    fn work_in_threads(&self, threads: usize) -> Result<()> {
        let workers: Vec<Worker> = (0..threads)
            .map(|_| Worker {
                number: AtomicU64::new(IDLE),
            })
            .collect();
        let finished = AtomicBool::new(false);

        thread::scope(|scope| {
            scope.spawn(|| self.watch(&workers, &finished));
            let handles: Vec<_> = workers
                .iter()
                .map(|worker| scope.spawn(|| self.work(worker)))
                .collect();
            let results: Vec<_> = handles
                .into_iter()
                .map(|handle| handle.join().expect("a worker catches panics"))
                .collect();
            finished.store(true, Ordering::Relaxed);
            results.into_iter().collect()
        })
    }

    /// Records the first failure.
    fn fail(&self, number: u64, stream: Vec<u8>) {
        let mut failure = self.failure.lock().expect("no thread panics with the lock");

        self.failed.store(true, Ordering::Relaxed);
        failure.get_or_insert((number, stream));
    }

    /// Shows the progress until `finished`, and exits the program if a stream times out.
    fn watch(&self, workers: &[Worker], finished: &AtomicBool) {
        let shown = std::io::stderr().is_terminal();
        let bar = if shown {
            ProgressBar::new(self.end)
        } else {
            ProgressBar::hidden()
        };
        bar.set_style(
            ProgressStyle::with_template(
                "{wide_bar} {human_pos}/{human_len} streams, {per_sec}, {eta} left",
            )
            .expect("the template is valid"),
        );
        let mut reported = Instant::now();
        let mut since: Vec<(u64, Instant)> =
            workers.iter().map(|_| (IDLE, Instant::now())).collect();

        while !finished.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(200));
            let done = self.done.load(Ordering::Relaxed);
            bar.set_position(done);
            if !shown && reported.elapsed() >= REPORT_INTERVAL {
                reported = Instant::now();
                println!("{done} of {} streams", self.end);
            }
            for (worker, (number, start)) in workers.iter().zip(&mut since) {
                let present = worker.number.load(Ordering::Relaxed);
                if present != *number {
                    (*number, *start) = (present, Instant::now());
                } else if present != IDLE && start.elapsed() > TIMEOUT {
                    eprintln!("stream {present} timed out after {TIMEOUT:?}");
                    self.print_repeat_command(present);
                    process::exit(1);
                }
            }
        }
        bar.finish_and_clear();
    }

    fn print_repeat_command(&self, number: u64) {
        eprintln!(
            "to repeat: vifa-mutate --seed {} --only {number}",
            self.seed
        );
    }

    /// Prints the numbers of streams by kind and verdict.
    fn report(&self, elapsed: Duration) {
        let done = self.done.load(Ordering::Relaxed);

        println!(
            "{done} streams in {:.0} s, {:.0} per second",
            elapsed.as_secs_f64(),
            done as f64 / elapsed.as_secs_f64().max(0.001)
        );
        println!("                          invalid  incompatible      accepted");
        for (kind, name) in [
            (Kind::Damaged, "bytes changed"),
            (Kind::Edited, "edited and sealed"),
        ] {
            println!(
                "{name:20}{:13} {:13} {:13}",
                self.counts.of(kind, Verdict::Invalid),
                self.counts.of(kind, Verdict::Incompatible),
                self.counts.of(kind, Verdict::Taken)
            );
        }
    }
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let (first, end) = match arguments.only {
        Some(number) => (number, number + 1),
        None => (0, arguments.count),
    };
    let run = Run {
        seeds: seeds::short_streams()?,
        seed: arguments.seed,
        next: AtomicU64::new(first),
        end,
        done: AtomicU64::new(0),
        failed: AtomicBool::new(false),
        counts: Counts::default(),
        failure: Mutex::new(None),
    };
    let threads = match arguments.threads {
        Some(threads) => threads.max(1),
        None => thread::available_parallelism().map_or(1, usize::from),
    };
    let start = Instant::now();

    println!(
        "{} streams, mutated from {} valid ones, seed {}",
        end - first,
        run.seeds.len(),
        run.seed
    );
    run.work_in_threads(threads)?;
    run.report(start.elapsed());
    let failure = run
        .failure
        .lock()
        .expect("no thread panics with the lock")
        .take();
    let Some((number, stream)) = failure else {
        return Ok(ExitCode::SUCCESS);
    };
    fs::write(&arguments.keep, stream)
        .with_context(|| format!("failed to write {}", arguments.keep.display()))?;
    eprintln!(
        "stream {number} failed; it is in {}",
        arguments.keep.display()
    );
    run.print_repeat_command(number);
    Ok(ExitCode::FAILURE)
}
