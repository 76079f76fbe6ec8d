// SPDX-License-Identifier: GPL-2.0

//! Mailboxes, through which the driver sends commands to the device.
//!
//! A mailbox processes one command at a time. The device completes a command with a status and an
//! interrupt, within the timeout that the capability states. Additional interrupts do not extend
//! the timeout. A command that times out is aborted. Its buffer is free only when the device
//! acknowledges the abort, within the same timeout.
//!
//! [`Mailbox::execute`] waits for the completion of a command. [`Mailbox::begin`] starts a command,
//! so that the caller can do other work meanwhile. If another command follows, it first waits for
//! the started command, and stores the answer for the [`Client`] that started it. Each client can
//! have one started command.
//!
//! While the VF is being reset, its mailboxes are held ([`Mailbox::hold`]). The reset ends a
//! command that the device has already received. The device gets no other command until the driver
//! has settled the reset.
//!
//! The caller logs the failure of a command.

use super::{
    buffer::Buffer,
    completion::TimedCompletion,
    register_file::{
        Epoch,
        RegisterFile, //
    },
    status::{
        Status,
        Tag, //
    }, //
};
use crate::{
    bindings::{
        rate_limit::RateLimit,
        *, //
    },
    errno::Name,
    seam::Shown,
    vfio::sriov::Loss, //
};
use core::{
    fmt,
    ops::Range, //
};
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
        Delta,
        Instant,
        Monotonic,
        Msecs, //
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

/// A user of [`Mailbox::begin`].
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

/// The reason why a command failed.
#[derive(Clone, Copy)]
pub(crate) enum Failure {
    /// The device failed the command with this status and result 0.
    Status(u32, u64),
    /// The status register contains the first tag instead of the second.
    Confused(u16, u16),
    /// The device did not complete the command within this number of milliseconds.
    Timeout(Msecs),
    /// The device did not acknowledge the abort of an earlier command within this number of
    /// milliseconds.
    Stuck(Msecs),
    /// The command was not sent, because the VF is being reset.
    Reset,
    /// The device no longer responds.
    Gone,
    /// The physical function and the VF have lost their state.
    Lost(Loss),
    /// The registers or the buffer are no longer available, or the client has already started a
    /// command.
    Impossible(Error),
}

impl From<Error> for Failure {
    /// Converts the error of a register access or of a buffer.
    fn from(error: Error) -> Self {
        if error == ENODEV {
            Self::Gone
        } else {
            Self::Impossible(error)
        }
    }
}

impl Failure {
    pub(super) fn errno(self) -> Error {
        match self {
            Self::Status(VIFA_STATUS_INVALID_RECORD, _) => EINVAL,
            Self::Status(VIFA_STATUS_ABORTED, _) => ECANCELED,
            Self::Status(..) | Self::Confused(..) => EIO,
            Self::Timeout(_) | Self::Stuck(_) => ETIMEDOUT,
            Self::Reset => EBUSY,
            Self::Gone => ENODEV,
            Self::Lost(_) => EIO,
            Self::Impossible(error) => error,
        }
    }
}

/// The text follows the name of the command.
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
                write!(f, "failed: {reason} (status {code:#x}, result {result:#x})")
            }
            Self::Confused(found, tag) => {
                write!(
                    f,
                    "failed: invalid status: got tag {found:#x}, expected {tag:#x}"
                )
            }
            Self::Timeout(timeout) => write!(f, "timed out after {timeout} ms"),
            Self::Stuck(timeout) => write!(
                f,
                "failed: abort of an earlier command timed out after {timeout} ms"
            ),
            Self::Reset => f.write_str("failed: VF reset in progress"),
            Self::Gone => f.write_str("failed: no such device, registers read as all ones"),
            Self::Lost(loss) => write!(f, "failed: {loss}"),
            Self::Impossible(error) => write!(f, "failed: {}", Name(error)),
        }
    }
}

/// The outcome of a command.
struct Answer {
    result: Result<Results, Failure>,
    /// Whether the device may still write to the command's buffer.
    lingers: bool,
}

