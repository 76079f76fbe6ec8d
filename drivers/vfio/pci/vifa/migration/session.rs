// SPDX-License-Identifier: GPL-2.0

//! Transfers behind a migration file.
//!
//! A session holds one end of a transfer, until the state machine ends it or takes the result. The
//! file may live on for as long as user space likes; it then reaches nothing any more, and every
//! call says so. No user memory is faulted in while the session is locked (see [`crate::vfio::file`]).

use super::report::Report;
use crate::{
    backend::Backend,
    layer::{
        restore::{
            Class,
            RestoreError,
            Restorer, //
        },
        save::{
            SaveError,
            Saver, //
        },
    },
    vfio::file::{
        Direction,
        Readiness,
        Stream,
        UserReader,
        UserWriter, //
    },
    VifaModule,
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// One end of a transfer.
enum Transfer<T> {
    Active(T),
    /// It failed, with this error.
    Failed(Error),
    /// It ended.
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

    fn readiness(&self) -> Readiness {
        match self {
            Self::Active(_) => Readiness::Ready,
            Self::Failed(_) | Self::Ended => Readiness::Ended,
        }
    }
}

/// A transfer from the device to user space.
#[pin_data]
pub(super) struct Sending<B: Backend> {
    report: Arc<Report>,
    #[pin]
    transfer: Mutex<Transfer<(Saver<Error>, B::Source)>>,
}

impl<B: Backend> Sending<B> {
    pub(super) fn new(source: B::Source, report: Arc<Report>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                report,
                transfer <- new_mutex!(Transfer::Active((Saver::new(), source)), "vifa_sending"),
            }),
            GFP_KERNEL,
        )
    }

    /// Ends the transfer, and frees what it held.
    pub(super) fn end(&self) {
        *self.transfer.lock() = Transfer::Ended;
    }

    fn fail(&self, error: SaveError<Error>) -> Error {
        let errno = match error {
            SaveError::Device(error) => error,
            _ => EIO,
        };
        self.report
            .error(errno, format_args!("cannot be saved: {error}"))
    }

    /// Puts what is ready into the resident part of `user`; returns whether the stream has ended.
    fn put(&self, user: &mut UserWriter<'_>) -> Result<bool> {
        let mut transfer = self.transfer.lock();
        let (saver, source) = transfer.active()?;
        loop {
            let piece = match saver.remaining(source) {
                Ok([]) => return Ok(true),
                Ok(piece) => piece,
                Err(error) => {
                    let error = self.fail(error);
                    *transfer = Transfer::Failed(error);
                    return Err(error);
                }
            };
            let all = piece.len();
            let done = user.put(piece);
            saver.consume(done);
            if done < all {
                return Ok(false);
            }
        }
    }
}

impl<B: Backend> Stream for Sending<B> {
    type Module = VifaModule;
    const NAME: &'static CStr = c"vifa-save";
    const DIRECTION: Direction = Direction::Read;

    fn read(&self, user: &mut UserWriter<'_>) -> Result {
        self.transfer.lock().active()?;
        while !user.is_full() {
            user.fault_in()?;
            if self.put(user)? {
                break;
            }
        }
        Ok(())
    }

    fn readiness(&self) -> Readiness {
        self.transfer.lock().readiness()
    }
}

/// A transfer from user space to the device.
#[pin_data]
pub(super) struct Receiving<B: Backend> {
    report: Arc<Report>,
    #[pin]
    transfer: Mutex<Transfer<(Restorer<Error>, B::Destination)>>,
}

impl<B: Backend> Receiving<B> {
    pub(super) fn new(destination: B::Destination, report: Arc<Report>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                report,
                transfer <- new_mutex!(
                    Transfer::Active((Restorer::new(), destination)),
                    "vifa_receiving"
                ),
            }),
            GFP_KERNEL,
        )
    }

    /// Ends the transfer, and frees what it held.
    pub(super) fn end(&self) {
        *self.transfer.lock() = Transfer::Ended;
    }

    /// Ends the transfer; the device takes its new state.
    ///
    /// # Errors
    ///
    /// The stream was not complete or not sound, or the device refused.
    pub(super) fn finish(&self) -> Result {
        let mut transfer = self.transfer.lock();
        match core::mem::replace(&mut *transfer, Transfer::Ended) {
            Transfer::Active((restorer, mut destination)) => restorer
                .finish(&mut destination)
                .map_err(|error| self.refuse(error)),
            Transfer::Failed(error) => Err(error),
            Transfer::Ended => Err(ENODEV),
        }
    }

    fn refuse(&self, error: RestoreError<Error>) -> Error {
        let errno = match error.class() {
            Class::Invalid | Class::Incompatible => EINVAL,
            Class::OutOfMemory => ENOMEM,
            Class::Device(error) => error,
        };
        self.report
            .error(errno, format_args!("cannot be restored: {error}"))
    }

    /// Takes the resident part of `user`.
    fn take(&self, user: &mut UserReader<'_>) -> Result {
        let mut transfer = self.transfer.lock();
        let (restorer, destination) = transfer.active()?;
        let result = Self::fill(restorer, destination, user);
        result.map_err(|error| {
            let error = self.refuse(error);
            *transfer = Transfer::Failed(error);
            error
        })
    }

    fn fill(
        restorer: &mut Restorer<Error>,
        destination: &mut B::Destination,
        user: &mut UserReader<'_>,
    ) -> Result<(), RestoreError<Error>> {
        while !user.is_empty() {
            let space = restorer.space(destination)?;
            let all = space.len();
            let done = user.take(space);
            restorer.filled(destination, done)?;
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

    fn write(&self, user: &mut UserReader<'_>) -> Result {
        self.transfer.lock().active()?;
        while !user.is_empty() {
            match user.fault_in() {
                Err(_) if user.taken() != 0 => break,
                result => result?,
            }
            self.take(user)?;
        }
        Ok(())
    }

    fn readiness(&self) -> Readiness {
        self.transfer.lock().readiness()
    }
}
