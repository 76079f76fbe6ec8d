// SPDX-License-Identifier: GPL-2.0

//! Sessions: the transfers that user space reads and writes through migration files.
//!
//! A session holds one end of a transfer until the state machine ends it or takes the result. User
//! space may keep the file open after that; every call on it then fails. No user memory is faulted
//! in while the session is locked (see [`crate::vfio::file`]).

use super::status::{
    Outcome,
    Role,
    Status, //
};
use crate::{
    backend::Backend,
    bindings::task,
    layer::{
        address::Tracked,
        restore::{
            Class,
            RestoreError,
            Restorer, //
        },
        save::{
            Begin,
            InfoVersion,
            Outstanding,
            Piece,
            SaveError,
            Saver, //
        },
    },
    vfio::{
        self,
        file::{
            Direction,
            Poll,
            PreCopy,
            PreCopyInfo,
            PreCopyVersion,
            Readiness,
            Stream,
            UserReader,
            UserWriter,
            Waiting, //
        }, //
    },
    VifaModule,
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        lock::{
            mutex::MutexBackend,
            Guard, //
        },
        Arc,
        Mutex, //
    }, //
};

/// One end of a transfer.
enum Transfer<T> {
    Active(T),
    /// The transfer failed with this error.
    Failed(Error),
    Ended,
}

impl<T> Transfer<T> {
    fn active(&mut self) -> Result<&mut T> {
        match self {
            Self::Active(transfer) => Ok(transfer),
            Self::Failed(error) => Err(*error),
            Self::Ended => Err(ENODEV),
        }
    }
}

/// Locks the transfer of a stream for a read or write.
///
/// # Errors
///
/// `EAGAIN` if another call holds the lock and the read or write may not wait.
fn lock<T>(
    transfer: &Mutex<Transfer<T>>,
    waiting: Waiting,
) -> Result<Guard<'_, Transfer<T>, MutexBackend>> {
    match waiting {
        Waiting::Allowed => Ok(transfer.lock()),
        Waiting::Refused => transfer.try_lock().ok_or(EAGAIN),
    }
}

/// The progress of the reader of a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadProgress {
    /// More data is available, or may be.
    Open,
    /// No more data is available while the device runs.
    Paused,
    /// The whole stream was read.
    Complete,
}

/// The sending side of a transfer.
struct Output<B: Backend> {
    saver: Saver<B::Fault>,
    source: B::Source,
    progress: ReadProgress,
}

/// A transfer from the device to user space.
#[pin_data]
pub(super) struct Sending<B: Backend> {
    status: Arc<Status>,
    device: vfio::Reference,
    #[pin]
    transfer: Mutex<Transfer<Output<B>>>,
    #[pin]
    poll: Poll,
}

