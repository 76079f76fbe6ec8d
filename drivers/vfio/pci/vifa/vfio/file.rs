// SPDX-License-Identifier: GPL-2.0

//! Migration files: anonymous-inode stream files, and copies to and from user memory without page
//! faults.
//!
//! User space can keep a migration file open after the transfer has ended, the device is gone or
//! the driver is unbound. The file therefore holds its own data, a [`Stream`], and a reference to
//! the module.
//!
//! The end of a transfer takes the lock of the stream. During a reset, this happens under locks of
//! the VFIO core that a page fault on a mapped BAR takes, too. Hence no page fault is allowed under
//! the stream's lock: [`UserWriter`] and [`UserReader`] fault in the user's pages first, and then
//! copy the resident pages under the lock, without faults.
//!
//! C header: [`include/linux/anon_inodes.h`](srctree/include/linux/anon_inodes.h)

use super::device::Reference;
use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    current,
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi,
    fs::{
        file::flags,
        File, //
    },
    new_poll_condvar,
    new_spinlock,
    prelude::*,
    sync::{
        aref::ARef,
        poll::{
            PollCondVar,
            PollTable, //
        },
        Arc,
        ArcBorrow,
        SpinLock, //
    },
    transmute::AsBytes,
    types::ForeignOwnable,
    uaccess::UserSlice, //
};

/// Number of bytes that are faulted in at a time.
const FAULT_IN_SIZE: usize = 64 * 1024;

/// The direction of a stream, as seen from user space.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// User space reads the file.
    Read,
    /// User space writes the file.
    Write,
}

/// Whether a read or write may wait for another call on the same stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// The call may wait.
    Allowed,
    /// The call fails with `EAGAIN` instead: the file has `O_NONBLOCK`.
    Refused,
}

/// Whether a read or write would make progress.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// A call would make progress.
    Ready,
    /// A call would not make progress yet.
    Waiting,
    /// A call would fail: the transfer has ended.
    Ended,
}

/// The state of a stream for `poll(2)`. It has its own lock, so that `poll(2)` does not wait for
/// the device.
#[pin_data]
pub(crate) struct Poll {
    #[pin]
    readiness: SpinLock<Readiness>,
    #[pin]
    changed: PollCondVar,
}

impl Poll {
    /// Creates the state [`Readiness::Ready`].
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            readiness <- new_spinlock!(Readiness::Ready, "vifa_readiness"),
            changed <- new_poll_condvar!("vifa_readiness"),
        })
    }

    /// Sets the state to `readiness`, and wakes waiting tasks if it changed.
    pub(crate) fn show(&self, readiness: Readiness) {
        let before = core::mem::replace(&mut *self.readiness.lock(), readiness);
        if before != readiness {
            self.changed.notify_all();
        }
    }
}

/// The remaining data of a running device: `struct vfio_precopy_info`.
#[derive(Clone, Copy)]
pub(crate) struct PreCopyInfo {
    /// Number of bytes to read before the device is stopped.
    pub(crate) initial_bytes: u64,
    /// Number of bytes that the device has changed since.
    pub(crate) dirty_bytes: u64,
    /// Whether there is new initial data: `VFIO_PRECOPY_INFO_REINIT`.
    pub(crate) reinitialised: bool,
}

/// The version of the pre-copy information that user space supports, as set with
/// `VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PreCopyVersion {
    /// User space does not support new initial data.
    V1,
    /// User space supports [`PreCopyInfo::reinitialised`].
    V2,
}

/// The pre-copy side of a stream, for `VFIO_MIG_GET_PRECOPY_INFO`.
pub(crate) trait PreCopy {
    /// Returns the device.
    fn device(&self) -> &Reference;

    /// Returns the remaining data.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the device is not in a PRE_COPY state, or the error of a failed stream.
    fn info(&self, version: PreCopyVersion) -> Result<PreCopyInfo>;
}

