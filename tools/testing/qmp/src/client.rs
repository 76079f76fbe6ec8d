// SPDX-License-Identifier: GPL-2.0

//! QMP, the protocol to control QEMU: JSON objects, one per line, over a socket.
//!
//! Implements the subset that a migration needs: commands with a result or an error, and events,
//! which are kept in order of arrival until they are read.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail, Context, Result};
use serde::Deserialize;
use serde_json::{json, Value};

/// Maximum time until QEMU replies to a command.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// Maximum time until QEMU opens its socket. QEMU may have to be read from a slow disk first.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(300);

/// An unsolicited message of QEMU.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The state of the migration.
    Migration { status: String },
    /// The state of a VFIO device, by QEMU's name of the device.
    VfioMigration { device: String, state: String },
    /// The virtual machine's processors stopped.
    Stop,
    /// The virtual machine's processors run again.
    Resume,
    /// The guest caused QEMU to exit or to stop.
    GuestFailed { event: String },
    /// Any other event.
    Other { event: String },
}

/// A message from QEMU.
#[derive(Debug, PartialEq)]
enum Message {
    Greeting,
    Return(Value),
    Error(String),
    /// An event with QEMU's timestamp, since the epoch.
    Event(Duration, Event),
}

#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    #[serde(rename = "return")]
    value: Option<Value>,
    error: Option<WireError>,
    event: Option<String>,
    #[serde(default)]
    timestamp: Timestamp,
    #[serde(default)]
    data: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Timestamp {
    seconds: u64,
    microseconds: u64,
}

impl From<Timestamp> for Duration {
    fn from(timestamp: Timestamp) -> Self {
        Self::from_secs(timestamp.seconds) + Self::from_micros(timestamp.microseconds)
    }
}

#[derive(Deserialize)]
struct WireError {
    desc: String,
}

impl Message {
    fn parse(line: &str) -> Result<Self> {
        let wire: Wire =
            serde_json::from_str(line).with_context(|| format!("invalid line of QEMU: {line}"))?;
        Ok(match wire {
            Wire {
                event: Some(event),
                timestamp,
                data,
                ..
            } => Message::Event(timestamp.into(), Event::parse(event, &data)),
            Wire {
                error: Some(error), ..
            } => Message::Error(error.desc),
            Wire {
                value: Some(value), ..
            } => Message::Return(value),
            Wire {
                greeting: Some(_), ..
            } => Message::Greeting,
            _ => bail!("not a QMP message: {line}"),
        })
    }
}

impl Event {
    fn parse(event: String, data: &Value) -> Self {
        let text = |member: &str| data[member].as_str().unwrap_or("?").to_owned();
        match event.as_str() {
            "MIGRATION" => Event::Migration {
                status: text("status"),
            },
            "VFIO_MIGRATION" => Event::VfioMigration {
                device: text("device-id"),
                state: text("device-state"),
            },
            "STOP" => Event::Stop,
            "RESUME" => Event::Resume,
            "SHUTDOWN" | "RESET" | "GUEST_PANICKED" | "MEMORY_FAILURE" => {
                Event::GuestFailed { event }
            }
            _ => Event::Other { event },
        }
    }
}

/// A connection to a QEMU.
pub struct Qmp {
    stream: UnixStream,
    messages: Receiver<Result<Message>>,
    events: Vec<(Duration, Event)>,
    /// Number of events so far.
    reported: u64,
}

