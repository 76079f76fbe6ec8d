// SPDX-License-Identifier: GPL-2.0

//! A machine's serial console, which a migration moves from one QEMU to another.
//!
//! A line that the guest begins in one QEMU may end in the other. The console is read from both.
//! Output of the destination is processed after all output of the source.

use std::{
    io::Read,
    sync::mpsc::{self, Receiver},
    thread,
    time::Instant,
};

/// The console output of one QEMU.
pub struct Output(Receiver<(Instant, Vec<u8>)>);

impl Output {
    /// Starts to read `stream`.
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

/// A line of the console.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Time at which the end of the line arrived.
    pub time: Instant,
    /// The line, without blanks at its ends.
    pub text: String,
}

/// The console of a machine, across all QEMUs that run the machine.
#[derive(Default)]
pub struct Transcript {
    output: Option<Output>,
    /// The beginning of an incomplete line.
    partial: Vec<u8>,
    /// The whole output.
    lines: Vec<String>,
}

impl Transcript {
    /// Continues with the console of another QEMU, to which the machine has moved. The previous
    /// QEMU has ended, so all its output is read. Returns its new lines.
    pub fn follow(&mut self, output: Output) -> Vec<Line> {
        let before = self.output.replace(output);
        let chunks: Vec<_> = before.iter().flat_map(|before| before.0.iter()).collect();

        self.take_all(chunks)
    }

    /// Returns the new lines.
    pub fn read(&mut self) -> Vec<Line> {
        let output = self.output.iter();
        let chunks: Vec<_> = output.flat_map(|output| output.0.try_iter()).collect();

        self.take_all(chunks)
    }

    fn take_all(&mut self, chunks: Vec<(Instant, Vec<u8>)>) -> Vec<Line> {
        chunks
            .into_iter()
            .flat_map(|(time, bytes)| self.take(time, &bytes))
            .collect()
    }

    /// Adds output that arrived at `time`. Returns the lines that it ends.
    pub fn take(&mut self, time: Instant, bytes: &[u8]) -> Vec<Line> {
        let mut ended = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.partial.push(*byte);
                continue;
            }
            let text = String::from_utf8_lossy(&std::mem::take(&mut self.partial))
                .trim()
                .to_owned();
            self.lines.push(text.clone());
            ended.push(Line { time, text });
        }
        ended
    }

    /// Returns the last lines, including an incomplete one.
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let mut tail = self.lines[self.lines.len().saturating_sub(lines)..].to_vec();
        if !self.partial.is_empty() {
            tail.push(String::from_utf8_lossy(&self.partial).into_owned());
        }
        tail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines() {
        let mut transcript = Transcript::default();
        transcript.take(Instant::now(), b"one\ntwo\nthree\nfou");
        assert_eq!(transcript.tail(2), ["two", "three", "fou"]);
    }

    #[test]
    fn a_line_that_moves_to_another_qemu_is_joined() {
        let mut transcript = Transcript::default();
        transcript.follow(Output::new(&b"one\ntw"[..]));
        let mut texts: Vec<_> = transcript.follow(Output::new(&b"o\n"[..]));
        texts.extend(transcript.follow(Output::new(&b""[..])));
        let texts: Vec<_> = texts.into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["one", "two"]);
    }
}