/// The implementation of a migration file.
pub(crate) trait Stream: Send + Sync + 'static {
    /// The module that contains the file's operations.
    type Module: kernel::ModuleMetadata;

    /// Name of the file in `/proc/PID/fd`.
    const NAME: &'static CStr;

    /// The direction of the calls that the file supports.
    const DIRECTION: Direction;

    /// Implements `read(2)`: copies the next bytes to `user` until it is full or the stream ends.
    ///
    /// # Errors
    ///
    /// - `ENOMSG` if no data is available while the device runs.
    /// - `EINTR` if the task is being killed.
    /// - `EAGAIN` if the call would wait and may not.
    /// - The error of a failed stream.
    fn read(&self, _user: &mut UserWriter<'_>, _waiting: Waiting) -> Result {
        Err(EBADF)
    }

    /// Implements `write(2)`: consumes bytes from `user` until it is empty.
    ///
    /// # Errors
    ///
    /// An error ends the stream. It is no error if, after some bytes were consumed, user memory is
    /// not accessible, the task is being killed, or the call would wait and may not.
    fn write(&self, _user: &mut UserReader<'_>, _waiting: Waiting) -> Result {
        Err(EBADF)
    }

    /// Returns the state for `poll(2)`.
    fn poll(&self) -> &Poll;

    /// Returns the pre-copy side, or `None` if the stream has none.
    fn pre_copy(&self) -> Option<&dyn PreCopy> {
        None
    }
}

/// Opens a file on `stream`.
pub(crate) fn open<S: Stream>(stream: Arc<S>) -> Result<ARef<File>> {
    let flags = match S::DIRECTION {
        Direction::Read => kernel::bindings::O_RDONLY,
        Direction::Write => kernel::bindings::O_WRONLY,
    };
    let private = stream.into_foreign();
    // SAFETY: The name and the operations are static. `private` has the type that the operations
    // expect.
    let file = from_err_ptr(unsafe {
        bindings::anon_inode_getfile(
            S::NAME.as_char_ptr(),
            Operations::<S>::table(),
            private,
            flags as ffi::c_int,
        )
    });
    let file = match file {
        Ok(file) => file,
        Err(error) => {
            // SAFETY: No file took the reference that `into_foreign` returned.
            drop(unsafe { Arc::<S>::from_foreign(private) });
            return Err(error);
        }
    };
    // SAFETY: The file is valid and not yet shared.
    unsafe { kernel::bindings::stream_open((*file).f_inode, file) };
    // SAFETY: `file` is not null, and this function owns the reference. The file was never looked
    // up by a descriptor, so that no `fdget_pos()` is active on it.
    Ok(unsafe { ARef::from_raw(NonNull::new_unchecked(file.cast())) })
}

struct Operations<S: Stream>(PhantomData<S>);

impl<S: Stream> Operations<S> {
    const TABLE: kernel::bindings::file_operations = kernel::bindings::file_operations {
        owner: kernel::module::this_module::<S::Module>().as_ptr(),
        read: Some(Self::read),
        write: Some(Self::write),
        poll: Some(Self::poll),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: kernel::bindings::compat_ptr_ioctl,
        release: Some(Self::release),
        ..pin_init::zeroed()
    };