impl Qmp {
    /// Waits until QEMU listens on `socket` and connects. `alive` returns an error if QEMU has
    /// ended.
    pub fn connect(socket: &Path, mut alive: impl FnMut() -> Result<()>) -> Result<Self> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < deadline => {
                    alive()?;
                    thread::sleep(Duration::from_millis(20));
                }
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!(
                            "QEMU's socket {} timed out after {} s",
                            socket.display(),
                            CONNECT_TIMEOUT.as_secs()
                        )
                    })
                }
            }
        };
        let reader = BufReader::new(stream.try_clone()?);
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || {
            for line in reader.lines() {
                let Ok(line) = line else { return };
                if sender.send(Message::parse(&line)).is_err() {
                    return;
                }
            }
        });
        let mut qmp = Self {
            stream,
            messages,
            events: Vec::new(),
            reported: 0,
        };
        match qmp.next_message("its greeting", Instant::now() + ANSWER_TIMEOUT)? {
            Message::Greeting => (),
            message => bail!("invalid greeting of QEMU: {message:?}"),
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Executes `command` and returns its result.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.stream
            .write_all(line.as_bytes())
            .with_context(|| format!("failed to send {command} to QEMU"))?;
        match self.next_message(command, Instant::now() + ANSWER_TIMEOUT)? {
            Message::Return(value) => Ok(value),
            Message::Error(description) => Err(anyhow!("QEMU rejected {command}: {description}")),
            message => bail!("invalid reply of QEMU to {command}: {message:?}"),
        }
    }

    /// Returns the events since the last call, with QEMU's timestamps, since the epoch.
    pub fn take_events(&mut self) -> Result<Vec<(Duration, Event)>> {
        while let Ok(message) = self.messages.try_recv() {
            self.keep(message?)?;
        }
        self.reported += self.events.len() as u64;
        Ok(std::mem::take(&mut self.events))
    }

    /// Returns the number of events so far.
    pub fn reported(&self) -> u64 {
        self.reported
    }

    /// Waits for an event until `deadline`, unless an event is already available.
    pub fn wait_event(&mut self, deadline: Instant) -> Result<()> {
        if !self.events.is_empty() {
            return Ok(());
        }
        let rest = deadline.saturating_duration_since(Instant::now());
        match self.messages.recv_timeout(rest) {
            Ok(message) => self.keep(message?),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => bail!("QEMU closed the connection"),
        }
    }

    fn keep(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Event(time, event) => self.events.push((time, event)),
            message => bail!("unexpected message of QEMU: {message:?}"),
        }
        Ok(())
    }

    /// Returns the next message that is not an event.
    fn next_message(&mut self, to: &str, deadline: Instant) -> Result<Message> {
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(rest) {
                Ok(message) => match message? {
                    Message::Event(time, event) => self.events.push((time, event)),
                    message => return Ok(message),
                },
                Err(RecvTimeoutError::Timeout) => {
                    bail!("QEMU timed out after {} s: {to}", ANSWER_TIMEOUT.as_secs())
                }
                Err(RecvTimeoutError::Disconnected) => bail!("QEMU closed the connection: {to}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinguishes_messages() {
        let parse = |line| Message::parse(line).unwrap();
        let event = |event| Message::Event(Duration::ZERO, event);
        assert_eq!(
            parse(r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#),
            Message::Greeting
        );
        assert_eq!(parse(r#"{"return": {}}"#), Message::Return(json!({})));
        assert_eq!(
            parse(r#"{"error": {"class": "GenericError", "desc": "no"}}"#),
            Message::Error("no".into())
        );
        assert_eq!(
            parse(r#"{"timestamp": {"seconds": 1, "microseconds": 7}, "event": "STOP"}"#),
            Message::Event(Duration::from_micros(1_000_007), Event::Stop)
        );
        assert_eq!(
            parse(
                r#"{"event": "VFIO_MIGRATION",
                    "data": {"device-id": "vf", "device-state": "stop-copy"}}"#
            ),
            event(Event::VfioMigration {
                device: "vf".into(),
                state: "stop-copy".into()
            })
        );
        assert_eq!(
            parse(r#"{"event": "MIGRATION", "data": {"status": "active"}}"#),
            event(Event::Migration {
                status: "active".into()
            })
        );
    }

    #[test]
    fn a_guest_that_resets_has_failed() {
        let message = Message::parse(r#"{"event": "RESET", "data": {"guest": true}}"#).unwrap();
        assert!(matches!(
            message,
            Message::Event(_, Event::GuestFailed { .. })
        ));
    }

    #[test]
    fn rejects_messages_that_are_not_qmp() {
        assert!(Message::parse("hello").is_err());
        assert!(Message::parse(r#"{"hello": 1}"#).is_err());
    }
}
