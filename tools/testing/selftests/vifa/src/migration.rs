// SPDX-License-Identifier: GPL-2.0

//! VFIO migration v2: a device's state, and the data of a session's descriptor.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::{anyhow, bail, Context, Result};
use vfio_bindings::bindings::vfio::{
    self, vfio_device_feature_mig_data_size, vfio_device_feature_mig_state, vfio_precopy_info,
};
use vifa_layer::layer::state::DeviceState;
use vifa_vfio::{adopt, ioctl};

use crate::{
    expect, region, sys,
    vfio::{request, Device, Feature, Operation},
};

/// `enum vfio_device_mig_state`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    Error = vfio::vfio_device_mig_state_VFIO_DEVICE_STATE_ERROR,
    Stop = vfio::vfio_device_mig_state_VFIO_DEVICE_STATE_STOP,
    Running = vfio::vfio_device_mig_state_VFIO_DEVICE_STATE_RUNNING,
    StopCopy = vfio::vfio_device_mig_state_VFIO_DEVICE_STATE_STOP_COPY,
    Resuming = vfio::vfio_device_mig_state_VFIO_DEVICE_STATE_RESUMING,
    RunningP2p = vfio::vfio_device_mig_state_VFIO_DEVICE_STATE_RUNNING_P2P,
    PreCopy = vfio::vfio_device_mig_state_VFIO_DEVICE_STATE_PRE_COPY,
    PreCopyP2p = vfio::vfio_device_mig_state_VFIO_DEVICE_STATE_PRE_COPY_P2P,
}

impl State {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::Error,
        Self::Stop,
        Self::Running,
        Self::StopCopy,
        Self::Resuming,
        Self::RunningP2p,
        Self::PreCopy,
        Self::PreCopyP2p,
    ];

    /// States that can be requested of a device with STOP_COPY, P2P and PRE_COPY.
    pub const SUPPORTED: [Self; 7] = [
        Self::Stop,
        Self::Running,
        Self::StopCopy,
        Self::Resuming,
        Self::RunningP2p,
        Self::PreCopy,
        Self::PreCopyP2p,
    ];

    /// Returns whether this is a state of the "saving group", whose states share a session.
    pub fn is_saving(self) -> bool {
        matches!(self, Self::StopCopy | Self::PreCopy | Self::PreCopyP2p)
    }

    /// Returns the state's name in the header.
    pub fn name(self) -> String {
        DeviceState::try_from(self as u32)
            .expect("a state of the header")
            .to_string()
    }

    fn from_number(number: u32) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|state| *state as u32 == number)
            .with_context(|| format!("the device is in the unknown state {number}"))
    }
}

/// Sizes of the pieces in which a stream is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segments {
    /// Pieces of this many bytes.
    Of(usize),
    /// One piece.
    Whole,
}

impl Segments {
    /// The sizes used for every stream.
    pub const TRIED: [Self; 8] = [
        Self::Of(1),
        Self::Of(3),
        Self::Of(7),
        Self::Of(4095),
        Self::Of(4096),
        Self::Of(4097),
        Self::Of(64 << 10),
        Self::Whole,
    ];

    fn length(self) -> usize {
        match self {
            Self::Of(length) => length,
            Self::Whole => 16 << 20,
        }
    }
}