    fn table() -> &'static kernel::bindings::file_operations {
        &Self::TABLE
    }

    /// # Safety
    ///
    /// `file` was created by [`open`] and remains open while the reference is used.
    unsafe fn stream<'a>(file: *mut kernel::bindings::file) -> ArcBorrow<'a, S> {
        // SAFETY: `open` has stored an `Arc<S>`, which `release` takes back.
        unsafe { Arc::<S>::borrow((*file).private_data) }
    }

    /// # Safety
    ///
    /// `file` is open for the call.
    unsafe fn waiting(file: *mut kernel::bindings::file) -> Waiting {
        // SAFETY: By the safety requirements. The position of a stream is not used.
        let set = unsafe { File::from_raw_file(file) }.flags();
        if set & flags::O_NONBLOCK == 0 {
            Waiting::Allowed
        } else {
            Waiting::Refused
        }
    }

    extern "C" fn read(
        file: *mut kernel::bindings::file,
        user: *mut ffi::c_char,
        length: usize,
        position: *mut kernel::bindings::loff_t,
    ) -> isize {
        if !position.is_null() {
            return ESPIPE.to_errno() as isize;
        }
        // SAFETY: The VFS calls back with an open file of this table.
        let stream = unsafe { Self::stream(file) };
        let mut user = UserWriter(UserBuffer::new(user, length));
        // SAFETY: As above.
        match stream.read(&mut user, unsafe { Self::waiting(file) }) {
            // The bytes read so far are valid. The next call returns the error again.
            Err(error) if user.0.done == 0 => error.to_errno() as isize,
            // CAST: The VFS asks for at most `MAX_RW_COUNT` bytes.
            _ => user.0.done as isize,
        }
    }

    extern "C" fn write(
        file: *mut kernel::bindings::file,
        user: *const ffi::c_char,
        length: usize,
        position: *mut kernel::bindings::loff_t,
    ) -> isize {
        if !position.is_null() {
            return ESPIPE.to_errno() as isize;
        }
        // SAFETY: The VFS calls back with an open file of this table.
        let stream = unsafe { Self::stream(file) };
        let mut user = UserReader(UserBuffer::new(user.cast_mut(), length));
        // SAFETY: As above.
        match stream.write(&mut user, unsafe { Self::waiting(file) }) {
            // The bytes written so far are lost with the stream: report the error immediately.
            Err(error) => error.to_errno() as isize,
            // CAST: As in `read`.
            Ok(()) => user.0.done as isize,
        }
    }

    extern "C" fn poll(
        file: *mut kernel::bindings::file,
        table: *mut kernel::bindings::poll_table_struct,
    ) -> kernel::bindings::__poll_t {
        // SAFETY: The VFS calls back with an open file of this table.
        let stream = unsafe { Self::stream(file) };
        let poll = stream.poll();
        // SAFETY: The VFS passes null or a table that is valid for the call.
        let table = unsafe { PollTable::from_raw(table) };
        // SAFETY: `file` is open for the call. Its position is not used.
        let file = unsafe { File::from_raw_file(file) };
        table.register_wait(file, &poll.changed);
        // After the registration, so that no change is missed.
        let readiness = *poll.readiness.lock();
        match (readiness, S::DIRECTION) {
            (Readiness::Ready, Direction::Read) => bindings::POLLIN | bindings::POLLRDNORM,
            (Readiness::Ready, Direction::Write) => bindings::POLLOUT | bindings::POLLWRNORM,
            (Readiness::Waiting, _) => 0,
            (Readiness::Ended, _) => bindings::POLLERR | bindings::POLLHUP,
        }
    }

    extern "C" fn ioctl(
        file: *mut kernel::bindings::file,
        command: ffi::c_uint,
        argument: ffi::c_ulong,
    ) -> ffi::c_long {
        // SAFETY: The VFS calls back with an open file of this table.
        let stream = unsafe { Self::stream(file) };
        let result = match stream.pre_copy() {
            Some(pre_copy) => pre_copy_info(pre_copy, command, argument),
            None => Err(ENOTTY),
        };
        match result {
            Ok(()) => 0,
            Err(error) => error.to_errno() as ffi::c_long,
        }
    }

    extern "C" fn release(
        _inode: *mut kernel::bindings::inode,
        file: *mut kernel::bindings::file,
    ) -> ffi::c_int {
        // SAFETY: `open` has stored an `Arc<S>`. This is the last callback of the file.
        drop(unsafe { Arc::<S>::from_foreign((*file).private_data) });
        0
    }
}

/// Implements `VFIO_MIG_GET_PRECOPY_INFO`. Fails with `ENOTTY` for any other command.
fn pre_copy_info(pre_copy: &dyn PreCopy, command: ffi::c_uint, argument: ffi::c_ulong) -> Result {
    let mut answer = bindings::vfio_precopy_info::default();
    // SAFETY: The reference keeps the device's memory valid. `answer` is valid for a write.
    to_result(unsafe {
        bindings::rust_helper_vfio_check_precopy_ioctl(
            pre_copy.device().as_raw(),
            command,
            argument,
            &mut answer,
        )
    })?;
    let version = pre_copy.device().pre_copy_version();
    let PreCopyInfo {
        initial_bytes,
        dirty_bytes,
        reinitialised,
    } = pre_copy.info(version)?;
    if version == PreCopyVersion::V2 && reinitialised {
        answer.flags |= bindings::VFIO_PRECOPY_INFO_REINIT;
    }
    answer.initial_bytes = initial_bytes;
    answer.dirty_bytes = dirty_bytes;
    let user = UserPtr::from_addr(argument);
    UserSlice::new(user, size_of_val(&answer))
        .writer()
        .write_slice(answer.as_bytes())
}

/// A buffer of user space.
struct UserBuffer<'a> {
    start: *mut ffi::c_char,
    length: usize,
    /// Number of bytes that were copied.
    done: usize,
    /// Number of resident bytes after those.
    resident: usize,
    /// Whether the last copy found no resident byte.
    stalled: bool,
    _call: PhantomData<&'a mut ()>,
}

