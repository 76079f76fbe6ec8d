// SPDX-License-Identifier: GPL-2.0

//! Encoding of structures as little-endian bytes.
//!
//! [`layout!`] takes the fields of a structure of the uAPI header in their order. From this list it
//! generates the Rust structure, its length, its encoder and its decoder. The rest of the layer
//! uses no offsets.

/// A value with a fixed length in a structure.
pub trait Field: Sized {
    /// Length of the value in bytes.
    const LENGTH: usize;

    /// Writes the value to the start of `bytes` and returns the rest of them.
    fn put(self, bytes: &mut [u8]) -> &mut [u8];

    /// Takes the value from the start of `bytes`. Returns `None` if they are too few.
    fn take(bytes: &mut &[u8]) -> Option<Self>;
}

macro_rules! integers {
    ($($integer:ty),*) => {
        $(
            impl Field for $integer {
                const LENGTH: usize = size_of::<Self>();

                fn put(self, bytes: &mut [u8]) -> &mut [u8] {
                    match bytes.split_first_chunk_mut() {
                        Some((field, rest)) => {
                            *field = self.to_le_bytes();
                            rest
                        }
                        None => &mut [],
                    }
                }

                fn take(bytes: &mut &[u8]) -> Option<Self> {
                    let (field, rest) = bytes.split_first_chunk()?;

                    *bytes = rest;
                    Some(Self::from_le_bytes(*field))
                }
            }
        )*
    };
}

integers!(u8, u16, u32, u64);

impl<T: Field + Copy + Default, const N: usize> Field for [T; N] {
    const LENGTH: usize = N * T::LENGTH;

    fn put(self, bytes: &mut [u8]) -> &mut [u8] {
        self.into_iter().fold(bytes, |rest, value| value.put(rest))
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let mut values = [T::default(); N];

        for value in &mut values {
            *value = T::take(bytes)?;
        }
        Some(values)
    }
}

/// Defines a structure of a stream and its encoding: little-endian integers and arrays of them in
/// the order of the fields, without padding.
#[macro_export]
macro_rules! layout {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $name:ident {
            $(
                $(#[$field_attribute:meta])*
                $field_visibility:vis $field:ident: $type:ty,
            )*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visibility struct $name {
            $(
                $(#[$field_attribute])*
                $field_visibility $field: $type,
            )*
        }

        impl $name {
            /// Length in bytes.
            $visibility const LENGTH: usize = 0 $(+ <$type as layout::Field>::LENGTH)*;

            /// Returns the structure as encoded in a stream.
            #[allow(dead_code, reason = "some structures are only read")]
            $visibility fn encode(self) -> [u8; Self::LENGTH] {
                let mut bytes = [0; Self::LENGTH];
                let rest = bytes.as_mut_slice();
                $(
                    let rest = layout::Field::put(self.$field, rest);
                )*
                let _ = rest;

                bytes
            }

            /// Reads the structure from the start of `bytes`.
            ///
            /// # Errors
            ///
            /// Returns an error if `bytes` is too short.
            $visibility fn decode(bytes: &[u8]) -> Result<Self, Violation> {
                let mut rest = bytes;
                let mut take = || {
                    Some(Self {
                        $(
                            $field: layout::Field::take(&mut rest)?,
                        )*
                    })
                };

                take().ok_or(Violation {
                    field: "length",
                    expected: Expectation::AtLeast(Self::LENGTH as u64),
                    found: bytes.len() as u64,
                })
            }
        }
    };
}

pub use layout;
