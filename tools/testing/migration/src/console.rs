// SPDX-License-Identifier: GPL-2.0

//! The guest's reports on its serial console, and its kernel's complaints.

use std::{
    iter::Sum,
    thread,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure, Context, Result};
use serde::Deserialize;
use vifa_qmp::{Output, Transcript};

/// Report of the guest's workload. All counts are since the workload began.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Workload {
    /// Whether the workload is running.
    pub running: bool,
    /// Number of commands that completed and were verified.
    pub operations: u64,
    /// Number of bytes that were verified.
    pub bytes: u64,
    /// Number of errors: wrong bytes or checksums, refused commands, completions out of order.
    pub errors: u64,
    /// Number of completions without an interrupt.
    pub lost_interrupts: u64,
    /// Number of commands submitted to the device.
    pub submitted: u64,
    /// Number of completions taken from the device.
    pub completed: u64,
    /// Number of interrupts.
    pub interrupts: u64,
    /// Number of completions that did not belong to the next command.
    pub misordered: u64,
    /// Number of times that completions stopped.
    pub stalls: u64,
    /// Longest time without a completion, by the guest's clock, in milliseconds.
    pub longest_gap_ms: u64,
}

impl Workload {
    /// Checks that there are no errors so far.
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

    /// Checks the final counts: each command completed exactly once and was verified.
    pub fn check_finished(&self) -> Result<()> {
        self.check()?;
        ensure!(
            self.submitted == self.completed && self.completed == self.operations,
            "of {} commands, {} completed and {} were verified",
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

/// Report of a guest whose device is a network adapter: the adapter's settings, as the guest reads
/// them, and its traffic since the guest began.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Traffic {
    /// Whether the adapter has a link.
    pub carrier: bool,
    /// Whether the link changed since the traffic began.
    pub link_changed: bool,
    /// The adapter's hardware address.
    pub mac: String,
    /// Maximum packet size.
    pub mtu: u64,
    /// Number of times that the kernel found the transmit queue stuck.
    pub transmit_timeouts: u64,
    /// Number of errors that the adapter counts.
    pub faults: u64,
    /// The guest's echo requests to its peer.
    pub ping: Pings,
    /// Traffic that the guest answered.
    pub answered: Answers,
}

/// Echo requests of a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct Pings {
    /// Number of sent requests.
    pub sent: u64,
    /// Number of requests that failed to be sent.
    pub refused: u64,
    /// Number of answers.
    pub received: u64,
    /// Number of answers without a request, or with changed data.
    pub wrong: u64,
    /// Longest time without an answer, by the guest's clock, in milliseconds.
    pub longest_gap_ms: u64,
}

/// Traffic that a guest answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct Answers {
    /// Number of TCP connections.
    pub connections: u64,
    /// Number of broken connections.
    pub broken: u64,
    /// Number of bytes over TCP.
    pub bytes: u64,
    /// Number of unicast datagrams.
    pub datagrams: u64,
    /// Number of multicast datagrams.
    pub group_datagrams: u64,
    /// Number of iperf3 tests that succeeded.
    pub iperf_tests: u64,
}

impl Traffic {
    /// Checks that there are no errors so far: the guest must not notice the migration.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.carrier && !self.link_changed,
            "the guest's adapter lost its link"
        );
        for (what, count) in [
            ("timeouts of the transmit queue", self.transmit_timeouts),
            ("errors of the adapter", self.faults),
            ("wrong answers to its pings", self.ping.wrong),
            ("pings that failed to be sent", self.ping.refused),
            ("broken connections", self.answered.broken),
        ] {
            ensure!(count == 0, "the guest counts {count} {what}");
        }
        Ok(())
    }

    /// Converts the traffic to a workload, with each answered ping as an operation.
    fn workload(&self) -> Workload {
        Workload {
            running: true,
            operations: self.ping.received,
            bytes: self.answered.bytes,
            submitted: self.ping.received,
            completed: self.ping.received,
            longest_gap_ms: self.ping.longest_gap_ms,
            ..Workload::default()
        }
    }
}

/// A line of the guest's init. It has one workload for each of the guest's devices, in their order.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Report {
    /// The workloads are about to run.
    Ready,
    /// Progress of the workloads; `sequence` counts these lines.
    Progress {
        sequence: u64,
        #[serde(default)]
        workloads: Vec<Workload>,
        traffic: Option<Traffic>,
    },
    /// The workloads have ended.
    Finished {
        error: Option<String>,
        #[serde(default)]
        workloads: Vec<Workload>,
        traffic: Option<Traffic>,
    },
    /// The guest has no workload.
    Failed { error: String },
}

/// Prefix of a line of the guest's init.
const REPORT: &str = "vifa: ";

