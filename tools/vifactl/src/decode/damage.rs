// SPDX-License-Identifier: GPL-2.0

//! What is wrong with a file, and at which byte.

use serde::Serialize;
use std::fmt;

/// The first thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// Where it stands, in bytes from the start of the file.
    pub offset: u64,
    /// The part of the file that it stands in.
    pub part: Box<str>,
    /// The section's sequence number, if it stands in one.
    pub section: Option<u64>,
    /// The field, by its name in the uAPI header or its path in the manifest, if it is about one.
    pub field: Option<Box<str>>,
    /// What had to be there.
    pub expected: Option<Box<str>>,
    /// What is there.
    pub found: Option<Found>,
    /// All of it in words.
    pub message: Box<str>,
}

/// What stands in a field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Found {
    /// A number.
    Number(u64),
    /// Characters.
    Text(Box<str>),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number:#x}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl Damage {
    /// A `field` of `part` that is not as it has to be.
    pub(crate) fn of_field(
        offset: u64,
        part: impl fmt::Display,
        field: impl Into<Box<str>>,
        expected: impl fmt::Display,
        found: Found,
    ) -> Self {
        let field = field.into();

        Self {
            offset,
            message: format!("{part}: {field}: expected {expected}, found {found}").into(),
            part: part.to_string().into(),
            section: None,
            field: Some(field),
            expected: Some(expected.to_string().into()),
            found: Some(found),
        }
    }

    /// Something else about `part`.
    pub(crate) fn of_part(
        offset: u64,
        part: impl fmt::Display,
        message: impl fmt::Display,
    ) -> Self {
        Self {
            offset,
            message: format!("{part}: {message}").into(),
            part: part.to_string().into(),
            section: None,
            field: None,
            expected: None,
            found: None,
        }
    }

    /// The same, in the section with this sequence number.
    pub(crate) fn in_section(self, sequence: Option<u64>) -> Self {
        Self {
            section: sequence,
            ..self
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {:#x}: {}", self.offset, self.message)
    }
}

impl std::error::Error for Damage {}
