//! Names that begin otherwise than those of the family: what training wrappers and adapters put in front of them, or
//! what a conversion left away.

use std::collections::BTreeMap;

use moeprune_core::{LayerTensor, LinearId, TensorId};

use super::layout::Layout;
use crate::{
    Error, Family,
    family::{Extent, Names},
    model_directory::ModelDirectory,
};

/// The names under which a model's tensors are stored, and a note if they begin otherwise than the family's.
///
/// # Errors
/// If tensors of layers stand under several beginnings and none is the family's own.
pub(super) fn fitted(
    layout: &Layout,
    names: Names,
    directory: &ModelDirectory,
) -> Result<(Names, Option<String>), Error> {
    let is_layers = |name: &str| {
        matches!(names.part_of(name), Some(TensorId::Layer(..))) || names.fused_of(name).is_some()
    };
    if layout.model.is_some() || layout.tensors.iter().any(|tensor| is_layers(&tensor.name)) {
        return Ok((names, None));
    }
    let found = beginnings(layout, names.family())?;
    let beginning = match found.len() {
        0 => return Ok((names, None)),
        1 => found.into_keys().next().unwrap_or_default(),
        _ => {
            let reason = format!("the names of tensors begin differently: {}", listed(&found));
            return Err(Error::Weights { dir: directory.path.clone(), reason });
        }
    };
    let around = around(layout, names.family(), &beginning, directory)?;
    let own = names.family().descriptor().prefix.clone();
    let fitted = names.family().under(&beginning, &around)?;
    let shown = |prefix: &str| match prefix {
        "" => "with nothing".to_owned(),
        prefix => format!("with `{prefix}`"),
    };
    let note = format!(
        "the names of tensors begin {} before what those of this family begin {}; a result keeps such \
         names, which engines may not load",
        shown(&beginning),
        shown(&own)
    );
    Ok((names.of_family(fitted), Some(note)))
}

/// An error on opening a model, with what its tensors' names say about it.
pub(super) fn explained(error: Error, directory: &ModelDirectory, family: &Family) -> Error {
    let about_names = |error: &Error| {
        matches!(error, Error::Tensor { .. } | Error::Weights { .. } | Error::Experts { .. })
    };
    if !about_names(&error) && !matches!(error, Error::Config { .. }) {
        return error;
    }
    let Ok(layout) = Layout::open(directory) else { return error };
    let adapter = |name: &str| name.contains(".lora_") || name.contains(".base_layer.");
    if let Some(tensor) = layout.tensors.iter().find(|tensor| adapter(&tensor.name)) {
        let reason = format!(
            "holds `{}`, a LoRA adapter's tensor; merge the adapter into the model (PEFT's \
             `merge_and_unload`) and save that",
            tensor.name
        );
        return Error::Weights { dir: directory.path.clone(), reason };
    }
    let found = beginnings(&layout, family).unwrap_or_default();
    if !about_names(&error) || found.len() < 2 {
        return error;
    }
    let more = format!("; the names of tensors begin differently: {}", listed(&found));
    match error {
        Error::Tensor { dir, name, reason } => Error::Tensor { dir, name, reason: reason + &more },
        Error::Weights { dir, reason } => Error::Weights { dir, reason: reason + &more },
        Error::Experts { dir, reason } => Error::Experts { dir, reason: reason + &more },
        error => error,
    }
}

/// What stands before the numbers of layers in names of routers and experts, each with one of the names.
fn beginnings(layout: &Layout, family: &Family) -> Result<BTreeMap<String, String>, Error> {
    let bare = Names::new(family.under("", "")?, None);
    let of_extra = family.lead_of_extra();
    let is_one = |rest: &str| {
        let part = match bare.part_of(rest) {
            Some(TensorId::Layer(_, part)) => part,
            _ => return bare.fused_of(rest).is_some(),
        };
        part.expert().is_some() || part == LayerTensor::Linear(LinearId::Router)
    };
    let mut found = BTreeMap::new();
    for tensor in &layout.tensors {
        let name = tensor.name.as_str();
        let starts = std::iter::once(0).chain(name.match_indices('.').map(|(dot, _)| dot + 1));
        let Some(start) = starts.into_iter().find(|&start| is_one(&name[start..])) else {
            continue;
        };
        let beginning = &name[..start];
        let is_extra = of_extra.as_ref().is_some_and(|extra| beginning.ends_with(extra));
        if !is_extra && !found.contains_key(beginning) {
            found.insert(beginning.to_owned(), name.to_owned());
        }
    }
    Ok(found)
}

/// What stands before the names that do not begin with the family's prefix, by where the head is.
fn around(
    layout: &Layout,
    family: &Family,
    beginning: &str,
    directory: &ModelDirectory,
) -> Result<String, Error> {
    let descriptor = family.descriptor();
    let guess =
        || beginning.strip_suffix(descriptor.prefix.as_str()).unwrap_or_default().to_owned();
    let head = &descriptor.model.tensors.head;
    if descriptor.extent_of(head) == Extent::Prefixed {
        return Ok(guess());
    }
    let ends = beginning.match_indices('.').map(|(dot, _)| dot + 1);
    let names = std::iter::once(0).chain(ends).map(|end| format!("{}{head}", &beginning[..end]));
    let is_stored = |name: &String| layout.tensors.iter().any(|tensor| tensor.name == *name);
    let stored: Vec<String> = names.filter(is_stored).collect();
    match &stored[..] {
        [] => Ok(guess()),
        [name] => Ok(name[..name.len() - head.len()].to_owned()),
        [first, .., last] => {
            let reason = format!("has both `{first}` and `{last}`; one model has one of them");
            Err(Error::Weights { dir: directory.path.clone(), reason })
        }
    }
}

fn listed(found: &BTreeMap<String, String>) -> String {
    let shown = found.values().map(|name| format!("`{name}`"));
    shown.collect::<Vec<_>>().join(" and ")
}
