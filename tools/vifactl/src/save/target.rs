// SPDX-License-Identifier: GPL-2.0

//! A file that appears under its name only when it is complete.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tempfile::{Builder, NamedTempFile};

use crate::exit::Exit;

/// A file in progress. Until [`Self::commit`] it is a temporary file in the target directory,
/// readable by its owner only, and dropping this removes it.
pub(super) struct Target {
    temporary: NamedTempFile,
    directory: PathBuf,
    path: PathBuf,
    force: bool,
}

impl Target {
    /// Begins the file `path`; with `force`, an existing file is replaced.
    ///
    /// # Errors
    ///
    /// The file exists, or its directory is not writable.
    pub(super) fn new(path: &Path, force: bool) -> Result<Self> {
        let shown = path.display();
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let Some(name) = path.file_name() else {
            return Err(Exit::Usage
                .because(format!("{shown} is not a file name"))
                .into());
        };

        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => {
                return Err(Exit::Failed
                    .because(format!("{shown} is not a regular file"))
                    .into());
            }
            Ok(_) if !force => return Err(exists(path).into()),
            _ => {}
        }
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        let temporary = Builder::new()
            .prefix(&prefix)
            .suffix(".partial")
            .tempfile_in(&directory)
            .with_context(|| format!("failed to create {shown}"))?;

        Ok(Self {
            temporary,
            directory,
            path: path.to_owned(),
            force,
        })
    }

    /// Returns the final file name.
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Returns the open file.
    pub(super) fn file(&self) -> &File {
        self.temporary.as_file()
    }

    /// Syncs the file to disk and gives it its name.
    ///
    /// # Errors
    ///
    /// The disk failed, or a file of that name appeared meanwhile.
    pub(super) fn commit(self) -> Result<()> {
        let Self {
            temporary,
            directory,
            path,
            force,
        } = self;
        let shown = path.display();

        temporary
            .as_file()
            .sync_all()
            .with_context(|| format!("failed to create {shown}"))?;
        let named = if force {
            temporary.persist(&path)
        } else {
            temporary.persist_noclobber(&path)
        };
        match named {
            Ok(_) => {}
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(exists(&path).into());
            }
            Err(error) => return Err(error.error).with_context(|| shown.to_string()),
        }
        File::open(&directory)
            .and_then(|directory| directory.sync_all())
            .with_context(|| directory.display().to_string())
    }
}

fn exists(path: &Path) -> crate::exit::ExitError {
    Exit::Failed.because(format!("{} exists (--force replaces it)", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();

        names.sort();
        names
    }

    #[test]
    fn a_dropped_file_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let target = Target::new(&directory.path().join("set"), false).unwrap();

        target.file().write_all(b"half").unwrap();
        assert_eq!(names(directory.path()).len(), 1);
        drop(target);
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn a_complete_file_appears_under_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("set");
        let target = Target::new(&path, false).unwrap();

        target.file().write_all(b"whole").unwrap();
        assert!(!path.exists());
        target.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(names(directory.path()), ["set"]);
    }

    #[test]
    fn an_existing_file_is_replaced_with_force_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("set");

        fs::write(&path, "old").unwrap();
        assert!(Target::new(&path, false).is_err());
        let target = Target::new(&path, true).unwrap();
        target.file().write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        target.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_file_that_appeared_meanwhile_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("set");
        let target = Target::new(&path, false).unwrap();

        fs::write(&path, "theirs").unwrap();
        assert!(target.commit().is_err());
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        assert_eq!(names(directory.path()), ["set"]);
    }

    #[test]
    fn only_regular_files_are_replaced() {
        let directory = tempfile::tempdir().unwrap();

        assert!(Target::new(directory.path(), true).is_err());
        assert!(Target::new(Path::new("/dev/null"), true).is_err());
        assert!(Target::new(Path::new("/"), true).is_err());
        assert!(Target::new(Path::new(""), true).is_err());
    }
}
