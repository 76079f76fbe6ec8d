// SPDX-License-Identifier: GPL-2.0

//! The structures of the uAPI header, field by field.
//!
//! The decoder shows every field by its name in the header, and reports the offset of an invalid
//! one. Both come from one table per structure, with offsets from the compiler.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::headers as uapi;

/// The output format of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notation {
    /// A number of items or bytes.
    Count,
    /// An id, a mask, an address, or a checksum.
    Hexadecimal,
    /// Characters.
    Text,
}

/// A field of a structure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    name: &'static str,
    offset: usize,
    /// Bytes of one element.
    size: usize,
    /// Number of elements; `None` if the field is not an array.
    elements: Option<usize>,
    notation: Notation,
}

impl Field {
    /// Returns the field's name in the header.
    pub(crate) fn name(&self) -> &'static str {
        // bindgen appends an underscore to Rust keywords.
        self.name.trim_end_matches('_')
    }

    /// Returns the output format of the field.
    pub(crate) fn notation(&self) -> Notation {
        self.notation
    }

    /// Returns the length of the field in bytes.
    fn length(&self) -> usize {
        self.size * self.elements.unwrap_or(1)
    }
}

/// A structure of the header.
#[derive(Debug)]
pub(crate) struct Structure {
    /// Length in bytes.
    pub(crate) length: usize,
    fields: &'static [Field],
}

impl Structure {
    /// Returns the offset of the field `name` in bytes; `name` may be an element, as in
    /// `bar_size[3]`.
    pub(crate) fn offset_of(&self, name: &str) -> Option<u64> {
        let (name, index) = match name.split_once('[') {
            Some((name, index)) => (name, index.strip_suffix(']')?.parse().ok()?),
            None => (name, 0),
        };
        let field = self.fields.iter().find(|field| field.name() == name)?;

        (index < field.elements.unwrap_or(1)).then_some((field.offset + index * field.size) as u64)
    }
}

/// The size of a field type.
trait Shape {
    const SIZE: usize;
    const ELEMENTS: Option<usize>;
}

macro_rules! integers {
    ($($integer:ty),*) => {
        $(
            impl Shape for $integer {
                const SIZE: usize = size_of::<$integer>();
                const ELEMENTS: Option<usize> = None;
            }
        )*
    };
}

integers!(u8, u16, u32, u64);

impl<T: Shape, const N: usize> Shape for [T; N] {
    const SIZE: usize = T::SIZE;
    const ELEMENTS: Option<usize> = Some(N);
}

const fn size_of_member<S, T: Shape>(_: fn(&S) -> &T) -> usize {
    T::SIZE
}

const fn elements_of_member<S, T: Shape>(_: fn(&S) -> &T) -> Option<usize> {
    T::ELEMENTS
}

macro_rules! structure {
    ($name:ident: $type:ident { $($field:ident: $notation:ident,)* }) => {
        #[doc = concat!("`struct ", stringify!($type), "`.")]
        pub(crate) const $name: Structure = Structure {
            length: size_of::<uapi::$type>(),
            fields: &[
                $(
                    Field {
                        name: stringify!($field),
                        offset: std::mem::offset_of!(uapi::$type, $field),
                        size: size_of_member(|structure: &uapi::$type| &structure.$field),
                        elements: elements_of_member(|structure: &uapi::$type| &structure.$field),
                        notation: Notation::$notation,
                    },
                )*
            ],
        };
    };
}

structure!(STREAM_HEADER: vifa_stream_header {
    magic: Text,
    major: Count,
    minor: Count,
    crc: Hexadecimal,
});

structure!(SECTION_HEADER: vifa_section_header {
    type_: Count,
    flags: Hexadecimal,
    length: Count,
    interface: Hexadecimal,
    sequence: Count,
    payload_crc: Hexadecimal,
    header_crc: Hexadecimal,
});

structure!(IDENTITY: vifa_identity {
    vendor: Hexadecimal,
    device: Hexadecimal,
    subsystem_vendor: Hexadecimal,
    subsystem: Hexadecimal,
    revision_id: Hexadecimal,
    reserved0: Hexadecimal,
    vifa_revision: Count,
    features: Hexadecimal,
    bar_size: Hexadecimal,
    interrupt_vectors: Count,
    queues: Count,
    granule: Count,
    local_memory: Count,
    control_plane_max: Count,
    reserved1: Hexadecimal,
    record_version: Count,
});

structure!(RELATION: vifa_relation {
    plane: Count,
    reserved: Hexadecimal,
    output: Hexadecimal,
    receiver: Hexadecimal,
});

structure!(ADDRESS_RECORD: vifa_address_record {
    space: Count,
    round: Count,
    granule: Count,
    count: Count,
});

structure!(ADDRESS_RANGE: vifa_address_range {
    start: Hexadecimal,
    length: Count,
    sequence: Count,
});

