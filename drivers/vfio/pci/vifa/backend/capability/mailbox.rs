// SPDX-License-Identifier: GPL-2.0

//! Mailboxes: how commands reach the device and its answers come back.
//!
//! One command at a time. The device answers with a status and an interrupt, within the time that
//! the capability states. A command that is not answered is aborted; only when the device
//! acknowledges that is its buffer free again.
//!
//! A command is either waited for ([`Mailbox::execute`]), or begun, so that its caller can do
//! something else meanwhile ([`Mailbox::begin`]). Another command that comes in between waits for
//! the one that was begun, and keeps its answer for whoever began it. Each [`Client`] can have
//! begun one.
//!
//! While the VF is being reset its mailboxes are held ([`Mailbox::hold`]): a command that the device
//! has got by then ends with the reset, and it gets no other before the driver has taken account of
//! the reset.
//!
//! The log tells of each command that fails, unless its caller rather speaks for itself
//! ([`Mailbox::attempt`]).

use super::{
    buffer::Buffer,
    completion::TimedCompletion,
    register_file::RegisterFile, //
};
use crate::{
    bindings::*,
    seam::Shown, //
};
use core::fmt;
use kernel::{
    io::poll::read_poll_timeout,
    new_mutex,
    new_spinlock,
    pci,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex,
        SpinLock, //
    },
    time::{
        msecs_to_jiffies,
        Delta, //
    }, //
};

/// A command of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Command {
    name: &'static str,
    opcode: u32,
}

macro_rules! commands {
    ($($name:ident = $opcode:ident;)*) => {
        impl Command {
            $(pub(super) const $name: Self = Self {
                name: stringify!($name),
                opcode: $opcode,
            };)*
        }
    };
}

commands! {
    IDENTIFY = VIFA_CONTROL_IDENTIFY;
    SET_RUN_STATE = VIFA_CONTROL_SET_RUN_STATE;
    SAVE = VIFA_CONTROL_SAVE;
    LOAD = VIFA_CONTROL_LOAD;
    LOG_START = VIFA_DATA_LOG_START;
    LOG_STOP = VIFA_DATA_LOG_STOP;
    LOG_READ_AND_CLEAR = VIFA_DATA_LOG_READ_AND_CLEAR;
    LOG_SUMMARY = VIFA_DATA_LOG_SUMMARY;
    LOCAL_BITMAP = VIFA_DATA_LOCAL_BITMAP;
    LOCAL_READ = VIFA_DATA_LOCAL_READ;
    LOCAL_WRITE = VIFA_DATA_LOCAL_WRITE;
    LOCAL_CLEAR = VIFA_DATA_LOCAL_CLEAR;
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Who can begin a command, and do something else meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// One end of a transfer.
    Transfer,
    /// The log of writes to guest memory.
    Log,
}

/// The two results of a command.
#[derive(Clone, Copy)]
pub(super) struct Results(pub(super) u64, pub(super) u64);

/// Why a command did not succeed.
#[derive(Clone, Copy)]
pub(crate) enum Failure {
    /// The device refused, with this status and result 0.
    Status(u32, u64),
    /// The device answered a command that it was not given, with this status register.
    Confused(u32),
    /// The device did not answer in time.
    Timeout,
    /// The device has not yet acknowledged the abortion of an earlier command.
    Stuck,
    /// The device did not get the command: its VF is being reset.
    Reset,
    /// The registers, or the buffer, are gone; or a command was begun before.
    Impossible(Error),
}

