// SPDX-License-Identifier: GPL-2.0

//! Runs the fuzz targets, each for a limited time, and reports their results as TAP.
//!
//! A target is a program with libFuzzer. It begins with the seeds of the tree and the inputs that
//! earlier runs have kept. `scripts/fuzz` builds the targets and calls this program.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{BufRead, BufReader, IsTerminal, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
};

use anyhow::{ensure, Context, Result};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use vifa_fuzz::seeds::{corpus, golden};
use vifa_tap::Tap;

/// Run the fuzz targets and report their results as TAP.
#[derive(Parser)]
struct Arguments {
    /// Run time of each target in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u32,

    /// The directory with the targets
    #[arg(long, value_name = "DIRECTORY")]
    programs: PathBuf,

    /// The directory for inputs that reach new code, kept between runs
    #[arg(long, value_name = "DIRECTORY")]
    kept: PathBuf,

    /// The directory for logs and failing inputs
    #[arg(long, value_name = "DIRECTORY")]
    logs: PathBuf,

    /// The path of the log directory in messages [default: the same]
    #[arg(long, value_name = "DIRECTORY")]
    logs_shown: Option<PathBuf>,

    /// The targets [default: all]
    targets: Vec<String>,
}

/// Returns the targets with the directories of their seeds.
fn targets() -> [(&'static str, Vec<PathBuf>); 3] {
    [
        ("stream", vec![golden(), corpus("stream")]),
        ("save-set", vec![corpus("save-set")]),
        (
            "decode",
            vec![golden(), corpus("stream"), corpus("save-set")],
        ),
    ]
}

/// Timeout for one input on a busy machine, in seconds. Most inputs take less than a millisecond.
const TIMEOUT: u32 = 120;

/// Maximum length of an input in bytes.
const LENGTH_MAX: usize = vifa_fuzz::mutation::LENGTH_MAX;

/// Memory limit of a target in MiB.
const MEMORY_MAX: u32 = 1024;

/// Number of log lines in the report of a failed target.
const LINES_SHOWN: usize = 25;

/// The result of a target.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    executions: u64,
    per_second: u64,
    /// Number of reached edges of the program.
    coverage: u64,
    /// Number of all edges.
    edges: u64,
    /// Number of inputs in the corpus.
    corpus: u64,
    /// The file with the failing input.
    failed_on: Option<String>,
}

impl Outcome {
    /// Parses a line of libFuzzer's output.
    fn line(&mut self, line: &str) {
        let word_after = |key: &str| {
            let rest = line.split_once(key)?.1;
            rest.split_whitespace().next()
        };
        let number = |key| word_after(key)?.parse().ok();

        if line.starts_with('#') {
            self.coverage = number("cov: ").unwrap_or(self.coverage);
            let corpus = word_after("corp: ").and_then(|corpus| corpus.split('/').next());
            self.corpus = corpus
                .and_then(|count| count.parse().ok())
                .unwrap_or(self.corpus);
        } else if line.starts_with("INFO: Loaded ") && line.contains("counters") {
            let edges = line
                .split_once('(')
                .and_then(|(_, rest)| rest.split(' ').next());
            self.edges = edges
                .and_then(|count| count.parse().ok())
                .unwrap_or(self.edges);
        } else if line.starts_with("stat::number_of_executed_units:") {
            self.executions = number("units:").unwrap_or(0);
        } else if line.starts_with("stat::average_exec_per_sec:") {
            self.per_second = number("sec:").unwrap_or(0);
        } else if let Some((_, file)) = line.split_once("Test unit written to ") {
            self.failed_on = Some(file.trim().to_owned());
        }
    }

    fn summary(&self) -> String {
        format!(
            "{} inputs, {} per second; reached {} of {} edges; {} inputs kept",
            self.executions, self.per_second, self.coverage, self.edges, self.corpus
        )
    }
}

/// Starts a target with the inputs in `kept` and `seeds`.
fn start(arguments: &Arguments, target: &str, kept: &Path, seeds: &[PathBuf]) -> Result<Child> {
    let program = arguments.programs.join(format!("fuzz-{target}"));

    Command::new(&program)
        .arg(kept)
        .args(seeds)
        .arg(format!("-max_total_time={}", arguments.seconds))
        .arg(format!("-timeout={TIMEOUT}"))
        .arg(format!("-max_len={LENGTH_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MAX}"))
        .arg(format!(
            "-artifact_prefix={}/{target}-",
            arguments.logs.display()
        ))
        .arg("-print_final_stats=1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to run {}", program.display()))
}

