// SPDX-License-Identifier: GPL-2.0

//! Files that user space holds open while the device or the module is removed.

use std::{fs::File, io::Read};

use anyhow::{Context, Result};

use super::{claims, fixture::Guest, Test};
use crate::{
    bed::{Bed, MODULE},
    expect,
    region::debugfs_file,
};

pub fn tests() -> Vec<Test> {
    claims!("lifetime":
        file_in_debugfs_is_open_when_its_vf_and_the_module_are_removed,
    )
}

/// The files of a VF in debugfs.
const FILES: [&str; 2] = ["region", "relations"];

fn open(bed: &Bed, name: &str) -> Result<File> {
    let path = debugfs_file(&bed.vf(0)?).with_file_name(name);
    File::open(&path).with_context(|| path.display().to_string())
}

/// The order of events that made the kernel read freed module memory: open the files, remove the
/// VFs, remove the module, close the files.
fn file_in_debugfs_is_open_when_its_vf_and_the_module_are_removed(bed: &Bed) -> Result<()> {
    bed.module_file()?;
    let files = FILES.map(|name| open(bed, name));
    bed.pf.set_virtual_functions(0)?;
    let removed = MODULE.remove();
    for (name, file) in FILES.into_iter().zip(files) {
        expect::refused(
            &format!("read of {name} of a removed VF"),
            file?.read(&mut [0; 64]),
            &[libc::EIO],
        )?;
    }
    expect::refused("removal of the module", removed, &[libc::EAGAIN])?;
    bed.unload_module()?;
    bed.restore()?;
    Guest::new(bed, 0)?.work(1)
}