impl Failure {
    pub(super) fn errno(self) -> Error {
        match self {
            Self::Status(VIFA_STATUS_INVALID_RECORD, _) => EINVAL,
            Self::Status(VIFA_STATUS_ABORTED, _) => ECANCELED,
            Self::Status(..) | Self::Confused(_) => EIO,
            Self::Timeout | Self::Stuck => ETIMEDOUT,
            Self::Reset => EBUSY,
            Self::Impossible(error) => error,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Status(code, result) => {
                let reason = match code {
                    VIFA_STATUS_UNKNOWN_COMMAND => "unknown command",
                    VIFA_STATUS_INVALID_ARGUMENT => "invalid argument",
                    VIFA_STATUS_INVALID_STATE => "not in this state",
                    VIFA_STATUS_BUFFER_TOO_SMALL => "buffer too small",
                    VIFA_STATUS_DMA_FAULT => "DMA fault",
                    VIFA_STATUS_INVALID_RECORD => "invalid record",
                    VIFA_STATUS_ABORTED => "aborted by a reset",
                    VIFA_STATUS_DEVICE_FAILURE => "device failure",
                    _ => "unknown status",
                };
                write!(f, "{reason} (status {code:#x}, result {result:#x})")
            }
            Self::Confused(status) => write!(f, "answer to another command (status {status:#x})"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Stuck => f.write_str("the device still hangs in an earlier command"),
            Self::Reset => f.write_str("the VF is being reset"),
            Self::Impossible(error) => write!(f, "not possible ({error:?})"),
        }
    }
}

/// What became of a command.
struct Answer {
    result: Result<Results, Failure>,
    /// The device may still write to the command's buffer.
    lingers: bool,
}

impl Answer {
    /// The device has dropped the command, or never had it.
    fn failed(failure: Failure) -> Self {
        Self {
            result: Err(failure),
            lingers: false,
        }
    }
}

/// What a mailbox is doing.
struct State {
    /// Tag of the last command.
    tag: u16,
    /// The device has not acknowledged that it dropped a command.
    stuck: bool,
    /// Who has begun the command that the device works on.
    running: Option<Client>,
    /// Answers to commands that were begun, until those take them who began: by [`Client`].
    answers: [Option<Answer>; 2],
}

/// Whether the device may get a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// Not while its VF is being reset.
    Held,
}

/// The mailbox of one frame.
#[pin_data]
pub(super) struct Mailbox {
    registers: Arc<RegisterFile>,
    frame: usize,
    vector: u32,
    signal: Arc<TimedCompletion>,
    /// The VF that the log names.
    device: ARef<pci::Device>,
    #[pin]
    state: Mutex<State>,
    /// Locked while the device gets a command.
    #[pin]
    gate: SpinLock<Gate>,
}

impl Mailbox {
    /// Takes the mailbox of `frame` into use, and checks that it is what it has to be.
    pub(super) fn new(
        registers: &Arc<RegisterFile>,
        frame: usize,
        id: u32,
        vector: u32,
        signal: Arc<TimedCompletion>,
        device: ARef<pci::Device>,
    ) -> Result<impl PinInit<Self, Error>> {
        let found = registers.read(frame, VIFA_MAILBOX_ID)?;
        if found != id {
            dev_err!(
                device,
                "frame {}: id is {:#x}, not {:#x}\n",
                frame,
                found,
                id
            );
            return Err(ENODEV);
        }
        let registers = registers.clone();
        Ok(try_pin_init!(Self {
            registers,
            frame,
            vector,
            signal,
            device,
            state <- new_mutex!(State {
                tag: 0,
                // Whatever an earlier driver left there has to go first.
                stuck: true,
                running: None,
                answers: [None, None],
            }),
            gate <- new_spinlock!(Gate::Open),
        }))
    }

    /// Lets no further command through to the device, whose VF is about to be reset.
    pub(super) fn hold(&self) {
        *self.gate.lock() = Gate::Held;
        // A command that was let through has reached the device when the read returns: before the
        // reset does.
        let _ = self.read(VIFA_MAILBOX_STATUS);
    }

    /// Lets commands through again.
    pub(super) fn release(&self) {
        *self.gate.lock() = Gate::Open;
    }

    /// Reads a register of the frame.
    pub(super) fn read(&self, register: u32) -> Result<u32> {
        self.registers.read(self.frame, register)
    }

    /// Has the device carry out a command and waits for its answer.
    ///
    /// `buffer` is the command's buffer and how many bytes of it the device is told of.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` where the device did not answer, `ECANCELED` where a reset came in between,
    /// `EINVAL` where it refused a record, else `EIO`. The reason is in the log. A buffer that the
    /// device may still write to is forfeited.
    pub(super) fn execute(
        &self,
        command: Command,
        arguments: [u64; 2],
        buffer: Option<(&mut Buffer, usize)>,
    ) -> Result<Results> {
        let result = self.attempt(command, arguments, buffer);
        self.report(command, result)
    }

    /// As [`Self::execute`], but the log is not told of a failure.
    pub(super) fn attempt(
        &self,
        command: Command,
        arguments: [u64; 2],
        mut buffer: Option<(&mut Buffer, usize)>,
    ) -> Result<Results, Failure> {
        let mut state = self.state.lock();
        self.settle(&mut state);
        let answer = match self.start(&mut state, command, arguments, &mut buffer) {
            Ok(()) => self.conclude(&mut state),
            Err(failure) => Answer::failed(failure),
        };
        if let (true, Some((buffer, _))) = (answer.lingers, buffer) {
            buffer.forfeit();
        }
        answer.result
    }