structure!(DATA_RUN: vifa_data_run {
    offset: Hexadecimal,
});

structure!(RESOURCES: vifa_resources {
    version: Count,
    run_state: Count,
    records: Count,
    length: Count,
    reserved: Hexadecimal,
});

structure!(RECORD: vifa_record {
    type_: Count,
    version: Count,
    index: Count,
    length: Count,
    reserved: Hexadecimal,
});

structure!(STREAM_END: vifa_stream_end {
    sections: Count,
    data_bytes: Count,
    control_bytes: Count,
    headers_crc: Hexadecimal,
    reserved: Hexadecimal,
});

structure!(SAVE_SET_HEADER: vifa_save_set_header {
    magic: Text,
    major: Count,
    minor: Count,
    manifest_length: Count,
    stream_length: Count,
    manifest_crc: Hexadecimal,
    header_crc: Hexadecimal,
});

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A number.
    Integer(u64),
    /// The numbers of an array.
    Array(Vec<u64>),
    /// Characters; invalid ones are replaced.
    Text(String),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Integer(value) => value.serialize(serializer),
            Self::Array(values) => values.serialize(serializer),
            Self::Text(text) => text.serialize(serializer),
        }
    }
}

/// A structure and its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    structure: &'static Structure,
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Returns the structure at the start of `bytes`, and the remaining bytes; `None` if `bytes` is
    /// too short.
    pub(crate) fn split(
        structure: &'static Structure,
        bytes: &'a [u8],
    ) -> Option<(Self, &'a [u8])> {
        let (bytes, rest) = bytes.split_at_checked(structure.length)?;

        Some((Self { structure, bytes }, rest))
    }

    /// Returns the structure at the start of `bytes`; `None` if `bytes` is too short.
    pub(crate) fn at(structure: &'static Structure, bytes: &'a [u8]) -> Option<Self> {
        Self::split(structure, bytes).map(|(fields, _)| fields)
    }

    /// Returns each field and its value, in order.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&'static Field, Value)> + use<'a> {
        let Self { structure, bytes } = *self;

        structure.fields.iter().map(move |field| {
            let bytes = bytes
                .get(field.offset..field.offset + field.length())
                .unwrap_or_default();
            let mut integers = bytes.chunks_exact(field.size).map(integer);
            let value = match (field.notation, field.elements) {
                (Notation::Text, _) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
                (_, Some(_)) => Value::Array(integers.collect()),
                (_, None) => Value::Integer(integers.next().unwrap_or_default()),
            };
            (field, value)
        })
    }

    /// Returns the value of the field `name`, which is not an array; 0 if there is no such field.
    pub(crate) fn integer(&self, name: &str) -> u64 {
        let field = self
            .structure
            .fields
            .iter()
            .find(|field| field.name() == name);
        let bytes = field.and_then(|field| self.bytes.get(field.offset..field.offset + field.size));

        bytes.map_or(0, integer)
    }
}

/// A map from field names to values.
impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.structure.fields.len()))?;

        for (field, value) in self.values() {
            map.serialize_entry(field.name(), &value)?;
        }
        map.end()
    }
}

/// Returns the little-endian number in `bytes`, at most eight bytes.
fn integer(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, &byte| (value << 8) | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&Structure; 11] = [
        &STREAM_HEADER,
        &SECTION_HEADER,
        &IDENTITY,
        &RELATION,
        &ADDRESS_RECORD,
        &ADDRESS_RANGE,
        &DATA_RUN,
        &RESOURCES,
        &RECORD,
        &STREAM_END,
        &SAVE_SET_HEADER,
    ];

    #[test]
    fn fields_cover_each_structure() {
        for structure in ALL {
            let end = structure.fields.iter().fold(0, |end, field| {
                assert_eq!(field.offset, end, "{}", field.name());
                end + field.length()
            });
            assert_eq!(end, structure.length);
        }
    }

    #[test]
    fn an_element_has_its_own_offset() {
        assert_eq!(IDENTITY.offset_of("bar_size"), Some(16));
        assert_eq!(IDENTITY.offset_of("bar_size[3]"), Some(16 + 3 * 8));
        assert_eq!(IDENTITY.offset_of("bar_size[6]"), None);
        assert_eq!(IDENTITY.offset_of("queues[1]"), None);
        assert_eq!(IDENTITY.offset_of("nothing"), None);
    }

    #[test]
    fn values_are_little_endian() {
        let bytes: Vec<u8> = (1..=16).collect();
        let header = Fields::at(&RESOURCES, &bytes).unwrap();

        assert_eq!(header.integer("version"), 0x0201);
        assert_eq!(header.integer("records"), 0x0807_0605);
        assert!(Fields::at(&RESOURCES, &bytes[..15]).is_none());
    }
}