impl Answer {
    /// Returns the outcome of a command that was aborted or not sent.
    fn failed(failure: Failure) -> Self {
        Self {
            result: Err(failure),
            lingers: false,
        }
    }
}

/// The state of a mailbox.
struct State {
    /// Tag of the last command.
    tag: Tag,
    /// Whether the device has not acknowledged an abort.
    stuck: bool,
    /// The client that started the command in progress.
    running: Option<Client>,
    /// Answers to started commands that their clients have not yet taken, indexed by [`Client`].
    answers: [Option<Answer>; 2],
}

/// Whether commands may be sent to the device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// Commands may be sent unless the physical function has lost its state since this epoch.
    Open(Epoch),
    /// Commands may not be sent, because the VF is being reset.
    Held,
}

/// The mailbox of one frame.
#[pin_data]
pub(super) struct Mailbox {
    registers: Arc<RegisterFile>,
    frame: usize,
    vector: u32,
    signal: Arc<TimedCompletion>,
    /// The VF, for log messages.
    device: ARef<pci::Device>,
    /// Rate limit of messages that a device or its user can repeat.
    #[pin]
    failures: RateLimit,
    #[pin]
    state: Mutex<State>,
    /// Locked while a command is sent.
    #[pin]
    gate: SpinLock<Gate>,
}

impl Mailbox {
    /// Initialises the mailbox of `frame`, and checks its id.
    pub(super) fn new(
        registers: &Arc<RegisterFile>,
        frame: usize,
        id: u32,
        vector: u32,
        signal: Arc<TimedCompletion>,
        device: ARef<pci::Device>,
    ) -> Result<impl PinInit<Self, Error>> {
        let found = registers
            .read(frame, VIFA_MAILBOX_ID)
            .inspect_err(|error| {
                dev_err!(
                    device,
                    "frame {}: failed to read the mailbox id: {}\n",
                    frame,
                    Shown(Name(*error))
                )
            })?;
        if found != id {
            dev_err!(
                device,
                "frame {}: invalid mailbox id: got {:#x}, expected {:#x}\n",
                frame,
                found,
                id
            );
            return Err(ENODEV);
        }
        let epoch = registers.epoch();
        let registers = registers.clone();
        Ok(try_pin_init!(Self {
            registers,
            frame,
            vector,
            signal,
            device,
            failures <- RateLimit::new(5000, 10),
            state <- new_mutex!(State {
                tag: Tag::NONE,
                // A command of an earlier driver must be aborted first.
                stuck: true,
                running: None,
                answers: [None, None],
            }),
            gate <- new_spinlock!(Gate::Open(epoch)),
        }))
    }

    /// Blocks further commands to the device, whose VF is about to be reset.
    pub(super) fn hold(&self) {
        *self.gate.lock() = Gate::Held;
        // The read makes sure that a command that was sent reaches the device before the reset.
        let _ = self.read(VIFA_MAILBOX_STATUS);
    }

    /// Allows commands to the device again.
    pub(super) fn release(&self) {
        *self.gate.lock() = Gate::Open(self.registers.epoch());
    }

    /// Returns the loss of the VF's state since its last reset, if any.
    pub(super) fn loss(&self) -> Option<Loss> {
        match *self.gate.lock() {
            Gate::Open(epoch) => self.registers.loss_since(epoch),
            Gate::Held => None,
        }
    }

    /// Checks that commands may be sent to the device.
    fn check(&self, gate: &Gate) -> Result<(), Failure> {
        match *gate {
            Gate::Open(epoch) => match self.registers.loss_since(epoch) {
                Some(loss) => Err(Failure::Lost(loss)),
                None => Ok(()),
            },
            Gate::Held => Err(Failure::Reset),
        }
    }

    /// Reads a register of the frame.
    pub(super) fn read(&self, register: u32) -> Result<u32> {
        self.registers.read(self.frame, register)
    }