impl UserBuffer<'_> {
    fn new(start: *mut ffi::c_char, length: usize) -> Self {
        Self {
            start,
            length,
            done: 0,
            resident: 0,
            stalled: false,
            _call: PhantomData,
        }
    }

    fn next(&self) -> *mut ffi::c_char {
        self.start.wrapping_add(self.done)
    }

    fn remaining(&self) -> usize {
        self.length - self.done
    }

    /// Makes the next part of the buffer resident with `fault_in(user address, bytes)`, which
    /// returns the number of bytes that it could *not* fault in.
    fn fault_in(&mut self, fault_in: impl FnOnce(*mut ffi::c_char, usize) -> usize) -> Result {
        if bindings::task::is_being_killed() {
            return Err(EINTR);
        }
        // If pages are reclaimed as fast as they are faulted in, the task must still handle
        // signals.
        if self.stalled && current!().signal_pending() {
            return Err(ERESTARTSYS);
        }
        let wanted = self.remaining().min(FAULT_IN_SIZE);
        let missing = fault_in(self.next(), wanted);
        self.resident = wanted - missing.min(wanted);
        if self.resident == 0 {
            return Err(EFAULT);
        }
        Ok(())
    }

    /// Copies up to `length` resident bytes with `copy(user address, offset, bytes)`, which
    /// returns 0 if all bytes were copied.
    fn copy(
        &mut self,
        length: usize,
        mut copy: impl FnMut(*mut ffi::c_char, usize, usize) -> ffi::c_long,
    ) -> usize {
        let length = length.min(self.resident);
        let mut copied = 0;
        while copied < length {
            // On failure, copy up to the end of a page, so that a reclaimed page does not affect
            // the pages before it.
            let address = self.next();
            let page_rest = kernel::page::PAGE_SIZE - address.addr() % kernel::page::PAGE_SIZE;
            let step = if copy(address, copied, length - copied) == 0 {
                length - copied
            } else if copy(address, copied, page_rest.min(length - copied)) == 0 {
                page_rest.min(length - copied)
            } else {
                self.resident = 0;
                self.stalled = copied == 0;
                return copied;
            };
            copied += step;
            self.done += step;
            self.resident -= step;
        }
        self.stalled = false;
        copied
    }
}

/// The buffer of a `read(2)`.
pub(crate) struct UserWriter<'a>(UserBuffer<'a>);

impl UserWriter<'_> {
    /// Returns whether the buffer is full.
    pub(crate) fn is_full(&self) -> bool {
        self.0.remaining() == 0
    }

    /// Returns whether no byte has been copied to the buffer yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.done == 0
    }

    /// Makes the next part of the buffer resident. Sleeps, and must not be called under a lock that
    /// [`super::Driver::reset_done`] takes.
    ///
    /// # Errors
    ///
    /// - `EFAULT` if there is no such memory.
    /// - `EINTR` if the task is being killed.
    /// - `ERESTARTSYS` if the memory does not stay resident and a signal is pending.
    pub(crate) fn fault_in(&mut self) -> Result {
        // `fault_in_writeable()` would write a byte of each page, but the part of the buffer that
        // the call does not fill must keep its content.
        self.0.fault_in(|user, length| {
            // SAFETY: Any user address may be passed.
            unsafe { kernel::bindings::fault_in_safe_writeable(user, length) }
        })
    }

    /// Copies as many of `bytes` as fit into the resident part of the buffer. Returns their number.
    /// Does not fault.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> usize {
        self.0.copy(bytes.len(), |user, offset, length| {
            let from = &bytes[offset..offset + length];
            // SAFETY: `from` is valid for reads. Any user address may be passed.
            unsafe {
                kernel::bindings::copy_to_user_nofault(
                    user.cast(),
                    from.as_ptr().cast(),
                    from.len(),
                )
            }
        })
    }
}

/// The buffer of a `write(2)`.
pub(crate) struct UserReader<'a>(UserBuffer<'a>);

impl UserReader<'_> {
    /// Returns whether the whole buffer has been consumed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.remaining() == 0
    }

    /// Returns the number of consumed bytes.
    pub(crate) fn taken(&self) -> usize {
        self.0.done
    }

    /// Makes the next part of the buffer resident, like [`UserWriter::fault_in`].
    ///
    /// # Errors
    ///
    /// The same as for [`UserWriter::fault_in`].
    pub(crate) fn fault_in(&mut self) -> Result {
        self.0.fault_in(|user, length| {
            // SAFETY: Any user address may be passed.
            unsafe { kernel::bindings::fault_in_readable(user, length) }
        })
    }

    /// Copies resident bytes of the buffer to `bytes`. Returns their number. Does not fault.
    pub(crate) fn take(&mut self, bytes: &mut [u8]) -> usize {
        self.0.copy(bytes.len(), |user, offset, length| {
            let to = &mut bytes[offset..offset + length];
            // SAFETY: `to` is valid for writes. Any user address may be passed.
            unsafe {
                kernel::bindings::copy_from_user_nofault(
                    to.as_mut_ptr().cast(),
                    user.cast(),
                    to.len(),
                )
            }
        })
    }
}
