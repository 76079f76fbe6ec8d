// SPDX-License-Identifier: GPL-2.0

//! The guest's serial console, which a migration carries from one QEMU to another.
//!
//! A line that the guest begins in one QEMU may end in the other. The console is read from both,
//! and what the destination says counts once everything of the source has been read.

use std::io::Read;
use std::iter::Sum;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use serde::Deserialize;

/// What the guest's workload reports. All counts are since the workload began.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Workload {
    /// Whether it is under way.
    pub running: bool,
    /// Commands that completed and were verified.
    pub operations: u64,
    /// Bytes that were verified.
    pub bytes: u64,
    /// Whatever was wrong: bytes, checksums, refusals, the order of completions.
    pub errors: u64,
    /// Completions whose interrupt never came.
    pub lost_interrupts: u64,
    /// Commands given to the device.
    pub submitted: u64,
    /// Completions taken from the device.
    pub completed: u64,
    /// Interrupts taken.
    pub interrupts: u64,
    /// Completions that were not those of the next command.
    pub misordered: u64,
    /// Times that no completion came any more.
    pub stalls: u64,
    /// Longest time without a completion, as the guest's clock tells, in milliseconds.
    pub longest_gap_ms: u64,
}

impl Workload {
    /// Whether all is well so far.
    pub fn check(&self) -> Result<()> {
        for (what, count) in [
            ("errors", self.errors),
            ("lost interrupts", self.lost_interrupts),
            ("completions out of order", self.misordered),
            ("stalls", self.stalls),
        ] {
            ensure!(count == 0, "the workload found {count} {what}");
        }
        Ok(())
    }

    /// Whether all is well at the end: each command completed exactly once and was verified.
    pub fn check_finished(&self) -> Result<()> {
        self.check()?;
        ensure!(
            self.submitted == self.completed && self.completed == self.operations,
            "of {} commands {} completed and {} were verified",
            self.submitted,
            self.completed,
            self.operations
        );
        Ok(())
    }
}

impl Sum for Workload {
    fn sum<I: Iterator<Item = Self>>(workloads: I) -> Self {
        workloads.fold(Self::default(), |sum, next| Self {
            running: sum.running || next.running,
            operations: sum.operations + next.operations,
            bytes: sum.bytes + next.bytes,
            errors: sum.errors + next.errors,
            lost_interrupts: sum.lost_interrupts + next.lost_interrupts,
            submitted: sum.submitted + next.submitted,
            completed: sum.completed + next.completed,
            interrupts: sum.interrupts + next.interrupts,
            misordered: sum.misordered + next.misordered,
            stalls: sum.stalls + next.stalls,
            longest_gap_ms: sum.longest_gap_ms.max(next.longest_gap_ms),
        })
    }
}

/// A line of the guest's init; the workloads are one for each of its devices, in their order.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Report {
    /// The workloads are about to run.
    Ready,
    /// How the workloads go; `sequence` counts these lines.
    Progress {
        sequence: u64,
        workloads: Vec<Workload>,
    },
    /// The workloads have ended.
    Finished {
        error: Option<String>,
        workloads: Vec<Workload>,
    },
    /// There is no workload.
    Failed { error: String },
}

/// What begins a line of the guest's init.
const REPORT: &str = "vifa: ";

/// What a guest kernel writes only when something is wrong.
const COMPLAINTS: [&str; 8] = [
    "BUG:",
    "WARNING:",
    "Oops",
    "Call Trace",
    "Kernel panic",
    "general protection",
    "soft lockup",
    "vifa_reference 0",
];

/// One line of the console.
#[derive(Clone, Debug, PartialEq)]
enum Line {
    Report(Report),
    Complaint(String),
    Other,
}

impl Line {
    fn parse(line: &str) -> Result<Self> {
        // Before the serial driver takes over, firmware may leave something before the text.
        if let Some((_, json)) = line.split_once(REPORT) {
            let report = serde_json::from_str(json)
                .with_context(|| format!("the guest's line is garbled: {line}"))?;
            return Ok(Line::Report(report));
        }
        if COMPLAINTS.iter().any(|complaint| line.contains(complaint)) {
            return Ok(Line::Complaint(line.to_owned()));
        }
        Ok(Line::Other)
    }
}

/// The console as one QEMU shows it.
pub struct Output(Receiver<(Instant, Vec<u8>)>);