    /// Sends a command to the device and waits for its completion.
    ///
    /// `buffer` is the command's buffer, and the range of it that the device accesses.
    ///
    /// # Errors
    ///
    /// The command failed. A buffer that the device may still write to is forfeited.
    pub(super) fn execute(
        &self,
        command: Command,
        arguments: [u64; 2],
        mut buffer: Option<(&mut Buffer, Range<usize>)>,
    ) -> Result<Results, Failure> {
        let mut state = self.state.lock();
        self.settle(&mut state);
        let answer = match self.start(&mut state, command, arguments, &mut buffer) {
            Ok(()) => self.conclude(&mut state),
            Err(failure) => Answer::failed(failure),
        };
        if let Some((buffer, _)) = buffer {
            buffer.take_back(answer.lingers);
        }
        answer.result
    }

    /// Sends a command to the device without waiting for its completion. The command owns `buffer`
    /// until it is finished. The device accesses the bytes in `range`.
    ///
    /// # Errors
    ///
    /// - [`Failure::Impossible`] with `EBUSY` if `client` has started a command and not yet
    ///   finished it.
    /// - [`Failure::Stuck`] if the device still hangs in an earlier command.
    /// - Other failures to send the command.
    pub(super) fn begin(
        mailbox: &Arc<Self>,
        client: Client,
        command: Command,
        arguments: [u64; 2],
        mut buffer: Buffer,
        range: Range<usize>,
    ) -> Result<Pending, Failure> {
        let mut state = mailbox.state.lock();
        mailbox.settle(&mut state);
        if state.answers[client as usize].is_some() {
            return Err(Failure::Impossible(EBUSY));
        }
        let described = &mut Some((&mut buffer, range));
        mailbox.start(&mut state, command, arguments, described)?;
        state.running = Some(client);
        Ok(Pending {
            mailbox: mailbox.clone(),
            client,
            buffer: Some(buffer),
        })
    }

    /// Waits for the completion of the command that was started, if any, and stores the answer.
    fn settle(&self, state: &mut State) {
        if let Some(client) = state.running.take() {
            state.answers[client as usize] = Some(self.conclude(state));
        }
    }

    /// Waits for the command that `client` has started, and returns its answer.
    fn finish(&self, client: Client) -> Answer {
        let mut state = self.state.lock();
        self.settle(&mut state);
        state.answers[client as usize]
            .take()
            .unwrap_or_else(|| Answer::failed(Failure::Impossible(EIO)))
    }

    /// Drops the command that `client` has started. Returns whether the device may still write to
    /// its buffer.
    fn abandon(&self, client: Client) -> bool {
        let mut state = self.state.lock();
        if state.running == Some(client) {
            state.running = None;
            return self.abort(&mut state).is_err();
        }
        let answer = state.answers[client as usize].take();
        answer.is_some_and(|answer| answer.lingers)
    }

    /// Sends a command to the device. No other command is in progress.
    fn start(
        &self,
        state: &mut State,
        command: Command,
        arguments: [u64; 2],
        buffer: &mut Option<(&mut Buffer, Range<usize>)>,
    ) -> Result<(), Failure> {
        self.check(&self.gate.lock())?;
        // Fails for a device that is gone, too, once a command has detected that.
        if state.stuck {
            self.abort(state)?;
        }
        state.tag = state.tag.next();
        self.describe(arguments, buffer)?;
        self.issue(state.tag, command)
    }

