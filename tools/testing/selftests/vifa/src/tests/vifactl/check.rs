// SPDX-License-Identifier: GPL-2.0

//! `vifactl check` and `decode`.

use anyhow::{Context, Result};
use serde_json::{json, Value};

use super::{claims, saved_set, succeed, Directory, Guest, Test};
use crate::{
    bed::Bed,
    expect, hw,
    stream::Stream,
    vifactl::{run, Exit},
};

pub fn tests() -> Vec<Test> {
    claims!("vifactl":
        check_accepts_compatible_sources_of_every_kind,
        check_names_missing_features_of_the_destination,
        check_names_every_field_that_does_not_fit,
        check_reports_noise_as_damage,
        decode_shows_all_sections_of_a_stream,
        decode_shows_the_manifest_of_a_set,
        decode_reports_the_place_of_the_damage,
    )
}

/// Writes the output of `vifactl show --json` for the VF 0 to a file.
fn exported(bed: &Bed, directory: &Directory) -> Result<(Value, String)> {
    let answer = succeed(&["show", "--json", &bed.vf(0)?.to_string()])?;
    let file = directory.write("shown.json", &answer.output)?;
    Ok((answer.json()?, file))
}

fn check_accepts_compatible_sources_of_every_kind(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let (guest, set) = saved_set(bed, &directory)?;
    let stream = directory.write("stream", guest.vf.device.save()?)?;
    let (_, shown) = exported(bed, &directory)?;
    let vf = bed.vf(1)?.to_string();
    for (kind, source) in [
        ("device", &bed.vf(0)?.to_string()),
        ("save_set", &set),
        ("stream", &stream),
        ("json", &shown),
    ] {
        let answer = succeed(&["check", "--json", source, &vf])?.json()?;
        expect::equal("kind", &answer["source"]["kind"], &json!(kind))?;
        expect::equal("fits", &answer["fits"], &json!(true))?;
    }
    succeed(&["check", &vf, &set]).map(drop)
}

fn check_names_missing_features_of_the_destination(bed: &Bed) -> Result<()> {
    let [with, without] = [bed, &bed.without_p2p()?].map(|bed| bed.vf(0));
    let (with, without) = (with?.to_string(), without?.to_string());
    let answer = run(&["check", "--json", &with, &without])?.ends(Exit::Incompatible)?;
    expect::equal(
        "mismatches",
        &answer.json()?["mismatches"][0]["field"],
        &json!("features"),
    )?;
    answer.reports(&["features"])?;
    succeed(&["check", &without, &with]).map(drop)
}

fn check_names_every_field_that_does_not_fit(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let (mut shown, _) = exported(bed, &directory)?;
    let vf = bed.vf(1)?.to_string();
    let identity = shown["identity"].as_object_mut().context("identity")?;
    let mut expected = Vec::new();
    for (field, value) in identity.iter_mut() {
        let number = |value: &Value| value.as_u64().context("a number");
        match field.as_str() {
            // Undefined bits make the identity invalid.
            "features" => {}
            "granule" | "local_memory" => {
                *value = json!(number(value)? * 2);
                expected.push(field.clone());
            }
            "bar_size" => {
                value[0] = json!(number(&value[0])? * 2);
                expected.push("bar_size[0]".to_owned());
            }
            "record_version" => {
                for index in [1, 15] {
                    value[index] = json!(number(&value[index])? + 1);
                    expected.push(format!("record_version[{index}]"));
                }
            }
            _ => {
                *value = json!(number(value)? + 1);
                expected.push(field.clone());
            }
        }
    }
    let file = directory.write("changed.json", shown.to_string())?;
    let answer = run(&["check", "--json", &file, &vf])?
        .ends(Exit::Incompatible)?
        .json()?;
    let mut found: Vec<String> = answer["mismatches"]
        .as_array()
        .context("mismatches")?
        .iter()
        .filter_map(|mismatch| Some(mismatch["field"].as_str()?.to_owned()))
        .collect();
    found.sort();
    expected.sort();
    expect::equal("fields", found, expected)
}

fn check_reports_noise_as_damage(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let vf = bed.vf(1)?.to_string();
    for (name, noise) in [
        ("empty", &b""[..]),
        ("text", b"hello"),
        ("json", b"{\"identity\": 3}"),
        ("zeroes", &[0; 4096]),
    ] {
        let file = directory.write(name, noise)?;
        run(&["check", &file, &vf])?
            .ends(Exit::Damaged)?
            .reports(&[&file])?;
    }
    Ok(())
}

fn decode_shows_all_sections_of_a_stream(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let (_guest, bytes) = Guest::saved(bed, 0)?;
    let file = directory.write("stream", &bytes)?;
    let decoded = succeed(&["decode", "--json", &file])?.json()?;
    expect::equal(
        "sections",
        decoded["sections"].as_array().context("sections")?.len(),
        Stream::parse(&bytes)?.sections.len(),
    )?;
    let text = succeed(&["decode", &file])?;
    for word in ["identity", "relations", "address", "data", "control", "end"] {
        expect::claim(
            &format!("a table with {word}, not {}", text.text()?),
            text.text()?.contains(word),
        )?;
    }
    Ok(())
}

fn decode_shows_the_manifest_of_a_set(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let (_guest, set) = saved_set(bed, &directory)?;
    let answer = succeed(&["decode", "--json", &set])?;
    for word in [bed.vf(0)?.to_string(), bed.pf.to_string()] {
        expect::claim(
            &format!("a manifest with {word}, not {}", answer.text()?),
            answer.text()?.contains(&word),
        )?;
    }
    Ok(())
}

fn decode_reports_the_place_of_the_damage(bed: &Bed) -> Result<()> {
    let directory = Directory::new()?;
    let (_guest, bytes) = Guest::saved(bed, 0)?;
    let stream = Stream::parse(&bytes)?;
    let borders = stream.borders();
    for kind in [
        hw::VIFA_SECTION_IDENTITY,
        hw::VIFA_SECTION_DATA,
        hw::VIFA_SECTION_END,
    ] {
        let section = stream.position(kind)?;
        let mut damaged = bytes.clone();
        // Flip a bit before the end of each section's header and payload.
        damaged[borders[2 * section + 3] - 1] ^= 0x40;
        let file = directory.write("damaged", &damaged)?;
        let answer = run(&["decode", "--json", &file])?.ends(Exit::Damaged)?;
        expect::equal(
            "section of the damage",
            &answer.json()?["damage"]["section"],
            &json!(section),
        )?;
    }
    let cut = directory.write("cut", &bytes[..bytes.len() - 1])?;
    run(&["decode", &cut])?
        .ends(Exit::Damaged)?
        .reports(&[&cut])
        .map(drop)
}
