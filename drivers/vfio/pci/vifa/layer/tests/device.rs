// SPDX-License-Identifier: GPL-2.0

//! A device in memory, which can be saved and restored.

use super::super::{
    identity::{
        Identity,
        FEATURE_LOCAL_DIRTY,
        FEATURE_LOCAL_MEMORY,
        FEATURE_P2P, //
    },
    interface::{
        Function,
        Interfaces, //
    },
    progress::Progress,
    restore::{
        Destination,
        LocalDestination,
        RestoreError,
        Restorer, //
    },
    save::{
        Begin,
        LocalSource,
        Piece,
        SaveError,
        Saver,
        Source, //
    },
    stream::DATA_RUN_MAX,
};
use crate::seam::{
    Bytes,
    OutOfMemory, //
};

/// The identity of the test devices: 16 granules of local memory, and records of types 1 to 4.
pub const IDENTITY: Identity = Identity {
    vendor: 0x1234,
    device: 0x5656,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
    revision_id: 1,
    vifa_revision: 1,
    features: FEATURE_P2P | FEATURE_LOCAL_MEMORY | FEATURE_LOCAL_DIRTY,
    bar_size: [0x1000, 0, 0, 0, 0x4000, 0],
    interrupt_vectors: 1,
    queues: 1,
    granule: 0x1000,
    local_memory: 0x1_0000,
    control_plane_max: 0x1000,
    record_version: [0, 1, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// The default address of the test devices.
pub const FUNCTION: Function = Function {
    domain: 0,
    bus: 2,
    devfn: 0x11,
};

/// Two records: type 1 with 4 bytes, type 4 (version 2, index 3) with 8 bytes.
pub const CONTROL: [u8; 48] = [
    1, 0, 1, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xee, 0x11, 0, 0, 0, 0, //
    4, 0, 2, 0, 3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8,
];

/// Returns a buffer of `length` zeroes.
fn zeroed(length: usize) -> Result<Bytes, OutOfMemory> {
    let mut bytes = Bytes::with_capacity(length)?;

    bytes.resize_zeroed(length)?;
    Ok(bytes)
}

/// Copies `from` to the start of `to`, as far as it fits.
fn put(to: &mut [u8], from: &[u8]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = from;
    }
}

/// Sets `to` to the content of `from`.
fn copy(to: &mut Bytes, from: &[u8]) -> Result<(), OutOfMemory> {
    to.resize_zeroed(from.len())?;
    put(to, from);
    Ok(())
}

/// Appends `more` to `bytes`.
fn append(bytes: &mut Bytes, more: &[u8]) -> Result<(), OutOfMemory> {
    let start = bytes.len();

    bytes.resize_zeroed(start + more.len())?;
    put(bytes.get_mut(start..).unwrap_or_default(), more);
    Ok(())
}

/// Writes a bitmap of `states`, each 0 or 1. Bits after the last one are those of `padding`.
fn pack(bitmap: &mut [u8], states: &[u8], padding: u8) {
    for (byte, states) in bitmap.iter_mut().zip(states.chunks(8)) {
        *byte = padding.checked_shl(states.len() as u32).unwrap_or_default();
        for (bit, state) in states.iter().enumerate() {
            *byte |= state << bit;
        }
    }
}

/// A device without hardware.
pub struct Device {
    /// The identity that the device reports.
    pub identity: Identity,
    /// The address.
    pub function: Function,
    /// The control plane.
    pub control: Bytes,
    /// The records that the device claims as a source.
    pub claim: Bytes,
    /// Number of reconfigurations.
    pub configurations: u32,
    /// The last received claim.
    pub tried: Bytes,
    /// Number of received claims.
    pub claims: u32,
    /// The records that the device obtained as a destination.
    pub obtained: Bytes,
    /// Whether the host refuses all requests.
    pub denied: bool,
    /// Number of bytes missing from a bitmap.
    pub missing_bitmap: usize,
    /// The padding bits of a bitmap.
    pub padding: u8,
    /// Number of bytes missing from a piece.
    pub missing: usize,
    /// Numbers of runs that were read without and with an announcement.
    pub reads: [usize; 2],
    announced: Option<(u64, usize)>,
    local: Bytes,
    /// One byte per granule: 1 if it is mapped.
    mapped: Bytes,
    /// One byte per granule: 1 if it has changed since the last query.
    changed: Bytes,
    bitmap: Bytes,
    buffer: Bytes,
    /// The content of the announced run at the announcement.
    ahead: Bytes,
    piece: usize,
}

impl Device {
    /// Creates a device without mapped memory, with [`CONTROL`] as its control plane.
    pub fn new(identity: Identity) -> Result<Self, OutOfMemory> {
        let local = identity.local_memory as usize;
        let granules = local.checked_div(identity.granule as usize);

        let records = || Bytes::with_capacity(identity.control_plane_max as usize);
        let mut control = records()?;
        copy(&mut control, &CONTROL)?;

        Ok(Self {
            identity,
            function: FUNCTION,
            control,
            claim: records()?,
            configurations: 0,
            tried: records()?,
            claims: 0,
            obtained: records()?,
            denied: false,
            missing_bitmap: 0,
            padding: 0,
            missing: 0,
            reads: [0; 2],
            announced: None,
            local: zeroed(local)?,
            mapped: zeroed(granules.unwrap_or_default())?,
            changed: zeroed(granules.unwrap_or_default())?,
            bitmap: zeroed(granules.unwrap_or_default().div_ceil(8))?,
            buffer: zeroed(DATA_RUN_MAX)?,
            ahead: zeroed(DATA_RUN_MAX)?,
            piece: 0,
        })
    }

    /// Maps granule number `granule` and fills it with a pattern.
    pub fn fill(&mut self, granule: usize) {
        let size = self.identity.granule as usize;
        let bytes = self.local.iter_mut().enumerate();

        for state in [&mut self.mapped, &mut self.changed] {
            if let Some(state) = state.get_mut(granule) {
                *state = 1;
            }
        }
        for (position, byte) in bytes.skip(granule * size).take(size) {
            *byte = (position ^ (position >> 8) ^ granule) as u8;
        }
    }

    /// Maps granule number `granule` and fills it with `byte`.
    pub fn change(&mut self, granule: usize, byte: u8) {
        let size = self.identity.granule as usize;

        self.fill(granule);
        self.local
            .get_mut(granule * size..(granule + 1) * size)
            .unwrap_or_default()
            .fill(byte);
    }

    /// Reconfigures the device: sets its claim.
    pub fn configure(&mut self, claim: &[u8]) -> Result<(), OutOfMemory> {
        self.configurations = self.configurations.wrapping_add(1);
        copy(&mut self.claim, claim)
    }

    /// Requests a resource from the host.
    fn host(&self) -> Result<(), OutOfMemory> {
        if self.denied {
            Err(OutOfMemory)
        } else {
            Ok(())
        }
    }

    /// Returns the content of the buffer after the last read.
    fn piece(&self) -> &[u8] {
        self.buffer
            .get(..self.piece.saturating_sub(self.missing))
            .unwrap_or_default()
    }

    /// Returns this device if it has local memory.
    fn with_local_memory(&mut self) -> Option<&mut Self> {
        (self.identity.local_memory != 0).then_some(self)
    }

    /// Returns the number of whole granules in `bytes`.
    fn granules(&self, bytes: usize) -> usize {
        bytes
            .checked_div(self.identity.granule as usize)
            .unwrap_or_default()
    }

    /// Returns whether no local memory is mapped.
    pub fn is_clear(&self) -> bool {
        self.mapped.iter().all(|&mapped| mapped == 0)
    }

    /// Returns whether this device's state is that of `other`.
    pub fn has_state_of(&self, other: &Self) -> bool {
        self.local[..] == other.local[..]
            && self.mapped[..] == other.mapped[..]
            && self.control[..] == other.control[..]
    }

    /// Saves the device. Reads the stream in pieces of the lengths in `segments`, repeatedly.
    pub fn save(&mut self, segments: &[usize]) -> Result<Bytes, SaveError<OutOfMemory>> {
        let mut saver = Saver::new(Begin::Stopped);
        let mut stream = Bytes::with_capacity(0).map_err(SaveError::Device)?;

        self.read(&mut saver, segments, &mut stream)?;
        Ok(stream)
    }

    /// Appends the bytes from `saver` to `stream` until it pauses or ends, in pieces of the lengths
    /// in `segments`, repeatedly.
    pub fn read(
        &mut self,
        saver: &mut Saver<OutOfMemory>,
        segments: &[usize],
        stream: &mut Bytes,
    ) -> Result<(), SaveError<OutOfMemory>> {
        for &segment in segments.iter().cycle() {
            let Piece::Bytes(piece) = saver.remaining(self)? else {
                break;
            };
            let length = piece.len().min(segment);

            append(stream, piece.get(..length).unwrap_or_default()).map_err(SaveError::Device)?;
            saver.consume(length);
        }
        Ok(())
    }

    /// Appends the next `length` bytes from `saver` to `stream`, or fewer if it pauses or ends.
    pub fn read_bytes(
        &mut self,
        saver: &mut Saver<OutOfMemory>,
        length: usize,
        stream: &mut Bytes,
    ) -> Result<(), SaveError<OutOfMemory>> {
        let end = stream.len() + length;

        while stream.len() < end {
            let Piece::Bytes(piece) = saver.remaining(self)? else {
                break;
            };
            let length = piece.len().min(end - stream.len());

            append(stream, piece.get(..length).unwrap_or_default()).map_err(SaveError::Device)?;
            saver.consume(length);
        }
        Ok(())
    }

    /// Restores the device. Writes the stream in pieces of the lengths in `segments`, repeatedly.
    /// Returns the receiver's totals at the end.
    pub fn restore(
        &mut self,
        stream: &[u8],
        segments: &[usize],
    ) -> Result<Progress, RestoreError<OutOfMemory>> {
        let mut restorer = Restorer::new();

        self.write(&mut restorer, segments, stream)?;
        let progress = *restorer.progress();
        restorer.finish(self)?;
        Ok(progress)
    }

    /// Writes `stream` to `restorer`. See [`write`].
    pub fn write(
        &mut self,
        restorer: &mut Restorer<OutOfMemory>,
        segments: &[usize],
        stream: &[u8],
    ) -> Result<(), RestoreError<OutOfMemory>> {
        write(self, restorer, segments, stream)
    }
}

/// Writes `stream` to the `restorer` of `destination`, in pieces of the lengths in `segments`,
/// repeatedly.
pub fn write<D: Destination>(
    destination: &mut D,
    restorer: &mut Restorer<D::Error>,
    segments: &[usize],
    stream: &[u8],
) -> Result<(), RestoreError<D::Error>> {
    let mut rest = stream;

    for &segment in segments.iter().cycle() {
        if rest.is_empty() {
            break;
        }

        let space = restorer.space(destination)?;
        let length = space.len().min(rest.len()).min(segment);

        put(space, rest.get(..length).unwrap_or_default());
        restorer.filled(destination, length)?;
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(())
}

impl Source for Device {
    type Error = OutOfMemory;
    type Local = Self;

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn interfaces(&self) -> Interfaces {
        Interfaces::of(self.function)
    }

    fn read_control(&mut self) -> Result<(), OutOfMemory> {
        put(&mut self.buffer, &self.control);
        self.piece = self.control.len();
        Ok(())
    }

    fn control(&self) -> &[u8] {
        self.piece()
    }

    fn claim(&mut self) -> Result<&[u8], OutOfMemory> {
        Ok(&self.claim)
    }

    fn configurations(&mut self) -> Result<u32, OutOfMemory> {
        Ok(self.configurations)
    }

    fn local(&mut self) -> Option<&mut Self> {
        self.with_local_memory()
    }
}

impl LocalSource<OutOfMemory> for Device {
    fn mapped(&mut self, offset: u64, length: u64) -> Result<&[u8], OutOfMemory> {
        let granules = self.granules(offset as usize)..self.granules((offset + length) as usize);
        let mapped = self.mapped.get(granules).unwrap_or_default();
        let bytes = mapped.len().div_ceil(8).saturating_sub(self.missing_bitmap);

        pack(&mut self.bitmap, mapped, self.padding);
        Ok(self.bitmap.get(..bytes).unwrap_or_default())
    }

    fn changed(&mut self, offset: u64, length: u64) -> Result<&[u8], OutOfMemory> {
        let granules = self.granules(offset as usize)..self.granules((offset + length) as usize);
        let changed = self.changed.get_mut(granules).unwrap_or_default();
        let bytes = changed
            .len()
            .div_ceil(8)
            .saturating_sub(self.missing_bitmap);

        pack(&mut self.bitmap, changed, self.padding);
        changed.fill(0);
        Ok(self.bitmap.get(..bytes).unwrap_or_default())
    }

    fn read_local(&mut self, offset: u64, length: usize) -> Result<(), OutOfMemory> {
        match self.announced.take() {
            None => {
                self.reads[0] += 1;
                put(
                    self.buffer.get_mut(..length).unwrap_or_default(),
                    self.local.get(offset as usize..).unwrap_or_default(),
                );
            }
            Some(announced) if announced == (offset, length) => {
                self.reads[1] += 1;
                put(
                    &mut self.buffer,
                    self.ahead.get(..length).unwrap_or_default(),
                );
            }
            Some(_) => return Err(OutOfMemory),
        }
        self.piece = length;
        Ok(())
    }

    fn prefetch_local(&mut self, offset: u64, length: usize) {
        self.announced = Some((offset, length));
        put(
            self.ahead.get_mut(..length).unwrap_or_default(),
            self.local.get(offset as usize..).unwrap_or_default(),
        );
    }

    fn run(&self) -> &[u8] {
        self.piece()
    }
}

impl Destination for Device {
    type Error = OutOfMemory;
    type Local = Self;

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn interfaces(&self) -> Interfaces {
        Interfaces::of(self.function)
    }

    fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    fn local(&mut self) -> Option<&mut Self> {
        self.with_local_memory()
    }

    fn claim(&mut self, records: &[u8]) -> Result<(), OutOfMemory> {
        self.claims += 1;
        copy(&mut self.tried, records)?;
        self.host()
    }

    fn prepare(&mut self, records: &[u8]) -> Result<(), OutOfMemory> {
        self.host()?;
        copy(&mut self.obtained, records)
    }

    fn write_control(&mut self, records: &[u8]) -> Result<(), OutOfMemory> {
        copy(&mut self.control, records)
    }
}

impl LocalDestination<OutOfMemory> for Device {
    fn clear_local(&mut self) -> Result<(), OutOfMemory> {
        self.local.fill(0);
        self.mapped.fill(0);
        Ok(())
    }

    fn write_local(&mut self, offset: u64, length: usize) -> Result<(), OutOfMemory> {
        let first = self.granules(offset as usize);
        let count = self.granules(length);

        put(
            self.local.get_mut(offset as usize..).unwrap_or_default(),
            self.buffer.get(..length).unwrap_or_default(),
        );
        for mapped in self.mapped.iter_mut().skip(first).take(count) {
            *mapped = 1;
        }
        Ok(())
    }
}
