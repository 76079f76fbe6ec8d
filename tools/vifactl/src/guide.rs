// SPDX-License-Identifier: GPL-2.0

//! Guide files: the differences between the place where a save set was made and its destination.
//!
//! A save set names the host, the physical function and the virtual function where it was made. A
//! guide maps these names to others. It cannot map the identity of a function: the layer's identity
//! rules hold with any guide. `Documentation/vifa/save-set.rst` specifies the format.

use std::{fmt, fs, marker::PhantomData, path::Path};

use anyhow::{Context, Result};
use serde::{
    de::{Error, MapAccess, Visitor},
    Deserialize, Deserializer,
};
use vifa_vfio::pci::Address;

use crate::{exit::Exit, place::Place, save_set::Version};

/// Version of the guide format.
const MAJOR: u16 = 1;

/// Maximum length of a guide, in bytes.
const LENGTH_MAX: u64 = 0x10_0000;

/// Pairs of a source name and a destination name. Each name occurs once per side.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Map<T>(Vec<(T, T)>);

impl<T> Default for Map<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: PartialEq> Map<T> {
    /// Returns the name to which `there` is mapped, or `there` if it is not mapped.
    fn follow<'a>(&'a self, there: &'a T) -> &'a T {
        self.0
            .iter()
            .find(|(from, _)| from == there)
            .map_or(there, |(_, to)| to)
    }

    /// Returns a mapped name that is not `there`.
    fn stranger(&self, there: Option<&T>) -> Option<&T> {
        self.0
            .iter()
            .map(|(from, _)| from)
            .find(|from| Some(*from) != there)
    }

    fn maps(&self, there: &T) -> bool {
        self.0.iter().any(|(from, _)| from == there)
    }
}

impl<'de, T: Deserialize<'de> + PartialEq + fmt::Display> Deserialize<'de> for Map<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de> + PartialEq + fmt::Display> Visitor<'de> for Pairs<T> {
            type Value = Map<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Map<T>, A::Error> {
                let mut pairs: Vec<(T, T)> = Vec::new();

                while let Some((from, to)) = map.next_entry::<T, T>()? {
                    if pairs.iter().any(|(other, _)| *other == from) {
                        return Err(A::Error::custom(format_args!("{from} is mapped twice")));
                    }
                    if let Some((other, _)) = pairs.iter().find(|(_, other)| *other == to) {
                        return Err(A::Error::custom(format_args!(
                            "{other} and {from} are both mapped to {to}"
                        )));
                    }
                    pairs.push((from, to));
                }
                Ok(Map(pairs))
            }
        }

        deserializer.deserialize_map(Pairs(PhantomData))
    }
}

/// A guide.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Guide {
    guide: Version,
    #[serde(default)]
    hosts: Map<String>,
    #[serde(default)]
    physical_functions: Map<Address>,
    #[serde(default)]
    virtual_functions: Map<Address>,
}

/// The origin of a stream, as its file states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) virtual_function: Address,
    /// Known for a save set only, not for a stream alone.
    pub(crate) surroundings: Option<Surroundings>,
}

/// The place of a virtual function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Surroundings {
    pub(crate) host: String,
    pub(crate) physical_function: Address,
    /// Index of the virtual function in its physical function.
    pub(crate) index: u32,
}

impl Guide {
    /// Returns a guide that maps nothing.
    pub(crate) fn none() -> Self {
        Self {
            guide: Version {
                major: MAJOR,
                minor: 0,
            },
            hosts: Map::default(),
            physical_functions: Map::default(),
            virtual_functions: Map::default(),
        }
    }

    /// Reads the guide at `path`.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is not a guide.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        use std::io::Read;

        let shown = path.display();
        let mut text = Vec::new();

        fs::File::open(path)
            .and_then(|file| file.take(LENGTH_MAX + 1).read_to_end(&mut text))
            .with_context(|| shown.to_string())?;
        if text.len() as u64 > LENGTH_MAX {
            return Err(Exit::Damaged
                .because(format!("{shown}: longer than {LENGTH_MAX} bytes"))
                .into());
        }
        Self::parse(&text).map_err(|why| Exit::Damaged.because(format!("{shown}: {why}")).into())
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let guide: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;

