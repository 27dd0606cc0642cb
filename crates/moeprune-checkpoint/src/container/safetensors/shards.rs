//! Which files are a model's weights where no index says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use moeprune_files::{FileKind, Files};

use super::index::SINGLE_FILE;
use crate::Error;

/// The safetensors files beside `config.json`, in the order of their names. Adapters are none of a model's.
pub(super) fn present(files: &dyn Files) -> Result<Vec<String>, Error> {
    let entries = files.list(Path::new("")).map_err(Error::in_files(files))?;
    let names = entries.into_iter().filter(|entry| entry.kind == FileKind::File);
    let mut names: Vec<String> = names.filter_map(|entry| entry.name.into_string().ok()).collect();
    names.retain(|name| {
        name.ends_with(".safetensors") && !name.starts_with('.') && !name.starts_with("adapter_")
    });
    names.sort();
    Ok(names)
}

/// The files that are the weights, of those that are there.
///
/// # Errors
/// What is missing, or too much.
pub(super) fn without_index(present: &[String]) -> Result<Vec<String>, String> {
    let sets = Numbered::sets(present);
    let mut of_model = sets.iter().filter(|((stem, _), _)| stem == "model");
    if present.iter().any(|name| name == SINGLE_FILE) {
        return match of_model.next() {
            None => Ok(vec![SINGLE_FILE.to_owned()]),
            Some((_, shards)) => Err(format!(
                "has both {SINGLE_FILE} and shards ({}), and no index; remove those that are not the \
                 model",
                shown(shards.values())
            )),
        };
    }
    let mut chosen = match of_model.next() {
        Some(set) => vec![set],
        None => sets.iter().collect(),
    };
    chosen.extend(of_model);
    match &chosen[..] {
        [] if present.is_empty() => Err("has no file of safetensors".to_owned()),
        [] => Ok(present.to_vec()),
        [((stem, count), shards)] => complete(stem, *count, shards),
        several => {
            let firsts = several.iter().filter_map(|(_, shards)| shards.values().next());
            Err(format!(
                "has shards of several sets ({}) and no index; remove those that are not the model",
                shown(firsts)
            ))
        }
    }
}

/// Numbered files that no index names, where one is there.
pub(super) fn unnamed(present: &[String], named: &BTreeSet<&str>) -> Vec<String> {
    let is_unnamed = |name: &&String| {
        let of_release = Numbered::of(name).is_some() || name.starts_with("consolidated");
        of_release && !named.contains(name.as_str())
    };
    present.iter().filter(is_unnamed).cloned().collect()
}

/// The shards of a set that is whole.
fn complete(
    stem: &str,
    count: usize,
    shards: &BTreeMap<usize, String>,
) -> Result<Vec<String>, String> {
    let first = usize::from(!shards.contains_key(&0));
    let missing = |number: &usize| !shards.contains_key(number);
    let missing: Vec<usize> = (first..first + count).filter(missing).take(100).collect();
    if missing.is_empty() && shards.len() == count {
        return Ok(shards.values().cloned().collect());
    }
    let numbers = missing.iter().map(usize::to_string).collect::<Vec<_>>();
    Err(format!(
        "has no index and of the {count} shards {stem}-…-of-{count:05}.safetensors only {} ({}); shard \
         {} is missing, download it again",
        shards.len(),
        shown(shards.values()),
        numbers.first().map_or("", String::as_str)
    ))
}

/// The first names of a list, which may be long.
fn shown<'a>(names: impl Iterator<Item = &'a String>) -> String {
    const MOST: usize = 4;
    let names: Vec<&str> = names.map(String::as_str).collect();
    match names.get(..MOST) {
        Some(first) if names.len() > MOST => format!("{}, …", first.join(", ")),
        _ => names.join(", "),
    }
}

/// A name such as `model-00001-of-00003.safetensors`.
struct Numbered<'a> {
    stem: &'a str,
    number: usize,
    count: usize,
}

/// Shards by what stands before their number and how many there are said to be.
type Sets = BTreeMap<(String, usize), BTreeMap<usize, String>>;

impl<'a> Numbered<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let (rest, count) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let parse = |text: &str| text.parse().ok().filter(|_| digits(text));
        Some(Self { stem, number: parse(number)?, count: parse(count)? })
    }

    fn sets(names: &[String]) -> Sets {
        let mut sets = Sets::new();
        for name in names {
            let Some(Numbered { stem, number, count }) = Numbered::of(name) else { continue };
            sets.entry((stem.to_owned(), count)).or_default().insert(number, name.clone());
        }
        sets
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn which_files_are_the_model() {
        let check = |present: &[&str], expected: &[&str]| {
            assert_eq!(without_index(&names(present)), Ok(names(expected)));
        };
        let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        check(&["model.safetensors"], &["model.safetensors"]);
        check(&["consolidated.safetensors", "model.safetensors"], &["model.safetensors"]);
        check(&shards, &shards);
        check(&["consolidated.safetensors", shards[0], shards[1]], &shards);
        check(&["consolidated-00001-of-00001.safetensors", shards[0], shards[1]], &shards);
        let zero = ["w-0-of-2.safetensors", "w-1-of-2.safetensors"];
        check(&zero, &zero);
        check(&["a.safetensors", "b.safetensors"], &["a.safetensors", "b.safetensors"]);
        check(&["only.safetensors"], &["only.safetensors"]);
    }

    #[test]
    fn what_is_refused() {
        let check = |present: &[&str], expected: &[&str]| {
            let error = without_index(&names(present)).expect_err("is refused");
            assert!(expected.iter().all(|part| error.contains(part)), "{error}");
        };
        check(
            &["model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"],
            &["only 2", "model-00001-of-00003.safetensors, model-00003-of", "shard 2 is missing"],
        );
        check(&["model-00002-of-00003.safetensors"], &["only 1", "shard 1 is missing"]);
        check(
            &["model-00001-of-00001.safetensors", "model.safetensors"],
            &["both model.safetensors and shards (model-00001-of-00001.safetensors)"],
        );
        check(
            &["model-00001-of-00001.safetensors", "model-00001-of-00002.safetensors"],
            &["several sets"],
        );
        check(&["a-1-of-1.safetensors", "b-1-of-1.safetensors"], &["several sets"]);
        check(
            &["model-1-of-99999999999.safetensors"],
            &["of the 99999999999 shards", "shard 2 is missing"],
        );
    }

    proptest! {
        #[test]
        fn any_part_of_a_set_names_a_shard_that_is_missing(count in 2..20_usize, gone in any::<prop::sample::Index>()) {
            let mut shards: Vec<String> =
                (1..=count).map(|i| format!("model-{i:05}-of-{count:05}.safetensors")).collect();
            prop_assert_eq!(without_index(&shards), Ok(shards.clone()));
            let gone = gone.index(count);
            shards.remove(gone);
            let error = without_index(&shards).expect_err("one is missing");
            // Without the last, numbers may begin at 0 as well as at 1.
            let named = format!("shard {} is missing", gone + 1);
            prop_assert!(error.contains(&named), "{}", error);
        }

        #[test]
        fn any_names_are_judged(names: Vec<String>) {
            let _ = without_index(&names);
        }
    }
}
