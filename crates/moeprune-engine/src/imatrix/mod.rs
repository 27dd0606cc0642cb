//! An observation from what `llama-imatrix` collected, without running the model here.
//!
//! An imatrix has, per weight matrix of the GGUF that it was collected on, the sums of squares of what the
//! matrix multiplied, and per expert the tokens that were routed to it: an observation's routing counts and
//! squared inputs. It has no gate weights, no outputs and no pairs of experts, so the observation has none
//! of these either ([`RoutingSums::counted`](moeprune_core::RoutingSums::counted)), and what needs them says
//! so.
//!
//! | file | what is in it |
//! |---|---|
//! | `read` | a file, and its hash |
//! | `names` | which tensor of llama.cpp's is which Linear, by kind of attention and MLP |
//! | `layer` | the sums of one layer |
//! | `found` | an entry, its shape checked |
//! | `heads` | input features that llama.cpp has in another order |

mod found;
mod heads;
mod layer;
mod names;
mod read;

use std::collections::{BTreeMap, BTreeSet};

use moeprune_core::{CorpusTag, InputMoments, LinearId, Observation};
use moeprune_gguf::imatrix::{Imatrix, Tally};

use crate::{Error, ImatrixMismatch, Model};

/// An imatrix that was read, and which file it was.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct ImatrixFile {
    /// Its name, for messages and for the observation's [`CorpusTag`].
    pub name: String,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// What is in it.
    pub imatrix: Imatrix,
}

/// The observation that imatrix files of a model are: routing counts and squared inputs. Several add up.
///
/// A Linear of which an imatrix has nothing is missing from the observation; what needs it names it then.
/// In which forward calls an expert took part is not known: it is taken for all of them, or for as many
/// as it has tokens. From an imatrix of the older form there are no routing counts, and each input has as
/// many tokens as the file has calls, and no calls: its tokens are lost, and inputs compare by their means
/// alone.
///
/// # Errors
/// If a file could not be read, or there is none; if it is of another model: a tensor has another shape, or
/// is of a layer that the model has not; if tensors of one input contradict each other; if the counts of a
/// layer's experts are not those of tokens times `top_k`; if one file has what another lacks.
pub fn observe_imatrix(
    model: &dyn Model,
    files: impl IntoIterator<Item = Result<ImatrixFile, Error>>,
) -> Result<Observation, Error> {
    let mut sum: Option<(String, Observation)> = None;
    for file in files {
        let file = file?;
        let more = of_one(model, &file)?;
        match &mut sum {
            None => sum = Some((file.name, more)),
            Some((first, sum)) => {
                check_alike(sum, &more, [first, &file.name])?;
                sum.add(&more)?;
            }
        }
    }
    let none = || Error::Request("an observation from imatrix files needs at least one".into());
    sum.map(|(_, sum)| sum).ok_or_else(none)
}

fn of_one(model: &dyn Model, file: &ImatrixFile) -> Result<Observation, Error> {
    let spec = &model.spec().decoded();
    let mismatch = |problem| Error::Imatrix { file: file.name.clone(), problem: Box::new(problem) };
    names::check_layers(&file.imatrix, spec).map_err(mismatch)?;
    let layers = (0..spec.layers.len())
        .map(|layer| layer::observe(&file.imatrix, spec, layer).map_err(mismatch))
        .collect::<Result<Vec<_>, _>>()?;
    if layers.iter().all(|layer| layer.inputs.is_empty()) {
        return Err(mismatch(ImatrixMismatch::OfOthers { tensor: names::example(spec) }));
    }
    Ok(Observation { model_fingerprint: model.fingerprint()?, corpora: vec![tag(file)], layers })
}

/// Refuses observations of two imatrix files that add up to nothing sensible: one has tokens of experts or
/// inputs that the other lacks. `names` are those of the files.
fn check_alike(first: &Observation, other: &Observation, names: [&str; 2]) -> Result<(), Error> {
    for (layer, (mine, theirs)) in first.layers.iter().zip(&other.layers).enumerate() {
        let [has, lacks] = match (&mine.routing, &theirs.routing) {
            (Some(_), None) => names,
            (None, Some(_)) => [names[1], names[0]],
            _ => {
                check_sites(layer, [&mine.inputs, &theirs.inputs], names)?;
                continue;
            }
        };
        return Err(Error::Request(format!(
            "{has} has the tokens of the experts of layer {layer} and {lacks} has not, so they do not \
             add up; use imatrix files of the GGUF form together, or of the older form"
        )));
    }
    Ok(())
}

type Inputs = BTreeMap<LinearId, InputMoments>;

fn check_sites(layer: usize, inputs: [&Inputs; 2], names: [&str; 2]) -> Result<(), Error> {
    let [mine, theirs] = inputs.map(|inputs| inputs.keys().copied().collect::<BTreeSet<_>>());
    let only = |a: &BTreeSet<LinearId>, b: &BTreeSet<LinearId>| a.difference(b).next().copied();
    let (site, [has, lacks]) = match (only(&mine, &theirs), only(&theirs, &mine)) {
        (Some(site), _) => (site, names),
        (None, Some(site)) => (site, [names[1], names[0]]),
        (None, None) => return Ok(()),
    };
    Err(Error::Request(format!(
        "{has} has the inputs of {site} in layer {layer} and {lacks} has not, so they do not add up; use \
         imatrix files that were collected with the same options"
    )))
}

/// What an observation says of its text: that it is an imatrix, of which texts, and how much of them.
fn tag(file: &ImatrixFile) -> CorpusTag {
    let ImatrixFile { name, sha256, imatrix } = file;
    let mut name = format!("imatrix {name}");
    if !imatrix.datasets.is_empty() {
        name = format!("{name} of {}", imatrix.datasets.join(" + "));
    }
    let (samples, sequence_len) = size(imatrix);
    CorpusTag {
        name,
        sha256: sha256.clone(),
        samples,
        sequence_len,
        seed: 0,
        repeated: 1,
        read: None,
    }
}

/// Blocks and tokens of each; of the older form calls, of one token as there is no other number.
fn size(imatrix: &Imatrix) -> (u64, u64) {
    let tallies = imatrix.entries.values().map(|entry| &entry.tally);
    let most = tallies.filter_map(|tally| match tally {
        Tally::Tokens(counts) => counts.iter().copied().max(),
        Tally::Calls(calls) => Some(*calls),
    });
    let most = most.max().unwrap_or(0);
    match (imatrix.counts_tokens(), imatrix.chunk_count, imatrix.chunk_size) {
        (true, Some(chunks), Some(size)) if chunks.checked_mul(size).is_some() => (chunks, size),
        (true, _, _) => (1, most),
        (false, _, _) => (most, 1),
    }
}