    /// Has the device begin with a command. `buffer` is the command's alone until it is finished;
    /// the device is told of the first `length` bytes. The log is not told of a failure.
    ///
    /// # Errors
    ///
    /// [`Failure::Impossible`] with `EBUSY` where `client` has begun a command and not yet finished
    /// it, [`Failure::Stuck`] where the device still hangs in an earlier one.
    pub(super) fn begin(
        mailbox: &Arc<Self>,
        client: Client,
        command: Command,
        arguments: [u64; 2],
        mut buffer: Buffer,
        length: usize,
    ) -> Result<Pending, Failure> {
        let mut state = mailbox.state.lock();
        mailbox.settle(&mut state);
        if state.answers[client as usize].is_some() {
            return Err(Failure::Impossible(EBUSY));
        }
        let described = &mut Some((&mut buffer, length));
        mailbox.start(&mut state, command, arguments, described)?;
        state.running = Some(client);
        Ok(Pending {
            mailbox: mailbox.clone(),
            client,
            command,
            buffer: Some(buffer),
        })
    }

    /// Tells the log of a failure.
    pub(super) fn report<T>(&self, command: Command, result: Result<T, Failure>) -> Result<T> {
        result.map_err(|failure| {
            dev_err!(
                self.device,
                "frame {}: {}: {}\n",
                self.frame,
                Shown(command),
                Shown(failure)
            );
            failure.errno()
        })
    }

    /// Waits until the command that was begun, if any, is answered.
    fn settle(&self, state: &mut State) {
        if let Some(client) = state.running.take() {
            state.answers[client as usize] = Some(self.conclude(state));
        }
    }

    /// Takes the answer to the command that `client` has begun.
    fn finish(&self, client: Client) -> Answer {
        let mut state = self.state.lock();
        self.settle(&mut state);
        state.answers[client as usize]
            .take()
            .unwrap_or_else(|| Answer::failed(Failure::Impossible(EIO)))
    }

    /// Drops the command that `client` has begun; returns whether the device may still write to its
    /// buffer.
    fn abandon(&self, client: Client) -> bool {
        let mut state = self.state.lock();
        if state.running == Some(client) {
            state.running = None;
            return self.abort(&mut state);
        }
        let answer = state.answers[client as usize].take();
        answer.is_some_and(|answer| answer.lingers)
    }

    /// Gives the device a command. No other is in progress.
    fn start(
        &self,
        state: &mut State,
        command: Command,
        arguments: [u64; 2],
        buffer: &mut Option<(&mut Buffer, usize)>,
    ) -> Result<(), Failure> {
        if *self.gate.lock() == Gate::Held {
            return Err(Failure::Reset);
        }
        if state.stuck && self.abort(state) {
            return Err(Failure::Stuck);
        }
        state.tag = state.tag.wrapping_add(1);
        self.describe(arguments, buffer)
            .map_err(Failure::Impossible)?;
        self.issue(state.tag, command)
    }

    /// Writes what the device has to know before it gets a command.
    fn describe(&self, arguments: [u64; 2], buffer: &mut Option<(&mut Buffer, usize)>) -> Result {
        let (scatter, entries) = match buffer {
            Some((buffer, length)) => (buffer.describe(*length)?, 1),
            None => (0, 0),
        };
        self.signal.rearm();
        self.write(
            VIFA_MAILBOX_VECTOR,
            VIFA_MAILBOX_VECTOR_ENABLE | self.vector,
        )?;
        self.write64(VIFA_MAILBOX_SCATTER_LOW, scatter)?;
        self.write(VIFA_MAILBOX_SCATTER_COUNT, entries)?;
        self.write64(VIFA_MAILBOX_ARGUMENT0_LOW, arguments[0])?;
        self.write64(VIFA_MAILBOX_ARGUMENT1_LOW, arguments[1])
    }

    /// Lets the command through to the device.
    fn issue(&self, tag: u16, command: Command) -> Result<(), Failure> {
        let gate = self.gate.lock();
        if *gate == Gate::Held {
            return Err(Failure::Reset);
        }
        // Register accesses are ordered behind the writes to the buffer and the list.
        self.write(
            VIFA_MAILBOX_COMMAND,
            command.opcode | u32::from(tag) << VIFA_MAILBOX_COMMAND_TAG.trailing_zeros(),
        )
        .map_err(Failure::Impossible)
    }

