//! Adding parts of an observation up.

use std::{ops::Range, path::Path};

use moeprune_core::{LayerObservation, Observation, PartOf, observation::ExactLayer};

use super::part::{PartFile, PartHead};
use crate::Error;

/// Adds parts of an observation up, in any order: the observation of one run over all blocks, to the last bit where
/// the parts were observed on the CPU.
///
/// One layer of all parts is held at a time, and the rounded sums of those before it.
///
/// # Errors
/// If a part cannot be read, or does not have the bytes that were written; if one is of another model, text, seed or type than the first; if two are of the same
/// blocks; if blocks are missing; if sums do not add up.
pub fn merge_parts<P: AsRef<Path>>(paths: &[P]) -> Result<Observation, Error> {
    let mut parts =
        paths.iter().map(|path| PartFile::open(path.as_ref())).collect::<Result<Vec<_>, _>>()?;
    check_alike(&parts)?;
    check_whole(&parts)?;
    parts.iter_mut().try_for_each(PartFile::check_bytes)?;
    let Some(first) = parts.first() else { return Err(Error::NoParts) };
    let (layers, head) = (first.layers, first.head.clone());
    let layers = (0..layers).map(|layer| merged(&mut parts, layer)).collect::<Result<_, _>>()?;
    let PartHead { model_fingerprint, corpus, .. } = head;
    Ok(Observation { model_fingerprint, corpora: vec![corpus], layers })
}

fn merged(parts: &mut [PartFile<'_>], layer: usize) -> Result<LayerObservation, Error> {
    let mut sums: Option<ExactLayer> = None;
    for part in parts {
        let more = part.layer(layer)?;
        match &mut sums {
            None => sums = Some(more),
            Some(sums) => sums.add(&more).map_err(|error| {
                let reason = format!("layer {layer} does not add up with the other parts: {error}");
                Error::PartFile { path: part.path.to_owned(), reason }
            })?,
        }
    }
    Ok(sums.unwrap_or_default().rounded())
}

/// That all are of one run.
fn check_alike(parts: &[PartFile<'_>]) -> Result<(), Error> {
    let Some((first, others)) = parts.split_first() else { return Err(Error::NoParts) };
    let facts = |part: &PartFile<'_>| {
        let PartHead { model_fingerprint, corpus, compute, .. } = &part.head;
        let read = serde_json::to_string(&corpus.read).unwrap_or_default();
        [
            ("model", model_fingerprint.clone()),
            ("number of layers", part.layers.to_string()),
            ("text", format!("{} with SHA-256 {:.12}", corpus.name, corpus.sha256)),
            ("number of blocks", corpus.samples.to_string()),
            ("length of blocks", corpus.sequence_len.to_string()),
            ("seed", corpus.seed.to_string()),
            ("reading of the text", read),
            ("type", compute.clone()),
        ]
    };
    let expected = facts(first);
    for other in others {
        let differs =
            facts(other).into_iter().zip(&expected).find(|(found, expected)| found != *expected);
        if let Some(((what, found), (_, expected))) = differs {
            return Err(Error::ForeignPart {
                part: other.path.to_owned(),
                first: first.path.to_owned(),
                difference: with_short_hashes(&format!("{what} is {found}, not {expected}")),
            });
        }
    }
    Ok(())
}

/// That each block is there once.
fn check_whole(parts: &[PartFile<'_>]) -> Result<(), Error> {
    let Some(first) = parts.first() else { return Err(Error::NoParts) };
    let total = usize::try_from(first.head.corpus.samples).unwrap_or(usize::MAX);
    let mut ranges: Vec<(Range<usize>, &PartFile<'_>)> = parts
        .iter()
        .map(|part| (part.head.blocks(), part))
        .filter(|(range, _)| !range.is_empty())
        .collect();
    ranges.sort_by_key(|(range, _)| (range.start, range.end));
    let (mut missing, mut end, mut last) = (Vec::new(), 0, first);
    for (range, part) in ranges {
        if range.start < end {
            return Err(twice(last, part, range.start..range.end.min(end)));
        }
        if range.start > end {
            missing.push(end..range.start);
        }
        (end, last) = (range.end, part);
    }
    if end < total {
        missing.push(end..total);
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::MissingParts { missing: in_words(&missing, parts, total), total })
}

/// Two parts are of the same blocks.
fn twice(first: &PartFile<'_>, second: &PartFile<'_>, blocks: Range<usize>) -> Error {
    if first.path == second.path {
        return Error::SamePart { path: first.path.to_owned() };
    }
    let named = |part: &PartFile<'_>| format!("{}, part {}", part.path.display(), part.head.part);
    Error::PartTwice { files: format!("{}, and {}", named(first), named(second)), blocks }
}

/// A text whose hashes have 12 digits, to be read.
fn with_short_hashes(text: &str) -> String {
    const SHOWN: usize = 12;
    let mut short = String::new();
    let mut digits = 0;
    for character in text.chars() {
        digits = if character.is_ascii_hexdigit() { digits + 1 } else { 0 };
        if digits <= SHOWN {
            short.push(character);
        }
    }
    short
}

/// Which parts are missing, where all others are of one number of parts; which blocks, where they are not.
fn in_words(missing: &[Range<usize>], parts: &[PartFile<'_>], total: usize) -> String {
    const MOST: usize = 8;
    let of = parts.first().map_or(1, |part| part.head.part.of());
    let blocks = |range: &Range<usize>| format!("blocks {} to {}", range.start + 1, range.end);
    let is_missing = |part: &PartOf| {
        let own = part.range(total);
        !own.is_empty()
            && missing.iter().any(|range| range.start <= own.start && own.end <= range.end)
    };
    let of_one_number = parts.iter().all(|part| part.head.part.of() == of);
    let named = PartOf::all(of).ok().filter(|_| of_one_number).map(|all| all.filter(is_missing));
    let words: Vec<String> = match named {
        Some(parts) => {
            parts.map(|part| format!("part {part} ({})", blocks(&part.range(total)))).collect()
        }
        None => missing.iter().map(blocks).collect(),
    };
    let more = words.len().saturating_sub(MOST);
    let mut text = words.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}