/// Texts that a guest kernel writes only if there is an error.
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
        // Before the serial driver starts, firmware may leave characters before the text.
        if let Some((_, json)) = line.split_once(REPORT) {
            let report = serde_json::from_str(json)
                .with_context(|| format!("garbled line of the guest: {line}"))?;
            return Ok(Line::Report(report));
        }
        if COMPLAINTS.iter().any(|complaint| line.contains(complaint)) {
            return Ok(Line::Complaint(line.to_owned()));
        }
        Ok(Line::Other)
    }
}

/// A virtual machine's console, across all QEMUs that run the machine.
#[derive(Default)]
pub struct Console {
    transcript: Transcript,
    reports: Vec<(Instant, Report)>,
    next_sequence: u64,
    /// Number of lines that are not reports.
    others: u64,
}

impl Console {
    /// Continues with the console of another QEMU, to which the machine has moved. The previous
    /// QEMU has ended, so all its output is read.
    pub fn follow(&mut self, output: Output) -> Result<()> {
        let lines = self.transcript.follow(output);
        self.judge_all(lines)
    }

    /// Processes the guest's output.
    ///
    /// # Errors
    ///
    /// Returns the first error: the guest's kernel complains, a line of its init is garbled or
    /// missing, or the workload reports an error or fails.
    pub fn read(&mut self) -> Result<()> {
        let lines = self.transcript.read();
        self.judge_all(lines)
    }

    /// Records the guest's output for a while, ignoring errors: a complaining kernel reports the
    /// location in its next lines.
    pub fn linger(&mut self, time: Duration) {
        thread::sleep(time);
        let _ = self.read();
    }

    fn judge_all(&mut self, lines: Vec<vifa_qmp::Line>) -> Result<()> {
        let mut result = Ok(());
        for line in lines {
            result = result.and(self.judge(line.time, &line.text));
        }
        result
    }

    fn judge(&mut self, time: Instant, line: &str) -> Result<()> {
        match Line::parse(line)? {
            Line::Report(report) => self.report(time, report),
            Line::Complaint(line) => bail!("the guest's kernel complains: {line}"),
            Line::Other => {
                self.others += 1;
                Ok(())
            }
        }
    }