    /// Waits for the answer to the last command. One that is not answered is aborted.
    fn conclude(&self, state: &mut State) -> Answer {
        let failure = match self.wait(state.tag) {
            Ok(VIFA_STATUS_SUCCESS) => {
                return Answer {
                    result: self.results().map_err(Failure::Impossible),
                    lingers: false,
                }
            }
            Ok(status) => {
                return Answer::failed(match self.results() {
                    Ok(Results(result, _)) => Failure::Status(status, result),
                    Err(error) => Failure::Impossible(error),
                })
            }
            Err(failure) => failure,
        };
        // The device was not heard to be done with the buffer.
        Answer {
            result: Err(failure),
            lingers: self.abort(state),
        }
    }

    /// Waits for the answer to the command with this tag, and returns its status.
    fn wait(&self, tag: u16) -> Result<u32, Failure> {
        let mut left = msecs_to_jiffies(self.registers.timeout());
        loop {
            let timed_out = match self.signal.wait(left) {
                Some(rest) => {
                    left = rest;
                    false
                }
                None => true,
            };
            self.signal.rearm();
            // Read the register even without an interrupt, and behind the rearming: an answer that
            // comes in between signals once more.
            let status = self
                .read(VIFA_MAILBOX_STATUS)
                .map_err(Failure::Impossible)?;
            let code = status & VIFA_MAILBOX_STATUS_CODE;
            let answers =
                (status & VIFA_MAILBOX_STATUS_TAG) >> VIFA_MAILBOX_STATUS_TAG.trailing_zeros();
            if code != VIFA_STATUS_BUSY {
                if answers != u32::from(tag) {
                    return Err(Failure::Confused(status));
                }
                if timed_out {
                    dev_warn!(
                        self.device,
                        "frame {}: answered without an interrupt\n",
                        self.frame
                    );
                }
                return Ok(code);
            }
            if timed_out {
                return Err(Failure::Timeout);
            }
        }
    }

    fn results(&self) -> Result<Results> {
        Ok(Results(
            self.read64(VIFA_MAILBOX_RESULT0_LOW)?,
            self.read64(VIFA_MAILBOX_RESULT1_LOW)?,
        ))
    }

    /// Has the device drop what it is doing, and waits until it has; returns whether it has not.
    fn abort(&self, state: &mut State) -> bool {
        let dropped = self.write(VIFA_MAILBOX_ABORT, 1).and_then(|()| {
            read_poll_timeout(
                || self.read(VIFA_MAILBOX_ABORT),
                |&value| value == 0,
                Delta::from_millis(1),
                Delta::from_millis(i64::from(self.registers.timeout())),
            )
        });
        state.stuck = dropped.is_err();
        state.stuck
    }

    fn write(&self, register: u32, value: u32) -> Result {
        self.registers.write(self.frame, register, value)
    }

    /// Writes a pair of registers, of which `low` is the first.
    fn write64(&self, low: u32, value: u64) -> Result {
        self.write(low, value as u32)?;
        self.write(low + 4, (value >> 32) as u32)
    }

    /// Reads a pair of registers, of which `low` is the first.
    fn read64(&self, low: u32) -> Result<u64> {
        let high = u64::from(self.read(low + 4)?);
        Ok(high << 32 | u64::from(self.read(low)?))
    }
}

/// A command that the device was told to begin with, and its buffer.
///
/// Dropped, the device drops the command too.
pub(super) struct Pending {
    mailbox: Arc<Mailbox>,
    client: Client,
    command: Command,
    /// `None` once the command is finished.
    buffer: Option<Buffer>,
}

impl Pending {
    /// Waits for the device's answer, and gives the buffer back.
    ///
    /// # Errors
    ///
    /// As for [`Mailbox::execute`].
    pub(super) fn finish(mut self) -> Result<(Buffer, Results)> {
        let result = self.conclude();
        self.mailbox.report(self.command, result)
    }

    /// As [`Self::finish`], but the log is not told of a failure.
    pub(super) fn finish_quietly(mut self) -> Result<(Buffer, Results), Failure> {
        self.conclude()
    }

    fn conclude(&mut self) -> Result<(Buffer, Results), Failure> {
        let mut buffer = self.buffer.take().ok_or(Failure::Impossible(EIO))?;
        let answer = self.mailbox.finish(self.client);
        if answer.lingers {
            buffer.forfeit();
        }
        Ok((buffer, answer.result?))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(buffer) = &mut self.buffer else {
            return;
        };
        if self.mailbox.abandon(self.client) {
            buffer.forfeit();
        }
    }
}