impl<B: Backend> Sending<B> {
    pub(super) fn new(
        begin: Begin,
        source: B::Source,
        device: vfio::Reference,
        status: Arc<Status>,
    ) -> Result<Arc<Self>> {
        let output = Output::<B> {
            saver: Saver::new(begin),
            source,
            progress: ReadProgress::Open,
        };
        status.progressed(Role::Output, output.saver.progress());
        Arc::pin_init(
            pin_init!(Self {
                status,
                device,
                transfer <- new_mutex!(Transfer::Active(output), "vifa_sending"),
                poll <- Poll::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Makes the rest of the stream available, after the device has stopped. The stream then lists
    /// the `tracked` guest memory.
    pub(super) fn stopped(&self, tracked: Option<Tracked>) {
        if let Transfer::Active(output) = &mut *self.transfer.lock() {
            output.saver.stopped();
            if let Some(tracked) = tracked {
                output.saver.track(tracked);
            }
            output.progress = ReadProgress::Open;
            self.poll.show(Readiness::Ready);
        }
    }

    /// Ends the transfer, and frees what it held.
    pub(super) fn end(&self) {
        let mut transfer = self.transfer.lock();
        *transfer = Transfer::Ended;
        self.poll.show(Readiness::Ended);
    }

    fn fail(&self, error: SaveError<B::Fault>) -> Error {
        let errno = match error {
            SaveError::Device(fault) => fault.into(),
            SaveError::OutOfMemory => ENOMEM,
            SaveError::Identity(_)
            | SaveError::Bitmap(_)
            | SaveError::Piece(_)
            | SaveError::Record(_) => EIO,
        };
        self.status.ended(Outcome::Failed);
        self.status
            .error(errno, format_args!("failed to save: {error}"))
    }

    /// Calls `work` on the transfer. If `work` fails, the transfer ends.
    fn advance<T>(
        &self,
        transfer: &mut Transfer<Output<B>>,
        work: impl FnOnce(&mut Output<B>) -> Result<T, SaveError<B::Fault>>,
    ) -> Result<T> {
        let output = transfer.active()?;
        let result = work(output);
        self.status
            .progressed(Role::Output, output.saver.progress());
        result.map_err(|error| {
            let error = self.fail(error);
            *transfer = Transfer::Failed(error);
            self.poll.show(Readiness::Ended);
            error
        })
    }

    /// Copies available data to the resident part of `user`.
    fn put(&self, user: &mut UserWriter<'_>, waiting: Waiting) -> Result<ReadProgress> {
        let mut transfer = lock(&self.transfer, waiting)?;
        self.advance(&mut transfer, |output| {
            let progress = output.put(user)?;
            if progress == ReadProgress::Complete && output.progress != progress {
                self.status.ended(Outcome::Saved);
            }
            output.progress = progress;
            self.poll.show(match progress {
                ReadProgress::Open | ReadProgress::Complete => Readiness::Ready,
                ReadProgress::Paused => Readiness::Waiting,
            });
            Ok(progress)
        })
    }

    /// Returns an upper bound of the remaining bytes of the stream, if the device stops now or has
    /// stopped, or `None` if the bound is unknown.
    pub(super) fn remaining(&self) -> Result<Option<u64>> {
        self.advance(&mut self.transfer.lock(), |output| {
            output.saver.left(&mut output.source)
        })
    }
}

impl<B: Backend> Output<B> {
    /// Returns the data that is outstanding while the device runs.
    fn outstanding(&mut self, version: InfoVersion) -> Result<Outstanding, SaveError<B::Fault>> {
        let outstanding = self.saver.outstanding(&mut self.source, version)?;
        if outstanding.initial != 0 || outstanding.changed != 0 {
            self.progress = ReadProgress::Open;
        }
        Ok(outstanding)
    }

    /// Copies pieces of the stream to `user`. Each piece can require a command, so the function
    /// returns early if the task is being killed.
    fn put(&mut self, user: &mut UserWriter<'_>) -> Result<ReadProgress, SaveError<B::Fault>> {
        while !task::is_being_killed() {
            let piece = match self.saver.remaining(&mut self.source)? {
                Piece::Bytes(piece) => piece,
                Piece::Pause => return Ok(ReadProgress::Paused),
                Piece::End => return Ok(ReadProgress::Complete),
            };
            let all = piece.len();
            let done = user.put(piece);
            self.saver.consume(done);
            if done < all {
                break;
            }
        }
        Ok(ReadProgress::Open)
    }
}

impl<B: Backend> Stream for Sending<B> {
    type Module = VifaModule;
    const NAME: &'static CStr = c"vifa-save";
    const DIRECTION: Direction = Direction::Read;

    fn read(&self, user: &mut UserWriter<'_>, waiting: Waiting) -> Result {
        lock(&self.transfer, waiting)?.active()?;
        while !user.is_full() {
            user.fault_in()?;
            match self.put(user, waiting)? {
                ReadProgress::Open => {}
                ReadProgress::Paused if user.is_empty() => return Err(ENOMSG),
                ReadProgress::Paused | ReadProgress::Complete => break,
            }
        }
        Ok(())
    }

    fn poll(&self) -> &Poll {
        &self.poll
    }

    fn pre_copy(&self) -> Option<&dyn PreCopy> {
        Some(self)
    }
}

impl<B: Backend> PreCopy for Sending<B> {
    fn device(&self) -> &vfio::Reference {
        &self.device
    }

    fn info(&self, version: PreCopyVersion) -> Result<PreCopyInfo> {
        let version = match version {
            PreCopyVersion::V1 => InfoVersion::V1,
            PreCopyVersion::V2 => InfoVersion::V2,
        };
        let mut transfer = self.transfer.lock();
        match &*transfer {
            Transfer::Active(output) if !output.saver.has_stopped() => {}
            Transfer::Failed(error) => return Err(*error),
            Transfer::Active(_) | Transfer::Ended => return Err(EINVAL),
        }
        let Outstanding {
            initial,
            changed,
            reinitialised,
        } = self.advance(&mut transfer, |output| {
            let outstanding = output.outstanding(version)?;
            if output.progress == ReadProgress::Open {
                self.poll.show(Readiness::Ready);
            }
            Ok(outstanding)
        })?;
        Ok(PreCopyInfo {
            initial_bytes: initial,
            dirty_bytes: changed,
            reinitialised,
        })
    }
}

/// The receiving side of a transfer.
struct Input<B: Backend> {
    restorer: Restorer<B::Fault>,
    destination: B::Destination,
}

/// A transfer from user space to the device.
#[pin_data]
pub(super) struct Receiving<B: Backend> {
    status: Arc<Status>,
    #[pin]
    transfer: Mutex<Transfer<Input<B>>>,
    #[pin]
    poll: Poll,
}

impl<B: Backend> Receiving<B> {
    pub(super) fn new(destination: B::Destination, status: Arc<Status>) -> Result<Arc<Self>> {
        let input = Input::<B> {
            restorer: Restorer::new(),
            destination,
        };
        status.progressed(Role::Receiver, input.restorer.progress());
        Arc::pin_init(
            pin_init!(Self {
                status,
                transfer <- new_mutex!(Transfer::Active(input), "vifa_receiving"),
                poll <- Poll::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Ends the transfer, and frees what it held.
    pub(super) fn end(&self) {
        let mut transfer = self.transfer.lock();
        *transfer = Transfer::Ended;
        self.poll.show(Readiness::Ended);
    }

    /// Ends the transfer, and loads the new state into the device.
    ///
    /// # Errors
    ///
    /// The stream is incomplete or invalid, or the device refused the state.
    pub(super) fn finish(&self) -> Result {
        let mut transfer = self.transfer.lock();
        self.poll.show(Readiness::Ended);
        match core::mem::replace(&mut *transfer, Transfer::Ended) {
            Transfer::Active(mut input) => {
                input
                    .restorer
                    .finish(&mut input.destination)
                    .map_err(|error| self.refuse(error))?;
                self.status.ended(Outcome::Restored);
                Ok(())
            }
            Transfer::Failed(error) => Err(error),
            Transfer::Ended => Err(ENODEV),
        }
    }

    fn refuse(&self, error: RestoreError<B::Fault>) -> Error {
        let errno = match error.class() {
            Class::Invalid | Class::Incompatible => EINVAL,
            Class::OutOfMemory => ENOMEM,
            Class::Device(fault) => fault.into(),
        };
        self.status.ended(Outcome::Failed);
        self.status
            .refusal(errno, format_args!("failed to restore: {error}"))
    }

    /// Consumes the resident part of `user`.
    fn take(&self, user: &mut UserReader<'_>, waiting: Waiting) -> Result {
        let mut transfer = lock(&self.transfer, waiting)?;
        let input = transfer.active()?;
        let result = input.fill(user);
        self.status
            .progressed(Role::Receiver, input.restorer.progress());
        result.map_err(|error| {
            let error = self.refuse(error);
            *transfer = Transfer::Failed(error);
            self.poll.show(Readiness::Ended);
            error
        })
    }
}

impl<B: Backend> Input<B> {
    /// Copies the resident part of `user` to the restorer. Each run can require a command, so the
    /// function returns early if the task is being killed.
    fn fill(&mut self, user: &mut UserReader<'_>) -> Result<(), RestoreError<B::Fault>> {
        while !user.is_empty() && !task::is_being_killed() {
            let space = self.restorer.space(&mut self.destination)?;
            let all = space.len();
            let done = user.take(space);
            self.restorer.filled(&mut self.destination, done)?;
            if done < all {
                break;
            }
        }
        Ok(())
    }
}

impl<B: Backend> Stream for Receiving<B> {
    type Module = VifaModule;
    const NAME: &'static CStr = c"vifa-restore";
    const DIRECTION: Direction = Direction::Write;

    fn write(&self, user: &mut UserReader<'_>, waiting: Waiting) -> Result {
        lock(&self.transfer, waiting)?.active()?;
        while !user.is_empty() {
            match user.fault_in() {
                Err(_) if user.taken() != 0 => break,
                result => result?,
            }
            match self.take(user, waiting) {
                Err(error) if error == EAGAIN && user.taken() != 0 => break,
                result => result?,
            }
        }
        Ok(())
    }

    fn poll(&self) -> &Poll {
        &self.poll
    }
}
