// SPDX-License-Identifier: GPL-2.0

//! A device without a kernel: the driver's layer with VFIO's states and injected faults.

use std::{
    cell::{Cell, RefCell},
    io::{self, Read, Write},
    rc::Rc,
};

use anyhow::{anyhow, bail, Result};

use super::Migratable;
use crate::{
    interrupt,
    layer::{
        identity::Identity,
        state::DeviceState,
        tests::device::{self, IDENTITY},
    },
};

/// A fault, and the byte of the stream where it occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The session fails.
    Error(usize),
    /// One bit of a byte is inverted.
    Bit(usize),
    /// A signal requests termination.
    Signal(usize),
    /// The device fails to return to RUNNING.
    NoReturn,
    /// The device fails to begin a session.
    NoSession,
}

/// A device.
pub(crate) struct Fake {
    pub(crate) device: RefCell<device::Device>,
    fault: Fault,
    /// The states of the device so far, the current one last.
    pub(crate) states: RefCell<Vec<DeviceState>>,
    pub(crate) resets: Cell<usize>,
    written: Rc<RefCell<Vec<u8>>>,
}

impl Fake {
    /// Creates a device in `state` with some local memory mapped.
    pub(crate) fn new(state: DeviceState) -> Self {
        Self::with(IDENTITY, state)
    }

    /// Like [`Self::new`], with this identity.
    pub(crate) fn with(identity: Identity, state: DeviceState) -> Self {
        let mut device = device::Device::new(identity).unwrap();

        for granule in [1, 2, 7] {
            device.fill(granule);
        }
        Self {
            device: RefCell::new(device),
            fault: Fault::None,
            states: RefCell::new(vec![state]),
            resets: Cell::new(0),
            written: Rc::default(),
        }
    }

    /// Adds a fault.
    pub(crate) fn with_fault(self, fault: Fault) -> Self {
        Self { fault, ..self }
    }

    /// Returns the stream of the device.
    pub(crate) fn stream(&self) -> Vec<u8> {
        self.device
            .borrow_mut()
            .save(&[usize::MAX])
            .unwrap()
            .to_vec()
    }

    fn now(&self) -> DeviceState {
        *self.states.borrow().last().unwrap()
    }

    fn enter(&self, state: DeviceState) {
        self.states.borrow_mut().push(state);
    }

    /// Ends RESUMING, as the kernel does.
    fn load(&self) -> Result<()> {
        let stream = self.written.take();

        if self
            .device
            .borrow_mut()
            .restore(&stream, &[usize::MAX])
            .is_err()
        {
            self.enter(DeviceState::Error);
            bail!(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(())
    }
}

/// A session of a [`Fake`].
pub(crate) struct Session {
    stream: io::Cursor<Vec<u8>>,
    written: Rc<RefCell<Vec<u8>>>,
    fault: Fault,
}

impl Session {
    /// Returns the number of bytes that can be moved at `position`, up to `length`; triggers faults
    /// there.
    fn reach(&self, position: usize, length: usize) -> io::Result<usize> {
        match self.fault {
            Fault::Error(at) if at <= position => Err(io::Error::from_raw_os_error(libc::EIO)),
            Fault::Signal(at) if at <= position => {
                interrupt::IN_TEST.set(true);
                Err(io::ErrorKind::Interrupted.into())
            }
            // Short reads and writes, as the kernel may return.
            Fault::Error(at) | Fault::Signal(at) => Ok(length.min(at - position).min(5000)),
            _ => Ok(length.min(5000)),
        }
    }
}

impl Read for Session {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let position = self.stream.position() as usize;
        let length = self.reach(position, buffer.len())?;

        self.stream.read(&mut buffer[..length])
    }
}

impl Write for Session {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let position = self.written.borrow().len();
        let length = self.reach(position, bytes.len())?;

        self.written.borrow_mut().extend(&bytes[..length]);
        if let Fault::Bit(at) = self.fault {
            if (position..position + length).contains(&at) {
                self.written.borrow_mut()[at] ^= 1;
            }
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Migratable for Fake {
    type Session = Session;

    fn name(&self) -> String {
        "fake".to_owned()
    }

    fn state(&self) -> Result<DeviceState> {
        Ok(self.now())
    }

    fn set_state(&self, state: DeviceState) -> Result<Option<Session>> {
        use DeviceState::{Error, Resuming, Running, RunningP2p, Stop, StopCopy};

        let session = |stream| {
            Some(Session {
                stream: io::Cursor::new(stream),
                written: self.written.clone(),
                fault: self.fault,
            })
        };
        let session = match (self.now(), state) {
            (now, to) if now == to => None,
            (Error, _) => bail!(io::Error::from_raw_os_error(libc::EIO)),
            (_, StopCopy | Resuming) if self.fault == Fault::NoSession => {
                bail!(io::Error::from_raw_os_error(libc::EBUSY))
            }
            (Running | RunningP2p | Stop, StopCopy) => {
                let mut stream = self.stream();

                if let Fault::Bit(at) = self.fault {
                    stream[at] ^= 1;
                }
                session(stream)
            }
            (Running | RunningP2p | Stop, Resuming) => {
                self.written.take();
                session(Vec::new())
            }
            (StopCopy, Running) if self.fault == Fault::NoReturn => {
                self.enter(Stop);
                bail!(io::Error::from_raw_os_error(libc::EIO));
            }
            (Resuming, Stop | Running | RunningP2p) => {
                self.load()?;
                None
            }
            (Running | RunningP2p | Stop | StopCopy, Running | RunningP2p | Stop) => None,
            (from, to) => bail!("no way from {from:?} to {to:?}"),
        };

        self.enter(state);
        Ok(session)
    }

    fn data_size(&self) -> Result<u64> {
        Err(anyhow!("unknown"))
    }

    fn reset(&self) -> Result<()> {
        self.resets.set(self.resets.get() + 1);
        self.enter(DeviceState::Running);
        Ok(())
    }

    fn last_error(&self) -> Option<String> {
        Some("reported by the fake".to_owned())
    }
}
