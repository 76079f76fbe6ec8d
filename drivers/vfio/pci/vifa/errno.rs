// SPDX-License-Identifier: GPL-2.0

//! Names of errors, also on a kernel without `CONFIG_SYMBOLIC_ERRNAME`.

use core::fmt;
use kernel::prelude::*;

/// An error by its name.
pub(crate) struct Name(pub(crate) Error);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The errors that this driver returns.
        const NAMES: [(Error, &str); 10] = [
            (EAGAIN, "EAGAIN"),
            (EBUSY, "EBUSY"),
            (ECANCELED, "ECANCELED"),
            (EFAULT, "EFAULT"),
            (EINVAL, "EINVAL"),
            (EIO, "EIO"),
            (ENODEV, "ENODEV"),
            (ENOMEM, "ENOMEM"),
            (ENXIO, "ENXIO"),
            (ETIMEDOUT, "ETIMEDOUT"),
        ];
        match NAMES.iter().find(|(error, _)| *error == self.0) {
            Some((_, name)) => f.write_str(name),
            None => fmt::Debug::fmt(&self.0, f),
        }
    }
}

#[kunit_tests(vifa_errno)]
mod tests {
    use super::*;
    use crate::seam::Shown;
    use kernel::str::CString;

    #[test]
    fn displays_the_name_of_an_error() -> Result {
        let text = CString::try_from_fmt(fmt!("{}", Shown(Name(EBUSY))))?;
        assert_eq!(text.to_bytes(), b"EBUSY");
        Ok(())
    }
}