/// Returns the progress bar of a target, which is visible on a terminal only.
fn progress_bar(target: &str) -> Result<ProgressBar> {
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new_spinner()
    } else {
        ProgressBar::hidden()
    };
    bar.set_style(ProgressStyle::with_template(
        "{spinner} {prefix} {elapsed} {wide_msg}",
    )?);
    bar.set_prefix(target.to_owned());
    Ok(bar)
}

/// Runs a target. Returns its result, and the reason if it failed.
fn run(
    arguments: &Arguments,
    target: &str,
    seeds: &[PathBuf],
) -> Result<(Outcome, Option<Vec<String>>)> {
    let kept = arguments.kept.join(target);
    let log_path = arguments.logs.join(format!("{target}.log"));
    fs::create_dir_all(&kept).with_context(|| format!("failed to create {}", kept.display()))?;
    fs::create_dir_all(&arguments.logs)?;
    let mut log = File::create(&log_path)
        .with_context(|| format!("failed to write {}", log_path.display()))?;

    let mut child = start(arguments, target, &kept, seeds)?;
    let bar = progress_bar(target)?;

    let mut outcome = Outcome::default();
    let mut last = VecDeque::new();
    let output = child.stderr.take().context("the target has no output")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("failed to read the target's output")?;
        let line = String::from_utf8_lossy(&line);
        writeln!(log, "{line}")?;
        outcome.line(&line);
        bar.set_message(line.trim().to_owned());
        bar.tick();
        if !line.starts_with('#') && !line.starts_with("stat::") {
            last.push_back(line.into_owned());
        }
        if last.len() > LINES_SHOWN {
            last.pop_front();
        }
    }
    let status = child.wait().context("failed to wait for the target")?;
    bar.finish_and_clear();

    let failure = if !status.success() {
        Some(last.into())
    } else if outcome.executions == 0 || outcome.coverage == 0 {
        Some(vec![
            "no input was executed, or no edge was reached".to_owned()
        ])
    } else {
        None
    };
    Ok((outcome, failure))
}

/// Returns `path` below [`Arguments::logs_shown`].
fn shown(path: &Path, arguments: &Arguments) -> PathBuf {
    let below = path.strip_prefix(&arguments.logs);
    match (below, &arguments.logs_shown) {
        (Ok(below), Some(shown)) => shown.join(below),
        _ => path.to_owned(),
    }
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let targets = targets();
    let wanted: Vec<_> = targets
        .iter()
        .filter(|(name, _)| {
            arguments.targets.is_empty() || arguments.targets.iter().any(|target| target == name)
        })
        .collect();
    ensure!(
        !wanted.is_empty() && wanted.len() >= arguments.targets.len(),
        "the targets are: {}",
        targets.map(|(name, _)| name).join(", ")
    );

    let mut tap = Tap::plan(wanted.len() as u32);
    for (target, seeds) in wanted {
        let (outcome, failure) = run(&arguments, target, seeds)?;
        let name = format!("{target}: {}", outcome.summary());
        match failure {
            None => tap.pass(&name),
            Some(lines) => tap.fail(&format!("{name}\n{}", lines.join("\n"))),
        }
        if let Some(input) = &outcome.failed_on {
            let input = shown(Path::new(input), &arguments);
            tap.note(&format!("the input: {}", input.display()));
            tap.note(&format!(
                "to repeat: scripts/fuzz {target} {}",
                input.display()
            ));
        }
    }
    Ok(if tap.finish() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn the_output_of_libfuzzer_is_parsed() {
        let mut outcome = Outcome::default();

        for line in "INFO: Loaded 1 modules   (4711 inline 8-bit counters): 4711 [0x55, 0x66), \n\
             #2\tINITED cov: 10 ft: 10 corp: 1/1b exec/s: 0 rss: 27Mb\n\
             #7211\tREDUCE cov: 12 ft: 10 corp: 3/12b lim: 74 exec/s: 0 rss: 27Mb L: 7/7\n\
             panicked at: cov: 99\n\
             artifact_prefix='/logs/'; Test unit written to /logs/stream-crash-0123\n\
             stat::number_of_executed_units: 8000\n\
             stat::average_exec_per_sec:     800"
            .lines()
        {
            outcome.line(line);
        }
        assert_eq!(
            outcome,
            Outcome {
                executions: 8000,
                per_second: 800,
                coverage: 12,
                edges: 4711,
                corpus: 3,
                failed_on: Some("/logs/stream-crash-0123".to_owned()),
            }
        );
    }
}