        if guide.guide.major != MAJOR {
            return Err(format!(
                "invalid guide.major: got {}, expected {MAJOR}",
                guide.guide.major
            ));
        }
        Ok(guide)
    }

    /// Checks that every mapped name occurs in the file.
    ///
    /// # Errors
    ///
    /// The first mapped name that does not.
    pub(crate) fn check_names(&self, origin: &Origin) -> Result<(), String> {
        let around = origin.surroundings.as_ref();
        let stranger = |what: &str, name: &dyn fmt::Display| {
            Err(format!(
                "{what}: {name} is mapped, but the file does not come from it"
            ))
        };

        if let Some(host) = self.hosts.stranger(around.map(|around| &around.host)) {
            return stranger("hosts", host);
        }
        let physical = around.map(|around| &around.physical_function);
        if let Some(function) = self.physical_functions.stranger(physical) {
            return stranger("physical_functions", function);
        }
        match self
            .virtual_functions
            .stranger(Some(&origin.virtual_function))
        {
            Some(function) => stranger("virtual_functions", function),
            None => Ok(()),
        }
    }

    /// Describes every difference between `origin` and `destination` that the guide does not map.
    pub(crate) fn differences(&self, origin: &Origin, destination: &Place) -> Vec<String> {
        let mut differences = Vec::new();
        let function = self.virtual_functions.follow(&origin.virtual_function);
        let mapped = self.virtual_functions.maps(&origin.virtual_function);

        if let Some(there) = &origin.surroundings {
            let host = self.hosts.follow(&there.host);
            let physical = self.physical_functions.follow(&there.physical_function);

            if *host != destination.host.name {
                differences.push(format!(
                    "host: the set is {}, this host is {}",
                    meant(&there.host, host),
                    destination.host.name
                ));
            }
            if *physical != destination.physical_function {
                differences.push(format!(
                    "physical function: the set is {}, {} belongs to {}",
                    meant(&there.physical_function, physical),
                    destination.address,
                    destination.physical_function
                ));
            }
            if !mapped && there.index != destination.index {
                differences.push(format!(
                    "virtual function: the set is of index {}, {} has index {}",
                    there.index, destination.address, destination.index
                ));
            }
        }
        if mapped && *function != destination.address {
            differences.push(format!(
                "virtual function: the guide maps {} to {function}, not to {}",
                origin.virtual_function, destination.address
            ));
        }
        differences
    }
}

