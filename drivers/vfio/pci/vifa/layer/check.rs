// SPDX-License-Identifier: GPL-2.0

//! Checks of single values.
//!
//! Whatever a stream or a device says is compared with what it may be. A check that fails names the
//! field, what was expected of it, and what was found, so that every refusal can say why.

use core::fmt;

/// What a field's value has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// This value.
    Equal(u64),
    /// One of these values.
    Either(u64, u64),
    /// Any value but this.
    NotEqual(u64),
    /// A greater value.
    Above(u64),
    /// A smaller value.
    Below(u64),
    /// This value or a greater one.
    AtLeast(u64),
    /// This value or a smaller one.
    AtMost(u64),
    /// A multiple of this value.
    MultipleOf(u64),
    /// No bits but these.
    SubsetOf(u64),
    /// A power of two.
    PowerOfTwo,
    /// One of the values that the specification lists.
    Known,
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal(value) => write!(f, "{value:#x}"),
            Self::Either(one, other) => write!(f, "{one:#x} or {other:#x}"),
            Self::NotEqual(value) => write!(f, "anything but {value:#x}"),
            Self::Above(value) => write!(f, "more than {value:#x}"),
            Self::Below(value) => write!(f, "less than {value:#x}"),
            Self::AtLeast(value) => write!(f, "at least {value:#x}"),
            Self::AtMost(value) => write!(f, "at most {value:#x}"),
            Self::MultipleOf(value) => write!(f, "a multiple of {value:#x}"),
            Self::SubsetOf(value) => write!(f, "no bits but {value:#x}"),
            Self::PowerOfTwo => write!(f, "a power of two"),
            Self::Known => write!(f, "a known value"),
        }
    }
}

/// A field whose value is not what it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the field, as the uAPI header has it.
    pub field: &'static str,
    /// What its value has to be.
    pub expected: Expectation,
    /// What it is.
    pub found: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: expected {}, found {:#x}",
            self.field, self.expected, self.found
        )
    }
}

/// Checks that `found`, the value of `field`, is what `expected` says.
pub fn check(
    field: &'static str,
    found: impl Into<u64>,
    expected: Expectation,
) -> Result<(), Violation> {
    let found = found.into();
    let holds = match expected {
        Expectation::Equal(value) => found == value,
        Expectation::Either(one, other) => found == one || found == other,
        Expectation::NotEqual(value) => found != value,
        Expectation::Above(value) => found > value,
        Expectation::Below(value) => found < value,
        Expectation::AtLeast(value) => found >= value,
        Expectation::AtMost(value) => found <= value,
        Expectation::MultipleOf(value) => found.checked_rem(value) == Some(0),
        Expectation::SubsetOf(value) => found & !value == 0,
        Expectation::PowerOfTwo => found.is_power_of_two(),
        Expectation::Known => false,
    };

    if holds {
        Ok(())
    } else {
        Err(Violation {
            field,
            expected,
            found,
        })
    }
}
