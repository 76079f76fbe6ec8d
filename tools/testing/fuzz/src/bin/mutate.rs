// SPDX-License-Identifier: GPL-2.0

//! Judges mutated streams, millions of them: see `vifa_fuzz::stream` for what has to hold.
//!
//! Every mutation has a number, and what it is follows from the number and the seed alone: any of
//! them can be repeated.

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

/// Judge mutated streams: each is refused, or means what the second implementation reads.
#[derive(Parser)]
struct Arguments {
    /// How many streams
    #[arg(long, default_value_t = 10_000_000)]
    count: u64,

    /// What they follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// How many are judged at once [default: as many as there are processors]
    #[arg(long)]
    threads: Option<usize>,

    /// Judge this one alone
    #[arg(long, value_name = "NUMBER")]
    only: Option<u64>,

    /// Keep a stream that fails here
    #[arg(long, value_name = "FILE", default_value = "failed.stream")]
    keep: PathBuf,
}

/// How long a stream may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often something is printed when nobody looks at a terminal.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// Streams that a thread takes at a time.
const BATCH: u64 = 256;

/// No stream is judged.
const IDLE: u64 = u64::MAX;

/// How a stream was made.
#[derive(Clone, Copy)]
enum Kind {
    /// Bytes were changed, whatever they are.
    Damaged,
    /// What it says was changed, and it was sealed anew.
    Edited,
}

/// How many streams of each kind came to each verdict.
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

/// What a thread works on.
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
    /// The stream that failed, and its number.
    failure: Mutex<Option<(u64, Vec<u8>)>>,
}

impl Run {
    /// Makes the stream with this number and has it judged by the device that its seed is of.
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

    /// Judges streams until there are no more, or one failed.
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

    /// Notes the first failure.
    fn fail(&self, number: u64, stream: Vec<u8>) {
        let mut failure = self.failure.lock().expect("nobody panics with the lock");

        self.failed.store(true, Ordering::Relaxed);
        failure.get_or_insert((number, stream));
    }

    /// Shows how far the run is until `finished`, and ends the program when a stream takes too long.
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
            .expect("the template is right"),
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
                } else if present != IDLE && start.elapsed() > PATIENCE {
                    eprintln!("stream {present} takes more than {PATIENCE:?}: it hangs");
                    self.say_how_to_repeat(present);
                    process::exit(1);
                }
            }
        }
        bar.finish_and_clear();
    }

    fn say_how_to_repeat(&self, number: u64) {
        eprintln!(
            "to repeat: vifa-mutate --seed {} --only {number}",
            self.seed
        );
    }

    /// Prints what the streams came to.
    fn report(&self, elapsed: Duration) {
        let done = self.done.load(Ordering::Relaxed);

        println!(
            "{done} streams in {:.0} s, {:.0} each second",
            elapsed.as_secs_f64(),
            done as f64 / elapsed.as_secs_f64().max(0.001)
        );
        println!("                        not sound  incompatible         taken");
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
    let workers: Vec<Worker> = (0..threads)
        .map(|_| Worker {
            number: AtomicU64::new(IDLE),
        })
        .collect();
    let finished = AtomicBool::new(false);
    let start = Instant::now();

    println!(
        "{} streams made from {} sound ones, seed {}",
        end - first,
        run.seeds.len(),
        run.seed
    );
    thread::scope(|scope| -> Result<()> {
        scope.spawn(|| run.watch(&workers, &finished));
        let handles: Vec<_> = workers
            .iter()
            .map(|worker| scope.spawn(|| run.work(worker)))
            .collect();
        let results: Vec<_> = handles
            .into_iter()
            .map(|handle| handle.join().expect("a worker catches what panics"))
            .collect();
        finished.store(true, Ordering::Relaxed);
        results.into_iter().collect()
    })?;

    run.report(start.elapsed());
    let failure = run
        .failure
        .lock()
        .expect("nobody panics with the lock")
        .take();
    let Some((number, stream)) = failure else {
        return Ok(ExitCode::SUCCESS);
    };
    fs::write(&arguments.keep, stream)
        .with_context(|| format!("cannot write {}", arguments.keep.display()))?;
    eprintln!(
        "stream {number} failed; it is in {}",
        arguments.keep.display()
    );
    run.say_how_to_repeat(number);
    Ok(ExitCode::FAILURE)
}