/// Describes the origin of a set, and the name to which the guide maps it.
fn meant<T: PartialEq + fmt::Display>(there: &T, mapped: &T) -> String {
    if there == mapped {
        format!("from {there}")
    } else {
        format!("from {there} and mapped to {mapped}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    fn origin() -> Origin {
        Origin {
            virtual_function: address("0000:01:00.1"),
            surroundings: Some(Surroundings {
                host: "alpha".to_owned(),
                physical_function: address("0000:01:00.0"),
                index: 0,
            }),
        }
    }

    fn destination(host: &str, physical: &str, function: &str, index: u32) -> Place {
        Place {
            address: address(function),
            host: crate::save_set::Host {
                name: host.to_owned(),
                kernel: String::new(),
            },
            physical_function: address(physical),
            index,
        }
    }

    fn guide(members: &str) -> Result<Guide, String> {
        Guide::parse(format!("{{\"guide\": {{\"major\": 1, \"minor\": 0}}{members}}}").as_bytes())
    }

    /// Returns the first word of every difference between the origin and this destination.
    fn differ(members: &str, destination: &Place) -> Vec<String> {
        let guide = guide(members).unwrap();

        guide.check_names(&origin()).unwrap();
        guide
            .differences(&origin(), destination)
            .into_iter()
            .map(|text| text.split(':').next().unwrap().to_owned())
            .collect()
    }

    const ALL: &str = r#", "hosts": {"alpha": "beta"},
        "physical_functions": {"0000:01:00.0": "0000:41:00.0"},
        "virtual_functions": {"0000:01:00.1": "0000:41:00.3"}"#;

    #[test]
    fn the_same_place_needs_no_guide() {
        let same = destination("alpha", "0000:01:00.0", "0000:01:00.1", 0);

        assert!(Guide::none().differences(&origin(), &same).is_empty());
    }

    #[test]
    fn every_difference_is_reported() {
        let other = destination("beta", "0000:41:00.0", "0000:41:00.3", 2);

        assert_eq!(
            differ("", &other),
            ["host", "physical function", "virtual function"]
        );
        assert!(differ(ALL, &other).is_empty());
    }

    #[test]
    fn each_difference_needs_its_own_mapping() {
        let host = destination("beta", "0000:01:00.0", "0000:01:00.1", 0);
        let physical = destination("alpha", "0000:41:00.0", "0000:41:00.1", 0);
        let function = destination("alpha", "0000:01:00.0", "0000:01:00.2", 1);

        assert_eq!(differ("", &host), ["host"]);
        assert_eq!(differ("", &physical), ["physical function"]);
        assert_eq!(differ("", &function), ["virtual function"]);
        assert!(differ(r#", "hosts": {"alpha": "beta"}"#, &host).is_empty());
        assert!(differ(
            r#", "physical_functions": {"0000:01:00.0": "0000:41:00.0"}"#,
            &physical
        )
        .is_empty());
        assert!(differ(
            r#", "virtual_functions": {"0000:01:00.1": "0000:01:00.2"}"#,
            &function
        )
        .is_empty());
    }

    #[test]
    fn a_guide_to_another_place_is_rejected() {
        let same = destination("alpha", "0000:01:00.0", "0000:01:00.1", 0);

        assert_eq!(
            differ(ALL, &same),
            ["host", "physical function", "virtual function"]
        );
    }

    #[test]
    fn names_that_are_not_in_the_set_cannot_be_mapped() {
        for members in [
            r#", "hosts": {"gamma": "beta"}"#,
            r#", "physical_functions": {"0000:02:00.0": "0000:41:00.0"}"#,
            concat!(
                r#", "virtual_functions": {"0000:01:00.1": "0000:41:00.3","#,
                r#" "0000:01:00.2": "0000:41:00.4"}"#
            ),
        ] {
            assert!(guide(members).unwrap().check_names(&origin()).is_err());
        }
    }

    #[test]
    fn a_stream_names_its_function_only() {
        let stream = Origin {
            surroundings: None,
            ..origin()
        };

        guide(r#", "virtual_functions": {"0000:01:00.1": "0000:41:00.3"}"#)
            .unwrap()
            .check_names(&stream)
            .unwrap();
        assert!(guide(ALL).unwrap().check_names(&stream).is_err());
        let other = destination("beta", "0000:41:00.0", "0000:41:00.3", 2);
        assert!(Guide::none().differences(&stream, &other).is_empty());
    }

    #[test]
    fn an_ambiguous_guide_is_rejected() {
        for (members, why) in [
            (
                r#", "hosts": {"a": "c", "b": "c"}"#,
                "a and b are both mapped to c",
            ),
            (r#", "hosts": {"a": "c", "a": "d"}"#, "a is mapped twice"),
            (
                concat!(
                    r#", "virtual_functions": {"0000:01:00.1": "0000:01:00.2","#,
                    r#" "01:00.1": "0000:01:00.3"}"#
                ),
                "0000:01:00.1 is mapped twice",
            ),
            (
                r#", "virtual_function": {}"#,
                "unknown field `virtual_function`",
            ),
            (
                r#", "physical_functions": {"alpha": "beta"}"#,
                "`alpha` is not a PCI address",
            ),
            (r#", "hosts": {}, "hosts": {}"#, "duplicate field `hosts`"),
        ] {
            let error = guide(members).unwrap_err();

            assert!(error.contains(why), "{error}");
        }
        assert!(Guide::parse(b"{}").is_err());
        assert!(Guide::parse(br#"{"guide": {"major": 2, "minor": 0}}"#)
            .unwrap_err()
            .contains("guide.major"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text: Vec<u8>) {
            let _ = Guide::parse(&text);
        }
    }
}
