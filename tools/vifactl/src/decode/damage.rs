// SPDX-License-Identifier: GPL-2.0

//! Damage of a file and its location.

use std::fmt;

use serde::Serialize;

/// The first damage of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The location, in bytes from the start of the file.
    pub offset: u64,
    /// The damaged part of the file.
    pub part: Box<str>,
    /// The section's sequence number, if the damage is in a section.
    pub section: Option<u64>,
    /// The field, by its name in the uAPI header or its path in the manifest, if the damage is in a
    /// field.
    pub field: Option<Box<str>>,
    /// The expected value.
    pub expected: Option<Box<str>>,
    /// The actual value.
    pub found: Option<Found>,
    /// A message with all of these.
    pub message: Box<str>,
}

/// The value of a field.
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
    /// Returns damage of a `field` of `part` with an unexpected value.
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

    /// Returns other damage of `part`.
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

    /// Sets the section's sequence number.
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
