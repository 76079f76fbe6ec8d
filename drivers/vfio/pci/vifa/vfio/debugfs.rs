// SPDX-License-Identifier: GPL-2.0

//! debugfs files with an owning module.
//!
//! A file of [`kernel::debugfs`] has no owner. User space can hold it open while the module is
//! unloaded, and debugfs then accesses the file's operations in freed memory at the last close. The
//! operations of the files here have an owner, so that the module stays loaded while one of them is
//! open. As in [`kernel::debugfs`], their content is a [`Writer`] or a [`BinaryWriter`].
//!
//! debugfs itself keeps the content of a file valid: removing the file waits for calls that are in
//! progress, and later calls fail with `EIO`.
//!
//! The drivers' callbacks have no access to the data of their module. The module's directory is
//! therefore a static of this file.
//!
//! C headers: [`include/linux/debugfs.h`](srctree/include/linux/debugfs.h),
//! [`include/linux/seq_file.h`](srctree/include/linux/seq_file.h)

use core::{
    marker::PhantomData,
    ptr::null_mut, //
};
use kernel::{
    bindings,
    debugfs::{
        BinaryWriter,
        Writer, //
    },
    ffi,
    fmt,
    fs::file::Offset,
    prelude::*,
    seq_file::{
        seq_print,
        SeqFile, //
    },
    uaccess::UserSlice,
    ModuleMetadata, //
};

kernel::sync::global_lock! {
    // SAFETY: `Root::new` initialises the lock. `directory` is called only after that.
    unsafe(uninit) static ROOT: Mutex<Option<Directory>> = None;
}

/// The module's directory. Dropping this removes it. All directories in it must have been removed.
pub(crate) struct Root(());

impl Root {
    /// Creates the directory.
    ///
    /// # Safety
    ///
    /// The function is called once, when the module is loaded, and before its drivers are
    /// registered.
    pub(crate) unsafe fn new(name: &CStr) -> Self {
        // SAFETY: By the safety requirements, this is the first call, and the lock is not yet used.
        unsafe { ROOT.init() };
        *ROOT.lock() = Some(Directory(Entry::directory(name, null_mut())));
        Self(())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        *ROOT.lock() = None;
    }
}

/// Creates a directory in the module's directory, for a device that one of its drivers probes.
pub(crate) fn directory(name: &CStr) -> Option<Directory> {
    ROOT.lock()
        .as_ref()
        .map(|root| Directory(Entry::directory(name, root.0 .0)))
}

/// A file or a directory. Dropping this removes it.
///
/// # Invariants
///
/// The pointer is null, an error, or the pointer that debugfs returned when it created the entry.
struct Entry(*mut bindings::dentry);

// SAFETY: debugfs accepts the pointer from any task.
unsafe impl Send for Entry {}

// SAFETY: As above, and from several tasks concurrently.
unsafe impl Sync for Entry {}

#[cfg(CONFIG_DEBUG_FS)]
impl Entry {
    fn directory(name: &CStr, parent: *mut bindings::dentry) -> Self {
        // INVARIANT: debugfs returns the pointer.
        // SAFETY: `name` is valid for the call. `parent` is null or an existing entry of debugfs.
        Self(unsafe { bindings::debugfs_create_dir(name.as_char_ptr(), parent) })
    }

    /// # Safety
    ///
    /// `data` has the type that the operations expect, and stays valid until the entry is dropped.
    unsafe fn file(
        name: &CStr,
        parent: *mut bindings::dentry,
        data: *mut ffi::c_void,
        operations: &'static bindings::file_operations,
    ) -> Self {
        const READABLE_BY_OWNER: bindings::umode_t = 0o400;

        // INVARIANT: debugfs returns the pointer.
        // SAFETY: As in `directory`, and by the safety requirements. The operations are valid while
        // their owner, the module, is loaded.
        Self(unsafe {
            bindings::debugfs_create_file_full(
                name.as_char_ptr(),
                READABLE_BY_OWNER,
                parent,
                data,
                core::ptr::null(),
                operations,
            )
        })
    }
}

#[cfg(not(CONFIG_DEBUG_FS))]
impl Entry {
    fn directory(_name: &CStr, _parent: *mut bindings::dentry) -> Self {
        Self(null_mut())
    }

    /// # Safety
    ///
    /// None: a kernel without debugfs creates no file.
    unsafe fn file(
        _name: &CStr,
        _parent: *mut bindings::dentry,
        _data: *mut ffi::c_void,
        _operations: &'static bindings::file_operations,
    ) -> Self {
        Self(null_mut())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        #[cfg(CONFIG_DEBUG_FS)]
        // SAFETY: By the type invariant. debugfs accepts errors and null.
        unsafe {
            bindings::debugfs_remove(self.0)
        };
    }
}