    fn report(&mut self, time: Instant, mut report: Report) -> Result<()> {
        if let Report::Progress {
            workloads,
            traffic: Some(traffic),
            ..
        }
        | Report::Finished {
            workloads,
            traffic: Some(traffic),
            ..
        } = &mut report
        {
            traffic.check()?;
            workloads.push(traffic.workload());
        }
        match &report {
            Report::Ready => (),
            Report::Progress {
                sequence,
                workloads,
                ..
            } => {
                ensure!(
                    *sequence == self.next_sequence,
                    "a line of the guest is missing: expected line {}, got line {sequence}",
                    self.next_sequence
                );
                self.next_sequence += 1;
                workloads.iter().try_for_each(Workload::check)?;
            }
            Report::Finished {
                error, workloads, ..
            } => {
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

    /// Returns all reports so far.
    pub fn reports(&self) -> &[(Instant, Report)] {
        &self.reports
    }

    /// Returns the last report of the workloads.
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

    /// Returns a number that changes while the guest makes progress: while its kernel writes lines,
    /// and while its slowest workload completes operations. Reports alone are not progress.
    pub fn progress(&self) -> u64 {
        let workloads = self.workloads().unwrap_or_default();
        let slowest = workloads.iter().map(|workload| workload.operations).min();
        self.others + slowest.unwrap_or(0)
    }

    /// Returns the last report of the traffic.
    pub fn traffic(&self) -> Option<&Traffic> {
        self.reports
            .iter()
            .rev()
            .find_map(|(_, report)| match report {
                Report::Progress { traffic, .. } | Report::Finished { traffic, .. } => {
                    traffic.as_ref()
                }
                Report::Ready | Report::Failed { .. } => None,
            })
    }

    /// Returns the last lines, including an incomplete one.
    pub fn tail(&self, lines: usize) -> Vec<String> {
        self.transcript.tail(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(running: bool, operations: u64, errors: u64) -> String {
        format!(
            concat!(
                r#"{{"running":{},"operations":{},"bytes":1,"errors":{},"lost_interrupts":0,"#,
                r#""submitted":9,"completed":8,"interrupts":7,"misordered":0,"stalls":0,"#,
                r#""longest_gap_ms":3}}"#
            ),
            running, operations, errors
        )
    }

    fn progress(sequence: u64, operations: u64) -> String {
        let workload = workload(true, operations, 0);
        format!(r#"vifa: {{"event":"progress","sequence":{sequence},"workloads":[{workload}]}}"#)
            + "\r\n"
    }

    impl Console {
        fn take(&mut self, text: &[u8]) -> Result<()> {
            let lines = self.transcript.take(Instant::now(), text);
            self.judge_all(lines)
        }
    }

    fn taken(text: &str) -> Result<Console> {
        let mut console = Console::default();
        console.take(text.as_bytes())?;
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
    fn lines_and_operations_are_progress_and_reports_are_not() {
        let mut console = taken("SeaBIOS\r\n").unwrap();
        let booted = console.progress();
        assert!(booted > Console::default().progress());
        let mut after = |report: String| {
            console.take(report.as_bytes()).unwrap();
            console.progress()
        };
        let first = after(progress(0, 5));
        assert!(first > booted);
        assert_eq!(after(progress(1, 5)), first);
        assert!(after(progress(2, 6)) > first);
    }

    #[test]
    fn joins_a_split_line() {
        let text = progress(0, 7);
        let (start, end) = text.split_at(40);
        let mut console = taken(start).unwrap();
        assert!(console.workloads().is_none());
        console.take(end.as_bytes()).unwrap();
        assert_eq!(console.workloads().unwrap()[0].operations, 7);
    }

    #[test]
    fn detects_a_lost_line() {
        assert!(taken(&(progress(0, 1) + &progress(2, 2))).is_err());
        assert!(taken(&(progress(0, 1) + &progress(0, 2))).is_err());
    }

    #[test]
    fn rejects_a_garbled_line() {
        assert!(taken("vifa: {\"event\":\"prog\r\n").is_err());
        assert!(taken("vifa: {\"event\":\"unheard\"}\r\n").is_err());
    }

    #[test]
    fn detects_complaints_of_the_kernel() {
        assert!(taken("WARNING: CPU: 0 PID: 1 at kernel/irq/x.c:1\r\n").is_err());
        assert!(taken("vifa_reference 0000:00:01.0: lost interrupt: 1\r\n").is_err());
        assert!(taken("vifa_reference: loading out-of-tree module taints kernel.\r\n").is_ok());
    }

    #[test]
    fn lines_after_a_complaint_are_kept() {
        let mut console = Console::default();
        let text = b"BUG: kernel NULL pointer dereference\r\nRIP: 0010:f+0x1/0x2\r\n";
        let error = console.take(text).unwrap_err();
        assert!(error.to_string().contains("BUG: kernel NULL"), "{error}");
        assert_eq!(console.tail(1), ["RIP: 0010:f+0x1/0x2"]);
    }

    fn finished(error: &str, errors: u64) -> String {
        let workload = workload(false, 1, errors);
        format!(r#"vifa: {{"event":"finished","error":{error},"workloads":[{workload}]}}"#) + "\n"
    }

    #[test]
    fn reports_the_end_of_the_workload() {
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
    fn a_workload_with_any_error_fails() {
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

    /// Returns a line of traffic after `change`.
    fn traffic(change: (&str, &str)) -> String {
        let line = concat!(
            r#"vifa: {"event":"progress","sequence":0,"traffic":{"interface":"eth0","#,
            r#""carrier":true,"link_changed":false,"mac":"02:00:5e:00:00:02","mtu":9000,"transmit_timeouts":0,"#,
            r#""faults":0,"ping":{"sent":9,"refused":0,"received":8,"wrong":0,"#,
            r#""longest_gap_ms":40},"answered":{"connections":4,"broken":0,"bytes":500,"#,
            r#""datagrams":156,"group_datagrams":61,"iperf_tests":3}}}"#
        );
        line.replacen(change.0, change.1, 1) + "\n"
    }

    #[test]
    fn answered_pings_are_operations() {
        let console = taken(&traffic(("", ""))).unwrap();
        let workload = &console.workloads().unwrap()[0];
        assert_eq!((workload.operations, workload.bytes), (8, 500));
        assert!(workload.check_finished().is_ok());
        assert_eq!(console.traffic().unwrap().mac, "02:00:5e:00:00:02");
    }

    #[test]
    fn a_guest_that_notices_the_migration_fails() {
        for change in [
            (r#""carrier":true"#, r#""carrier":false"#),
            (r#""link_changed":false"#, r#""link_changed":true"#),
            (r#""transmit_timeouts":0"#, r#""transmit_timeouts":1"#),
            (r#""faults":0"#, r#""faults":1"#),
            (r#""wrong":0"#, r#""wrong":1"#),
            (r#""refused":0"#, r#""refused":1"#),
            (r#""broken":0"#, r#""broken":1"#),
        ] {
            assert!(taken(&traffic(change)).is_err(), "{change:?}");
        }
    }
}
