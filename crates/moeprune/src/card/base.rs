//! Which model was pruned, as far as it is known.

use std::path::{Component, Path};

use moeprune_checkpoint::Checkpoint;
use serde::Deserialize;

/// The model that was pruned.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Base {
    /// Its id on the Hugging Face Hub.
    pub(super) id: Option<String>,
    /// The commit, where its folder is the snapshot of one.
    pub(super) commit: Option<String>,
    /// What it is called: the last part of its id, or its folder.
    pub(super) name: String,
}

/// What a config says of where a model came from.
#[derive(Deserialize)]
struct Named {
    #[serde(rename = "_name_or_path")]
    name_or_path: Option<String>,
}

impl Base {
    /// `ancestors` is what its card says that it was made of itself.
    pub(super) fn of(model: &Checkpoint, ancestors: &[String]) -> Self {
        let folder = model.files().local_folder().unwrap_or_else(|| model.dir());
        let real = folder.canonicalize().ok();
        let snapshot = [Some(folder), real.as_deref()].into_iter().flatten().find_map(snapshot);
        if let Some((id, commit)) = snapshot {
            return Self { commit, ..Self::named(id) };
        }
        if let Some(id) = said(model.config_text(), ancestors) {
            return Self::named(id);
        }
        let named = [Some(model.dir()), real.as_deref()].into_iter().flatten();
        let name = named.filter_map(Path::file_name).next().unwrap_or_default();
        Self { name: name.to_string_lossy().into_owned(), ..Self::default() }
    }

    fn named(id: String) -> Self {
        let name = id.rsplit('/').next().unwrap_or_default().to_owned();
        Self { id: Some(id), commit: None, name }
    }
}

/// The id, and the commit if it is named, of a snapshot in the Hugging Face cache:
/// `…/models--ORG--NAME/snapshots/COMMIT`.
fn snapshot(folder: &Path) -> Option<(String, Option<String>)> {
    let parts = folder.components().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    let parts: Vec<&str> = parts.collect();
    let [.., cached, "snapshots", commit] = parts[..] else { return None };
    let cached = cached.strip_prefix("models--")?;
    let id = cached.replacen("--", "/", 1);
    let is_commit = commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit());
    (is_id(&id) || is_name(&id)).then(|| (id, is_commit.then(|| commit.to_owned())))
}

/// The id that a config gives. A model that was trained on from another one often gives that one's, which its card
/// then names as what it was made of.
fn said(config: &str, ancestors: &[String]) -> Option<String> {
    let id = serde_json::from_str::<Named>(config).ok()?.name_or_path?;
    (is_id(&id) && !ancestors.contains(&id)).then_some(id)
}

/// Whether a text is `ORG/NAME`, as the Hub has it.
fn is_id(text: &str) -> bool {
    text.split_once('/').is_some_and(|(org, name)| is_name(org) && is_name(name))
}

fn is_name(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=96).contains(&text.len())
        && text.starts_with(edge)
        && text.ends_with(edge)
        && text.chars().all(|c| edge(c) || c == '-' || c == '.')
        && !["--", ".."].iter().any(|no| text.contains(no))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn snapshots_of_the_cache_say_what_they_are() {
        let check = |folder: &str, expected: Option<&str>| {
            let found = snapshot(Path::new(&folder.replace("COMMIT", COMMIT)));
            assert_eq!(found.as_ref().map(|(id, _)| id.as_str()), expected, "{folder}");
            let is_commit = folder.trim_end_matches('/').ends_with("COMMIT");
            assert!(found.is_none_or(|(_, commit)| commit == is_commit.then(|| COMMIT.to_owned())));
        };
        check(
            "/a/hub/models--mistralai--Mixtral-8x7B-v0.1/snapshots/COMMIT",
            Some("mistralai/Mixtral-8x7B-v0.1"),
        );
        check("models--gpt2/snapshots/COMMIT/", Some("gpt2"));
        check("models--a--b/snapshots/main", Some("a/b"));
        for none in [
            "models--a--b/snapshots/COMMIT/sub",
            "datasets--a--b/snapshots/COMMIT",
            "models--a--b--c/snapshots/COMMIT",
            "models--a--b/COMMIT",
            "models--/snapshots/COMMIT",
            "models--a--`rm`/snapshots/COMMIT",
            "",
        ] {
            check(none, None);
        }
    }

    #[test]
    fn configs_say_it_unless_they_name_what_the_base_was_made_of() {
        let check = |config: &str, ancestor: &str, expected: Option<&str>| {
            assert_eq!(said(config, &[ancestor.to_owned()]).as_deref(), expected, "{config}");
        };
        check(r#"{"_name_or_path": "org/name"}"#, "org/other", Some("org/name"));
        check(r#"{"_name_or_path": "org/name"}"#, "org/name", None);
        for none in [
            "/data/name",
            "./org/name",
            "../name",
            "org/name/more",
            "name",
            "org/",
            "",
            "org/na me",
        ] {
            check(&format!(r#"{{"_name_or_path": "{none}"}}"#), "", None);
        }
        for none in ["", "{}", "[]", r#"{"_name_or_path": 1}"#] {
            check(none, "", None);
        }
    }
}