/// The descriptor of a session.
#[derive(Debug)]
pub struct Session(File);

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Session {
    /// Reads up to `length` bytes once.
    pub fn read(&self, length: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; length];
        let got = (&self.0).read(&mut buffer)?;
        buffer.truncate(got);
        Ok(buffer)
    }

    /// Reads to the end of the stream in pieces of `segments`.
    pub fn read_all(&self, segments: Segments) -> io::Result<Vec<u8>> {
        let mut stream = Vec::new();
        let mut buffer = vec![0; segments.length()];
        loop {
            match (&self.0).read(&mut buffer)? {
                0 => return Ok(stream),
                got => stream.extend_from_slice(&buffer[..got]),
            }
        }
    }

    /// Reads to the temporary end of the stream in PRE_COPY, in pieces of `segments`.
    pub fn read_to_pause(&self, segments: Segments) -> io::Result<Vec<u8>> {
        let mut stream = Vec::new();
        loop {
            match self.read(segments.length()) {
                Ok(bytes) if bytes.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => stream.extend(bytes),
                Err(error) if error.raw_os_error() == Some(libc::ENOMSG) => return Ok(stream),
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the answer of `VFIO_MIG_GET_PRECOPY_INFO` to `flags`, which the kernel must set.
    pub fn precopy_info(&self, flags: u32) -> io::Result<vfio_precopy_info> {
        let mut info = vfio_precopy_info {
            argsz: size_of::<vfio_precopy_info>() as u32,
            flags,
            initial_bytes: u64::MAX,
            dirty_bytes: u64::MAX,
        };
        ioctl(self, &request::MIG_GET_PRECOPY_INFO, &mut info)?;
        Ok(info)
    }

    /// Writes `bytes` once; returns the number of accepted bytes.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }

    /// Writes `stream` in pieces of `segments`, until one is rejected.
    pub fn write_all(&self, stream: &[u8], segments: Segments) -> io::Result<()> {
        for piece in stream.chunks(segments.length()) {
            (&self.0).write_all(piece)?;
        }
        Ok(())
    }

    /// Returns the current poll() events of the descriptor.
    pub fn poll(&self) -> io::Result<i16> {
        sys::poll(
            self,
            libc::POLLIN | libc::POLLOUT,
            std::time::Duration::ZERO,
        )
    }

    /// Returns the descriptor as a file.
    pub fn file(&self) -> &File {
        &self.0
    }
}

impl Device {
    /// Returns the device's migration state.
    pub fn state(&self) -> Result<State> {
        let data = self
            .feature(Feature::new(
                Operation::Get,
                vfio::VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
                vfio_device_feature_mig_state::default(),
            ))
            .context("GET of MIG_DEVICE_STATE")?;
        expect::equal("data_fd of a GET of MIG_DEVICE_STATE", data.data_fd, -1)?;
        State::from_number(data.device_state)
    }

    /// Requests the state `number`; returns the session, if the state begins one.
    pub fn request_state(&self, number: u32) -> io::Result<Option<Session>> {
        let mut feature = Feature::new(
            Operation::Set,
            vfio::VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
            vfio_device_feature_mig_state {
                device_state: number,
                // The kernel must set it, even on failure.
                data_fd: i32::MAX,
            },
        );
        let result = self.raw_feature(&mut feature);
        let fd = feature.data.data_fd;
        match result {
            Ok(()) if fd == -1 => Ok(None),
            Ok(()) => {
                assert!(fd >= 0, "descriptor {fd}");
                // SAFETY: The kernel has just made this descriptor for this call.
                Ok(Some(Session(unsafe { adopt(fd) }.into())))
            }
            Err(error) => Err(error),
        }
    }

    /// Changes the state to `state`, which begins no session.
    pub fn change_state(&self, state: State) -> Result<()> {
        match self.enter(state)? {
            None => Ok(()),
            Some(_) => bail!("{}: expected no data_fd, got one", state.name()),
        }
    }

    /// Changes the state to `state`, which begins a session.
    pub fn start(&self, state: State) -> Result<Session> {
        self.enter(state)?
            .ok_or_else(|| anyhow!("{}: expected a data_fd, got none", state.name()))
    }

    /// Changes the state to `state` and checks the new state.
    pub fn enter(&self, state: State) -> Result<Option<Session>> {
        let session = self
            .request_state(state as u32)
            .with_context(|| format!("SET of MIG_DEVICE_STATE to {}", state.name()))?;
        expect::equal("state after a SET", self.state()?, state)?;
        Ok(session)
    }

    /// Returns the size that the device reports for STOP_COPY, in bytes.
    pub fn data_size(&self) -> io::Result<u64> {
        let data = self.feature(Feature::new(
            Operation::Get,
            vfio::VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
            vfio_device_feature_mig_data_size::default(),
        ))?;
        Ok(data.stop_copy_length)
    }

    /// Stops the device and reads its whole state; leaves it in STOP.
    pub fn save(&self) -> Result<Vec<u8>> {
        let session = self.start(State::StopCopy)?;
        let stream = session
            .read_all(Segments::Whole)
            .context("read of the stream")?;
        self.change_state(State::Stop)?;
        Ok(stream)
    }

    /// Stops the device and loads the state in `stream`; leaves it in STOP.
    pub fn load(&self, stream: &[u8]) -> Result<()> {
        self.try_load(stream, Segments::Whole)?.or_else(|error| {
            let region = region::read(self)?;
            bail!("load: {error}: {}", region::error_text(&region)?)
        })?;
        expect::equal("state after a load", self.state()?, State::Stop)
    }

    /// Tries to load the state in `stream`. The error comes from a write or from the end of
    /// RESUMING. The device is in STOP after success, and must be reset after an error.
    pub fn try_load(&self, stream: &[u8], segments: Segments) -> Result<io::Result<()>> {
        let session = self.start(State::Resuming)?;
        if let Err(error) = session.write_all(stream, segments) {
            return Ok(Err(error));
        }
        Ok(self.request_state(State::Stop as u32).map(drop))
    }
}
