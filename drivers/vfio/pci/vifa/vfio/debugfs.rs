// SPDX-License-Identifier: GPL-2.0

//! A directory of debugfs that the devices of a module share.
//!
//! [`kernel::debugfs`] makes a directory for whoever holds its parent. The callbacks of a driver
//! hold nothing of their module, so that the module's own directory stands here.

use kernel::{
    debugfs::Dir,
    prelude::*, //
};

kernel::sync::global_lock! {
    // SAFETY: `Root::new` initialises it, and `directory` may be called behind that only.
    unsafe(uninit) static ROOT: Mutex<Option<Dir>> = None;
}

/// The module's directory, which goes when this and all directories in it have gone.
pub(crate) struct Root(());

impl Root {
    /// Makes the directory.
    ///
    /// # Safety
    ///
    /// To be called once, when the module is loaded, and before its drivers are registered.
    pub(crate) unsafe fn new(name: &CStr) -> Self {
        // SAFETY: By the safety requirements this is the first call, and nobody uses it yet.
        unsafe { ROOT.init() };
        *ROOT.lock() = Some(Dir::new(name));
        Self(())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        *ROOT.lock() = None;
    }
}

/// Makes a directory in the module's, for a device that its drivers probe.
pub(crate) fn directory(name: &CStr) -> Option<Dir> {
    ROOT.lock().as_ref().map(|root| root.subdir(name))
}
