// SPDX-License-Identifier: GPL-2.0

//! The log of a virtual function's writes to guest memory, for a device with the VIFA capability.
//!
//! A report first reads the summary, which takes one command for a terabyte. It then reads only the
//! windows that the summary marks. The log has two buffers for windows, so that the device fills
//! one while the processor scans the other.
//!
//! Lost DMA writes of a device go unnoticed. The driver therefore sets all bits of a buffer before
//! it passes the buffer to the device: parts that the device does not write are dirty.

use super::{
    buffer::Buffer,
    function::Function,
    mailbox::{
        Command,
        Failure,
        Pending,
        Results, //
    },
    spare::Spare, //
};
use crate::{
    backend::{
        Log,
        Unreported, //
    },
    bindings::{
        self,
        vifa_hw_range,
        VIFA_LOG_LOST,
        VIFA_LOG_SUMMARY_PAGES,
        VIFA_STATUS_INVALID_ARGUMENT,
        VIFA_STATUS_INVALID_STATE, //
    },
    errno::Name,
    layer::{
        address::Range,
        log::{
            self,
            Capacity,
            Piece,
            Pieces,
            Windows, //
        },
    }, //
};
use core::fmt;
use kernel::{
    prelude::*,
    sync::Arc,
    transmute::AsBytes, //
};

/// Size in bytes of the buffer for summaries.
const SUMMARY_SIZE: usize = 4096;

/// Maximum size in bytes of each of the two buffers for windows. All buffers together are smaller
/// than 1 MiB.
const WINDOW_MAX: usize = 480 * 1024;

/// Size in bytes of the bitmap part that one bit of a summary represents.
const WINDOW_UNIT: usize = VIFA_LOG_SUMMARY_PAGES as usize / 8;

/// Maximum number of consecutive clear bits of a summary inside a window. Each costs 4 KiB of
/// bitmap.
const GAP_BITS: u64 = 16;

/// The error of an operation on a log.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// A command failed.
    Command(Command, Failure),
    /// The device returned this invalid page size.
    PageSize(u64),
    /// A command reported the first number of pages instead of the second.
    Pages(Command, u64, u64),
    /// The device did not log some writes.
    Lost,
    /// The allocation of buffers failed.
    Memory(Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command, failure) => write!(f, "{command} {failure}"),
            Self::PageSize(size) => write!(f, "LOG_START: invalid page size: got {size:#x}"),
            Self::Pages(command, found, asked) => write!(
                f,
                "{command}: invalid number of pages: got {found}, expected {asked}"
            ),
            Self::Lost => f.write_str("the device has lost its log (LOG_LOST)"),
            Self::Memory(error) => write!(f, "failed to allocate buffers: {}", Name(*error)),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Command(
                Command::LOG_START,
                Failure::Status(VIFA_STATUS_INVALID_ARGUMENT, _),
            ) => EINVAL,
            Fault::Command(_, failure) => failure.errno(),
            Fault::PageSize(_) | Fault::Pages(..) | Fault::Lost => EIO,
            Fault::Memory(error) => error,
        }
    }
}

/// The reason why a report failed.
type Stop = Unreported<Fault>;

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Unknown(fault)
    }
}

/// Sets all bits in the first `length` bytes of a buffer.
fn set_all(buffer: &mut Buffer, length: usize) {
    if let Some(bytes) = buffer.bytes_mut().get_mut(..length) {
        bytes.fill(u8::MAX);
    }
}

/// A window that the device is reading into a buffer.
struct WindowRead {
    window: Range,
    pending: Pending,
}

/// Allocates a buffer of `size` bytes for windows, and for commands for multiples of `unit` bytes.
fn window_buffer(function: &Function, size: usize, unit: usize) -> Result<Buffer, Fault> {
    let mut buffer = function.buffer(size, unit).map_err(Fault::Memory)?;
    set_all(&mut buffer, size);
    Ok(buffer)
}

/// Allocates a buffer for summaries.
fn summary_buffer(function: &Function) -> Result<Buffer, Fault> {
    let buffer = function.buffer(SUMMARY_SIZE, SUMMARY_SIZE);
    buffer.map_err(Fault::Memory)
}

/// A reader of windows, which starts to read a window before it reports the previous one.
struct Reader {
    function: Arc<Function>,
    capacity: Capacity,
    /// Unused buffers, with all bits set.
    spare: Spare<2>,
    reading: Option<WindowRead>,
}