impl Output {
    /// Reads `stream` from now on.
    pub fn new(mut stream: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                let chunk = (Instant::now(), buffer[..length].to_vec());
                if sender.send(chunk).is_err() {
                    return;
                }
            }
        });
        Self(receiver)
    }
}

/// A virtual machine's console, through as many QEMUs as it lives in.
#[derive(Default)]
pub struct Console {
    output: Option<Output>,
    /// What came of a line that has not ended.
    partial: Vec<u8>,
    /// Everything, for people to look at.
    transcript: Vec<String>,
    reports: Vec<(Instant, Report)>,
    next_sequence: u64,
}

impl Console {
    /// Goes on with the console of another QEMU, in which the machine now lives. The QEMU before
    /// has ended, so everything that it showed is read.
    pub fn follow(&mut self, output: Output) -> Result<()> {
        if let Some(before) = self.output.replace(output) {
            for (time, bytes) in before.0.iter() {
                self.take(time, &bytes)?;
            }
        }
        Ok(())
    }

    /// Takes in what the guest has written.
    ///
    /// # Errors
    ///
    /// When the guest's kernel complains, a line of its init is garbled or missing, and when the
    /// workload finds anything wrong or fails: what came first.
    pub fn read(&mut self) -> Result<()> {
        let chunks: Vec<_> = self
            .output
            .iter()
            .flat_map(|output| output.0.try_iter())
            .collect();
        let mut result = Ok(());
        for (time, bytes) in chunks {
            result = result.and(self.take(time, &bytes));
        }
        result
    }

    /// Takes in what the guest goes on to write for a while, wrong or not: a kernel that complains
    /// says where with its next lines.
    pub fn linger(&mut self, time: Duration) {
        thread::sleep(time);
        let _ = self.read();
    }