    /// Writes the registers that describe a command.
    fn describe(
        &self,
        arguments: [u64; 2],
        buffer: &mut Option<(&mut Buffer, Range<usize>)>,
    ) -> Result {
        let (scatter, entries) = match buffer {
            Some((buffer, range)) => buffer.describe(range.clone())?,
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

    /// Writes the command register, unless commands are blocked.
    fn issue(&self, tag: Tag, command: Command) -> Result<(), Failure> {
        let gate = self.gate.lock();
        self.check(&gate)?;
        // The register write is ordered after the writes to the buffer and the list.
        self.write(VIFA_MAILBOX_COMMAND, command.opcode | tag.in_command())?;
        Ok(())
    }

    /// Waits for the answer to the last command. Aborts a command that is not answered.
    fn conclude(&self, state: &mut State) -> Answer {
        let failure = match self.wait(state.tag) {
            Ok(VIFA_STATUS_SUCCESS) => {
                return Answer {
                    result: self.results().map_err(Failure::from),
                    lingers: false,
                }
            }
            Ok(status) => {
                return Answer::failed(match self.results() {
                    Ok(Results(result, _)) => Failure::Status(status, result),
                    Err(error) => error.into(),
                })
            }
            Err(failure) => failure,
        };
        // The device has not reported the end of the command, and may still use the buffer.
        Answer {
            result: Err(failure),
            lingers: self.abort(state).is_err(),
        }
    }

    /// Waits for the answer to the command with this tag, and returns its status.
    fn wait(&self, tag: Tag) -> Result<u32, Failure> {
        let timeout = self.registers.timeout();
        let start = Instant::<Monotonic>::now();
        loop {
            // An interrupt from a device that remains busy does not extend the timeout.
            let remaining = Delta::from_millis(timeout.into()) - start.elapsed();
            let signalled = self.signal.wait(remaining);
            self.signal.rearm();
            if let Some(loss) = self.loss() {
                return Err(Failure::Lost(loss));
            }
            // Read the register even without an interrupt, and only after rearming, so that the
            // interrupt of a later answer is not lost.
            match Status::of(self.read(VIFA_MAILBOX_STATUS)?, tag) {
                Status::Busy if signalled && remaining > Delta::ZERO => {}
                Status::Busy => return Err(Failure::Timeout(timeout)),
                Status::Answered(code) => {
                    if !signalled && self.failures.allows(c"vifa-vfio-pci") {
                        dev_warn!(
                            self.device,
                            "frame {}: timed out after {} ms waiting for an interrupt\n",
                            self.frame,
                            timeout
                        );
                    }
                    return Ok(code);
                }
                Status::Foreign(found) => return Err(Failure::Confused(found, tag.number())),
            }
        }
    }

    fn results(&self) -> Result<Results> {
        Ok(Results(
            self.read64(VIFA_MAILBOX_RESULT0_LOW)?,
            self.read64(VIFA_MAILBOX_RESULT1_LOW)?,
        ))
    }

    /// Aborts the command in progress, and waits for the device's acknowledgement.
    fn abort(&self, state: &mut State) -> Result<(), Failure> {
        let timeout = self.registers.timeout();
        let aborted = self.write(VIFA_MAILBOX_ABORT, 1).and_then(|()| {
            read_poll_timeout(
                || self.read(VIFA_MAILBOX_ABORT),
                |&value| value == 0,
                Delta::from_millis(1),
                Delta::from_millis(i64::from(timeout)),
            )
        });
        let result = match aborted {
            Ok(_) => Ok(()),
            Err(error) if error == ETIMEDOUT => Err(Failure::Stuck(timeout)),
            Err(error) => Err(error.into()),
        };
        state.stuck = result.is_err();
        result
    }

    fn write(&self, register: u32, value: u32) -> Result {
        self.registers.write(self.frame, register, value)
    }

    /// Writes the register pair that begins at `low`.
    fn write64(&self, low: u32, value: u64) -> Result {
        self.write(low, value as u32)?;
        self.write(low + 4, (value >> 32) as u32)
    }

    /// Reads the register pair that begins at `low`.
    fn read64(&self, low: u32) -> Result<u64> {
        let high = u64::from(self.read(low + 4)?);
        Ok(high << 32 | u64::from(self.read(low)?))
    }
}

/// A command that was started, and its buffer.
///
/// Dropping this aborts the command.
pub(super) struct Pending {
    mailbox: Arc<Mailbox>,
    client: Client,
    /// `None` once the command is finished.
    buffer: Option<Buffer>,
}

impl Pending {
    /// Waits for the device's answer, and returns the buffer.
    ///
    /// # Errors
    ///
    /// The same as for [`Mailbox::execute`].
    pub(super) fn finish(mut self) -> Result<(Buffer, Results), Failure> {
        let mut buffer = self.buffer.take().ok_or(Failure::Impossible(EIO))?;
        let answer = self.mailbox.finish(self.client);
        buffer.take_back(answer.lingers);
        Ok((buffer, answer.result?))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(buffer) = &mut self.buffer else {
            return;
        };
        buffer.take_back(self.mailbox.abandon(self.client));
    }
}