impl Reader {
    /// Starts to read a window, and reports the previous window in the meantime.
    fn read(&mut self, window: Range, dirty: &mut impl FnMut(Range)) -> Result<(), Stop> {
        if bindings::task::is_being_killed() {
            return Err(Unreported::Killed);
        }
        let before = self.finish()?;
        let bytes = self.capacity.pages(window).div_ceil(8) as usize;
        let size = self.capacity.window_bits as usize * WINDOW_UNIT;
        let buffer = self
            .spare
            .take_or(|| window_buffer(&self.function, size, size))?;
        let command = Command::LOG_READ_AND_CLEAR;
        let pending = self
            .function
            .begin_log(command, [window.start, window.length], buffer, 0..bytes)
            .map_err(|failure| Fault::Command(command, failure))?;
        self.reading = Some(WindowRead { window, pending });
        self.report_window(before, dirty);
        Ok(())
    }

    /// Reports the last window.
    fn drain(&mut self, dirty: &mut impl FnMut(Range)) -> Result<(), Stop> {
        let last = self.finish()?;
        self.report_window(last, dirty);
        Ok(())
    }

    /// Waits for the window that is being read, if any.
    fn finish(&mut self) -> Result<Option<(Range, Buffer)>, Fault> {
        let Some(WindowRead { window, pending }) = self.reading.take() else {
            return Ok(None);
        };
        let command = Command::LOG_READ_AND_CLEAR;
        let (buffer, results) = pending
            .finish()
            .map_err(|failure| Fault::Command(command, failure))?;
        check(command, results, self.capacity.pages(window))?;
        Ok(Some((window, buffer)))
    }

    /// Reports a window that was read, and makes its buffer available again.
    fn report_window(&mut self, read: Option<(Range, Buffer)>, dirty: &mut impl FnMut(Range)) {
        let Some((window, mut buffer)) = read else {
            return;
        };
        let page_size = self.capacity.page_size;
        let pages = self.capacity.pages(window);
        log::take_runs(buffer.bytes_mut(), pages, |first, count| {
            dirty(Range {
                start: window.start + first * page_size,
                length: count * page_size,
            });
        });
        self.spare.put_back(buffer);
    }
}

/// Checks the results of a command for `pages` pages.
fn check(command: Command, Results(found, flags): Results, pages: u64) -> Result<(), Fault> {
    if flags & u64::from(VIFA_LOG_LOST) != 0 {
        Err(Fault::Lost)
    } else if found != pages {
        Err(Fault::Pages(command, found, pages))
    } else {
        Ok(())
    }
}

/// A reader of summaries.
struct Summariser {
    function: Arc<Function>,
    capacity: Capacity,
    buffer: Buffer,
}

impl Summariser {
    /// Reads the summary of `range`, with one command.
    fn read(&mut self, range: Range) -> Result<&[u8], Fault> {
        let command = Command::LOG_SUMMARY;
        let bytes = self.capacity.bits(range).div_ceil(8) as usize;
        if self.buffer.is_forfeited() {
            self.buffer = summary_buffer(&self.function)?;
        }
        set_all(&mut self.buffer, bytes);
        let results = self
            .function
            .attempt_data(
                command,
                [range.start, range.length],
                Some((&mut self.buffer, 0..bytes)),
            )
            .map_err(|failure| Fault::Command(command, failure))?;
        check(command, results, self.capacity.pages(range))?;
        Ok(self.buffer.bytes(bytes))
    }
}

/// The readers of a log.
struct Readers {
    capacity: Capacity,
    summariser: Summariser,
    reader: Reader,
}

impl Readers {
    fn new(function: &Arc<Function>, capacity: Capacity, buffers: Buffers) -> Self {
        Self {
            capacity,
            summariser: Summariser {
                function: function.clone(),
                capacity,
                buffer: buffers.summary,
            },
            reader: Reader {
                function: function.clone(),
                capacity,
                spare: Spare::new(buffers.windows),
                reading: None,
            },
        }
    }

