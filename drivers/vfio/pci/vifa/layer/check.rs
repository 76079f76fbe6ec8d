// SPDX-License-Identifier: GPL-2.0

//! Checks of single values.
//!
//! All values from a stream or a device are compared with an [`Expectation`]. A failed check
//! reports the field, the expectation and the value, so that every refusal states its reason.

use core::fmt;

/// The valid values of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// This value.
    Equal(u64),
    /// One of these values.
    Either(u64, u64),
    /// Any value except this.
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
    /// No bits except these.
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

/// The error of an invalid field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the field, as in the uAPI header.
    pub field: &'static str,
    /// The valid values.
    pub expected: Expectation,
    /// The value.
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

/// Checks that `found`, the value of `field`, satisfies `expected`.
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
