//! Reading an observation, and believing nothing in it unchecked.

use std::{collections::BTreeMap, path::Path};

use moeprune_core::{InputMoments, LayerObservation, LinearId, Observation, RoutingSums};

use super::{
    FORMAT,
    check::check,
    container::{Problem, Tensors},
    name::{Group, Of},
};
use crate::Error;

/// Reads an observation from a file in the [format](self::super) of this version.
///
/// What is allocated is bounded by the file's length, with any header.
///
/// # Errors
/// If the file cannot be read, is of another format or version, or anything in it contradicts the
/// format; the error names the file and the tensor.
pub fn read_observation(path: impl AsRef<Path>) -> Result<Observation, Error> {
    let path = path.as_ref();
    read(path).map_err(|problem| problem.of(path))
}

fn read(path: &Path) -> Result<Observation, Problem> {
    let (metadata, mut tensors) = Tensors::open(path, FORMAT)?;
    let corpora = metadata.json("corpora")?;
    let mut layers = Vec::with_capacity(metadata.layers);
    for layer in 0..metadata.layers {
        let routing = routing(&mut tensors, layer)?;
        let inputs = inputs(&mut tensors, layer)?;
        layers.push(LayerObservation { routing, inputs });
    }
    let observation =
        Observation { model_fingerprint: metadata.model_fingerprint, corpora, layers };
    check(&observation).map_err(Problem::Tensor)?;
    Ok(observation)
}

fn routing(tensors: &mut Tensors, layer: usize) -> Result<Option<RoutingSums>, Problem> {
    let group = Group { layer, of: Of::Routing };
    match tensors.groups(layer).contains(&group) {
        true => tensors.group(group).map(Some),
        false => Ok(None),
    }
}

fn inputs(
    tensors: &mut Tensors,
    layer: usize,
) -> Result<BTreeMap<LinearId, InputMoments>, Problem> {
    let mut inputs = BTreeMap::new();
    for group in tensors.groups(layer) {
        if let Of::Input(site) = group.of {
            inputs.insert(site, tensors.group(group)?);
        }
    }
    Ok(inputs)
}