/// A directory. Dropping this removes it. All files in it must have been removed.
pub(crate) struct Directory(Entry);

impl Directory {
    /// Creates a file of the module `M` with the text that `data` writes. Only root can read it.
    pub(crate) fn text_file<M, T>(&self, name: &CStr, data: T) -> Result<File<T>>
    where
        M: ModuleMetadata,
        T: Writer + Send + Sync + 'static,
    {
        File::new(self, name, data, Operations::<M, T>::text())
    }

    /// Creates a file of the module `M` with the bytes that `data` writes. Only root can read it.
    pub(crate) fn binary_file<M, T>(&self, name: &CStr, data: T) -> Result<File<T>>
    where
        M: ModuleMetadata,
        T: BinaryWriter + Send + Sync + 'static,
    {
        File::new(self, name, data, Operations::<M, T>::binary())
    }
}

/// A file and its content. Dropping this removes the file.
pub(crate) struct File<T> {
    // Before `_data`: removing the entry waits for calls that use the data.
    _entry: Entry,
    _data: KBox<T>,
}

impl<T: Send + Sync + 'static> File<T> {
    fn new(
        directory: &Directory,
        name: &CStr,
        data: T,
        operations: &'static bindings::file_operations,
    ) -> Result<Self> {
        let data = KBox::new(data, GFP_KERNEL)?;
        let pointer = core::ptr::from_ref::<T>(&data).cast_mut().cast();
        Ok(Self {
            // SAFETY: The operations expect a `T`, whose box is dropped after the entry.
            _entry: unsafe { Entry::file(name, directory.0 .0, pointer, operations) },
            _data: data,
        })
    }
}

/// The operations of a file of the module `M` that shows a `T`.
struct Operations<M, T>(PhantomData<(M, T)>);

impl<M: ModuleMetadata, T: Writer + Send + Sync + 'static> Operations<M, T> {
    const TEXT: bindings::file_operations = bindings::file_operations {
        owner: kernel::module::this_module::<M>().as_ptr(),
        open: Some(open_text::<T>),
        read: Some(bindings::seq_read),
        llseek: Some(bindings::seq_lseek),
        release: Some(bindings::single_release),
        ..pin_init::zeroed()
    };

    fn text() -> &'static bindings::file_operations {
        &Self::TEXT
    }
}

impl<M: ModuleMetadata, T: BinaryWriter + Send + Sync + 'static> Operations<M, T> {
    const BINARY: bindings::file_operations = bindings::file_operations {
        owner: kernel::module::this_module::<M>().as_ptr(),
        open: Some(bindings::simple_open),
        read: Some(read_binary::<T>),
        llseek: Some(bindings::default_llseek),
        ..pin_init::zeroed()
    };

    fn binary() -> &'static bindings::file_operations {
        &Self::BINARY
    }
}

extern "C" fn open_text<T: Writer>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> ffi::c_int {
    // SAFETY: debugfs passes a file that is being opened. The private data of its inode is a `T`,
    // as `show_text` expects.
    unsafe { bindings::single_open(file, Some(show_text::<T>), (*inode).i_private) }
}

extern "C" fn show_text<T: Writer>(
    file: *mut bindings::seq_file,
    _: *mut ffi::c_void,
) -> ffi::c_int {
    // SAFETY: debugfs keeps the file, and with it the `T` of `open_text`, valid for the call.
    let data = unsafe { &*(*file).private.cast::<T>() };
    // SAFETY: `seq_read()` passes a valid file that it has locked.
    let file = unsafe { SeqFile::from_raw(file) };
    seq_print!(file, "{}", Text(data));
    0
}

/// Adapter that displays the text of a [`Writer`].
struct Text<'a, T>(&'a T);

impl<T: Writer> fmt::Display for Text<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f)
    }
}

extern "C" fn read_binary<T: BinaryWriter>(
    file: *mut bindings::file,
    user: *mut ffi::c_char,
    count: usize,
    position: *mut bindings::loff_t,
) -> isize {
    // SAFETY: debugfs keeps the file valid for the call. `simple_open()` has stored the private
    // data of its inode, a `T`. The VFS passes a position that only this call uses.
    let (data, position) = unsafe { (&*(*file).private_data.cast::<T>(), &mut *position) };
    let position: &mut Offset = position;
    let mut writer = UserSlice::new(UserPtr::from_ptr(user.cast()), count).writer();
    match data.write_to_slice(&mut writer, position) {
        // CAST: The VFS asks for at most `MAX_RW_COUNT` bytes.
        Ok(written) => written as isize,
        Err(error) => error.to_errno() as isize,
    }
}