    /// Reports a piece, except for its last window, which is only started.
    fn report(&mut self, piece: Piece, dirty: &mut impl FnMut(Range)) -> Result<(), Stop> {
        match piece {
            Piece::Untracked(range) => dirty(range),
            Piece::Part { page, part } => {
                let summary = self.summariser.read(page)?;
                if summary.first().is_none_or(|byte| byte & 1 != 0) {
                    dirty(part);
                }
            }
            Piece::Pages(pages) if self.capacity.is_small(pages) => {
                self.reader.read(pages, dirty)?;
            }
            Piece::Pages(pages) => {
                for range in self.capacity.summaries(pages) {
                    let summary = self.summariser.read(range)?;
                    for window in Windows::new(summary, range, self.capacity) {
                        self.reader.read(window, dirty)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The buffers of a log.
struct Buffers {
    summary: Buffer,
    windows: [Buffer; 2],
    /// Number of bytes that one command can read into each of `windows`, a multiple of
    /// [`WINDOW_UNIT`].
    window_size: usize,
}

impl Buffers {
    /// Allocates buffers for a log of `ranges` in pages of `page_size` bytes.
    fn new(function: &Function, ranges: &[Range], page_size: u32) -> Result<Self, Fault> {
        let longest = ranges.iter().map(|range| range.length).max().unwrap_or(0);
        let pages = longest.checked_div(page_size.into()).unwrap_or(0);
        let bytes = pages.div_ceil(8);
        // CAST: The value is at most `WINDOW_MAX`.
        let size = bytes.clamp(1, WINDOW_MAX as u64) as usize;
        let size = size.next_multiple_of(WINDOW_UNIT);
        let window = || window_buffer(function, size, WINDOW_UNIT);
        let windows = [window()?, window()?];
        let mut window_size = size;
        for buffer in &windows {
            let part = buffer.part(0..size).map_err(Fault::Memory)?;
            window_size = window_size.min(part.len());
        }
        Ok(Self {
            summary: summary_buffer(function)?,
            windows,
            window_size,
        })
    }
}

/// A log that the device maintains.
pub(crate) struct WriteLog {
    function: Arc<Function>,
    ranges: KVec<Range>,
    page_size: u32,
    readers: Readers,
}

impl WriteLog {
    /// Starts a log. See [`crate::backend::Backend::start_log`].
    pub(super) fn start(
        function: Arc<Function>,
        mut ranges: KVec<Range>,
        page_size: u64,
    ) -> Result<Self, Fault> {
        if let Some(most) = function.log_ranges() {
            let count = log::combine(&mut ranges, most);
            ranges.truncate(count);
        }
        let page_size = begin(&function, &ranges, page_size)?;
        // The size of the bitmaps is known only now, because the device chooses the page size.
        let buffers = Buffers::new(&function, &ranges, page_size).inspect_err(|_| {
            let _ = stop(&function);
        })?;
        let capacity = Capacity {
            page_size: page_size.into(),
            summary_pages: VIFA_LOG_SUMMARY_PAGES.into(),
            summary_bits: 8 * SUMMARY_SIZE as u64,
            window_bits: (buffers.window_size / WINDOW_UNIT) as u64,
            gap_bits: GAP_BITS,
        };
        Ok(Self {
            readers: Readers::new(&function, capacity, buffers),
            function,
            ranges,
            page_size,
        })
    }
}

impl Log for WriteLog {
    type Fault = Fault;

    fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    fn page_size(&self) -> u32 {
        self.page_size
    }

    fn report(&mut self, part: Range, mut dirty: impl FnMut(Range)) -> Result<(), Stop> {
        let readers = &mut self.readers;
        let result = Pieces::new(&self.ranges, self.page_size.into(), part)
            .try_for_each(|piece| readers.report(piece, &mut dirty))
            .and_then(|()| readers.reader.drain(&mut dirty));
        // Abort the window that a failed report has not finished.
        readers.reader.reading = None;
        result
    }

    fn stop(self) -> Result<(), Fault> {
        stop(&self.function)
    }
}

/// Sends LOG_START, and returns the page size of the device.
fn begin(function: &Function, ranges: &[Range], page_size: u64) -> Result<u32, Fault> {
    const ENTRY: usize = size_of::<vifa_hw_range>();

    let command = Command::LOG_START;
    let length = ranges.len() * ENTRY;
    let mut list = function.buffer(length, length).map_err(Fault::Memory)?;
    for (to, range) in list.bytes_mut().chunks_exact_mut(ENTRY).zip(ranges) {
        let entry = vifa_hw_range {
            start: range.start.to_le(),
            length: range.length.to_le(),
        };
        to.copy_from_slice(entry.as_bytes());
    }
    let arguments = [page_size, ranges.len() as u64];
    let mut start = || function.attempt_data(command, arguments, Some((&mut list, 0..length)));
    let result = match start() {
        // The device is still logging: an earlier stop failed, or an earlier driver did not stop.
        Err(Failure::Status(VIFA_STATUS_INVALID_STATE, _)) => {
            stop(function)?;
            start()
        }
        result => result,
    };
    let Results(chosen, _) = result.map_err(|failure| Fault::Command(command, failure))?;
    match u32::try_from(chosen) {
        Ok(size) if log::check_page_size(chosen).is_ok() && chosen <= page_size => Ok(size),
        _ => {
            // The log cannot be used.
            let _ = stop(function);
            Err(Fault::PageSize(chosen))
        }
    }
}

/// Sends LOG_STOP.
fn stop(function: &Function) -> Result<(), Fault> {
    let command = Command::LOG_STOP;
    match function.attempt_data(command, [0; 2], None) {
        // The device has stopped, or was not logging.
        Ok(_) | Err(Failure::Status(VIFA_STATUS_INVALID_STATE, _)) => Ok(()),
        Err(failure) => Err(Fault::Command(command, failure)),
    }
}