    fn take(&mut self, time: Instant, bytes: &[u8]) -> Result<()> {
        let mut result = Ok(());
        for byte in bytes {
            if *byte != b'\n' {
                self.partial.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.partial))
                .trim()
                .to_owned();
            self.transcript.push(line.clone());
            result = result.and_then(|()| self.judge(time, &line));
        }
        result
    }

    fn judge(&mut self, time: Instant, line: &str) -> Result<()> {
        match Line::parse(line)? {
            Line::Report(report) => self.report(time, report),
            Line::Complaint(line) => bail!("the guest's kernel complains: {line}"),
            Line::Other => Ok(()),
        }
    }

    fn report(&mut self, time: Instant, report: Report) -> Result<()> {
        match &report {
            Report::Ready => (),
            Report::Progress {
                sequence,
                workloads,
            } => {
                ensure!(
                    *sequence == self.next_sequence,
                    "the guest's line {} is missing: line {sequence} came instead",
                    self.next_sequence
                );
                self.next_sequence += 1;
                workloads.iter().try_for_each(Workload::check)?;
            }
            Report::Finished { error, workloads } => {
                workloads.iter().try_for_each(Workload::check)?;
                if let Some(error) = error {
                    bail!("the workload failed: {error}");
                }
            }
            Report::Failed { error } => bail!("the guest has no workload: {error}"),
        }
        self.reports.push((time, report));
        Ok(())
    }

    /// All reports so far.
    pub fn reports(&self) -> &[(Instant, Report)] {
        &self.reports
    }

    /// The workloads as last reported.
    pub fn workloads(&self) -> Option<&[Workload]> {
        self.reports
            .iter()
            .rev()
            .find_map(|(_, report)| match report {
                Report::Progress { workloads, .. } | Report::Finished { workloads, .. } => {
                    Some(&**workloads)
                }
                Report::Ready | Report::Failed { .. } => None,
            })
    }

    /// The last lines, the unfinished one included.
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let mut tail: Vec<_> = self.transcript.iter().rev().take(lines).cloned().collect();
        tail.reverse();
        if !self.partial.is_empty() {
            tail.push(String::from_utf8_lossy(&self.partial).into_owned());
        }
        tail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(sequence: u64, operations: u64) -> String {
        format!(
            r#"vifa: {{"event":"progress","sequence":{sequence},"workloads":[{{"running":true,"operations":{operations},"bytes":1,"errors":0,"lost_interrupts":0,"submitted":9,"completed":8,"interrupts":7,"misordered":0,"stalls":0,"longest_gap_ms":3}}]}}"#
        ) + "\r\n"
    }

    fn taken(text: &str) -> Result<Console> {
        let mut console = Console::default();
        console.take(Instant::now(), text.as_bytes())?;
        Ok(console)
    }

    #[test]
    fn reads_reports_between_other_lines() {
        let text = "SeaBIOS\r\nvifa: {\"event\":\"ready\"}\r\n".to_owned() + &progress(0, 5);
        let console = taken(&text).unwrap();
        assert_eq!(console.reports()[0].1, Report::Ready);
        assert_eq!(console.workloads().unwrap()[0].operations, 5);
    }

    #[test]
    fn joins_a_line_that_was_cut() {
        let text = progress(0, 7);
        let (start, end) = text.split_at(40);
        let mut console = taken(start).unwrap();
        assert!(console.workloads().is_none());
        console.take(Instant::now(), end.as_bytes()).unwrap();
        assert_eq!(console.workloads().unwrap()[0].operations, 7);
    }

    #[test]
    fn misses_a_line_that_was_lost() {
        assert!(taken(&(progress(0, 1) + &progress(2, 2))).is_err());
        assert!(taken(&(progress(0, 1) + &progress(0, 2))).is_err());
    }

    #[test]
    fn refuses_a_garbled_line() {
        assert!(taken("vifa: {\"event\":\"prog\r\n").is_err());
        assert!(taken("vifa: {\"event\":\"unheard\"}\r\n").is_err());
    }

    #[test]
    fn notices_complaints_of_the_kernel() {
        assert!(taken("WARNING: CPU: 0 PID: 1 at kernel/irq/x.c:1\r\n").is_err());
        assert!(taken("vifa_reference 0000:00:01.0: lost interrupt: 1\r\n").is_err());
        assert!(taken("vifa_reference: loading out-of-tree module taints kernel.\r\n").is_ok());
    }

    #[test]
    fn what_follows_a_complaint_is_kept() {
        let mut console = Console::default();
        let text = b"BUG: kernel NULL pointer dereference\r\nRIP: 0010:f+0x1/0x2\r\n";
        let error = console.take(Instant::now(), text).unwrap_err();
        assert!(error.to_string().contains("BUG: kernel NULL"), "{error}");
        assert_eq!(console.tail(1), ["RIP: 0010:f+0x1/0x2"]);
    }

    fn finished(error: &str, errors: u64) -> String {
        format!(
            r#"vifa: {{"event":"finished","error":{error},"workloads":[{{"running":false,"operations":1,"bytes":1,"errors":{errors},"lost_interrupts":0,"submitted":1,"completed":1,"interrupts":1,"misordered":0,"stalls":0,"longest_gap_ms":0}}]}}"#
        ) + "\n"
    }

    #[test]
    fn knows_how_the_workload_ended() {
        let console = taken(&finished("null", 0)).unwrap();
        assert!(!console.workloads().unwrap()[0].running);
        assert!(taken(&finished(r#""Connection timed out""#, 0)).is_err());
        assert!(taken(&finished("null", 1)).is_err());
    }

    #[test]
    fn a_guest_without_workload_has_failed() {
        assert!(taken("vifa: {\"event\":\"failed\",\"error\":\"no device\"}\n").is_err());
    }

    #[test]
    fn a_workload_with_any_error_is_not_well() {
        let well = Workload {
            operations: 5,
            submitted: 5,
            completed: 5,
            ..Workload::default()
        };
        assert!(well.check_finished().is_ok());
        for worse in [
            Workload {
                errors: 1,
                ..well.clone()
            },
            Workload {
                lost_interrupts: 1,
                ..well.clone()
            },
            Workload {
                misordered: 1,
                ..well.clone()
            },
            Workload {
                stalls: 1,
                ..well.clone()
            },
        ] {
            assert!(worse.check().is_err());
        }
        let lost = Workload {
            completed: 4,
            ..well.clone()
        };
        assert!(lost.check().is_ok() && lost.check_finished().is_err());
        let unverified = Workload {
            operations: 4,
            ..well
        };
        assert!(unverified.check_finished().is_err());
    }

    #[test]
    fn keeps_the_last_lines() {
        let console = taken("one\ntwo\nthree\nfou").unwrap();
        assert_eq!(console.tail(2), ["two", "three", "fou"]);
    }
}
